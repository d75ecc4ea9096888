//! Events that are missing in a log of a cluster: they are read from its stream when something has waited for them long enough,
//! or when this node may have missed them.

use std::sync::Arc;
use std::time::Instant;

use wire::{DecodeLimits, decode};

use super::arrive::{Held, Kept};
use super::clustered::Missing;
use super::ends::Fill;
use super::{Locked, LogName, Position, name_of};
use crate::router::Router;
use crate::router::disk::{DiskRead, Purpose};
use crate::router::recipients::Origin;
use crate::store::history as stored;

/// An event that was missing, as the stream has it.
pub struct MissingEntry {
    /// Its offset.
    pub offset: u64,
    /// What names the attempt to append it.
    pub attempt: [u8; 16],
    /// The event.
    pub entry: stored::Entry,
}

impl Router {
    /// Takes what was missing in a log and was read from the stream. Returns what is to be read next.
    pub fn take_missing(
        &self,
        now: Instant,
        read: DiskRead,
        outcome: Result<Vec<MissingEntry>, stored::Unread>,
    ) -> Option<DiskRead> {
        let DiskRead { range, pin, purpose } = read;
        let Purpose::Fill(fill) = purpose else { return None };
        let name = LogName::from(&range.log);
        let mut done = Vec::new();
        let last_read = outcome.as_ref().ok().and_then(|entries| entries.last()).map(|entry| entry.offset);
        let is_failed = matches!(outcome, Err(stored::Unread::Fault(_)));
        let rest = last_read.filter(|last| last < range.offsets.end()).map(|last| last + 1..=*range.offsets.end());
        self.history.with(&name, |log| {
            let Some(bounds) = self.policy.history(name.channel) else { return };
            for MissingEntry { offset, attempt, entry } in outcome.unwrap_or_default() {
                let position = Position { offset, epoch: Arc::clone(&range.epoch) };
                if log.state.arrivals.read(&position) {
                    self.deliver_read(now, (&mut *log, bounds), &position, attempt, &entry);
                }
            }
            // What cannot be read is left out only if something waits for it, which must not wait without a bound.
            if rest.is_none() && (!is_failed || fill.is_for_waiting()) {
                let through = Position { offset: *range.offsets.end(), epoch: Arc::clone(&range.epoch) };
                log.state.arrivals.was_read(now, &through);
            }
            self.settle(now, (log, bounds), &mut done);
        });
        if is_failed && fill.is_for_waiting() {
            tracing::warn!(log = %range.log, "events that are missing cannot be read from the stream, and are left out");
        }
        self.finish_arrived(now, done);
        match rest {
            Some(offsets) => {
                let range = stored::ReadRange { offsets, ..range };
                Some(DiskRead { range, pin, purpose: Purpose::Fill(fill) })
            }
            None => {
                fill.finish(is_failed);
                None
            }
        }
    }

    /// Lets what is missing in logs be read when it is time.
    pub(super) fn read_gaps(&self, now: Instant) {
        for log in self.history.due_gaps(now) {
            let mut done = Vec::new();
            let mut locked = Locked { history: &self.history, state: log.state.lock(), log: &log };
            locked.state.gap_due = None;
            let missing = if locked.state.is_removed { None } else { locked.state.arrivals.due(now) };
            let name = name_of(&log.key);
            let epoch = locked.state.arrivals.cursor().map(|cursor| Arc::clone(&cursor.epoch));
            if let (Some(Missing::Nothing) | None, Some(bounds)) = (&missing, self.policy.history(name.channel))
                && !locked.state.is_removed
            {
                self.settle(now, (&mut locked, bounds), &mut done);
            }
            drop(locked);
            self.finish_arrived(now, done);
            match (missing, epoch) {
                (Some(Missing::Events(offsets)), Some(epoch)) => {
                    self.fill(now, &name, epoch, offsets, Fill::ForWaiting);
                }
                (Some(Missing::Ends), _) => self.check_log(&name),
                (Some(Missing::Nothing | Missing::Events(_)) | None, _) => {}
            }
        }
    }

    fn deliver_read(
        &self,
        now: Instant,
        (log, bounds): Held<'_, '_>,
        position: &Position,
        attempt: [u8; 16],
        entry: &stored::Entry,
    ) {
        let Ok(envelope) = decode(&entry.text, DecodeLimits::OWN) else { return };
        let source = envelope.source().unwrap_or_default().to_owned();
        let before = Position { offset: position.offset - 1, epoch: Arc::clone(&position.epoch) };
        log.change(|state| state.place(&before));
        let kept = Kept {
            source: &source,
            user: entry.user.as_deref(),
            to_all: entry.to_all,
            text: &entry.text,
            revised: None,
        };
        // This node can have appended it, and not know yet.
        let sender = self.sender_of(attempt);
        let origin = sender.as_ref().map_or(Origin::Node, Origin::Session);
        self.deliver_kept(now, (log, bounds), position, origin, &kept);
    }
}

impl super::History {
    /// The logs in which it is time to read what is missing.
    fn due_gaps(&self, now: Instant) -> Vec<Arc<super::log::Log>> {
        let mut gaps = self.gaps.lock();
        gaps.due(now)
    }
}

impl Locked<'_> {
    /// Lets the log be looked at when what is missing is to be read.
    pub(super) fn set_gap_due(&mut self) {
        let due = self.state.arrivals.deadline();
        if due == self.state.gap_due {
            return;
        }
        let mut gaps = self.history.gaps.lock();
        if let Some(before) = self.state.gap_due {
            gaps.remove(before, self.log);
        }
        if let Some(due) = due {
            gaps.add(due, self.log);
        }
        drop(gaps);
        self.state.gap_due = due;
    }
}
