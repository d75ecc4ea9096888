//! What a message of the load bears: its number, and when it was due.

use crate::envelope::{DecodeLimits, decode};

/// The least that a payload's other fields take.
const STAMP_BYTES: usize = 40;

/// One message's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// When it was to be sent: late sending must not hide latency.
    pub(super) due: u64,
    /// Counted by its publisher.
    pub(super) number: u64,
    /// No other follows.
    pub(super) last: bool,
}

impl Stamp {
    /// The stamp of an envelope of the load; `None` for what the broker itself says.
    pub(super) fn read(text: &str) -> Option<Self> {
        let payload = decode(text, DecodeLimits::OWN).ok()?.payload()?;
        let (due, rest) = payload.strip_prefix(r#"{"due":"#)?.split_once(r#","number":"#)?;
        let (number, rest) = rest.split_once(r#","last":"#)?;
        Some(Self { due: due.parse().ok()?, number: number.parse().ok()?, last: rest.starts_with("true") })
    }
}

/// An envelope but for its stamp.
pub(super) struct Template {
    head: String,
    tail: String,
}

impl Template {
    /// For events, or requests, on a topic of the channel `Bench`, with about so many bytes of payload.
    pub(super) fn new(topic: &str, size: u32) -> Self {
        let filler = "x".repeat(usize::try_from(size).unwrap_or_default().saturating_sub(STAMP_BYTES));
        Self {
            head: format!(r#"{{"channel":"Bench","topic":"{topic}","subtopic":"load","data":{{"due":"#),
            tail: format!(r#","filler":"{filler}"}}}}"#),
        }
    }

    /// The envelope.
    pub(super) fn event(&self, Stamp { due, number, last }: Stamp) -> String {
        format!(r#"{}{due},"number":{number},"last":{last}{}"#, self.head, self.tail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stamped_is_read() {
        let stamp = Stamp { due: 17, number: 4, last: true };
        assert_eq!(Stamp::read(&Template::new("fanout", 256).event(stamp)), Some(stamp));
        assert_eq!(Stamp::read(r#"{"channel":"Broker","topic":"Connection","subtopic":"Lagging"}"#), None);
    }
}
