//! What is stored of an event in a stream, before it is sealed.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::store::history::Entry;

/// The header with the offset of an event in a user's log.
pub(super) const OFFSET: &str = "Sb-Offset";

/// The header with the epoch of a user's log.
pub(super) const EPOCH: &str = "Sb-Epoch";

/// An event of a log. Written with postcard: a changed field is another layout of the stream.
#[derive(Serialize, Deserialize)]
pub(super) struct Record<'a> {
    /// Names the attempt that stored it, so that its node knows it again.
    pub(super) attempt: [u8; 16],
    at: u64,
    topic: &'a str,
    subtopic: &'a str,
    user: Option<&'a str>,
    to_all: bool,
    target: Option<&'a str>,
    text: &'a str,
}

impl<'a> Record<'a> {
    pub(super) fn new(attempt: [u8; 16], entry: &'a Entry) -> Self {
        let Entry { at, topic, subtopic, user, to_all, target, text } = entry;
        let (user, target) = (user.as_deref(), target.as_deref());
        Self { attempt, at: *at, topic, subtopic, user, to_all: *to_all, target, text }
    }

    pub(super) fn write(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(postcard::to_allocvec(self).unwrap_or_default())
    }

    /// Reads a record; `None` for anything else.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        postcard::from_bytes(bytes).ok()
    }

    pub(super) fn entry(&self) -> Entry {
        let Self { at, topic, subtopic, user, to_all, target, text, .. } = *self;
        let (user, target) = (user.map(Box::from), target.map(Box::from));
        Entry { at, topic: topic.into(), subtopic: subtopic.into(), user, to_all, target, text: text.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let entry = Entry {
            at: 7,
            topic: "Call".into(),
            subtopic: "Ringing".into(),
            user: Some("alice".into()),
            to_all: true,
            target: None,
            text: "{}".into(),
        };
        let written = Record::new([3; 16], &entry).write();
        let read = Record::read(&written).unwrap();
        assert_eq!((read.attempt, read.entry()), ([3; 16], entry));
        assert!(Record::read(&written[..written.len() - 1]).is_none());
    }
}
