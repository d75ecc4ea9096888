//! [`Router::plan`]: what has to be written for a batch of events. [`Router::finish`]: what follows when it is on disk.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use wire::{DecodeLimits, Envelope, ErrorCode, Refusal, decode, notice};

use super::{To, Uncommitted};
use crate::router::access;
use crate::router::decide::Facts;
use crate::router::forms::Forms;
use crate::router::history::{First, IdName, Kept, LogName, Position};
use crate::router::observe::Expected;
use crate::router::outbox::OnFull;
use crate::router::retained;
use crate::router::will::log_refused_will;
use crate::router::{Denied, Receipt, Routed, Router, Scope};
use crate::store::history::{Applied, Change, Entry, Known, LogName as StoredName, Place, millis};

/// Events with what has to be written for them.
pub struct Batch {
    events: Vec<(Uncommitted, Result<Planned, Refusal>)>,
    changes: Vec<Change>,
}

impl Batch {
    /// What has to be on disk before the events are delivered.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }
}

/// Where an event is on disk.
struct Written {
    is_shared: bool,
    log: Option<(StoredName, Position)>,
    value: Option<Place>,
}

/// An event that is delivered when its batch is on disk.
enum Planned {
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
    fn is_stored(&self) -> bool {
        match self {
            Self::All { is_stored, .. } => *is_stored,
            Self::One(_) | Self::Second(_) => true,
            // The first one is on disk.
            Self::Duplicate(_) | Self::Unstored => false,
        }
    }
}

impl Uncommitted {
    /// Tells the sender what became of its event: through its session, which can have lost its connection meanwhile.
    fn tell_sender(&self, now: Instant, outcome: &Result<Routed, Denied>) {
        let Ok(envelope) = decode(&self.text, DecodeLimits::OWN) else { return };
        let text = match (outcome, envelope.id()) {
            (Ok(Routed { receipt: Some(receipt), .. }), Some(id)) => receipt.notice(id),
            (Ok(_), _) => return,
            (Err(Denied { refusal, .. }), id) => notice::error(id, refusal),
        };
        // A session that has ended is told nothing.
        self.sender.outbox().push(now, text.into(), OnFull::Close).ok();
    }
}

impl Router {
    /// Says what has to be written for these events. For one thread only.
    pub fn plan(&self, now: Instant, events: Vec<Uncommitted>) -> Batch {
        let mut plan = Plan { router: self, next: BTreeMap::new(), ids: HashSet::default(), changes: Vec::new() };
        let plan_one = |event: Uncommitted| {
            let planned = plan.add(now, &event);
            (event, planned)
        };
        let events = events.into_iter().map(plan_one).collect();
        Batch { events, changes: plan.changes }
    }

    /// Delivers the events of a batch that is on disk, or refuses them if it is not, and tells their connections.
    pub fn finish(&self, now: Instant, batch: Batch, is_on_disk: bool) {
        for (mut event, planned) in batch.events {
            let routed = match planned {
                Err(refusal) => self.refuse_committed(now, &event, refusal),
                Ok(planned) if !is_on_disk && planned.is_stored() => self.refuse_committed(now, &event, unavailable()),
                Ok(planned) => self.deliver_committed(now, &event, &planned),
            };
            let outcome = routed.map_err(|refusal| Denied { refusal, is_request: false });
            if event.to == To::Rules {
                event.tell_sender(now, &outcome);
            }
            if event.to == To::Will {
                match &outcome {
                    Ok(_) => self.metrics.wills.count(()),
                    Err(Denied { refusal, .. }) => log_refused_will(&event.sender, refusal),
                }
            }
            if let Some(Err(Err(denied))) = event.outcome.take().map(|sender| sender.send(outcome)) {
                // The ticket was dropped: that of a will is not kept, and a session may have ended.
                let (source, code) = (&*event.sender.source, denied.refusal.code.as_str());
                tracing::debug!(source, code, "an event of a durable channel was not published");
            }
        }
    }

    fn deliver_committed(&self, now: Instant, event: &Uncommitted, planned: &Planned) -> Result<Routed, Refusal> {
        let envelope = decode(&event.text, DecodeLimits::OWN).map_err(|malformed| malformed.refusal)?;
        let facts = self.policy.facts(envelope.triple());
        let routed = match (planned, &event.to) {
            (_, To::Removed(user)) => {
                let removed = self.retained.remove(user.as_deref(), &facts.canonical);
                let receipt = Some(Receipt { receivers: removed, hint: None, kept: None });
                // It was not an event.
                return Ok(Routed { receipt, ..Routed::default() });
            }
            (Planned::All { users, .. }, _) => {
                return self.announced(now, &event.sender, &envelope, None, &facts, Some(users));
            }
            (Planned::One(_) | Planned::Second(_) | Planned::Unstored, To::Announced(user)) => {
                let user = user.as_deref();
                match self.check_planned(now, planned, &facts, announced_scope(user, &facts)) {
                    Ok(()) => return self.announced(now, &event.sender, &envelope, user, &facts, None),
                    Err(refusal) => Err(refusal),
                }
            }
            (Planned::Duplicate(First { position, receivers }), _) => {
                let kept = Some(Box::new(Kept { position: position.clone(), is_duplicate: true }));
                let receipt = Some(Receipt { receivers: *receivers, hint: None, kept });
                Ok(Routed { receipt, ..Routed::default() })
            }
            (Planned::One(_) | Planned::Second(_) | Planned::Unstored, To::Rules | To::Will) => {
                self.publish_committed(now, event, (&envelope, &facts), planned)
            }
        };
        self.observe(now, &event.sender, &envelope, &facts, (Expected::EVENT, routed.as_ref()));
        routed
    }

