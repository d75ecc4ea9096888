//! [`Incoming`]: what was taken of the messages from one peer.

use std::fmt;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::packet::{Data, Part, SnapshotMark, Start};
use super::{MESSAGE_BYTES_MAX, MessageBytes};
use crate::wiped::Wiped;

/// How often a peer is asked to send again what is missing.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// How much earlier the peer can have found us, and sent messages that are lost since: it gives us up when we do not answer for
/// 2 s, and its proof is hardly ever older than that.
const FOUND_LATER_MAX: Duration = Duration::from_secs(4);

/// What was taken of the messages from one incarnation of a peer.
#[derive(Debug)]
pub(super) struct Incoming {
    /// The number of the last part that was taken.
    last: u64,
    /// Whether nothing but a snapshot is taken.
    needs_snapshot: bool,
    partial: Option<Partial>,
    /// Whether the peer has sent more than what was taken.
    gap: bool,
    asked: Option<Instant>,
    /// When everything was taken that the peer had queued.
    complete: Instant,
}

/// The beginning of a message in parts.
struct Partial {
    is_snapshot: bool,
    bytes: Wiped,
}

/// What became of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is dropped: it was taken before, one before it is missing, or a snapshot has to come first.
    No,
    /// No node sends this. Nothing after it can be understood.
    Malformed,
    /// It is the beginning or the middle of a message.
    Part(Option<Begun>),
    /// A message is complete.
    Whole(MessageBytes),
    /// A snapshot is complete.
    Snapshot(Option<Begun>, MessageBytes),
}

/// The part was the first one of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Begun {
    pub(super) mark: SnapshotMark,
    /// Whether messages before it are lost for a receiver that was not waiting for a snapshot.
    pub(super) gap: bool,
}

impl fmt::Debug for Partial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Partial(..)")
    }
}

impl Incoming {
    /// Returns the direction from a peer that was found just now.
    pub(super) fn new(now: Instant) -> Self {
        let complete = now.checked_sub(FOUND_LATER_MAX).unwrap_or(now);
        Self { last: 0, needs_snapshot: true, partial: None, gap: false, asked: None, complete }
    }

    /// Takes nothing more before the next snapshot.
    pub(super) fn begin(&mut self) {
        self.needs_snapshot = true;
        self.partial = None;
    }

    /// Continues after a number that this node has acknowledged, if it has forgotten that.
    pub(super) fn continue_after(&mut self, acknowledged: u64) {
        self.last = self.last.max(acknowledged);
    }

    /// Takes a part with this number, if it is its turn.
    pub(super) fn take(&mut self, number: u64, part: Part) -> Taken {
        match part.start {
            _ if number <= self.last => Taken::No,
            Start::Snapshot(mark) => {
                let begun = Begun { mark, gap: !self.needs_snapshot && number != self.last + 1 };
                (self.last, self.needs_snapshot) = (number, true);
                self.partial = Some(Partial { is_snapshot: true, bytes: Wiped::default() });
                self.add(part, Some(begun))
            }
            Start::Message | Start::Continues if number != self.last + 1 => Taken::No,
            Start::Message if self.needs_snapshot => match self.partial {
                Some(_) => Taken::Malformed,
                None => Taken::No,
            },
            Start::Message => match self.partial {
                Some(_) => Taken::Malformed,
                None if part.last => {
                    self.last = number;
                    Taken::Whole(part.bytes)
                }
                None => {
                    self.last = number;
                    self.partial = Some(Partial { is_snapshot: false, bytes: Wiped::default() });
                    self.add(part, None)
                }
            },
            Start::Continues => match &self.partial {
                Some(_) => {
                    self.last = number;
                    self.add(part, None)
                }
                // The rest of a message that was begun before the link broke.
                None if self.needs_snapshot => Taken::No,
                None => Taken::Malformed,
            },
        }
    }

