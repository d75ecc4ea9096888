//! [`Router::plan`]: what has to be written for a batch of events.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use wire::{DecodeLimits, Envelope, ErrorCode, Refusal, decode};

use super::{To, Uncommitted};
use crate::router::access;
use crate::router::decide::Facts;
use crate::router::forms::Forms;
use crate::router::history::{First, IdName, LogName, Position};
use crate::router::retained;
use crate::router::{Router, Scope};
use crate::store::history::{Change, Entry, Known, LogName as StoredName, Place, millis};

/// Events with what has to be written for them.
pub struct Batch {
    pub(super) events: Vec<Item>,
    changes: Vec<Change>,
}

/// An event of a batch.
pub(super) struct Item {
    pub(super) event: Uncommitted,
    pub(super) planned: Result<Planned, Refusal>,
    /// Its changes among those of the batch.
    pub(super) changes: Range<usize>,
}

impl Batch {
    /// What has to be on disk before the events are delivered.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Takes out what has to be on disk, to be written by a thread that does not have the batch meanwhile.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// Leaves out what was planned for these logs. Their events are refused; an event for all users is only left out of the
    /// logs that it has among these.
    fn leave_out(&mut self, logs: &BTreeSet<StoredName>) {
        let mut left = Vec::with_capacity(self.changes.len());
        for item in &mut self.events {
            let changes = self.changes.get(item.changes.clone()).unwrap_or_default();
            let is_left_out = |change: &Change| matches!(change, Change::Append { log, .. } if logs.contains(log));
            let begin = left.len();
            match &mut item.planned {
                Ok(Planned::All { users, .. }) => {
                    let has_log = |user: &str, change: &Change| matches!(change, Change::Append { log, .. } if log.user.as_deref() == Some(user));
                    let lost: Vec<&Change> = changes.iter().filter(|change| is_left_out(change)).collect();
                    users.retain(|user| !lost.iter().any(|change| has_log(user, change)));
                    left.extend(changes.iter().filter(|change| !is_left_out(change)).cloned());
                }
                planned if changes.iter().any(is_left_out) => *planned = Err(unavailable()),
                Ok(Planned::One(_) | Planned::Unstored | Planned::Second(_) | Planned::Duplicate(_)) | Err(_) => {
                    left.extend(changes.iter().cloned());
                }
            }
            item.changes = begin..left.len();
        }
        self.changes = left;
    }
}

/// Where an event is on disk.
pub(super) struct Written {
    pub(super) is_shared: bool,
    pub(super) log: Option<(StoredName, Position)>,
    pub(super) value: Option<Place>,
}

/// An event that is delivered when its batch is on disk.
pub(super) enum Planned {
    One(Written),
    /// It need not be on disk, and waited for earlier events of its sender only.
    Unstored,
    /// Another one with its id is among these events.
    Second(IdName),
    /// It was sent before.
    Duplicate(First),
    /// It is for all users: for these, who have a session or a log.
    All {
        users: Vec<Arc<str>>,
        is_stored: bool,
    },
}

impl Planned {
    pub(super) fn is_stored(&self) -> bool {
        match self {
            Self::All { is_stored, .. } => *is_stored,
            Self::One(_) | Self::Second(_) => true,
            // The first one is on disk.
            Self::Duplicate(_) | Self::Unstored => false,
        }
    }
}

impl Router {
    /// Says what has to be written for these events. For one thread only.
    pub fn plan(&self, now: Instant, events: Vec<Uncommitted>) -> Batch {
        let mut plan = Plan { router: self, next: BTreeMap::new(), ids: HashSet::default(), changes: Vec::new() };
        let plan_one = |event: Uncommitted| {
            let begin = plan.changes.len();
            let planned = plan.add(now, &event);
            Item { event, planned, changes: begin..plan.changes.len() }
        };
        let events = events.into_iter().map(plan_one).collect();
        Batch { events, changes: plan.changes }
    }

    /// Refuses what a batch has for these logs, in which memory and disk do not agree. Such a log has lost its past: it
    /// begins anew with its next event.
    pub fn leave_out(&self, batch: &mut Batch, logs: &BTreeSet<StoredName>) {
        batch.leave_out(logs);
        let Some(commits) = &self.commits else { return };
        for log in logs {
            let name = LogName::from(log);
            commits.forgotten.add_log(log.clone(), self.history.next(&name).epoch);
            self.history.forget(&name);
        }
    }
}

/// What is to be written so far.
struct Plan<'r> {
    router: &'r Router,
    /// The position of the next event of each log.
    next: BTreeMap<String, Position>,
    /// The ids that are among these events.
    ids: HashSet<IdName>,
    changes: Vec<Change>,
}

