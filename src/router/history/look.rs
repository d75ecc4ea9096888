//! [`Look`]: counts the events of a log that only the disk has and that a subscription is to receive.
//!
//! The reply to Subscribe says how many events are replayed, so they are read once to be counted and once to be sent. Nothing
//! of them is kept in between.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::sync::oneshot;
use wire::command::{Recover, Subscribe};
use wire::{Pattern, Refusal};

use super::counted::{Counted, OnDisk};
use super::durable::address_of;
use super::ends::{Ends, Follow};
use super::log::Subscribing;
use super::recover::{RecoverReason, Start};
use super::replay::Reader;
use super::{Locked, LogName};
use crate::router::Router;
use crate::router::disk::{DiskRead, Purpose, unreadable};
use crate::router::index::Observes;
use crate::router::session::Session;
use crate::store::history::{Entry, Pin, ReadRange, Unread};

/// How often a subscription looks, because memory has lost again what followed.
const TRIES_MAX: u8 = 3;

/// How many offsets are noted of the events to be received.
const FIRSTS_MAX: usize = 4096;

/// What is known of a log before its lock is taken for a subscription.
pub(in crate::router) enum Ahead {
    /// Nothing: no events are wanted, or there is no log.
    Nothing,
    Counted(Box<Counted>),
    /// The disk no longer has all that is wanted.
    Lost(RecoverReason),
    /// Where the log of a cluster is.
    Ends(Ends),
    /// Retained values were read. Nothing is known of the log.
    Values,
}

/// What a subscription has found on the disk.
pub struct Found {
    pub(super) outcome: Result<Ahead, Refusal>,
    pub(super) tries: u8,
    /// In a cluster, keeps this node at the log until the subscription is made.
    pub(super) following: Option<Subscribing>,
}

/// What a subscription waits for that needs events from the disk.
pub struct LookTicket(oneshot::Receiver<Found>);

impl Found {
    /// The retained values of a cluster were read.
    pub(in crate::router) fn values() -> Self {
        Self { outcome: Ok(Ahead::Values), tries: 0, following: None }
    }

    /// Whether it is no more than that.
    pub(in crate::router) fn is_of_values(&self) -> bool {
        matches!(self.outcome, Ok(Ahead::Values))
    }
}

impl LookTicket {
    pub(in crate::router) fn new(found: oneshot::Receiver<Found>) -> Self {
        Self(found)
    }

    /// Ready when the events were counted.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Found> {
        let Poll::Ready(found) = std::pin::Pin::new(&mut self.0).poll(cx) else { return Poll::Pending };
        // The broker ends.
        Poll::Ready(found.unwrap_or_else(|_| Found { outcome: Err(unreadable()), tries: 0, following: None }))
    }
}

/// What is to be counted.
pub(in crate::router) struct Look {
    session: Arc<Session>,
    pattern: Pattern,
    observes: Option<Observes>,
    /// What is older is not kept any more, in milliseconds since 1970.
    not_before: u64,
    /// What was counted in memory.
    counted: Counted,
    /// What was found on the disk.
    on_disk: OnDisk,
    tries: u8,
    following: Option<Subscribing>,
    answer: oneshot::Sender<Found>,
}

impl Look {
    pub(in crate::router) fn is_abandoned(&self) -> bool {
        self.answer.is_closed()
    }

    fn is_limited(&self) -> bool {
        self.counted.most != usize::MAX
    }

    /// Hands over what was counted, or why events are lost, if they are.
    fn finish(mut self, lost: Result<Option<RecoverReason>, Refusal>) {
        let tries = self.tries;
        let outcome = match lost {
            Ok(None) => {
                if self.is_limited() {
                    let first = self.on_disk.firsts.front().copied().unwrap_or_default();
                    self.on_disk.offsets = first..=*self.on_disk.offsets.end();
                }
                self.counted.precede(self.on_disk);
                Ok(Ahead::Counted(Box::new(self.counted)))
            }
            Ok(Some(reason)) => Ok(Ahead::Lost(reason)),
            Err(refusal) => Err(refusal),
        };
        // The session may have ended.
        self.answer.send(Found { outcome, tries, following: self.following }).ok();
    }

    /// Counts an entry if it is to be received. Returns `false` if no other one is.
    fn count(&mut self, is_wanted: bool, offset: u64) -> bool {
        if !is_wanted {
            return true;
        }
        self.on_disk.count += 1;
        if self.is_limited() {
            self.on_disk.firsts.push_front(offset);
            self.on_disk.firsts.truncate(FIRSTS_MAX);
        }
        self.counted.count + self.on_disk.count < self.counted.most
    }
}

/// What a subscription does next.
pub(in crate::router) enum Next {
    /// What was counted, and what keeps this node at the log meanwhile.
    Subscribe(Ahead, Option<Subscribing>),
    Wait(LookTicket),
}