    /// Publishes an event of a session that was committed, or that has waited for earlier ones only.
    fn publish_committed(
        &self,
        now: Instant,
        event: &Uncommitted,
        (envelope, facts): (&Envelope<'_>, &Facts<'_>),
        planned: &Planned,
    ) -> Result<Routed, Refusal> {
        let scope = access::scope(&event.sender, envelope, facts)?;
        self.check_planned(now, planned, facts, scope)?;
        let matches = self.subscribers(facts, scope);
        self.publish_now(now, &event.sender, envelope, scope, &matches, facts)
    }

    /// Refuses an event that was not committed.
    fn refuse_committed(&self, now: Instant, event: &Uncommitted, refusal: Refusal) -> Result<Routed, Refusal> {
        if let Ok(envelope) = decode(&event.text, DecodeLimits::OWN) {
            let facts = self.policy.facts(envelope.triple());
            self.observe(now, &event.sender, &envelope, &facts, (Expected::EVENT, Err(&refusal)));
        }
        Err(refusal)
    }

    /// Checks whether an event is on disk where it belongs. A reload can have ended its log, or changed scope or folding of
    /// its channel, while it was written. A second event with an id has nothing on disk, so it relies on the first one.
    ///
    /// # Errors
    /// `STORAGE_UNAVAILABLE`. What is on disk of it is removed.
    fn check_planned(
        &self,
        now: Instant,
        planned: &Planned,
        facts: &Facts<'_>,
        scope: Scope<'_>,
    ) -> Result<(), Refusal> {
        let Written { is_shared, log, value } = match planned {
            Planned::One(written) => written,
            Planned::Second(id) => {
                let retry = self.policy.limits().history.retry;
                return if self.history.knows((now, retry), id) { Ok(()) } else { Err(unavailable()) };
            }
            Planned::Unstored | Planned::Duplicate(_) | Planned::All { .. } => return Ok(()),
        };
        let is_next =
            |position: &Position| self.history.next(&LogName::of(&facts.canonical.channel, scope)) == *position;
        let is_its_place = |place: &Place| *place.triple == *facts.canonical.to_string();
        if *is_shared == facts.shared
            && log.as_ref().is_none_or(|(_, position)| is_next(position))
            && value.as_ref().is_none_or(is_its_place)
        {
            return Ok(());
        }
        if let Some(commits) = &self.commits {
            if let Some((log, position)) = log {
                commits.forgotten.add_log(log.clone(), Arc::clone(&position.epoch));
            }
            commits.forgotten.add_values(value.clone());
        }
        Err(unavailable())
    }

    /// How long a durable log keeps an event; `None` if the channel has no such log any more.
    pub fn durable_ttl(&self, log: &StoredName) -> Option<Duration> {
        let is_durable = self.policy.is_durable(&log.channel);
        let has_scope = self.policy.is_shared(&log.channel) == log.user.is_none();
        self.policy.history(&log.channel).filter(|_| is_durable && has_scope).map(|bounds| bounds.ttl)
    }

    /// Forgets the logs that a sweep has removed from the disk.
    pub fn forgotten_on_disk(&self, changes: &[Change]) {
        for change in changes {
            if let Change::Forget(log) = change {
                self.history.forget(&LogName::from(log));
            }
        }
    }

    /// Forgets what was removed from the disk because of `history.disk_bytes`.
    pub fn lost_on_disk(&self, now: Instant, applied: &Applied) {
        for log in &applied.removed {
            self.history.forget(&LogName::from(log));
        }
        for (log, first) in &applied.trimmed {
            self.history.trim_to(now, &LogName::from(log), *first);
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
        let envelope = decode(&event.text, DecodeLimits::OWN).map_err(|malformed| malformed.refusal)?;
        let facts = self.router.policy.facts(envelope.triple());
        let scope = match &event.to {
            To::Rules | To::Will => access::scope(&event.sender, &envelope, &facts)?,
            To::Announced(user) if facts.shared || user.is_some() => announced_scope(user.as_deref(), &facts),
            To::Announced(_) => return Ok(self.add_for_all(now, event, &envelope, &facts)),
            To::Removed(user) => {
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
            let (place, value) = retained::stored(&event.sender, &envelope, scope, &facts, text, position.clone());
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
        let is_stored = facts.durable && facts.history;
        for user in users.iter().filter(|_| is_stored) {
            let name = LogName { channel, owner: Some(user) };
            self.append(now, event, envelope, &name, scope, &text);
        }
        Planned::All { users: users.into_iter().collect(), is_stored }
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
fn announced_scope<'u>(user: Option<&'u str>, facts: &Facts<'_>) -> Scope<'u> {
    match user {
        Some(user) if !facts.shared => Scope::User(user),
        user => Scope::Shared(user),
    }
}

pub(super) fn unavailable() -> Refusal {
    Refusal::new(
        ErrorCode::StorageUnavailable,
        "the event cannot be written to the disk now, so it was not delivered; send it again later",
    )
}
