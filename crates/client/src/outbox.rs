//! [`Outbox`]: the messages to the broker, in order. In a resumable session it keeps what was written until the broker is
//! known to have taken it.
//!
//! The broker says in the reply to a resume how many messages of the session it has taken. So the outbox counts, too: the
//! number of a message in its session is the number of the messages before it. Within the client, a message has another
//! number, its sequence, by which the answer to it is recognised: it shows that the broker has taken the message and all
//! before it.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

/// How many messages, and bytes, are kept before further orders wait.
const KEPT_MAX: usize = 4096;
pub(super) const KEPT_BYTES_MAX: usize = 8 << 20;
/// How many messages are written before the broker is asked whether it has taken them.
const ASK_AFTER: usize = 256;
/// How long a message waits for an answer that shows that it was taken, before the broker is asked.
const ASK_WITHIN: Duration = Duration::from_secs(5);

/// What a message is, which decides on its fate when its session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An event. If it was not written, the next session sends it.
    Event {
        /// Nobody waits for a receipt.
        silent: bool,
    },
    /// A request, a command, or the answer to a request: of no use without its session.
    OfSession,
    /// Keeps the session alive. It is not sent again, not even in its session.
    Upkeep,
}

/// A message in the outbox.
pub(super) struct Entry {
    pub(super) kind: Kind,
    pub(super) sequence: u64,
    /// Always there, except in the upkeep that was written.
    text: Option<Utf8Bytes>,
    len: usize,
}

/// See the module.
#[derive(Default)]
pub(super) struct Outbox {
    entries: VecDeque<Entry>,
    /// How many entries, from the front, were written.
    written: usize,
    /// How many messages of the session precede the first entry.
    before: u64,
    bytes: usize,
    /// The sequence of the last message.
    last: u64,
    /// Whether what was written is kept.
    keeps: bool,
    /// When the oldest of the written messages, without the upkeep, was written, and how many there are.
    unproved: Option<(Instant, usize)>,
    /// The broker was asked whether it has taken the messages.
    is_asking: bool,
    /// The sequence of the last silent event that was written.
    silent: u64,
    /// The sequence up to which the broker has taken all messages.
    proved: u64,
}

/// What is left of an outbox after its session.
pub(super) struct Rest {
    /// The events that were not written.
    pub(super) events: Vec<Entry>,
    /// Messages from this sequence on were not written.
    pub(super) unwritten_from: u64,
    /// Whether it is unknown if silent events were taken.
    pub(super) is_in_doubt: bool,
}

impl Outbox {
    /// Adds a message, and returns its sequence.
    pub(super) fn push(&mut self, kind: Kind, text: impl Into<Utf8Bytes>) -> u64 {
        let text = text.into();
        self.last += 1;
        self.bytes += text.len();
        self.entries.push_back(Entry { kind, sequence: self.last, len: text.len(), text: Some(text) });
        self.last
    }

    /// Adds a message again, and returns its new sequence.
    pub(super) fn push_again(&mut self, entry: Entry) -> Option<u64> {
        Some(self.push(entry.kind, entry.text?))
    }

    /// Returns whether a message waits to be written.
    pub(super) fn has_unwritten(&self) -> bool {
        self.written < self.entries.len()
    }

    /// Returns how many messages wait to be written, and all bytes.
    pub(super) fn unwritten(&self) -> (usize, usize) {
        (self.entries.len() - self.written, self.bytes)
    }

    /// Returns whether there is room for further messages.
    pub(super) fn has_room(&self) -> bool {
        self.entries.len() < KEPT_MAX && self.bytes < KEPT_BYTES_MAX
    }

    /// Returns the next message to write, which counts as written from now on.
    pub(super) fn take(&mut self, now: Instant) -> Option<Message> {
        let keeps = self.keeps;
        let entry = self.entries.get_mut(self.written)?;
        if entry.kind == (Kind::Event { silent: true }) {
            self.silent = entry.sequence;
        }
        let text = if keeps && entry.kind != Kind::Upkeep { entry.text.clone() } else { entry.text.take() };
        let counts = keeps && entry.kind != Kind::Upkeep;
        if keeps {
            self.written += 1;
        } else {
            self.drop_first();
        }
        if counts {
            let (_, messages) = self.unproved.get_or_insert((now, 0));
            *messages += 1;
        }
        text.map(Message::Text)
    }

    fn drop_first(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front()?;
        self.bytes -= entry.len;
        Some(entry)
    }

    /// Notes that the broker has taken the message of this sequence.
    pub(super) fn prove(&mut self, now: Instant, sequence: u64) {
        self.proved = self.proved.max(sequence);
        let mut proved = 0;
        while self.written > 0 && self.entries.front().is_some_and(|entry| entry.sequence <= sequence) {
            proved += usize::from(self.drop_first().is_some_and(|entry| entry.kind != Kind::Upkeep));
            self.written -= 1;
            self.before += 1;
        }
        if proved > 0 {
            let left = self.unproved.map_or(0, |(_, messages)| messages.saturating_sub(proved));
            self.unproved = (left > 0).then_some((now, left));
        }
    }

    /// Returns whether it is time to ask the broker what it has taken.
    pub(super) fn due(&self, now: Instant) -> bool {
        let is_due = |(since, messages)| messages >= ASK_AFTER || since + ASK_WITHIN <= now;
        !self.is_asking && self.unproved.is_some_and(is_due)
    }

    /// Returns when to ask the broker what it has taken.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.unproved.filter(|_| !self.is_asking).map(|(since, _)| since + ASK_WITHIN)
    }

    /// Notes whether the broker was asked, and has not answered yet.
    pub(super) fn set_asking(&mut self, is_asking: bool) {
        self.is_asking = is_asking;
    }

    /// Begins to count, for a new session.
    pub(super) fn begin(&mut self, keeps: bool) {
        self.keeps = keeps;
    }

    /// The session continues after its `taken`th message. Returns the messages to send again, and whether they are all
    /// that the broker has not taken.
    pub(super) fn go_on(&mut self, taken: u64) -> (Vec<Entry>, bool) {
        let sent = self.before + self.written as u64;
        let is_sound = (self.before..=sent).contains(&taken);
        while self.written > 0 && self.before < taken {
            if let Some(entry) = self.drop_first() {
                self.proved = self.proved.max(entry.sequence);
            }
            self.written -= 1;
            self.before += 1;
        }
        let again = self.drain().into_iter().filter(|entry| entry.kind != Kind::Upkeep).collect();
        self.before = taken;
        (again, is_sound)
    }

    /// The session has ended. Returns what is left.
    pub(super) fn end(&mut self) -> Rest {
        let unwritten_from = self.entries.get(self.written).map_or(self.last + 1, |entry| entry.sequence);
        let is_in_doubt = self.silent > self.proved;
        let written = self.written;
        let events = self.drain().into_iter().skip(written).filter(|entry| matches!(entry.kind, Kind::Event { .. }));
        let events = events.collect();
        *self = Self { last: self.last, ..Self::default() };
        Rest { events, unwritten_from, is_in_doubt }
    }

    /// Returns all messages, as if none had been written.
    pub(super) fn drain(&mut self) -> Vec<Entry> {
        (self.written, self.bytes, self.unproved, self.is_asking) = (0, 0, None, false);
        self.entries.drain(..).collect()
    }
}
