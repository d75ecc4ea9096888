//! [`Host`]: a [`Handler`] as an in-process subscriber. Requests and events come out of outboxes like any session's,
//! answers and events go back through the router like any envelope: the router knows of no second way.

use std::future::poll_fn;
use std::sync::Arc;

use secrecy::ExposeSecret;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use zeroize::Zeroizing;

use crate::adapter::{Event, Handler, Request};
use crate::router::{Declaration, Outbox, OutboxLimits, Refused, RequestId, Router, Session};
use crate::websocket::Frame;
use wire::command::{Role, Subscribe};
use wire::{DecodeLimits, Envelope, Pattern, Triple, decode, notice};
use wire::{ErrorCode, Refusal};

/// Requests that one handler works on at once, and events; the others wait in its outboxes.
const AT_ONCE: usize = 64;

/// Requests that wait for one handler. A call centre whose ten thousand applications come back at once asks for ten
/// thousand credentials; what is beyond is refused, and costs its asker alone.
const WAITING_MAX: OutboxLimits = OutboxLimits { messages: 1 << 16, bytes: 64 << 20, refuses: true };

/// What the router has to know of a handler's triples before anybody asks.
pub fn declaration(handler: &Arc<dyn Handler>) -> Declaration {
    let own = Arc::clone(handler);
    Declaration {
        serves: handler.serves(),
        failure_keys: handler.failure_keys(),
        refused: Box::new(move |refused| own.refused(&seen(refused), refused.refusal)),
    }
}

fn seen(refused: &Refused<'_>) -> Request {
    Request {
        triple: refused.triple.to_owned(),
        source: refused.source.to_owned(),
        user: refused.user.map(str::to_owned),
        session: refused.session.map(|session| session.to_string()).unwrap_or_default(),
        request_id: None,
        payload: None,
    }
}

/// A handler that is attached to a router.
pub struct Host {
    router: Arc<Router>,
    handler: Arc<dyn Handler>,
    member: Arc<Session>,
    /// Who hears events, where the handler hears any: with a queue of its own, so that events which wait for another
    /// system hold up no request.
    events: Option<Arc<Session>>,
}

impl Host {
    /// Attaches a handler: from here on its requests wait for it.
    ///
    /// # Errors
    /// What the router refuses of its patterns.
    pub fn attach(router: Arc<Router>, handler: Arc<dyn Handler>) -> Result<Self, Refusal> {
        let answers = Role::Handler { answers: true, ordered: false, replies: Vec::new() };
        let member = subscribed(&router, handler.serves(), &answers)?;
        let heard = handler.hears();
        let events = match heard.is_empty() {
            true => None,
            false => Some(subscribed(&router, heard, &Role::Subscriber)?),
        };
        Ok(Self { router, handler, member, events })
    }

    /// Answers requests, and hears events, until `stop`, each in a task of its own on `tasks`.
    pub async fn run(self, tasks: TaskTracker, stop: CancellationToken) {
        let host = Arc::new(self);
        let answering = host.take(&host.member, &tasks, &stop, |host, frame| async move { host.answer(frame).await });
        match &host.events {
            None => answering.await,
            Some(events) => {
                let hearing = host.take(events, &tasks, &stop, |host, frame| async move { host.hear(frame).await });
                tokio::join!(answering, hearing);
            }
        }
    }

