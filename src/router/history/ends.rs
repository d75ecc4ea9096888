//! Where a log of a cluster is, as its stream says: read for each subscription, and when events may have been missed.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;
use wire::Refusal;

use super::clustered::Arrivals;
use super::log::Subscribing;
use super::look::{Ahead, Found, LookTicket};
use super::{Locked, LogName, Position};
use crate::router::Router;
use crate::router::disk::{DiskRead, Purpose, unreadable};
use crate::store::history::{LogName as StoredName, Pin, ReadRange, Unread};

/// Where a log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Its epoch. A log that never held anything has the one that its first event will have.
    pub epoch: Arc<str>,
    /// The offset of the first event that is kept; `last + 1` if none is.
    pub first: u64,
    /// The offset of the last event; 0 if there was none.
    pub last: u64,
}

/// What events are read for that are missing here.
pub(in crate::router) enum Fill {
    /// Events that wait for them.
    ForWaiting,
    /// This node may have missed them, and nothing waits.
    Missed,
    /// A subscription that begins after them.
    Subscription(oneshot::Sender<Found>, Ends, Subscribing),
}

impl Fill {
    pub(super) fn is_for_waiting(&self) -> bool {
        matches!(self, Self::ForWaiting)
    }

    /// They were read, or cannot be.
    pub(super) fn finish(self, is_failed: bool) {
        match self {
            Self::ForWaiting | Self::Missed => {}
            Self::Subscription(answer, ends, following) => {
                let outcome = if is_failed { Err(unreadable()) } else { Ok(Ahead::Ends(ends)) };
                // The session may have ended.
                answer.send(Found { outcome, tries: 0, following: Some(following) }).ok();
            }
        }
    }
}

/// What a subscription does that knows where its log is.
pub(super) enum Follow {
    /// This node follows the log from there on.
    Begun(Subscribing),
    /// It waits for events that are missing here.
    Waits(LookTicket),
}

impl Router {
    /// Reads where the log of a subscription is.
    ///
    /// # Errors
    /// `STORAGE_UNAVAILABLE`.
    pub(super) fn read_ends(&self, name: &LogName<'_>) -> Result<LookTicket, Refusal> {
        let (answer, ticket) = oneshot::channel();
        self.read(ends_of(name, Purpose::Ends(Some(answer))))?;
        Ok(LookTicket::new(ticket))
    }

    /// Reads where a log is that this node follows, because it may have missed events.
    pub(in crate::router) fn check_log(&self, name: &LogName<'_>) {
        // What is not read now is missing until the next event of the log.
        self.read(ends_of(name, Purpose::Ends(None))).ok();
    }

    /// Checks every log that this node follows.
    pub(in crate::router) fn check_all_logs(&self) {
        if !self.is_clustered() {
            return;
        }
        for log in self.history.all() {
            let is_followed = log.state.lock().arrivals.cursor().is_some();
            if is_followed {
                self.check_log(&super::name_of(&log.key));
            }
        }
    }

    /// Takes where a log is.
    pub fn take_ends(&self, now: Instant, read: DiskRead, outcome: Result<Ends, Unread>) {
        let DiskRead { range, purpose, .. } = read;
        let Purpose::Ends(subscription) = purpose else { return };
        match (subscription, outcome) {
            (Some(answer), outcome) => {
                let outcome = outcome.map(Ahead::Ends).map_err(|_| unreadable());
                // The session may have ended.
                answer.send(Found { outcome, tries: 0, following: None }).ok();
            }
            (None, Ok(ends)) => {
                let name = LogName::from(&range.log);
                let missing = self.history.with(&name, |log| {
                    self.keep_cursor(log);
                    // Without a cursor, there is nothing that it could have missed.
                    log.state.arrivals.cursor().is_some().then(|| catch_up(now, log, &ends)).flatten()
                });
                match missing {
                    Some(offsets) => self.fill(now, &name, ends.epoch, offsets, Fill::Missed),
                    None => self.settle_log(now, &name, Arrivals::was_checked),
                }
            }
            (None, Err(_)) => self.settle_log(now, &LogName::from(&range.log), Arrivals::skip),
        }
    }

