//! [`CallSession`]: a caller as a session of the router, from its envelope to its answer.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time;
use wire::{DecodeLimits, Envelope, ErrorCode, Refusal, Splice, decode};

use super::answer::Answer;
use super::applications::Application;
use super::post::{Endpoint, Head};
use super::{Refused, pressure};
use crate::auth::Caller;
use crate::connection::Stage;
use crate::router::{Outbox, OutboxLimits, Registration, Routed, Router, Session};
use crate::server::Broker;
use crate::websocket::Frame;

/// What a request without a `timeout` waits for: `requests.timeout`, which bounds every request.
const TIMEOUT_MS: u64 = u32::MAX as u64;

/// What is read and discarded of a caller that sends more than its body.
const DISCARDED_BYTES_MAX: usize = 64 << 10;

/// A session for one call. It ends when this is dropped, and so does what it requested.
pub(super) struct CallSession<'a> {
    router: &'a Router,
    session: Arc<Session>,
    application: Arc<Application>,
}

impl Drop for CallSession<'_> {
    fn drop(&mut self) {
        self.router.detach(now(), &self.session);
    }
}

fn now() -> Instant {
    time::Instant::now().into_std()
}

impl<'a> CallSession<'a> {
    /// Begins the session of a caller that was verified when the router's number of reloads was `reloads`. `None`: it has to
    /// be verified again.
    pub(super) fn begin(
        broker: &'a Broker,
        head: &Head,
        envelope: &Envelope<'_>,
        caller: Caller,
        reloads: u64,
    ) -> Result<Option<Self>, Refused> {
        if envelope.triple().is_broker() {
            let words = "the channel Broker is for commands of a session: connect a WebSocket";
            return Err(Refusal::new(ErrorCode::ReservedChannel, words).into());
        }
        let (now, limits, router) = (now(), broker.settings.limits(), &*broker.router);
        let application = broker.applications.of(now, &caller.source, &caller.identity.principal, &limits);
        if let Err(after) = application.count(now, &limits, envelope.text().len()) {
            let words = "the application sends more than limits.rate or limits.rate_bytes allows; try again later";
            return Err(Refused::Later(Refusal::new(ErrorCode::RateLimited, words), after));
        }
        let Caller { source, identity } = caller;
        let (address, outbox) = (Some(head.address), Outbox::refusing());
        let registration = Registration { source, identity, echo: false, address, outbox, will: None };
        let of_gather =
            OutboxLimits { messages: limits.outbound_messages, bytes: limits.outbound_bytes, refuses: true };
        let session = router.attach_call(now, registration, of_gather, reloads)?;
        Ok(session.map(|session| Self { router, session, application }))
    }

    fn publish_now(&self, envelope: &Envelope<'_>) -> Result<Routed, Refusal> {
        let _steady = self.router.steady();
        let decision = self.router.decide(&self.session, envelope);
        if envelope.asks() || decision.expects_answer() {
            let words = format!("{} is a request here: send it to POST /v1/request", envelope.triple());
            return Err(Refusal::new(ErrorCode::InvalidEnvelope, words));
        }
        self.router.deliver(now(), &self.session, envelope, decision).map_err(|denied| denied.refusal)
    }

    /// Publishes the envelope. On a durable channel, waits until it is on disk.
    pub(super) async fn publish(&self, broker: &Broker, envelope: &Envelope<'_>) -> Result<Answer, Refused> {
        let mut routed = self.publish_now(envelope)?;
        if let Some(mut ticket) = routed.ticket.take() {
            let committed = tokio::select! {
                committed = poll_fn(|cx| ticket.poll(cx)) => committed,
                () = broker.ended.cancelled() => return Err(ending().into()),
            };
            routed = committed.map_err(|denied| denied.refusal)?;
        }
        pressure::wait(&self.application, std::mem::take(&mut routed.pressed)).await;
        Ok(receipt(&routed))
    }

    /// Sends the envelope as a request, and waits for its answer. `None`: the caller has hung up, and the request is
    /// cancelled.
    pub(super) async fn request<S: AsyncRead + Unpin>(
        &self,
        broker: &Broker,
        envelope: &Envelope<'_>,
        stream: &mut S,
    ) -> Option<Result<Answer, Refused>> {
        let most = broker.settings.limits().pending_requests;
        let _pending = match self.application.begin_request(most) {
            Ok(pending) => pending,
            Err(refusal) => return Some(Err(refusal.into())),
        };
        // Wiped, because a request can be on a protected triple.
        let with_timeout;
        let sent = if envelope.timeout_ms().is_some() {
            self.router.route(now(), &self.session, envelope)
        } else {
            with_timeout = Frame::from(Splice::new(envelope).secret(true).number("timeout", TIMEOUT_MS));
            match decode(with_timeout.text(), DecodeLimits::OWN) {
                Ok(request) => self.router.route(now(), &self.session, &request),
                Err(malformed) => return Some(Err(malformed.refusal.into())),
            }
        };
        let routed = match sent {
            Ok(routed) => routed,
            Err(denied) => return Some(Err(denied.refusal.into())),
        };
        // It was delivered to a handler that does not answer.
        if routed.receipt.is_some() {
            return Some(Ok(receipt(&routed)));
        }
        tokio::select! {
            answer = self.answer(broker) => Some(answer),
            () = hang_up(stream) => {
                tracing::debug!(source = self.session.source(), "a caller has hung up, and its request is cancelled");
                None
            }
        }
    }

    /// Waits for the outcome of the request. The end of a drain cancels it.
    async fn answer(&self, broker: &Broker) -> Result<Answer, Refused> {
        let mut outcome = poll_fn(|cx| self.session.poll_outcome(cx));
        let outcome = tokio::select! {
            outcome = &mut outcome => outcome,
            () = broker.shutdown.reached(Stage::Closing) => {
                self.router.give_up_all(now(), &self.session);
                outcome.await
            }
        };
        Answer::of(outcome).map_err(Refused::from)
    }

    /// Logs how the call ended, for developers of applications.
    pub(super) fn log(&self, endpoint: Endpoint, outcome: Result<&Answer, &Refusal>) {
        let (source, user, path) = (self.session.source(), self.session.user(), endpoint.path());
        match outcome {
            Ok(_) => tracing::debug!(source, user, path, "a call was answered"),
            Err(refusal) => {
                let (code, reason) = (refusal.code.as_str(), &*refusal.message);
                tracing::debug!(source, user, path, code, reason, "a call was refused");
            }
        }
    }
}

fn receipt(routed: &Routed) -> Answer {
    // A reply, which is not counted.
    let receivers = routed.receipt.as_ref().map_or(1, |receipt| receipt.receivers);
    let kept = routed.receipt.as_ref().and_then(|receipt| receipt.kept.as_deref());
    Answer::receipt(receivers, kept, routed.receipt.as_ref().and_then(|receipt| receipt.hint.as_deref()))
}

fn ending() -> Refusal {
    Refusal::new(ErrorCode::StorageUnavailable, "the broker ends before the event is on disk; send it again")
}

/// Waits until the caller closes its connection, or its sending half, or sends too much after its body.
async fn hang_up<S: AsyncRead + Unpin>(stream: &mut S) {
    let mut discarded = 0;
    let mut buffer = [0; 256];
    while discarded < DISCARDED_BYTES_MAX {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(read) => discarded += read,
        }
    }
}

/// The time after which a caller may try again, in whole seconds.
pub(super) fn seconds(after: Duration) -> u64 {
    after.as_secs() + u64::from(after.subsec_nanos() > 0)
}