    /// Takes what comes for a member, until `stop`.
    async fn take<W: Future<Output = ()> + Send + 'static>(
        self: &Arc<Self>,
        member: &Arc<Session>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
        work: impl Fn(Arc<Self>, Frame) -> W,
    ) {
        let at_once = Arc::new(Semaphore::new(AT_ONCE));
        let mut frames = Vec::new();
        loop {
            let Ok(permit) = Arc::clone(&at_once).acquire_owned().await else { return };
            tokio::select! {
                () = stop.cancelled() => break,
                () = poll_fn(|cx| member.outbox().poll_ready(cx)) => {
                    // Retained values are for applications; a handler wants what happens.
                    drop(member.outbox().take(Instant::now().into_std(), 1, &mut frames));
                }
            }
            // A warning that it lags, or that a request was cancelled, asks for nothing.
            let Some(frame) = frames.pop() else { continue };
            frames.clear();
            let work = work(Arc::clone(self), frame);
            tasks.spawn(async move {
                work.await;
                drop(permit);
            });
        }
        self.router.detach(Instant::now().into_std(), member);
    }

    async fn answer(&self, frame: Frame) {
        let Some(delivered) = Delivered::read(frame.text()) else { return };
        let asker = self.router.asker(delivered.id);
        let request = Request {
            triple: delivered.envelope.triple().to_owned(),
            source: delivered.envelope.source().unwrap_or_default().to_owned(),
            user: delivered.envelope.user().map(str::to_owned),
            session: asker.map(|session| session.to_string()).unwrap_or_default(),
            request_id: delivered.envelope.request_id().map(str::to_owned),
            payload: payload(&delivered.envelope),
        };
        if asker.is_none() {
            // Nobody waits any more: to answer would only keep those waiting who still do.
            let late = Refusal::new(ErrorCode::RequestTimeout, "the request ended before its turn came");
            self.handler.refused(&request, &late);
            return;
        }
        let triple = request.triple.clone();
        let id = delivered.id.to_string();
        let (answer, events) = match self.handler.handle(request).await {
            Ok(response) => match serde_json::from_str::<&RawValue>(response.data.expose_secret()) {
                Ok(data) => (notice::answer(&triple, &id, data), response.events),
                Err(_) => {
                    tracing::error!(%triple, "an adapter's answer is no JSON");
                    let failed = Refusal::new(ErrorCode::Internal, "the adapter failed; see the log");
                    (self.refuse(&triple, &id, &failed), Vec::new())
                }
            },
            Err(refusal) => (self.refuse(&triple, &id, &refusal), Vec::new()),
        };
        if let Ok(reply) = decode(&answer, DecodeLimits::OWN) {
            // The asker may have gone, or waited long enough.
            self.router.route(Instant::now().into_std(), &self.member, &reply).ok();
        }
        for event in events {
            self.publish(&event);
        }
    }

    fn refuse(&self, triple: &Triple<'_>, id: &str, refusal: &Refusal) -> Zeroizing<String> {
        Zeroizing::new(self.router.failure(triple, Some(id), refusal).text().to_owned())
    }

    /// Publishes an event: what the handler of a triple sends on it is one (protocol.md, rule 2).
    fn publish(&self, event: &Event) {
        let Event { triple, user, payload } = event;
        let published = Published {
            channel: &triple.channel,
            topic: &triple.topic,
            subtopic: &triple.subtopic,
            user: user.as_deref(),
            data: payload.as_deref(),
        };
        // Strings and raw JSON: nothing that JSON cannot say.
        let text = serde_json::to_string(&published).unwrap_or_default();
        let routed = match decode(&text, DecodeLimits::OWN) {
            Ok(envelope) => {
                self.router.route(Instant::now().into_std(), &self.member, &envelope).map_err(|it| it.refusal)
            }
            Err(malformed) => Err(malformed.refusal),
        };
        if let Err(refusal) = routed {
            tracing::warn!(%triple, %refusal, "an adapter's event was refused");
        }
    }

    async fn hear(&self, frame: Frame) {
        let Ok(envelope) = decode(frame.text(), DecodeLimits::OWN) else { return };
        if envelope.triple().is_broker() {
            // A warning that it lags.
            return;
        }
        let triple = envelope.triple().to_owned();
        let user = envelope.user().map(str::to_owned);
        let payload = payload(&envelope);
        self.handler.hear(Event { triple, user, payload }).await;
    }
}

/// A member of the router with subscriptions to some patterns.
fn subscribed(router: &Router, patterns: Vec<Pattern>, role: &Role) -> Result<Arc<Session>, Refusal> {
    let now = Instant::now().into_std();
    let member = router.attach_adapter(now, Outbox::new(WAITING_MAX));
    for pattern in patterns {
        let wanted = Subscribe::new(pattern, role.clone());
        router.subscribe(now, &member, &wanted, |_| None)?;
    }
    Ok(member)
}

fn payload(envelope: &Envelope<'_>) -> Option<Box<RawValue>> {
    envelope.payload().and_then(|raw| RawValue::from_string(raw.to_owned()).ok())
}

/// An event as it is published.
#[derive(Serialize)]
struct Published<'a> {
    channel: &'a str,
    topic: &'a str,
    subtopic: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
}

/// A request as it was delivered.
struct Delivered<'a> {
    envelope: Envelope<'a>,
    id: RequestId,
}

impl<'a> Delivered<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let envelope = decode(text, DecodeLimits::OWN).ok()?;
        let id = envelope.id()?.parse().ok()?;
        Some(Self { envelope, id })
    }
}
