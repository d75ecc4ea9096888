//! The last value of a triple on a channel with history, in a cluster. The event enters its log first, and its value the
//! bucket of retained values after that, which gives it a revision.
//!
//! The log decides which value is the last one: the value of an event does not replace that of a later one. So every node
//! keeps the event that its sessions received last, whichever of two nodes is faster with its value.
//!
//! If the value cannot be stored, the event is in its log nevertheless, and is delivered. Its sender gets the refusal in place
//! of a receipt, which would say that every node has the value. If it sends the event again with `once`, the value of the first one is
//! put then, unless there is a later one.

use std::time::Instant;

use wire::{DecodeLimits, Envelope, Refusal, decode};

use super::append::Append;
use super::{Awaited, Uncommitted};
use crate::router::decide::Facts;
use crate::router::history::{Kept, Position};
use crate::router::observe::Expected;
use crate::router::{Denied, Receipt, Routed, Router, Scope, retained};
use crate::store::history::{Entry, Place, Retained};

/// What an event in a log leaves as the last value of its triple.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedValue {
    /// The triple, and to whom the value belongs.
    pub place: Place,
    /// The value. `None`: the event clears it.
    pub value: Option<Retained>,
    /// Where the event is.
    pub position: Position,
}

/// What became of the value of an event in a log.
pub enum ValueOutcome {
    /// The event has none.
    Nothing,
    /// The bucket has it, with this revision.
    Put(u64),
    /// The event was sent before. The bucket has the value of the first one, with this revision.
    Again(Box<LoggedValue>, u64),
    /// The bucket has the value of a later event.
    Superseded,
    /// The bucket may not have it. The sender of the event is told why.
    Failed(Refusal),
}

impl ValueOutcome {
    /// The revision of the value, if the bucket has it.
    pub(super) fn revision(&self) -> Option<u64> {
        match self {
            Self::Put(revision) => Some(*revision),
            Self::Nothing | Self::Again(..) | Self::Superseded | Self::Failed(_) => None,
        }
    }
}

/// The value of an event whose place in its log is not known yet, and whose text is that of its entry.
pub(super) struct Unplaced {
    place: Place,
    value: Retained,
    /// The event clears the value that is there.
    clears: bool,
}

impl Unplaced {
    pub(super) fn at(&self, position: &Position, text: &str) -> LoggedValue {
        let place = Some(((*position.epoch).into(), position.offset));
        let value = (!self.clears).then(|| Retained { position: place, text: text.into(), ..self.value.clone() });
        LoggedValue { place: self.place.clone(), value, position: position.clone() }
    }
}

impl Append {
    /// Whether it is to leave a value.
    pub fn has_value(&self) -> bool {
        self.planned_stored().is_some_and(|stored| stored.value.is_some())
    }

    /// What has to be put into the bucket when the event is at this position. `None`: nothing.
    pub fn value(&self, position: &Position) -> Option<LoggedValue> {
        let stored = self.planned_stored()?;
        stored.value.as_ref().map(|value| value.at(position, &stored.entry.text))
    }
}

impl Router {
    /// The value that an event is to leave, if it is one. `text`: as its log will have it.
    ///
    /// # Errors
    /// `TOO_LARGE`; nothing is stored then.
    pub(super) fn plan_value(
        &self,
        event: &Uncommitted,
        envelope: &Envelope<'_>,
        (scope, facts): (Scope<'_>, &Facts<'_>),
        text: &str,
    ) -> Result<Option<Unplaced>, Refusal> {
        if !envelope.retain() {
            return Ok(None);
        }
        let limits = self.policy.limits();
        self.retained.check(&limits, &event.sender, envelope, scope, facts, text.len())?;
        let (place, value) = retained::stored(event.sender.author(), envelope, scope, facts, String::new(), None);
        Ok(Some(Unplaced { place, value, clears: envelope.payload_is_null() }))
    }

    /// The value of an earlier event with the id of this one, which is in its log at this position. `None`: it has none.
    pub fn value_of_first(&self, append: &Append, position: &Position, first: &Entry) -> Option<LoggedValue> {
        let log = append.logs().first()?;
        let envelope = decode(&first.text, DecodeLimits::OWN).ok().filter(Envelope::retain)?;
        let facts = self.policy.facts(envelope.triple());
        let scope = log.user.as_deref().map_or(Scope::Shared(first.user.as_deref()), Scope::User);
        let (text, at) = (first.text.to_string(), Some(position.clone()));
        // It has the same sender.
        let (place, value) = retained::stored(append.author(), &envelope, scope, &facts, text, at);
        let value = (!envelope.payload_is_null()).then_some(value);
        Some(LoggedValue { place, value, position: position.clone() })
    }

    /// An event was sent before. Its sender is told where the first one is.
    pub(super) fn finish_duplicate(&self, now: Instant, event: Uncommitted, position: &Position, value: ValueOutcome) {
        let waits_for = match &value {
            ValueOutcome::Again(first, revision) => self.share_first(now, first, *revision),
            ValueOutcome::Nothing | ValueOutcome::Put(_) | ValueOutcome::Superseded | ValueOutcome::Failed(_) => {
                Awaited::default()
            }
        };
        let kept = Some(Box::new(Kept { position: position.clone(), is_duplicate: true }));
        let receipt = Some(Receipt { receivers: 0, hint: None, kept, nodes: None });
        let routed = Ok(Routed { receipt, waits_for, ..Routed::default() });
        if let Ok(envelope) = decode(&event.text, DecodeLimits::OWN) {
            let facts = self.policy.facts(envelope.triple());
            self.observe(now, &event.sender, &envelope, &facts, (Expected::EVENT, routed.as_ref()));
        }
        self.complete_logged(now, event, value, routed);
    }

    /// Says what became of an event in a log, to its sender and to what waits for it. No lock is held.
    pub(in crate::router) fn complete_logged(
        &self,
        now: Instant,
        mut event: Uncommitted,
        value: ValueOutcome,
        routed: Result<Routed, Refusal>,
    ) {
        let refusal = match value {
            ValueOutcome::Failed(refusal) if routed.is_ok() => refusal,
            ValueOutcome::Failed(_)
            | ValueOutcome::Nothing
            | ValueOutcome::Put(_)
            | ValueOutcome::Again(..)
            | ValueOutcome::Superseded => {
                return self.complete_event(now, event, routed);
            }
        };
        if let Some(rest) = event.rest.take() {
            let (source, reason) = (&*event.sender.source, &*refusal.message);
            tracing::warn!(source, reason, "a will was published, but is not kept as a retained value");
            self.note_will(now, &event.sender, None, rest);
        }
        event.tell(now, Err(Denied { refusal, is_request: false }));
    }
}
