//! [`MessageBytes`]: bytes that are not printed.

use std::fmt;
use std::ops::{Deref, DerefMut};

use bytes::Bytes;

/// Bytes of messages between nodes. They may hold a password, so they are not printed.
#[derive(Clone, PartialEq, Eq)]
pub struct MessageBytes(Bytes);

impl fmt::Debug for MessageBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageBytes({} bytes)", self.0.len())
    }
}

impl From<Bytes> for MessageBytes {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl Deref for MessageBytes {
    type Target = Bytes;

    fn deref(&self) -> &Bytes {
        &self.0
    }
}

impl DerefMut for MessageBytes {
    fn deref_mut(&mut self) -> &mut Bytes {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{BusEvent, NodeId};

    #[test]
    fn no_event_of_a_link_prints_a_message() {
        let (node, message) = (NodeId::new("one").unwrap(), MessageBytes::from(Bytes::from_static(b"canary")));
        for event in
            [BusEvent::Message { node: node.clone(), message: message.clone() }, BusEvent::Snapshot { node, message }]
        {
            let text = format!("{event:?}");
            assert!(text.contains("6 bytes") && !text.contains("canary") && !text.contains("99"), "{text}");
        }
    }
}