impl Plan<'_> {
    fn add(&mut self, now: Instant, event: &Uncommitted) -> Result<Planned, Refusal> {
        if event.to == To::End {
            return Ok(Planned::Unstored);
        }
        let envelope = decode(&event.text, DecodeLimits::OWN).map_err(|malformed| malformed.refusal)?;
        let facts = self.router.policy.facts(envelope.triple());
        let scope = match &event.to {
            To::End => return Ok(Planned::Unstored),
            To::Rules | To::Will => access::scope(&event.sender, &envelope, &facts)?,
            To::Announced(user) if facts.shared || user.is_some() => announced_scope(user.as_deref(), &facts),
            To::Announced(_) if !(facts.durable && facts.history) => {
                let users = self.router.users_with_logs(&facts.canonical.channel);
                return Ok(Planned::All { users: users.into_iter().collect(), is_stored: false });
            }
            To::Announced(_) => {
                self.check_age(now, event)?;
                return Ok(self.add_for_all(now, event, &envelope, &facts));
            }
            To::Removed(user) => {
                self.check_age(now, event)?;
                let places = self.router.retained.places(user.as_deref(), &facts.canonical);
                self.changes.extend(places.into_iter().map(Change::Clear));
                return Ok(Planned::One(Written { is_shared: facts.shared, log: None, value: None }));
            }
        };
        let forms = Forms::new(&envelope, &event.sender.source, scope);
        let is_durable = facts.durable && facts.history;
        let is_kept = facts.retains_durably && envelope.retain();
        if !is_durable && !is_kept {
            return Ok(Planned::Unstored);
        }
        self.check_age(now, event)?;
        let text = forms.stored();
        let name = LogName::of(&facts.canonical.channel, scope);
        let once = envelope.id().filter(|_| facts.history && envelope.once()).map(|id| {
            let retry = self.router.policy.limits().history.retry;
            self.router.history.unknown_id((now, retry), &name, &event.sender.source, scope.user(), id)
        });
        let once = match once.transpose() {
            Err(first) => return Ok(Planned::Duplicate(first)),
            Ok(Some(id)) if self.ids.contains(&id) => return Ok(Planned::Second(id)),
            Ok(id) => id,
        };
        if envelope.retain() {
            let bytes = text.len();
            self.router.retained.check(&self.router.policy.limits(), &event.sender, &envelope, scope, &facts, bytes)?;
        }
        // Not before the check: if the first event with an id is refused, the next one is the first.
        self.ids.extend(once);
        let position = is_durable.then(|| self.append(now, event, &envelope, &name, scope, &text));
        let value = is_kept.then(|| {
            let (place, value) =
                retained::stored(event.sender.author(), &envelope, scope, &facts, text, position.clone());
            self.changes.push(match envelope.payload_is_null() {
                true => Change::Clear(place.clone()),
                false => Change::Keep(place.clone(), value),
            });
            place
        });
        let log = position.map(|position| (name.stored(), position));
        Ok(Planned::One(Written { is_shared: facts.shared, log, value }))
    }

    /// An adapter's event for all users enters the log of each.
    fn add_for_all(
        &mut self,
        now: Instant,
        event: &Uncommitted,
        envelope: &Envelope<'_>,
        facts: &Facts<'_>,
    ) -> Planned {
        let channel = &facts.canonical.channel;
        let users = self.router.users_with_logs(channel);
        let scope = Scope::Shared(None);
        let text = Forms::new(envelope, &event.sender.source, scope).stored();
        for user in &users {
            let name = LogName { channel, owner: Some(user) };
            self.append(now, event, envelope, &name, scope, &text);
        }
        Planned::All { users: users.into_iter().collect(), is_stored: true }
    }

    /// Refuses an event that has waited for its turn for too long, so that no publisher waits without a bound.
    fn check_age(&self, now: Instant, event: &Uncommitted) -> Result<(), Refusal> {
        match now.saturating_duration_since(event.at) > self.router.policy.limits().history.timeout {
            false => Ok(()),
            true => Err(waited_too_long()),
        }
    }

    fn append(
        &mut self,
        now: Instant,
        event: &Uncommitted,
        envelope: &Envelope<'_>,
        name: &LogName<'_>,
        scope: Scope<'_>,
        text: &str,
    ) -> Position {
        let router = self.router;
        let next = self.next.entry(name.key()).or_insert_with(|| router.history.next(name));
        let position = next.clone();
        next.offset += 1;
        let log = name.stored();
        let at = millis(router.date(event.at.min(now)));
        let known = envelope.id().filter(|_| envelope.once()).map(|id| Known {
            log: log.clone(),
            source: (*event.sender.source).into(),
            user: scope.user().map(Box::from),
            id: id.into(),
            at,
            offset: position.offset,
            epoch: (*position.epoch).into(),
        });
        let entry = Entry {
            at,
            topic: envelope.triple().topic.as_ref().into(),
            subtopic: envelope.triple().subtopic.as_ref().into(),
            user: match scope {
                Scope::User(_) => None,
                Scope::Shared(user) => user.map(Box::from),
            },
            to_all: matches!((name.owner, scope), (Some(_), Scope::Shared(_))),
            target: envelope.target().map(Box::from),
            text: text.into(),
        };
        let size = router.policy.history(name.channel).map_or(1, |bounds| bounds.size as u64);
        let first = (position.offset + 1).saturating_sub(size).max(1);
        let (epoch, offset) = ((*position.epoch).into(), position.offset);
        self.changes.push(Change::Append { log, epoch, offset, entry, known, first });
        position
    }
}

/// The scope of an event that an adapter announces for this user.
pub(super) fn announced_scope<'u>(user: Option<&'u str>, facts: &Facts<'_>) -> Scope<'u> {
    match user {
        Some(user) if !facts.shared => Scope::User(user),
        user => Scope::Shared(user),
    }
}

fn waited_too_long() -> Refusal {
    Refusal::new(
        ErrorCode::StorageUnavailable,
        "the event has waited for the disk for longer than history.timeout, so it was not delivered; send it again later",
    )
}

pub(super) fn unavailable() -> Refusal {
    Refusal::new(
        ErrorCode::StorageUnavailable,
        "the event cannot be written to the disk now, so it was not delivered; send it again later",
    )
}
