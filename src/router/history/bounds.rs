//! The bounds of all logs: age and memory.
//!
//! What is too old is never replayed; here it is dropped, some time later. Each log that holds something is due at one
//! time, which is put off while it has nothing to drop, so an append costs no look at a clock or a queue.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::log::Log;
use super::{History, Locked, name_of};
use crate::config::LogBounds;
use crate::router::Router;
use crate::store::history::REMEMBERED;

/// The logs that one sweep looks at, and the entries that it drops of one log.
const LOGS_A_SWEEP: usize = 64;
const ENTRIES_A_SWEEP: usize = 1024;

/// How much of `history.bytes` is freed at once, as a fraction: the search for the largest log looks at all.
const FREED_PART: usize = 16;

/// The logs by the time at which they are to be looked at.
#[derive(Default)]
pub(super) struct Due {
    by_time: BTreeMap<(Instant, u64), Arc<Log>>,
}

impl Due {
    pub(super) fn add(&mut self, at: Instant, log: &Arc<Log>) {
        self.by_time.insert((at, log.number), Arc::clone(log));
    }

    pub(super) fn remove(&mut self, at: Instant, log: &Log) {
        self.by_time.remove(&(at, log.number));
    }

    /// Takes out those that are due.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Arc<Log>> {
        let later = self.by_time.split_off(&(now, u64::MAX));
        std::mem::replace(&mut self.by_time, later).into_values().collect()
    }

    fn first(&self) -> Option<Instant> {
        self.by_time.first_key_value().map(|((at, _), _)| *at)
    }
}

/// How long after an entry its log is looked at: a little later than needed, so that there is something to drop.
pub(super) fn check_after(bounds: &LogBounds) -> Duration {
    bounds.ttl + (bounds.ttl / 8).clamp(Duration::from_millis(10), Duration::from_secs(10))
}

impl History {
    /// When the next log is to be looked at.
    pub(in crate::router) fn deadline(&self) -> Option<Instant> {
        let gap = self.gaps.lock().first();
        self.due.lock().first().into_iter().chain(gap).min()
    }

    /// Lets every log be looked at as soon as possible, because bounds have changed.
    fn all_are_due(&self, now: Instant) {
        let mut due = self.due.lock();
        due.by_time = std::mem::take(&mut due.by_time).into_values().map(|log| ((now, log.number), log)).collect();
    }
}

impl Router {
    /// Drops entries that are too old, and forgets logs that have been empty for long.
    pub(in crate::router) fn expire_history(&self, now: Instant) {
        self.read_gaps(now);
        for _ in 0..LOGS_A_SWEEP {
            let first = {
                let mut due = self.history.due.lock();
                let first = due.by_time.first_entry().filter(|first| first.key().0 <= now);
                first.map(std::collections::btree_map::OccupiedEntry::remove)
            };
            let Some(log) = first else { break };
            let mut locked = Locked { history: &self.history, state: log.state.lock(), log: &log };
            if let Some(next) = self.look_at(now, &mut locked) {
                locked.set_due(next);
            }
        }
        self.history.known.lock().expire(now, self.policy.limits().history.retry);
    }

    /// Drops what a log no longer keeps. Returns when to look again.
    fn look_at(&self, now: Instant, locked: &mut Locked<'_>) -> Option<Instant> {
        locked.state.due = None;
        if locked.state.is_removed {
            return None;
        }
        let channel = name_of(&locked.log.key).channel;
        let is_on_disk = self.is_on_disk(locked.log);
        let Some(bounds) = self.policy.history(channel) else {
            locked.forget();
            return None;
        };
        if !locked.change(|state| state.trim(now, &bounds, ENTRIES_A_SWEEP)) {
            return Some(now);
        }
        if let Some(front) = locked.state.front() {
            return Some(front.at + check_after(&bounds));
        }
        if self.is_clustered() {
            self.keep_cursor(locked);
            if locked.is_followed() {
                return Some(now + REMEMBERED);
            }
            locked.remove();
            return None;
        }
        if is_on_disk {
            // The thread that commits forgets it, so that it does not between a plan and its commit.
            return Some(now + REMEMBERED);
        }
        let emptied = *locked.state.emptied.get_or_insert(now);
        let until = emptied + bounds.ttl.max(REMEMBERED);
        if until > now {
            return Some(until);
        }
        locked.forget();
        None
    }