    /// Adds a part to the message that has begun.
    fn add(&mut self, part: Part, begun: Option<Begun>) -> Taken {
        let Some(mut partial) = self.partial.take() else { return Taken::Malformed };
        let bytes = match part.last && partial.bytes.is_empty() {
            true => part.bytes,
            false => {
                if !partial.bytes.push(&part.bytes, MESSAGE_BYTES_MAX) {
                    return Taken::Malformed;
                }
                if !part.last {
                    self.partial = Some(partial);
                    return Taken::Part(begun);
                }
                Bytes::from_owner(partial.bytes.into_bytes()).into()
            }
        };
        match partial.is_snapshot {
            false => Taken::Whole(bytes),
            true => {
                self.needs_snapshot = false;
                Taken::Snapshot(begun, bytes)
            }
        }
    }

    /// Compares what was taken with what the peer says that it has sent, in a packet that was made after `made`. Call it after
    /// the parts of the packet.
    pub(super) fn compare(&mut self, made: Option<Instant>, data: &Data) {
        self.gap = data.sent > self.last;
        if let Some(made) = made.filter(|_| !self.needs_snapshot && data.queued <= self.last) {
            self.complete = self.complete.max(made);
        }
    }

    /// Returns whether the peer is to send again what follows [`Incoming::last`]. It counts as asked.
    pub(super) fn ask(&mut self, now: Instant) -> bool {
        let due = self.is_due(now);
        if due {
            self.asked = Some(now);
        }
        due
    }

