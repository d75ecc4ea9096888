//! Which log a subscription has, and what of it is replayed.

use std::sync::Arc;
use std::time::Instant;

use wire::command::{self, Recover, Subscribe};
use wire::{ErrorCode, Refusal};

use super::log::{Entry, Snapshot, State};
use super::replay::{Reader, Replay};
use super::{Locked, LogName, Position};
use crate::auth::Permissions;
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

    /// Counts what a subscription is to receive of its log, before the lock is taken for the subscription: publishers do not
    /// wait while a long log is looked through. `None`: there is nothing to count.
    pub(in crate::router) fn count_ahead(
        &self,
        now: Instant,
        name: &LogName<'_>,
        (session, wanted, observes): (&Session, &Subscribe, Option<&Observes>),
    ) -> Option<Counted> {
        let recover = wanted.recover.as_ref()?;
        let reader = Reader { session, pattern: &wanted.pattern, observes, owner: name.owner };
        let log = self.history.find(name)?;
        let (mut counted, later, last) = {
            let state = log.state.lock();
            let start = self.start(now, name, &state, recover).ok()?;
            let later = state.snapshot(start.from);
            (start, later, state.last)
        };
        counted.add(later, last, &|entry| self.may_have(&reader, &session.permissions(), entry));
        Some(counted)
    }

    /// What a subscription is told of its log, whose lock the caller holds, and what it receives of it. `ahead` is what was
    /// counted before.
    pub(in crate::router) fn recovery(
        &self,
        now: Instant,
        (name, log, ahead): (&LogName<'_>, &mut Locked<'_>, Option<Counted>),
        subscription: &Arc<Subscription>,
        recover: Option<&Recover>,
    ) -> Recovery {
        let position = log.state.position();
        let nothing = |recovered| Recovery { position: position.clone(), recovered, replay: None, stretch: None };
        let Some(recover) = recover else { return nothing(None) };
        let count = |outcome| self.metrics.history_recoveries.count(outcome);
        let start = self.start(now, name, &log.state, recover);
        let mut counted = match (ahead, start) {
            // What was counted is held by its snapshot, even if the log has dropped some of it since.
            (Some(ahead), _) if ahead.goes_on_in(&log.state) => ahead,
            (_, Ok(start)) => start,
            (_, Err(reason)) => {
                count(reason.outcome());
                return nothing(Some(Recovered::Lost(reason)));
            }
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
        counted.add(later, position.offset, &|entry| self.may_have(&reader, &permissions, entry));
        let Counted { from, first, count, entries, most, .. } = counted;
        let replay = (count > 0).then(|| {
            log.state.memory = log.state.memory.take().or_else(|| session.outbox().memory().cloned());
            Replay::new(subscription, name.owner.map(Arc::from), entries)
        });
        // Of the last events, those before the first one are not replayed; after a position, nothing is left out.
        let offset = if most == usize::MAX { from } else { first.unwrap_or(position.offset + 1) };
        let stretch = Some(Stretch(Position { offset, epoch: Arc::clone(&position.epoch) }));
        Recovery { position, recovered: Some(Recovered::Replayed(count)), replay, stretch }
    }

    /// Where a replay begins, with nothing counted yet; or why events after the position cannot be replayed.
    fn start(
        &self,
        now: Instant,
        name: &LogName<'_>,
        state: &State,
        recover: &Recover,
    ) -> Result<Counted, RecoverReason> {
        // A reload has just ended the history; the subscription finds that out.
        let bounds = self.policy.history(name.channel).ok_or(RecoverReason::Epoch)?;
        let first = state.first(now, &bounds);
        let (from, most) = match recover {
            Recover::Last(most) => (first, usize::try_from(*most).unwrap_or(usize::MAX)),
            Recover::After { epoch, offset } => match lost(&state.position(), first, epoch, *offset) {
                Some(reason) => return Err(reason),
                None => (offset + 1, usize::MAX),
            },
        };
        let epoch = Arc::clone(&state.epoch);
        Ok(Counted { epoch, from, through: from - 1, most, first: None, count: 0, entries: Snapshot::default() })
    }

    /// Whether a session with these permissions may have an entry, and wants it.
    fn may_have(&self, reader: &Reader<'_>, permissions: &Permissions, entry: &Entry) -> bool {
        reader.wants(&self.policy, entry, |triple, scope| {
            let right = permissions.rights.as_deref().map(|rights| &rights.subscribe);
            right.is_none_or(|right| right.check(triple).is_ok()) && reader.session.admits(permissions, scope)
        })
    }
}

/// The events of a log that a subscription is to receive, as far as the log was looked through.
pub(in crate::router) struct Counted {
    epoch: Arc<str>,
    /// The offset from which on it was looked through, and the last one that was.
    from: u64,
    through: u64,
    /// How many events are wanted.
    most: usize,
    /// The first one that is to be received.
    first: Option<u64>,
    count: usize,
    entries: Snapshot,
}