impl Router {
    /// Counts what a subscription is to receive of its log, before the lock is taken for the subscription: publishers do not
    /// wait while a long log is looked through. `found`: what it has found on the disk.
    pub(in crate::router) fn look_ahead(
        &self,
        now: Instant,
        name: &LogName<'_>,
        (session, wanted, observes): (&Arc<Session>, &Subscribe, Option<&Observes>),
        found: Option<Found>,
    ) -> Result<Next, Refusal> {
        let (tries, following) = match found {
            Some(Found { outcome: Err(refusal), .. }) => return Err(refusal),
            Some(Found { outcome: Ok(ahead), tries, following }) => match ahead {
                Ahead::Ends(ends) => match self.follow(now, name, ends, following)? {
                    Follow::Begun(following) => (0, Some(following)),
                    Follow::Waits(ticket) => return Ok(Next::Wait(ticket)),
                },
                Ahead::Counted(counted) if !self.is_continued(name, &counted) => (tries, following),
                ahead => return Ok(Next::Subscribe(ahead, following)),
            },
            None if self.is_clustered() => return self.read_ends(name).map(Next::Wait),
            None => (0, None),
        };
        let (Some(recover), Some(log)) = (&wanted.recover, self.history.find(name)) else {
            return Ok(Next::Subscribe(Ahead::Nothing, following));
        };
        let reader = Reader { session, pattern: &wanted.pattern, observes, owner: name.owner };
        let (Start { mut counted, only_on_disk }, later, last) = {
            let mut state = log.state.lock();
            let Ok(start) = self.start(now, name, &state, recover) else {
                return Ok(Next::Subscribe(Ahead::Nothing, following));
            };
            let later = state.snapshot(start.counted.from);
            if start.only_on_disk.is_some() {
                state.memory = state.memory.take().or_else(|| session.outbox().memory().cloned());
            }
            (start, later, state.last)
        };
        counted.add(later, last, &|address| self.may_have(&reader, &session.permissions(), address));
        match only_on_disk.filter(|_| counted.count < counted.most) {
            None => Ok(Next::Subscribe(Ahead::Counted(Box::new(counted)), following)),
            Some(_) if tries >= TRIES_MAX => Err(unreadable()),
            Some(offsets) => {
                let (answer, ticket) = oneshot::channel();
                let log = name.stored();
                let (pattern, observes, pin) = (wanted.pattern.clone(), observes.cloned(), Pin::default());
                let range = ReadRange {
                    log: log.clone(),
                    epoch: Arc::clone(&counted.epoch),
                    offsets: offsets.clone(),
                    backwards: matches!(recover, Recover::Last(_)),
                };
                let on_disk = OnDisk { log, offsets, count: 0, firsts: VecDeque::new(), pin: pin.clone() };
                let ttl = self.policy.history(name.channel).map(|bounds| bounds.ttl).unwrap_or_default();
                let not_before = self.millis_ago(now, ttl);
                let session = Arc::clone(session);
                let tries = tries + 1;
                let look = Look { session, pattern, observes, not_before, counted, on_disk, tries, following, answer };
                self.read(DiskRead { range, pin, purpose: Purpose::Look(Box::new(look)) })?;
                Ok(Next::Wait(LookTicket(ticket)))
            }
        }
    }

    /// Whether what was counted goes on in memory.
    fn is_continued(&self, name: &LogName<'_>, counted: &Counted) -> bool {
        // A log that was forgotten has another epoch, and the subscription is told so.
        self.history.find(name).is_none_or(|log| {
            let state = log.state.lock();
            counted.epoch != state.epoch || counted.goes_on_in(&state)
        })
    }

    /// Whether a subscription, whose log is locked, has to look for events on the disk after all: memory has just lost them.
    pub(in crate::router) fn has_to_look(
        &self,
        now: Instant,
        (name, log): (&LogName<'_>, &Locked<'_>),
        recover: Option<&Recover>,
        ahead: &Ahead,
    ) -> bool {
        let Some(recover) = recover else { return false };
        let goes_on = match ahead {
            Ahead::Counted(counted) => counted.goes_on_in(&log.state),
            Ahead::Lost(_) => true,
            Ahead::Nothing | Ahead::Ends(_) | Ahead::Values => false,
        };
        !goes_on && self.start(now, name, &log.state, recover).is_ok_and(|start| start.only_on_disk.is_some())
    }

    /// Counts what was read. Returns what is to be read next.
    pub(in crate::router) fn look_on(
        &self,
        mut look: Look,
        range: ReadRange,
        pin: Pin,
        outcome: Result<Vec<(u64, Entry)>, Unread>,
    ) -> Option<DiskRead> {
        let entries = match outcome {
            Ok(entries) => entries,
            // The last events are those that the disk still has.
            Err(Unread::Gone) if range.backwards => Vec::new(),
            Err(Unread::Gone) => {
                look.finish(Ok(Some(RecoverReason::TooOld)));
                return None;
            }
            Err(Unread::Fault(_)) => {
                look.finish(Err(unreadable()));
                return None;
            }
        };
        let last_read = entries.last().map(|(offset, _)| *offset);
        for (offset, entry) in entries {
            if entry.at < look.not_before {
                look.finish(Ok((!range.backwards).then_some(RecoverReason::TooOld)));
                return None;
            }
            let address = address_of(&range.log, entry);
            let owner = range.log.user.as_deref();
            let reader =
                Reader { session: &look.session, pattern: &look.pattern, observes: look.observes.as_ref(), owner };
            let is_wanted = self.may_have(&reader, &look.session.permissions(), &address);
            if !look.count(is_wanted, offset) {
                look.finish(Ok(None));
                return None;
            }
        }
        let Some(offsets) = last_read.and_then(|offset| rest(&range, offset)) else {
            look.finish(Ok(None));
            return None;
        };
        let range = ReadRange { offsets, ..range };
        Some(DiskRead { range, pin, purpose: Purpose::Look(Box::new(look)) })
    }
}

/// What is left to be read after this offset.
fn rest(range: &ReadRange, offset: u64) -> Option<RangeInclusive<u64>> {
    let (first, last) = (*range.offsets.start(), *range.offsets.end());
    let rest = if range.backwards { first..=offset.checked_sub(1)? } else { offset.checked_add(1)?..=last };
    (!rest.is_empty()).then_some(rest)
}
