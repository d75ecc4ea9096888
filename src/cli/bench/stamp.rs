//! [`Stamp`]: the number of a message, and when it was due.

use wire::{DecodeLimits, decode};

/// The size of a payload without its filler, in bytes.
const STAMP_BYTES: usize = 40;

/// The part of a payload that differs from message to message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// When the message was due. Counting from when it was sent would hide latency.
    pub(super) due: u64,
    /// The publisher's count.
    pub(super) number: u64,
    /// Whether this is the last message.
    pub(super) last: bool,
}

/// Reads the stamps of one connection's messages. They all begin alike, so only the first is decoded as an envelope.
#[derive(Default)]
pub(super) struct Stamps {
    /// Where the payload began in the last message.
    at: usize,
}

impl Stamps {
    /// Returns the stamp of a message, or `None` for one of the broker's own.
    pub(super) fn read(&mut self, text: &str) -> Option<Stamp> {
        stamp_at(text, self.at).or_else(|| {
            let payload = decode(text, DecodeLimits::OWN).ok()?.payload()?;
            self.at = text.find(payload)?;
            stamp_at(text, self.at)
        })
    }
}

fn stamp_at(text: &str, at: usize) -> Option<Stamp> {
    let (due, rest) = digits(text.get(at..)?.strip_prefix(r#"{"due":"#)?)?;
    let (number, rest) = digits(rest.strip_prefix(r#","number":"#)?)?;
    Some(Stamp { due, number, last: rest.strip_prefix(r#","last":"#)?.starts_with("true") })
}

fn digits(text: &str) -> Option<(u64, &str)> {
    let (digits, rest) = text.split_at(text.bytes().position(|byte| !byte.is_ascii_digit())?);
    Some((digits.parse().ok()?, rest))
}

/// An envelope without its stamp.
pub(super) struct Template {
    head: String,
    tail: String,
}

impl Template {
    /// Returns a template for a topic of the channel `Bench`, with a payload of about `size` bytes.
    pub(super) fn new(topic: &str, size: u32) -> Self {
        let filler = "x".repeat(usize::try_from(size).unwrap_or_default().saturating_sub(STAMP_BYTES));
        Self {
            head: format!(r#"{{"channel":"Bench","topic":"{topic}","subtopic":"load","data":{{"due":"#),
            tail: format!(r#","filler":"{filler}"}}}}"#),
        }
    }

    /// Returns the envelope.
    pub(super) fn event(&self, Stamp { due, number, last }: Stamp) -> String {
        format!(r#"{}{due},"number":{number},"last":{last}{}"#, self.head, self.tail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_read_wherever_it_is() {
        let (mut stamps, template) = (Stamps::default(), Template::new("fanout", 256));
        for (number, more) in [(4, ""), (5, ""), (6, r#""source":"bench","#), (7, "")] {
            let stamp = Stamp { due: 17, number, last: number == 7 };
            let text = template.event(stamp).replacen('{', &format!("{{{more}"), 1);
            assert_eq!(stamps.read(&text), Some(stamp));
            assert_eq!(stamps.read(r#"{"channel":"Broker","topic":"Connection","subtopic":"Lagging"}"#), None);
        }
    }
}
