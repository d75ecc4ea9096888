//! Which log a subscription has, and what of it is replayed.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Instant;

use wire::command::{self, Recover, Subscribe};
use wire::{ErrorCode, Refusal};

use super::counted::Counted;
use super::log::{Address, State};
use super::look::Ahead;
use super::replay::{Reader, Replay};
use super::{Locked, LogFacts, LogName, Position};
use crate::auth::Permissions;
use crate::config::LogBounds;
use crate::router::Router;
use crate::router::index::{Observes, Subscription};
use crate::router::session::{Role, Session};
use crate::telemetry::metrics::RecoveryOutcome;

/// What became of `data.recover`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovered {
    /// This number of events is replayed.
    Replayed(usize),
    /// Nothing is, because events after the position cannot be.
    Lost(RecoverReason),
}

/// Why events cannot be replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoverReason {
    /// The past of the log was lost, or the epoch is not one of this log.
    Epoch,
    /// The offset was never reached.
    Ahead,
    /// An event after the offset is no longer kept.
    TooOld,
}

impl RecoverReason {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Epoch => "EPOCH",
            Self::Ahead => "AHEAD",
            Self::TooOld => "TOO_OLD",
        }
    }

    fn outcome(self) -> RecoveryOutcome {
        match self {
            Self::Epoch => RecoveryOutcome::Epoch,
            Self::Ahead => RecoveryOutcome::Ahead,
            Self::TooOld => RecoveryOutcome::TooOld,
        }
    }
}

/// The events of a log from this position on.
pub(in crate::router) struct Stretch(Position);

impl Stretch {
    pub(in crate::router) fn contains(&self, position: &Position) -> bool {
        position.epoch == self.0.epoch && position.offset >= self.0.offset
    }
}

/// What a subscription with a log is told, and what it receives first.
pub(in crate::router) struct Recovery {
    /// Where the log is.
    pub(in crate::router) position: Position,
    pub(in crate::router) recovered: Option<Recovered>,
    pub(in crate::router) replay: Option<Replay>,
    /// The events that are replayed.
    pub(in crate::router) stretch: Option<Stretch>,
}

