//! What a message is: a command, an envelope for others, or not an envelope at all.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use wire::{
    CloseCode, DecodeLimits, Envelope, ErrorCode, Malformed, Refusal, Triple, command as broker_command, decode, notice,
};

use super::pause::Pause;
use super::{Connection, Effect, Phase};
use crate::router::{Denied, HeldLine, LookTicket, Refused, Routed, Router};
use crate::telemetry::metrics::EnvelopeKind;

/// Caps the audit records that the requests of an unregistered connection can cause; otherwise it could push real ones out
/// of the rotating log. All such connections together are limited too, by the log.
const UNREGISTERED_RECORDED: u32 = 10;

/// What follows from a message.
pub(super) enum Next {
    /// The session goes on. Something may have to be waited for.
    Stay(Option<Effect>),
    /// The connection closes.
    TooManyMalformed,
    /// The session ends, as its client wishes; with the id of the command.
    Unregister(Option<String>),
    /// It waits for the disk. Nothing was done.
    Wait(LookTicket),
    /// Another connection has the session. Nothing was done.
    Replaced,
}

impl Connection {
    /// A message, with its text unless it is a binary one. It counts against the rate whatever it is.
    pub(super) fn message(&mut self, now: Instant, text: Option<&str>, router: &Router) -> Option<Effect> {
        self.heartbeat.hear();
        if self.session().is_some_and(|session| session.is_revoked()) {
            self.secret_read = true;
            return None;
        }
        if self.commits.is_some() && !self.joins_commits(text, router) {
            self.hold(text);
            return None;
        }
        if let Some(session) = self.session().filter(|_| !self.is_handled_again()) {
            session.count_received();
        }
        let next = match self.attachment {
            0 => self.take_in(now, text, router, None),
            _ => self.message_of_resumable(now, text, router),
        };
        let effect = match next {
            Next::Stay(effect) => effect,
            Next::TooManyMalformed => Some(self.close(now, router, CloseCode::Policy)),
            Next::Unregister(id) => {
                self.unregister(now, id.as_deref(), router);
                None
            }
            Next::Wait(ticket) => {
                self.look(text.unwrap_or_default(), ticket);
                return None;
            }
            Next::Replaced => {
                self.secret_read = true;
                Some(self.replaced(now, router))
            }
        };
        if effect.is_none() && self.pause.is_none() {
            self.wait_for_own_queue(now);
        }
        if self.pause.is_none() {
            self.count(now);
        } else {
            self.rate.count(now, 1);
        }
        effect
    }

    /// Whether a message is an envelope that may wait for the disk together with those that do.
    fn joins_commits(&self, text: Option<&str>, router: &Router) -> bool {
        let (Some(session), Some(text)) = (self.session(), text) else { return false };
        let decoded = decode(text, DecodeLimits::client(self.limits.json_depth));
        let envelope = decoded.as_ref().ok().filter(|envelope| !envelope.triple().is_broker());
        envelope.is_some_and(|envelope| router.waits_for_commit(session, envelope))
    }

    /// Takes a message in. `line`: of a resumable session, which counts its messages.
    #[inline]
    pub(super) fn take_in(
        &mut self,
        now: Instant,
        text: Option<&str>,
        router: &Router,
        line: Option<&mut HeldLine<'_>>,
    ) -> Next {
        let limits = DecodeLimits::client(self.limits.json_depth);
        let binary = || Refusal::new(ErrorCode::InvalidEnvelope, "a binary message; send text messages").into();
        // Borrowed, because an envelope is large and would be moved.
        let decoded = match text {
            Some(text) => decode(text, limits),
            None => Err(binary()),
        };
        match &decoded {
            Err(malformed) => {
                line.filter(|_| text.is_some()).into_iter().for_each(HeldLine::count_received);
                self.malformed(now, malformed, router)
            }
            Ok(envelope) => {
                self.malformed = 0;
                if envelope.triple().is_broker() {
                    self.command(now, envelope, router, line)
                } else {
                    line.into_iter().for_each(HeldLine::count_received);
                    self.envelope(now, envelope, router);
                    Next::Stay(None)
                }
            }
        }
    }

    /// Counts a frame against the rate. A session that is too fast is read more slowly.
    pub(super) fn count(&mut self, now: Instant) {
        if let Some(until) = self.rate.count(now, 1) {
            self.begin_pause(now, Pause::Rate, until);
        }
    }

