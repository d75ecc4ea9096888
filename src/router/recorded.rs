//! What the router gives the flight recorder.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use wire::{ErrorCode, Pattern, Triple};

use crate::router::change::Reason;
use crate::router::end::Ending;
use crate::router::index::Subscription;
use crate::router::request::pending::{Event, Outcome, Pending, State};
use crate::router::session::Session;
use crate::router::{Router, SubscriptionId};
use crate::telemetry::recorder::{Record, Recorder, RequestOutcome, SubscriptionEnd, What, Who};

/// A client, and what it sent that was refused.
pub struct RefusedMessage<'a> {
    /// Its session, if it has one.
    pub session: Option<&'a Session>,
    /// What it says its source is, without a session.
    pub source: &'a str,
    /// The network address that it has, without a session.
    pub address: IpAddr,
    /// The triple of the message, if it has one.
    pub triple: Option<&'a Triple<'a>>,
    /// Its id.
    pub id: Option<&'a str>,
    /// Why it was refused.
    pub code: ErrorCode,
}

impl Session {
    /// The session as the recorder names it.
    #[inline]
    pub(super) fn who(&self) -> Who<'_> {
        Who { number: self.number, session: *self.id.as_bytes(), source: &self.source, user: self.user() }
    }
}

impl Router {
    /// Records what happens. Without this, nothing is recorded.
    #[must_use]
    pub fn with_recorder(mut self, recorder: Arc<Recorder>) -> Self {
        self.recorder = recorder;
        self
    }

    /// The flight recorder.
    pub fn recorder(&self) -> &Arc<Recorder> {
        &self.recorder
    }

    /// Records something about a session.
    pub(super) fn note(&self, now: Instant, session: &Session, what: What) {
        if self.recorder.is_on() {
            self.recorder.record(now, &Record::of(session.who(), what));
        }
    }

    /// Records that a session has subscribed.
    pub(super) fn note_subscribed(&self, now: Instant, subscription: &Subscription) {
        let what = What::Subscribed { name: name(subscription.id), is_handler: subscription.is_handler() };
        self.note_subscription(now, subscription, what);
    }

    /// Records that a session has lost a subscription, or with no reason given it.
    pub(super) fn note_unsubscribed(&self, now: Instant, subscription: &Subscription, reason: Option<Reason>) {
        let why = match reason {
            None => SubscriptionEnd::Unsubscribed,
            Some(Reason::Renewed) => SubscriptionEnd::Renewed,
            Some(Reason::Reloaded | Reason::Folding) => SubscriptionEnd::Reloaded,
            Some(Reason::Scope) => SubscriptionEnd::Scope,
        };
        self.note_subscription(now, subscription, What::Unsubscribed { name: name(subscription.id), why });
    }

    fn note_subscription(&self, now: Instant, subscription: &Subscription, what: What) {
        if self.recorder.is_on() {
            let triple = as_triple(&subscription.pattern);
            let record = Record { triple: Some(&triple), ..Record::of(subscription.session.who(), what) };
            self.recorder.record(now, &record);
        }
    }

    /// Records how a session ended.
    pub(super) fn note_closed(&self, now: Instant, session: &Session, ending: Ending) {
        // No Close frame was sent to a connection that was lost, nor to a session without one.
        let code = ending.code().filter(|_| !matches!(ending, Ending::Lost | Ending::ProofEnded));
        self.note(now, session, What::Closed { code, why: ending.words() });
    }

    /// Records that a message was refused before it was routed.
    pub fn note_refused(&self, now: Instant, refused: &RefusedMessage<'_>) {
        if !self.recorder.is_on() {
            return;
        }
        let RefusedMessage { session, source, address, triple, id, code } = *refused;
        let stranger = Who { number: 0, session: [0; 16], source, user: None };
        let who = session.map_or(stranger, Session::who);
        let record = Record { triple, id, ..Record::of(who, What::Refused(code)) };
        match session {
            Some(_) => self.recorder.record_refusal(now, &record),
            None => self.recorder.record_stranger(now, address, &record),
        }
    }

    /// Changes the state of a request, and records how it ended if it did.
    pub(super) fn advance(&self, now: Instant, pending: &Arc<Pending>, event: Event<'_>) -> Outcome {
        let (how, code) = outcome_of(&event);
        let outcome = self.requests.apply(now, pending, event);
        if let Outcome::Ended(before) = &outcome
            && self.recorder.is_on()
        {
            self.note_request(now, pending, before, (how, code));
        }
        outcome
    }

    fn note_request(
        &self,
        now: Instant,
        pending: &Pending,
        before: &State,
        (outcome, code): (RequestOutcome, Option<ErrorCode>),
    ) {
        let handler = match before {
            State::Given(handler) => Some(handler.session.who()),
            State::Waiting(handlers) => handlers.first().map(|it| it.session.who()),
            State::Seeking | State::Ended => None,
        };
        let took = now.saturating_duration_since(pending.opened);
        let micros = took.as_secs() * 1_000_000 + u64::from(took.subsec_micros());
        let what = What::Request { name: *pending.id.text().as_bytes(), outcome, code, micros };
        let record = Record {
            peer: handler,
            triple: Some(&pending.triple),
            id: pending.asker_id.as_deref(),
            trace: pending.trace.as_deref(),
            ..Record::of(pending.asker.who(), what)
        };
        self.recorder.record(now, &record);
    }
}

/// How a request ends if an event ends it, and what its requester is told.
fn outcome_of(event: &Event<'_>) -> (RequestOutcome, Option<ErrorCode>) {
    match event {
        Event::Reply { .. } => (RequestOutcome::Answered, None),
        Event::Deliver(_) => (RequestOutcome::Delivered, None),
        Event::Expire => (RequestOutcome::Timeout, Some(ErrorCode::RequestTimeout)),
        Event::Withdraw => (RequestOutcome::Cancelled, Some(ErrorCode::RequestCancelled)),
        Event::GiveUp(ErrorCode::NoHandler) => (RequestOutcome::NoHandler, Some(ErrorCode::NoHandler)),
        Event::GiveUp(code) if *code != ErrorCode::HandlerGone => (RequestOutcome::Refused, Some(*code)),
        // The others end no request.
        Event::GiveUp(_)
        | Event::Leave(_)
        | Event::HandlerGone(_)
        | Event::HandlerAway(_)
        | Event::Give(..)
        | Event::Bounce(_)
        | Event::Return(_)
        | Event::Rebind(..)
        | Event::HandOn
        | Event::Wait(..) => (RequestOutcome::HandlerGone, Some(ErrorCode::HandlerGone)),
    }
}

fn name(id: SubscriptionId) -> [u8; 9] {
    *id.text().as_bytes()
}

/// A pattern as a triple, with `*` for each wildcard.
fn as_triple(pattern: &Pattern) -> Triple<'_> {
    let Pattern { channel, topic, subtopic } = pattern;
    let [channel, topic, subtopic] = [channel, topic, subtopic].map(|it| Cow::Borrowed(it.as_deref().unwrap_or("*")));
    Triple { channel, topic, subtopic }
}