impl Counted {
    /// Whether the log has everything that came since.
    fn goes_on_in(&self, state: &State) -> bool {
        let is_whole = state.front().map_or(state.last == self.through, |front| front.offset <= self.through + 1);
        self.epoch == state.epoch && is_whole
    }

    /// Counts later entries, up to the offset `last`.
    fn add(&mut self, mut later: Snapshot, last: u64, wants: &impl Fn(&Entry) -> bool) {
        let (mut found, mut earliest) = (0, None);
        for entry in later.iter().rev().filter(|entry| wants(entry)).take(self.most) {
            found += 1;
            earliest = Some(entry.offset);
        }
        let beyond = (self.count + found).saturating_sub(self.most);
        if beyond > 0 {
            // Fewer of the earlier ones are among the last.
            self.first = self.entries.iter().filter(|entry| wants(entry)).nth(beyond).map(|entry| entry.offset);
            self.count -= beyond;
            self.entries.skip_to(self.first.unwrap_or(u64::MAX));
        }
        if self.count == 0 {
            self.first = earliest;
            self.entries = Snapshot::default();
            later.skip_to(earliest.unwrap_or(u64::MAX));
        }
        self.count += found;
        self.entries.append(later);
        self.through = last;
    }
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

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::log::Of;
    use super::*;
    use crate::config::LogBounds;
    use crate::websocket::Frame;

    fn entry(at: Instant, offset: u64) -> Entry {
        let triple = Box::from("Phone/Call/Ring");
        Entry { offset, at, triple, target: None, of: Of::Owner, frame: Frame::new("{}") }
    }

    /// Counts a log of `last` entries in steps: up to each of these offsets, while the log drops all but its last `size`.
    fn count(last: u64, steps: &[u64], (from, most, size): (u64, usize, usize), wants: fn(&Entry) -> bool) -> Counted {
        #[expect(clippy::disallowed_methods, reason = "some instant to begin with")]
        let now = Instant::now();
        let bounds = LogBounds { size, ttl: Duration::from_secs(1) };
        let epoch: Arc<str> = Arc::from("epoch");
        let mut state = State::new(Arc::clone(&epoch), 0);
        let mut counted =
            Counted { epoch, from, through: from - 1, most, first: None, count: 0, entries: Snapshot::default() };
        for offset in 1..=last {
            state.push(entry(now, offset), &bounds);
            if offset >= from && steps.contains(&offset) {
                assert!(counted.goes_on_in(&state), "at {offset}");
                counted.add(state.snapshot(counted.through + 1), offset, &wants);
            }
        }
        counted
    }

    #[test]
    fn what_is_counted_in_steps_is_what_is_counted_at_once() {
        let odd = |entry: &Entry| entry.offset % 2 == 1;
        for steps in [&[200][..], &[1, 2, 3, 200], &[63, 64, 65, 130, 200], &[100, 101, 102, 200], &[199, 200]] {
            for most in [1, 2, 3, 40, 100, 101, usize::MAX] {
                for from in [1, 2, 64, 65, 199] {
                    let Counted { first, count, entries, through, .. } = count(200, steps, (from, most, 1000), odd);
                    let all: Vec<u64> = (from..=200).filter(|offset| offset % 2 == 1).collect();
                    let expected = &all[all.len().saturating_sub(most)..];
                    let found: Vec<u64> = entries.iter().filter(|entry| odd(entry)).map(|entry| entry.offset).collect();
                    assert_eq!((&found[..], count), (expected, expected.len()), "{steps:?}, {most} from {from}");
                    assert_eq!((first, through), (expected.first().copied(), 200));
                    assert!(entries.iter().is_sorted_by(|one, other| one.offset < other.offset), "each once");
                }
            }
        }
    }

    #[test]
    fn what_the_log_drops_meanwhile_is_still_counted() {
        let counted = count(300, &[90, 180, 270, 300], (1, usize::MAX, 100), |_| true);
        let offsets: Vec<u64> = counted.entries.iter().map(|entry| entry.offset).collect();
        assert_eq!(offsets, (1..=300).collect::<Vec<_>>());
    }

    #[test]
    fn a_gap_is_noticed() {
        #[expect(clippy::disallowed_methods, reason = "some instant to begin with")]
        let now = Instant::now();
        let bounds = LogBounds { size: 2, ttl: Duration::from_secs(1) };
        let mut state = State::new(Arc::from("epoch"), 0);
        let counted = |through| Counted {
            epoch: Arc::from("epoch"),
            from: 1,
            through,
            most: 1,
            first: None,
            count: 0,
            entries: Snapshot::default(),
        };
        (1..=5).for_each(|offset| state.push(entry(now, offset), &bounds));
        assert!(counted(3).goes_on_in(&state) && !counted(2).goes_on_in(&state));
        state.trim(now + Duration::from_secs(2), &bounds, 9);
        assert!(counted(5).goes_on_in(&state) && !counted(4).goes_on_in(&state), "all have expired");
        assert!(!Counted { epoch: Arc::from("another"), ..counted(5) }.goes_on_in(&state));
    }
}
