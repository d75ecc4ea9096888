//! [`Position`]: a place in the log of a channel with history. [`Recover`] says where a subscription begins, and [`Track`]
//! how far one is.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use super::{Error, Message};

/// The place of an event in the log of its channel. Written as `EPOCH:OFFSET`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// The opaque name of the log's life. A log gets another one whenever its past is lost.
    pub epoch: String,
    /// The number of the event in its log.
    pub offset: u64,
}

impl Position {
    /// Returns whether an event at this position comes after another one of the same log, or is of another log.
    fn is_after(&self, other: Option<&Self>) -> bool {
        other.is_none_or(|other| other.epoch != self.epoch || other.offset < self.offset)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.offset)
    }
}

impl FromStr for Position {
    type Err = Error;

    /// Reads `EPOCH:OFFSET`.
    ///
    /// # Errors
    /// [`Error::Invalid`].
    fn from_str(text: &str) -> Result<Self, Error> {
        let parts = text.rsplit_once(':').filter(|(epoch, _)| !epoch.is_empty());
        let position =
            parts.and_then(|(epoch, offset)| Some(Self { epoch: epoch.into(), offset: offset.parse().ok()? }));
        position.ok_or_else(|| Error::Invalid(format!("'{text}' is not a position, which is written EPOCH:OFFSET")))
    }
}

/// Where a subscription to a channel with history begins. Written as `last:N` or `EPOCH:OFFSET`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recover {
    /// With the last N events that are kept.
    Last(u64),
    /// With the events after this one.
    After(Position),
}

impl Recover {
    /// Returns the option `recover` of Subscribe.
    pub(super) fn option(&self) -> Value {
        match self {
            Self::Last(events) => json!({ "last": events }),
            Self::After(Position { epoch, offset }) => json!({ "epoch": epoch, "offset": offset }),
        }
    }
}

impl FromStr for Recover {
    type Err = Error;

    /// Reads `last:N` or `EPOCH:OFFSET`.
    ///
    /// # Errors
    /// [`Error::Invalid`].
    fn from_str(text: &str) -> Result<Self, Error> {
        match text.strip_prefix("last:") {
            Some(events) => match events.parse() {
                Ok(events @ 1..) => Ok(Self::Last(events)),
                _ => Err(Error::Invalid(format!("'{events}' is not a number of events, which is at least 1"))),
            },
            None => text.parse().map(Self::After),
        }
    }
}

/// How far a subscription is in its log. The driver and the [`Subscription`](super::Subscription) share it.
#[derive(Clone, Default)]
pub(super) struct Track(Arc<Mutex<Progress>>);

#[derive(Default)]
struct Progress {
    /// Whether the broker keeps a log for the subscription.
    has_log: bool,
    /// The last event that the application has handled, or where the subscription began.
    handled: Option<Position>,
    /// The last event that is in the queue of the subscription, or was.
    queued: Option<Position>,
    /// Where the application asked to begin, until the first event.
    start: Option<Recover>,
    /// Events are left out, because the replay that was asked for will have them.
    awaits_replay: bool,
}

impl Track {
    /// Returns the track of a subscription that is to begin there.
    pub(super) fn new(start: Option<Recover>) -> Self {
        let after = match &start {
            Some(Recover::After(position)) => Some(position.clone()),
            Some(Recover::Last(_)) | None => None,
        };
        let awaits_replay = start.is_some();
        let progress = Progress { has_log: false, handled: after.clone(), queued: after, start, awaits_replay };
        Self(Arc::new(Mutex::new(progress)))
    }

    /// Returns the position of the last event that the application has handled.
    pub(super) fn position(&self) -> Option<Position> {
        self.lock().handled.clone()
    }

    /// Notes that the application has handled an event.
    pub(super) fn handle(&self, event: &Message) {
        let Some(position) = event.position().filter(|_| event.moves_position()) else { return };
        let mut progress = self.lock();
        match &mut progress.handled {
            Some(handled) if handled.epoch == position.epoch => handled.offset = position.offset,
            handled => *handled = Some(position.clone()),
        }
        progress.start = None;
    }

    /// Returns where to begin again, and whether nothing can be missed then.
    pub(super) fn recover(&self) -> Option<(Recover, bool)> {
        let progress = self.lock();
        if !progress.has_log {
            // Not confirmed yet.
            return progress.start.clone().map(|start| (start, true));
        }
        match (&progress.start, &progress.handled, &progress.queued) {
            (Some(_), None, Some(position)) | (_, Some(position), _) => Some((Recover::After(position.clone()), true)),
            (Some(start), None, None) => Some((start.clone(), false)),
            (None, None, _) => None,
        }
    }

    /// Notes that a Subscribe with `recover` is sent, or without.
    pub(super) fn ask(&self, with_recover: bool) {
        self.lock().awaits_replay = with_recover;
    }

    pub(super) fn awaits_replay(&self) -> bool {
        self.lock().awaits_replay
    }

    /// Notes the reply to Subscribe: where the log is now, and how many events are replayed up to there, if they can be.
    pub(super) fn begin(&self, at: Option<Position>, replayed: Option<u64>) {
        let mut progress = self.lock();
        // It did not ask for the replay: another subscription to the same pattern did.
        let replayed = replayed.filter(|_| progress.has_log || progress.start.is_some());
        progress.awaits_replay = false;
        progress.has_log = at.is_some();
        let is_idle = progress.handled == progress.queued;
        match (replayed, at) {
            (Some(1..), Some(_)) => {}
            // The position must not pass events that are queued.
            (_, at) if is_idle => {
                progress.start = None;
                progress.handled.clone_from(&at);
                progress.queued = at;
            }
            (Some(0), _) => {}
            (_, at) => progress.queued = at,
        }
    }

    /// Returns whether a live event is for this subscription now.
    pub(super) fn takes_live(&self, event: &Message, moves: bool) -> bool {
        let Some(position) = event.position() else { return true };
        let mut progress = self.lock();
        if progress.awaits_replay {
            return false;
        }
        if moves && progress.has_log {
            progress.note_queued(position);
        }
        true
    }

    /// Returns whether a replayed event is for this subscription. Otherwise it has it already.
    pub(super) fn takes_replayed(&self, event: &Message) -> bool {
        let Some(position) = event.position() else { return true };
        let mut progress = self.lock();
        let is_new = progress.has_log && position.is_after(progress.queued.as_ref());
        if is_new {
            progress.note_queued(position);
        }
        is_new
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress {
    fn note_queued(&mut self, position: &Position) {
        match &mut self.queued {
            Some(queued) if queued.epoch == position.epoch => queued.offset = position.offset,
            queued => *queued = Some(position.clone()),
        }
    }
}