    /// Takes the oldest entries of the largest logs while all together use too much memory.
    pub(in crate::router) fn bound_history(&self, now: Instant) {
        let most = self.policy.limits().history.bytes;
        let is_over = || self.history.bytes.load(Ordering::Relaxed) > most;
        if !is_over() {
            return;
        }
        // One thread is enough. Others would only wait for it.
        let Some(_relieving) = self.history.relieving.try_lock() else { return };
        let target = most - most / FREED_PART;
        let mut by_size: BTreeMap<(usize, std::cmp::Reverse<u64>), Arc<Log>> =
            self.history.all().into_iter().map(|log| (size_of(&log), log)).collect();
        let mut over = self.history.bytes.load(Ordering::Relaxed).saturating_sub(target);
        while over > 0
            && let Some((_, log)) = by_size.pop_last()
        {
            let next = by_size.last_key_value().map_or(0, |((bytes, _), _)| *bytes);
            let mut locked = Locked { history: &self.history, state: log.state.lock(), log: &log };
            let is_on_disk = self.is_on_disk(&log);
            let freed = locked.shrink(now, over, next, is_on_disk);
            over = over.saturating_sub(freed);
            let (left, has_entries) = (locked.state.bytes, locked.state.entries > 0);
            drop(locked);
            if has_entries || left > 0 && !is_on_disk {
                by_size.insert((left, std::cmp::Reverse(log.number)), log);
            }
        }
    }

    /// Whether the disk has a log, which keeps its epoch as long as it is there.
    fn is_on_disk(&self, log: &Log) -> bool {
        self.commits.is_some() && self.policy.is_durable(name_of(&log.key).channel)
    }

    /// Takes over what a reload has changed: logs are lost if their channel no longer has history, or has another scope.
    /// `before` are the channels that had history.
    pub(in crate::router) fn reload_history(&self, now: Instant, before: &[String], rescoped: &BTreeSet<String>) {
        let has_ended = |channel: &str| self.policy.history(channel).is_none() || rescoped.contains(channel);
        if before.iter().any(|channel| has_ended(channel)) {
            // What is sent on such a channel from now on is in no log, even if it gets history again.
            self.history.epochs.lock().renew();
        }
        let ended = self.history.all().into_iter().filter(|log| has_ended(name_of(&log.key).channel));
        for log in ended {
            let mut locked = Locked { history: &self.history, state: log.state.lock(), log: &log };
            if locked.state.is_removed {
                continue;
            }
            let name = name_of(&log.key);
            if let Some(commits) = self.commits.as_ref().filter(|_| self.policy.is_durable(name.channel)) {
                commits.forgotten.add_log(name.stored(), Arc::clone(&locked.state.epoch));
            }
            locked.forget();
        }
        self.wake_committer();
        self.history.all_are_due(now);
        self.requests.earlier().notify_one();
    }
}

/// The order in which logs lose entries: the largest first, of two the older one.
fn size_of(log: &Log) -> (usize, std::cmp::Reverse<u64>) {
    (log.bytes.load(Ordering::Relaxed), std::cmp::Reverse(log.number))
}

impl Locked<'_> {
    /// Drops the oldest entries until this memory is free, or the log is smaller than `next`. A log without entries is
    /// forgotten: there could be one for each user that a service names. One that is on disk is not, because an event may
    /// be between its plan and its commit. Returns the memory that is free.
    fn shrink(&mut self, now: Instant, wanted: usize, next: usize, is_on_disk: bool) -> usize {
        let before = self.state.bytes;
        if self.state.entries == 0 {
            if is_on_disk {
                return 0;
            }
            if before > 0 {
                self.forget();
            }
            return before;
        }
        self.change(|state| {
            while before - state.bytes < wanted && state.entries > 0 && (state.bytes >= next || state.bytes == before) {
                state.pop(now);
            }
            before - state.bytes
        })
    }

    /// Forgets the log. It gets another epoch if it is made again.
    pub(super) fn forget(&mut self) {
        self.history.epochs.lock().forget(&self.log.key);
        self.remove();
    }
}