    /// Lets a subscription follow its log from where it is.
    ///
    /// # Errors
    /// `STORAGE_UNAVAILABLE`.
    pub(super) fn follow(
        &self,
        now: Instant,
        name: &LogName<'_>,
        ends: Ends,
        following: Option<Subscribing>,
    ) -> Result<Follow, Refusal> {
        let mut done = Vec::new();
        let (following, missing, epoch) = self.history.with(name, |log| {
            if following.is_none() {
                self.keep_cursor(log);
            }
            let following = following.unwrap_or_else(|| Subscribing::new(log.log));
            log.state.arrivals.begin_with_waiting(now);
            if let Some(bounds) = self.policy.history(name.channel) {
                self.settle(now, (log, bounds), &mut done);
            }
            (following, catch_up(now, log, &ends), Arc::clone(&ends.epoch))
        });
        self.finish_arrived(now, done);
        let Some(offsets) = missing else { return Ok(Follow::Begun(following)) };
        let (answer, ticket) = oneshot::channel();
        let fill = Fill::Subscription(answer, ends, following);
        self.read(missing_of(name, epoch, offsets, fill))?;
        Ok(Follow::Waits(LookTicket::new(ticket)))
    }

    /// Whether this node no longer follows a log for which a subscription has read where it is.
    pub(in crate::router) fn has_lost_place(&self, log: &Locked<'_>) -> bool {
        self.is_clustered() && log.state.arrivals.cursor().is_none()
    }

    /// A subscription was made while its log was locked. From now on, events of it are wanted of other nodes. What they
    /// append until they know that is read when they do.
    pub(in crate::router) fn has_subscribed(&self, log: &mut Locked<'_>) {
        if self.is_clustered() {
            log.state.arrivals.keep_if_wanted(Some(0), self.ids.stamp());
            self.check_when_announced(&super::name_of(&log.log.key));
        }
    }

    /// Reads events that are missing here.
    pub(super) fn fill(
        &self,
        now: Instant,
        name: &LogName<'_>,
        epoch: Arc<str>,
        offsets: RangeInclusive<u64>,
        fill: Fill,
    ) {
        let is_for_waiting = fill.is_for_waiting();
        // Otherwise what is not read now is missing until the next event of the log.
        if self.read(missing_of(name, epoch, offsets, fill)).is_err() && is_for_waiting {
            self.settle_log(now, name, Arrivals::skip);
        }
    }
}

/// Begins where a log is. Returns the offsets of the events that are missing here.
fn catch_up(now: Instant, log: &mut Locked<'_>, ends: &Ends) -> Option<RangeInclusive<u64>> {
    let last = Position { offset: ends.last, epoch: Arc::clone(&ends.epoch) };
    let is_anew = log.state.arrivals.cursor().is_some_and(|cursor| cursor.epoch != ends.epoch);
    let missing = match is_anew {
        // Its first event has arrived since it was read.
        true if ends.last == 0 => None,
        true => {
            let first = ends.first.max(1);
            log.state.arrivals.begin_anew(now, Position { offset: first - 1, ..last });
            (first <= ends.last).then_some(first..=ends.last)
        }
        false => log.state.arrivals.begin(&last),
    };
    if let Some(cursor) = log.state.arrivals.cursor().cloned() {
        log.change(|state| state.place(&cursor));
        if cursor.epoch == ends.epoch {
            log.state.on_disk_from = ends.first;
        }
    }
    missing
}

fn ends_of(name: &LogName<'_>, purpose: Purpose) -> DiskRead {
    let range = range(name.stored(), Arc::default(), 1..=1);
    DiskRead { range, pin: Pin::default(), purpose }
}

fn missing_of(name: &LogName<'_>, epoch: Arc<str>, offsets: RangeInclusive<u64>, fill: Fill) -> DiskRead {
    DiskRead { range: range(name.stored(), epoch, offsets), pin: Pin::default(), purpose: Purpose::Fill(fill) }
}

fn range(log: StoredName, epoch: Arc<str>, offsets: RangeInclusive<u64>) -> ReadRange {
    ReadRange { log, epoch, offsets, backwards: false }
}
