//! What the commits of durable channels need of the logs: where the next event goes, and what a file had.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::known::{First, Name};
use super::log::{Address, Entry, Of};
use super::{History, Locked, LogName, Position};
use crate::config::{self, LogBounds};
use crate::router::replay::marked;
use crate::store::history as stored;

/// An entry that a file had.
pub(in crate::router) struct LoadedEntry {
    pub(in crate::router) at: Instant,
    pub(in crate::router) position: Position,
    pub(in crate::router) entry: stored::Entry,
}

impl History {
    /// The position of the next event of a log.
    pub(in crate::router) fn next(&self, name: &LogName<'_>) -> Position {
        match self.find(name) {
            Some(log) => log.state.lock().next(),
            None => Position { offset: 1, epoch: self.epochs.lock().of(&name.key()) },
        }
    }

    /// The name of an id; or the first event with it, if it is known.
    pub(in crate::router) fn unknown_id(
        &self,
        (now, retry): (Instant, Duration),
        log: &LogName<'_>,
        source: &str,
        user: Option<&str>,
        id: &str,
    ) -> Result<Name, First> {
        let known = self.known.lock();
        let name = known.name(&log.key(), source, user, id);
        known.get(now, &name, retry).cloned().map_or(Ok(name), Err)
    }

    /// Whether the first event with an id is known.
    pub(in crate::router) fn knows(&self, (now, retry): (Instant, Duration), id: &Name) -> bool {
        self.known.lock().get(now, id, retry).is_some()
    }

    /// Forgets a log.
    pub(in crate::router) fn forget(&self, name: &LogName<'_>) {
        if let Some(log) = self.find(name) {
            let mut locked = Locked { history: self, state: log.state.lock(), log: &log };
            if !locked.state.is_removed {
                locked.forget();
            }
        }
    }

    /// Drops the entries of a log before an offset.
    pub(in crate::router) fn trim_to(&self, now: Instant, name: &LogName<'_>, first: u64) {
        if let Some(log) = self.find(name) {
            let mut locked = Locked { history: self, state: log.state.lock(), log: &log };
            locked.state.on_disk_from = locked.state.on_disk_from.max(first);
            locked.change(|state| {
                while state.front().is_some_and(|front| front.offset < first) {
                    state.pop(now);
                }
            });
        }
    }

    /// Makes a log that a file had, without its entries.
    pub(in crate::router) fn load_log(&self, name: &stored::LogName, epoch: &Arc<str>, last: u64, used: Instant) {
        let log = self.log(&LogName::from(name).key());
        let mut locked = Locked { history: self, state: log.state.lock(), log: &log };
        let state = &mut *locked.state;
        (state.epoch, state.last, state.emptied) = (Arc::clone(epoch), last, Some(used));
        // Until the first of its entries comes.
        state.on_disk_from = last + 1;
        locked.set_due(used);
    }

    /// Adds an entry to a log that a file had. They come in the order of the log.
    pub(in crate::router) fn load_entry(&self, name: &stored::LogName, loaded: LoadedEntry, bounds: &LogBounds) {
        let LoadedEntry { at, position, entry } = loaded;
        let frame = marked(&entry.text, Some(&position), "replayed");
        let entry = Entry { offset: position.offset, at, address: address_of(name, entry), frame };
        let Some(log) = self.find(&LogName::from(name)) else { return };
        let mut locked = Locked { history: self, state: log.state.lock(), log: &log };
        locked.change(|state| {
            let last = state.last;
            state.on_disk_from = state.on_disk_from.min(position.offset);
            state.last = position.offset - 1;
            state.push(entry, bounds);
            state.last = last;
        });
    }

    /// Adds the id of an event with `once` that a file had. How many received it is not known any more.
    pub(in crate::router) fn load_known(&self, at: Instant, known: stored::Known, limits: &config::History) {
        let stored::Known { log, source, user, id, offset, epoch, .. } = known;
        let log = LogName::from(&log);
        let mut known = self.known.lock();
        let name = known.name(&log.key(), &source, user.as_deref(), &id);
        let first = First { position: Position { offset, epoch: epoch.into() }, receivers: 0 };
        known.insert(at, name, first, (limits.retry, limits.ids));
    }
}

/// What decides who may have an event that a log has on disk.
pub(super) fn address_of(log: &stored::LogName, entry: stored::Entry) -> Address {
    let stored::Entry { topic, subtopic, user, to_all, target, .. } = entry;
    let of = match (&log.user, to_all) {
        (Some(_), true) => Of::Everyone,
        (Some(_), false) => Of::Owner,
        (None, _) => Of::Sender(user),
    };
    Address { triple: format!("{}/{topic}/{subtopic}", log.channel).into(), target, of }
}
