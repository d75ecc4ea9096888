//! What a message of the load bears: its number, and when it was due.

use wire::{DecodeLimits, decode};

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

/// Reads the stamps of one connection's messages, which begin alike: only the first is read as an envelope.
#[derive(Default)]
pub(super) struct Stamps {
    /// Where the payload began last time.
    at: usize,
}

impl Stamps {
    /// The stamp of an envelope of the load; `None` for what the broker itself says.
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
    fn what_is_stamped_is_read_wherever_it_stands() {
        let (mut stamps, template) = (Stamps::default(), Template::new("fanout", 256));
        for (number, more) in [(4, ""), (5, ""), (6, r#""source":"bench","#), (7, "")] {
            let stamp = Stamp { due: 17, number, last: number == 7 };
            let text = template.event(stamp).replacen('{', &format!("{{{more}"), 1);
            assert_eq!(stamps.read(&text), Some(stamp));
            assert_eq!(stamps.read(r#"{"channel":"Broker","topic":"Connection","subtopic":"Lagging"}"#), None);
        }
    }
}
