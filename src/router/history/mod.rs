//! [`History`]: the last events of channels with `history`, for subscribers that ask for them with `recover`. Never a
//! protected triple, which is not an event.
//!
//! There is one log for each channel and user, or one in all if the channel is shared. Its lock is held over an event's
//! entry, the look-up of its subscribers and the pushes; a subscription with a log holds it over its reply, its replay and
//! its entry in the index. So the order of a log is the order of delivery, and a subscription receives each event once:
//! in its replay, or live.
//!
//! `log` is one log, `epochs` names their lives, `publish` puts events in, `recover` and `replay` bring them back, `known`
//! has the ids of events with `once`, `bounds` keeps memory and age within bounds, `durable` is what commits need. Of a
//! durable log, memory may have the last events only: `look` counts the others on the disk, and `from_disk` brings them back.
//!
//! In a cluster, JetStream takes the place of the disk, and decides offsets and epochs. `clustered` puts the events that
//! arrive in their order, `arrive` delivers them, `missing` reads those that do not arrive, `ends` is where a log is, as the
//! stream says, and `moved` is what a session needs that moves to another node.

mod arrive;
mod bounds;
mod clustered;
mod counted;
mod durable;
mod ends;
mod epochs;
mod from_disk;
mod known;
mod log;
mod look;
mod missing;
mod moved;
mod publish;
mod recover;
mod replay;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use dashmap::DashMap;
use parking_lot::{Mutex, MutexGuard};

use crate::config::LogBounds;
use crate::router::Scope;
use crate::store::history as stored;
use crate::telemetry::metrics::LogGauges;
use bounds::Due;
use epochs::Epochs;
use known::Known;
use log::{Entry, Log, State};

pub(super) use arrive::Arrived;
pub(super) use durable::LoadedEntry;
pub use ends::Ends;
pub(super) use ends::Fill;
pub(super) use from_disk::DiskEntry;
pub(super) use known::{First, Name as IdName};
pub(super) use look::{Ahead, Look, Next as LookNext};
pub use look::{Found, LookTicket};
pub use missing::MissingEntry;
pub use publish::Kept;
pub(super) use publish::{Keeping, check_once, once_in_a_reply};
pub use recover::{RecoverReason, Recovered};
pub(super) use recover::{Recovery, Stretch, no_log};
pub(super) use replay::Replay;

/// The place of an event in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Its number: 1 for the first one.
    pub offset: u64,
    /// The life of the log in which the number counts.
    pub epoch: Arc<str>,
}

/// The place of an event that is delivered in the order of its log.
#[derive(Clone, Copy)]
pub(super) struct InLog<'a> {
    /// The key of the log.
    pub(super) log: &'a str,
    pub(super) position: &'a Position,
}

/// The log of a channel and a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LogName<'a> {
    pub(super) channel: &'a str,
    /// `None` on a shared channel.
    pub(super) owner: Option<&'a str>,
}

impl<'a> LogName<'a> {
    /// The log that an event of this scope enters.
    pub(super) fn of(channel: &'a str, scope: Scope<'a>) -> Self {
        let owner = match scope {
            Scope::User(user) => Some(user),
            Scope::Shared(_) => None,
        };
        Self { channel, owner }
    }

    /// The key of the log. No channel has a `/`.
    pub(super) fn key(&self) -> String {
        match self.owner {
            None => self.channel.to_owned(),
            Some(owner) => [self.channel, "/", owner].concat(),
        }
    }

    /// The name of the log on disk.
    pub(super) fn stored(&self) -> stored::LogName {
        stored::LogName { channel: self.channel.into(), user: self.owner.map(Box::from) }
    }
}

impl<'a> From<&'a stored::LogName> for LogName<'a> {
    fn from(name: &'a stored::LogName) -> Self {
        Self { channel: &name.channel, owner: name.user.as_deref() }
    }
}

/// The channel of a log, and the user to whom it belongs.
fn name_of(key: &str) -> LogName<'_> {
    match key.split_once('/') {
        Some((channel, owner)) => LogName { channel, owner: Some(owner) },
        None => LogName { channel: key, owner: None },
    }
}

/// All logs.
pub(super) struct History {
    logs: DashMap<Box<str>, Arc<Log>, foldhash::fast::RandomState>,
    /// The number of logs that were ever made.
    made: AtomicU64,
    /// The memory of all logs.
    bytes: AtomicUsize,
    epochs: Mutex<Epochs>,
    known: Mutex<Known>,
    due: Mutex<Due>,
    /// The logs of a cluster in which events are missing.
    gaps: Mutex<Due>,
    /// Held while memory is taken from the largest logs.
    relieving: Mutex<()>,
}

/// What an operator sees of a log.
pub(super) struct LogFacts {
    pub(super) key: String,
    pub(super) channel: String,
    pub(super) user: Option<String>,
    pub(super) epoch: Arc<str>,
    /// The offset of the first event that is kept.
    pub(super) first: u64,
    /// The offset of the last event that entered; 0 if none did.
    pub(super) last: u64,
    pub(super) entries: usize,
    pub(super) bytes: usize,
}

/// A log whose lock is held.
pub(super) struct Locked<'h> {
    history: &'h History,
    log: &'h Arc<Log>,
    state: MutexGuard<'h, State>,
}

impl History {
    /// Without logs. `base` is the epoch of logs that never held anything.
    pub(super) fn new(base: Arc<str>) -> Self {
        Self {
            logs: DashMap::default(),
            made: AtomicU64::new(0),
            bytes: AtomicUsize::new(0),
            epochs: Mutex::new(Epochs::new(base)),
            known: Mutex::default(),
            due: Mutex::default(),
            gaps: Mutex::default(),
            relieving: Mutex::default(),
        }
    }