    /// Returns whether [`Incoming::ask`] would ask.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.gap && self.asked.is_none_or(|asked| now >= asked + ASK_EVERY)
    }

    /// The number of the last part that was taken.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// Whether nothing but a snapshot is taken, or one is being taken.
    pub(super) fn needs_snapshot(&self) -> bool {
        self.needs_snapshot
    }

    /// When everything had last been taken that the peer had queued.
    pub(super) fn complete(&self) -> Instant {
        self.complete
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::bus::start;

    fn bytes(bytes: &'static [u8]) -> MessageBytes {
        Bytes::from_static(bytes).into()
    }

    fn part(start: Start, last: bool) -> Part {
        Part { start, last, bytes: bytes(b"x") }
    }

    fn mark(answer: bool) -> SnapshotMark {
        SnapshotMark { answer, taken: 0 }
    }

    fn whole(incoming: &mut Incoming, number: u64) -> Taken {
        incoming.take(number, part(Start::Message, true))
    }

    fn snapshot(incoming: &mut Incoming, number: u64) -> Taken {
        incoming.take(number, part(Start::Snapshot(mark(false)), true))
    }

    /// With the snapshot 1 taken.
    fn begun() -> Incoming {
        let mut incoming = Incoming::new(start());
        let begun = Begun { mark: mark(false), gap: false };
        assert_eq!(snapshot(&mut incoming, 1), Taken::Snapshot(Some(begun), bytes(b"x")));
        incoming
    }

    #[test]
    fn only_the_next_number_is_taken() {
        let mut incoming = begun();
        for (number, taken) in [(3, false), (2, true), (2, false), (1, false), (3, true), (5, false), (4, true)] {
            assert_eq!(matches!(whole(&mut incoming, number), Taken::Whole(_)), taken, "{number}");
        }
        assert_eq!(incoming.last(), 4);
    }

    #[test]
    fn nothing_is_taken_before_a_snapshot() {
        let mut incoming = begun();
        whole(&mut incoming, 2);
        incoming.begin();
        assert_eq!(whole(&mut incoming, 3), Taken::No);
        assert_eq!(incoming.take(3, part(Start::Continues, true)), Taken::No);
        assert_eq!(snapshot(&mut incoming, 2), Taken::No, "an old one");
        let Taken::Snapshot(Some(begun), ..) = snapshot(&mut incoming, 9) else { panic!("not taken") };
        assert!(!begun.gap, "it was waiting for one");
        assert!(matches!(whole(&mut incoming, 10), Taken::Whole(..)));
        let Taken::Snapshot(Some(begun), ..) = snapshot(&mut incoming, 12) else { panic!("not taken") };
        assert!(begun.gap, "11 is lost");
        let Taken::Snapshot(Some(begun), ..) = snapshot(&mut incoming, 13) else { panic!("not taken") };
        assert!(!begun.gap);
    }

    #[test]
    fn parts_are_joined() {
        let mut incoming = begun();
        assert_eq!(incoming.take(2, part(Start::Message, false)), Taken::Part(None));
        assert_eq!(incoming.take(4, part(Start::Continues, true)), Taken::No);
        assert_eq!(incoming.take(3, part(Start::Continues, false)), Taken::Part(None));
        assert_eq!(incoming.take(4, part(Start::Continues, true)), Taken::Whole(bytes(b"xxx")));
        assert!(matches!(incoming.take(5, part(Start::Snapshot(mark(true)), false)), Taken::Part(Some(_))));
        assert!(incoming.needs_snapshot(), "it is not complete");
        let expected = Taken::Snapshot(None, bytes(b"xx"));
        assert_eq!(incoming.take(6, part(Start::Continues, true)), expected);
    }

    #[test]
    fn a_snapshot_replaces_a_message_that_is_not_complete() {
        let mut incoming = begun();
        incoming.take(2, part(Start::Message, false));
        assert!(matches!(snapshot(&mut incoming, 7), Taken::Snapshot(Some(Begun { gap: true, .. }), ..)));
        assert_eq!(whole(&mut incoming, 8), Taken::Whole(bytes(b"x")));
    }

    #[test]
    fn parts_that_make_no_message_are_malformed() {
        let mut incoming = begun();
        assert_eq!(incoming.take(2, part(Start::Continues, true)), Taken::Malformed);
        incoming.take(2, part(Start::Message, false));
        assert_eq!(whole(&mut incoming, 3), Taken::Malformed);
        let mut incoming = Incoming::new(start());
        incoming.take(1, part(Start::Snapshot(mark(false)), false));
        assert_eq!(whole(&mut incoming, 2), Taken::Malformed);
    }

    #[test]
    fn a_message_has_a_largest_size() {
        let mut incoming = begun();
        let piece = MessageBytes::from(Bytes::from(vec![0; MESSAGE_BYTES_MAX / 2]));
        let mut take = |number, start, bytes: &MessageBytes| {
            incoming.take(number, Part { start, last: false, bytes: bytes.clone() })
        };
        assert_eq!(take(2, Start::Message, &piece), Taken::Part(None));
        assert_eq!(take(3, Start::Continues, &piece), Taken::Part(None));
        assert_eq!(take(4, Start::Continues, &bytes(b"x")), Taken::Malformed);
    }

    #[test]
    fn a_gap_is_asked_for_every_50_ms() {
        let (start, mut incoming) = (start(), begun());
        let data = |sent| Data { acknowledged: 0, again: false, sent, queued: sent, first: 1, clock: 0, echo: 0 };
        incoming.compare(None, &data(1));
        assert!(!incoming.ask(start), "nothing is missing");
        incoming.compare(None, &data(2));
        assert!(incoming.ask(start));
        assert!(!incoming.ask(start + ASK_EVERY / 2));
        assert!(incoming.ask(start + ASK_EVERY));
        whole(&mut incoming, 2);
        incoming.compare(None, &data(2));
        assert!(!incoming.ask(start + 3 * ASK_EVERY));
    }

    #[test]
    fn it_is_known_since_when_messages_may_be_missing() {
        let (start, mut incoming) = (start(), begun());
        let later = |seconds| start + Duration::from_secs(seconds);
        let data = |sent, queued| Data { acknowledged: 0, again: false, sent, queued, first: 1, clock: 0, echo: 0 };
        incoming.compare(Some(later(1)), &data(1, 1));
        incoming.compare(Some(later(2)), &data(1, 2));
        assert_eq!(incoming.complete(), later(1));
        incoming.begin();
        incoming.compare(Some(later(3)), &data(1, 1));
        assert_eq!(incoming.complete(), later(1), "a snapshot is awaited");
    }
}