impl Router {
    /// The log of a subscription; or why it has none.
    pub(in crate::router) fn log_of<'a>(
        &self,
        session: &'a Session,
        wanted: &'a Subscribe,
        observes: Option<&'a Observes>,
    ) -> Result<LogName<'a>, &'static str> {
        if wanted.role != command::Role::Subscriber {
            return Err("it is for subscribers, and this is a handler");
        }
        let Some(channel) = wanted.pattern.channel.as_deref() else {
            return Err("name the channel in data.channel: each channel has logs of its own");
        };
        if self.policy.history(channel).is_none() {
            return Err("the channel has no history (the key 'history' of its table in [channels])");
        }
        match (observes, &session.role) {
            (Some(Observes::All), _) => Err("name one user in data.user: each user has a log of its own"),
            _ if self.policy.is_shared(channel) => Ok(LogName { channel, owner: None }),
            (Some(Observes::User(user)), _) => Ok(LogName { channel, owner: Some(user) }),
            (None, Role::User(user)) => Ok(LogName { channel, owner: Some(user) }),
            (None, Role::Service | Role::Adapter) => {
                Err("a service names one user in data.user: on this channel each user has a log of its own")
            }
        }
    }

    /// What a subscription is told of its log, whose lock the caller holds, and what it receives of it. `ahead` is what was
    /// counted before.
    pub(in crate::router) fn recovery(
        &self,
        now: Instant,
        (name, log, ahead): (&LogName<'_>, &mut Locked<'_>, Ahead),
        subscription: &Arc<Subscription>,
        recover: Option<&Recover>,
    ) -> Recovery {
        let position = log.state.position();
        let nothing = |recovered| Recovery { position: position.clone(), recovered, replay: None, stretch: None };
        let Some(recover) = recover else { return nothing(None) };
        let count = |outcome| self.metrics.history_recoveries.count(outcome);
        let mut counted = match (ahead, self.start(now, name, &log.state, recover)) {
            // What was counted is held by its snapshot, even if the log has dropped some of it since.
            (Ahead::Counted(ahead), _) if ahead.goes_on_in(&log.state) => *ahead,
            (_, Err(reason)) | (Ahead::Lost(reason), Ok(_)) => {
                count(reason.outcome());
                return nothing(Some(Recovered::Lost(reason)));
            }
            (Ahead::Counted(_) | Ahead::Nothing | Ahead::Ends(_) | Ahead::Values, Ok(start)) => start.counted,
        };
        count(RecoveryOutcome::Recovered);
        let session = &subscription.session;
        let reader = Reader {
            session,
            pattern: &subscription.pattern,
            observes: subscription.observes.as_ref(),
            owner: name.owner,
        };
        let permissions = session.permissions();
        let later = log.state.snapshot(counted.through + 1);
        counted.add(later, position.offset, &|address| self.may_have(&reader, &permissions, address));
        let Counted { from, first, count, on_disk, entries, most, epoch, .. } = counted;
        let replay = (count > 0).then(|| {
            log.state.memory = log.state.memory.take().or_else(|| session.outbox().memory().cloned());
            Replay::new(subscription, name.owner.map(Arc::from), (epoch, on_disk), entries)
        });
        // Of the last events, those before the first one are not replayed; after a position, nothing is left out.
        let offset = if most == usize::MAX { from } else { first.unwrap_or(position.offset + 1) };
        let stretch = Some(Stretch(Position { offset, epoch: Arc::clone(&position.epoch) }));
        Recovery { position, recovered: Some(Recovered::Replayed(count)), replay, stretch }
    }

    /// Where a replay begins, with nothing counted yet; or why events after the position cannot be replayed.
    pub(super) fn start(
        &self,
        now: Instant,
        name: &LogName<'_>,
        state: &State,
        recover: &Recover,
    ) -> Result<Start, RecoverReason> {
        // A reload has just ended the history; the subscription finds that out.
        let bounds = self.policy.history(name.channel).ok_or(RecoverReason::Epoch)?;
        let first = state.first(now, &bounds);
        let mut only_on_disk = self.only_on_disk(name, first, state, &bounds);
        let (from, most) = match recover {
            // `usize::MAX` is kept for events after a position, whose number is not limited.
            Recover::Last(most) => (first, usize::try_from(*most).unwrap_or(usize::MAX).min(usize::MAX - 1)),
            Recover::After { epoch, offset } => {
                let kept = only_on_disk.as_ref().map_or(first, |offsets| *offsets.start());
                if let Some(reason) = lost(&state.position(), kept, epoch, *offset) {
                    return Err(reason);
                }
                only_on_disk = (*offset + 1 < first).then_some(*offset + 1..=first - 1);
                (*offset + 1, usize::MAX)
            }
        };
        Ok(Start { counted: Counted::none(Arc::clone(&state.epoch), from, most), only_on_disk })
    }

    /// The offsets of events that are kept as far as the size of the log is concerned, and that only the disk has. `first` is
    /// the first one that is kept in memory.
    fn only_on_disk(
        &self,
        name: &LogName<'_>,
        first: u64,
        state: &State,
        bounds: &LogBounds,
    ) -> Option<RangeInclusive<u64>> {
        let in_memory = state.front().map_or(state.last + 1, |front| front.offset);
        let by_size = (state.last + 1).saturating_sub(bounds.size as u64);
        let on_disk = by_size.max(state.on_disk_from);
        // If the first one in memory is too old, those before it are.
        let may_be = self.reads.is_some() && self.policy.is_durable(name.channel) && first == in_memory;
        (may_be && on_disk < in_memory).then_some(on_disk..=in_memory - 1)
    }

    /// What an operator sees of each log.
    pub(in crate::router) fn log_facts(&self, now: Instant) -> Vec<LogFacts> {
        let first = |name: &LogName<'_>, state: &State| {
            let bounds = self.policy.history(name.channel)?;
            let first = state.first(now, &bounds);
            Some(self.only_on_disk(name, first, state, &bounds).map_or(first, |offsets| *offsets.start()))
        };
        self.history.facts(first)
    }

    /// Whether a session with these permissions may have an entry, and wants it.
    pub(super) fn may_have(&self, reader: &Reader<'_>, permissions: &Permissions, address: &Address) -> bool {
        reader.wants(&self.policy, address, |triple, scope| {
            let right = permissions.rights.as_deref().map(|rights| &rights.subscribe);
            right.is_none_or(|right| right.check(triple).is_ok()) && reader.session.admits(permissions, scope)
        })
    }
}

/// Where a replay begins.
pub(super) struct Start {
    /// Nothing is counted yet.
    pub(super) counted: Counted,
    /// Those that only the disk may have, of which some may be needed.
    pub(super) only_on_disk: Option<RangeInclusive<u64>>,
}

/// Why the events after an offset cannot be replayed, if so. `first` is the first one that is kept.
fn lost(position: &Position, first: u64, epoch: &str, offset: u64) -> Option<RecoverReason> {
    if *position.epoch != *epoch {
        Some(RecoverReason::Epoch)
    } else if offset > position.offset {
        Some(RecoverReason::Ahead)
    } else if offset + 1 < first {
        Some(RecoverReason::TooOld)
    } else {
        None
    }
}

/// The refusal of `recover` for a subscription without a log.
pub(in crate::router) fn no_log(why: &str) -> Refusal {
    Refusal::new(ErrorCode::InvalidEnvelope, format!("data.recover: {why}"))
}