    /// Counts bytes that were read against the rate of bytes. If the connection waits for something else already, they
    /// make its next pause longer.
    pub(super) fn count_bytes(&mut self, now: Instant, bytes: usize) {
        let Some(rate) = &mut self.rate_bytes else { return };
        let until = rate.count(now, u32::try_from(bytes).unwrap_or(u32::MAX));
        if let Some(until) = until.filter(|_| self.pause.is_none()) {
            self.begin_pause(now, Pause::RateBytes, until);
        }
    }

    /// An envelope for others.
    pub(super) fn envelope(&mut self, now: Instant, envelope: &Envelope<'_>, router: &Router) {
        let Phase::Registered(session) = &self.phase else {
            self.settings.metrics.traffic.undelivered(EnvelopeKind::Event);
            self.not_registered(now, envelope, router);
            return;
        };
        match router.route(now, session, envelope) {
            Ok(Routed { ticket: Some(ticket), .. }) => {
                self.wait_for_commit(envelope.text().len(), ticket);
            }
            Ok(routed) => {
                self.secret_read |= routed.secret;
                // Most senders want to know nothing, and wait for nobody.
                if envelope.id().is_some() || !routed.pressed.is_empty() {
                    let session = Arc::clone(session);
                    self.routed(now, Some(&session), envelope.id(), routed);
                }
            }
            Err(Denied { refusal, is_request }) => {
                // It may be a late answer to a request on a protected triple.
                self.secret_read = true;
                self.log_refusal(Some(envelope.triple()), &refusal);
                let frame = match is_request {
                    true => router.failure(envelope.triple(), envelope.id(), &refusal),
                    false => notice::error(envelope.id(), &refusal).into(),
                };
                self.push(now, frame);
            }
        }
    }

    pub(super) fn not_registered(&mut self, now: Instant, envelope: &Envelope<'_>, router: &Router) {
        // It may be a misspelt Register.
        self.secret_read = true;
        let triple = envelope.triple();
        let refusal = not_registered(triple);
        self.note_refusal(now, router, (Some(triple), envelope.id()), &refusal);
        let frame = if router.policy().is_protected(triple) {
            let source = envelope.source().unwrap_or_default();
            self.unregistered_requests += 1;
            if self.unregistered_requests <= UNREGISTERED_RECORDED {
                let address = Some(self.address);
                router.tell_refused(&Refused { triple, source, user: None, session: None, address, refusal: &refusal });
            }
            router.failure(triple, envelope.id(), &refusal)
        } else if broker_command::is_command(triple) {
            notice::failure(triple, envelope.id(), &[], &refusal).into()
        } else {
            notice::error(envelope.id(), &refusal).into()
        };
        self.push(now, frame);
    }

    /// A message that is not an envelope is answered; many in a row close the connection. Other refusals do not count.
    fn malformed(&mut self, now: Instant, malformed: &Malformed, router: &Router) -> Next {
        self.settings.metrics.traffic.undelivered(EnvelopeKind::Unreadable);
        self.note_refusal(now, router, (None, malformed.id.as_deref()), &malformed.refusal);
        // It may have been meant as a Register.
        self.secret_read = true;
        self.push(now, notice::error(malformed.id.as_deref(), &malformed.refusal));
        if malformed.refusal.code == ErrorCode::ReservedChannel {
            self.malformed = 0;
            return Next::Stay(None);
        }
        self.malformed += 1;
        if self.malformed >= self.limits.malformed { Next::TooManyMalformed } else { Next::Stay(None) }
    }
}

/// What an unregistered client is told. It may have misspelt Register itself.
fn not_registered(triple: &Triple<'_>) -> Refusal {
    let advice = "register first: send Broker/Application/Register with your application's name as 'source'";
    let is_unknown = triple.is_broker() && !broker_command::is_command(triple);
    let words = match broker_command::similar(&triple.topic, &triple.subtopic).filter(|_| is_unknown) {
        Some(similar) => format!("{triple} is not a command; did you mean Broker/{similar}? {advice}").into(),
        None => Cow::Borrowed(advice),
    };
    Refusal::new(ErrorCode::NotRegistered, words)
}