    /// Calls `act` with a log while nobody else appends to it or subscribes to it. A log that holds nothing afterwards, and
    /// never did, is not kept.
    pub(super) fn with<T>(&self, name: &LogName<'_>, act: impl FnOnce(&mut Locked<'_>) -> T) -> T {
        let key = name.key();
        loop {
            let log = self.log(&key);
            let mut locked = Locked { history: self, state: log.state.lock(), log: &log };
            if locked.state.is_removed {
                continue;
            }
            let outcome = act(&mut locked);
            if locked.state.last == 0 && !locked.is_followed() && !locked.state.is_removed {
                locked.remove();
            }
            return outcome;
        }
    }

    /// A log that holds something, or did.
    fn find(&self, name: &LogName<'_>) -> Option<Arc<Log>> {
        self.logs.get(&*name.key()).map(|log| Arc::clone(&log))
    }

    fn log(&self, key: &str) -> Arc<Log> {
        if let Some(log) = self.logs.get(key) {
            return Arc::clone(&log);
        }
        let epoch = self.epochs.lock().of(key);
        let make = || Arc::new(Log::new(self.made.fetch_add(1, Ordering::Relaxed), key, epoch));
        Arc::clone(&self.logs.entry(Box::from(key)).or_insert_with(make))
    }

    /// Every log, in the order in which they were made.
    fn all(&self) -> Vec<Arc<Log>> {
        let mut all: Vec<_> = self.logs.iter().map(|log| Arc::clone(&log)).collect();
        all.sort_unstable_by_key(|log| log.number);
        all
    }

    /// The users who have a log in a channel.
    pub(super) fn users(&self, channel: &str) -> Vec<Arc<str>> {
        let owner = |key: &str| match name_of(key) {
            LogName { channel: own, owner: Some(owner) } if own == channel => Some(Arc::from(owner)),
            LogName { .. } => None,
        };
        self.logs.iter().filter_map(|log| owner(log.key())).collect()
    }

    /// What an operator sees of each log. `first` gives the offset of the first event that it keeps.
    fn facts(&self, first: impl Fn(&LogName<'_>, &State) -> Option<u64>) -> Vec<LogFacts> {
        let facts = |log: Arc<Log>| {
            let name = name_of(&log.key);
            let LogName { channel, owner } = name;
            let state = log.state.lock();
            let first = first(&name, &state)?;
            Some(LogFacts {
                key: log.key.to_string(),
                channel: channel.to_owned(),
                user: owner.map(str::to_owned),
                epoch: Arc::clone(&state.epoch),
                entries: usize::try_from((state.last + 1).saturating_sub(first)).unwrap_or(usize::MAX),
                first,
                last: state.last,
                bytes: state.bytes,
            })
        };
        self.all().into_iter().filter_map(facts).collect()
    }

    /// The numbers of logs and of their entries, the memory of all entries, and the number of ids that are known.
    pub(super) fn size(&self) -> (usize, usize, usize, usize) {
        let entries = self.all().iter().map(|log| log.state.lock().entries).sum();
        (self.logs.len(), entries, self.bytes.load(Ordering::Relaxed), self.known.lock().len())
    }
}

impl History {
    /// Logs on disk, and logs in memory. `is_durable`: of a channel.
    pub(super) fn gauges(&self, is_durable: impl Fn(&str) -> bool) -> (LogGauges, LogGauges) {
        let (mut durable, mut others) = (LogGauges::default(), LogGauges::default());
        for log in self.all() {
            let gauges = if is_durable(name_of(&log.key).channel) { &mut durable } else { &mut others };
            gauges.logs += 1;
            gauges.entries += log.state.lock().entries;
            gauges.bytes += log.bytes.load(Ordering::Relaxed);
        }
        (durable, others)
    }

    /// The number of ids that are known, and of those that were forgotten before their time.
    pub(super) fn ids(&self) -> (usize, u64) {
        let known = self.known.lock();
        (known.len(), known.forgotten())
    }
}

impl Locked<'_> {
    /// Puts an event at the end. `entry` is at [`State::next`]. Returns whether it is the first one of the log.
    fn append(&mut self, entry: Entry, bounds: &LogBounds) -> bool {
        let is_first = self.state.last == 0;
        let due = entry.at + bounds::check_after(bounds);
        self.change(|state| state.push(entry, bounds));
        if is_first {
            self.set_due(due);
        }
        is_first
    }

    /// Lets the log be looked at then.
    fn set_due(&mut self, at: Instant) {
        self.state.due = Some(at);
        self.history.due.lock().add(at, self.log);
    }

    /// Changes the entries, and counts their memory.
    fn change<T>(&mut self, change: impl FnOnce(&mut State) -> T) -> T {
        let before = self.state.bytes;
        let outcome = change(&mut self.state);
        let after = self.state.bytes;
        self.log.bytes.store(after, Ordering::Relaxed);
        // Wraps around where it becomes less.
        self.history.bytes.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
        outcome
    }

    /// Takes the log out of the map. Its past is lost.
    fn remove(&mut self) {
        self.change(State::clear);
        if let Some(due) = self.state.due.take() {
            self.history.due.lock().remove(due, self.log);
        }
        if let Some(due) = self.state.gap_due.take() {
            self.history.gaps.lock().remove(due, self.log);
        }
        self.state.is_removed = true;
        self.history.logs.remove(&*self.log.key);
    }
}
