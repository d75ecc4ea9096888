//! [`Router::plan`]: what has to be written for a batch of events. [`Router::finish`]: what follows when it is on disk.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;
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
use crate::router::{Denied, Receipt, Routed, Router, Scope};
use crate::store::history::{Applied, Change, Entry, Known, LogName as StoredName, Place, millis};

/// Events with what has to be written for them.
pub struct Batch {
    events: Vec<Item>,
    changes: Vec<Change>,
}

/// An event of a batch.
struct Item {
    event: Uncommitted,
    planned: Result<Planned, Refusal>,
    /// Its changes among those of the batch.
    changes: Range<usize>,
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

    /// Delivers the events of a batch that is on disk, or refuses them if it is not, and tells their connections.
    pub fn finish(&self, now: Instant, batch: Batch, is_on_disk: bool) {
        for Item { event, planned, .. } in batch.events {
            let planned = match planned {
                Ok(planned) if !is_on_disk && planned.is_stored() => Err(unavailable()),
                planned => planned,
            };
            self.finish_event(now, event, planned);
        }
    }

    /// Refuses an event that waits for the disk, because nothing is written any more.
    pub fn refuse_waiting(&self, now: Instant, event: Uncommitted) {
        self.finish_event(now, event, Err(unavailable()));
    }

    fn finish_event(&self, now: Instant, mut event: Uncommitted, planned: Result<Planned, Refusal>) {
        let routed = match planned {
            Err(refusal) => self.refuse_committed(now, &event, refusal),
            Ok(planned) => self.deliver_committed(now, &event, &planned),
        };
        let outcome = routed.map_err(|refusal| Denied { refusal, is_request: false });
        if event.to == To::Rules {
            event.tell_sender(now, &outcome);
        }
        if let Some(rest) = event.rest.take() {
            self.note_will(now, &event.sender, outcome.as_ref().err().map(|denied| &denied.refusal), rest);
        }
        if let Some(Err(Err(denied))) = event.outcome.take().map(|sender| sender.send(outcome)) {
            // The ticket was dropped, because its session has ended.
            let (source, code) = (&*event.sender.source, denied.refusal.code.as_str());
            tracing::debug!(source, code, "an event of a durable channel was not published");
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

    /// Forgets what a sweep has removed from the disk.
    pub fn forgotten_on_disk(&self, now: Instant, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Forget(log) => self.history.forget(&LogName::from(log)),
                Change::Trim { log, first } => self.history.trim_to(now, &LogName::from(log), *first),
                Change::Append { .. } | Change::Keep(..) | Change::Clear(_) => {}
            }
        }
    }

    /// Forgets what was removed from the disk because of `history.disk_bytes`.
    pub fn lost_on_disk(&self, now: Instant, applied: &Applied) {
        for log in &applied.removed {
            self.history.forget(&LogName::from(log));
        }
        for (log, first) in applied.trimmed.iter().chain(&applied.damaged) {
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
fn announced_scope<'u>(user: Option<&'u str>, facts: &Facts<'_>) -> Scope<'u> {
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
