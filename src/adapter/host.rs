//! [`Host`]: a [`Handler`] on the router. Requests come through the host's [`Door`], which keeps them in a fair queue;
//! answers go straight back to the router. Events come out of an outbox like any session's.
//!
//! A host lasts as long as the broker. When a reload changes what its handler serves, only its subscriptions change: its
//! queue stays, and with it the order of the requests that wait.

use std::future::poll_fn;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::fair::{Asker, Fair, Ticket};
use super::{Event, Given, Handler, Refused};
use crate::router::{Declaration, Door, Outbox, OutboxLimits, RequestId, Router, Session};
use crate::websocket::Frame;
use wire::command::{Role, Subscribe};
use wire::{DecodeLimits, Envelope, ErrorCode, Pattern, Refusal, decode};

pub use super::fair::Bounds;

/// Requests, and events, on which one handler works at once, of all askers together.
const AT_ONCE: usize = 64;

/// Events that wait for one handler.
const EVENTS_MAX: OutboxLimits = OutboxLimits { messages: 1 << 16, bytes: 64 << 20, refuses: true };

/// What the router has to know of a handler's triples before anybody asks.
pub fn declaration(handler: &Arc<dyn Handler>) -> Declaration {
    let own = Arc::clone(handler);
    Declaration {
        serves: handler.serves(),
        failure_keys: handler.failure_keys(),
        repeats: handler.repeats(),
        refused: Box::new(move |refused| own.refused(refused)),
    }
}

/// A handler that is attached to a router. A clone is the same host.
#[derive(Clone)]
pub struct Host(Arc<Attached>);

struct Attached {
    router: Arc<Router>,
    queue: Arc<Queue>,
    session: Arc<Session>,
    /// Receives events: with a queue of its own, so that events that wait for another system delay no request.
    events: Arc<Session>,
}

/// The requests that wait for a handler.
struct Queue {
    handler: Arc<dyn Handler>,
    /// With the time at which each was offered.
    fair: Mutex<Fair<(Given, Instant)>>,
    changed: Notify,
}

/// A request in flight. Dropped, it makes room for the next one.
struct InFlight {
    queue: Arc<Queue>,
    ticket: Option<Ticket>,
}

impl Door for Queue {
    fn offer(&self, given: Given) -> Result<(), Refusal> {
        let asker = match &given.user {
            Some(user) => Asker::User(user.clone()),
            None => Asker::Service(Box::from(&*given.source)),
        };
        let record = self.handler.record_key(&given);
        let order = record.map(|record| (given.session, given.triple.to_string().to_ascii_lowercase(), record));
        let id = given.id;
        match self.fair.lock().offer(asker, id, order, (given, Instant::now())) {
            Ok(()) => {
                self.changed.notify_one();
                Ok(())
            }
            Err(_) => Err(Refusal::new(
                ErrorCode::TooManyRequests,
                "too many requests of this user wait for the adapter; wait for answers, or cancel some",
            )),
        }
    }

    fn withdraw(&self, id: RequestId, why: &Refusal) {
        let withdrawn = self.fair.lock().withdraw(id);
        if let Some((given, _)) = withdrawn {
            self.handler.refused(&Refused {
                triple: &given.triple,
                source: &given.source,
                user: given.user.as_deref(),
                session: Some(given.session),
                address: given.address,
                refusal: why,
            });
        }
    }
}

impl Queue {
    /// Waits for the next request. Cancel-safe: one that is taken is returned.
    async fn next(self: &Arc<Self>) -> (InFlight, Given) {
        loop {
            let changed = self.changed.notified();
            if let Some((ticket, (mut given, offered))) = self.fair.lock().next() {
                given.waited = offered.elapsed();
                given.timeout = given.timeout.saturating_sub(given.waited);
                return (InFlight { queue: Arc::clone(self), ticket: Some(ticket) }, given);
            }
            changed.await;
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.queue.fair.lock().done(ticket);
            self.queue.changed.notify_one();
        }
    }
}

impl Host {
    /// Attaches a handler. From here on its requests wait for it.
    ///
    /// # Errors
    /// What the router refuses of its patterns.
    pub fn attach(router: Arc<Router>, handler: Arc<dyn Handler>, bounds: Bounds) -> Result<Self, Refusal> {
        let now = Instant::now().into_std();
        let queue = Arc::new(Queue { handler, fair: Mutex::new(Fair::new(bounds)), changed: Notify::new() });
        let session = router.attach_handler(now, Arc::clone(&queue) as _);
        let events = router.attach_adapter(now, Outbox::new(EVENTS_MAX));
        let host = Self(Arc::new(Attached { router, queue, session, events }));
        host.subscribe()?;
        Ok(host)
    }

    /// Subscribes to what the handler serves and receives now. What it is subscribed to already stays as it is.
    ///
    /// # Errors
    /// What the router refuses of its patterns; `NOT_REGISTERED` if the host has ended.
    pub fn subscribe(&self) -> Result<(), Refusal> {
        let Attached { router, queue, session, events } = &*self.0;
        let answers = Role::Handler { answers: true, ordered: false, replies: Vec::new() };
        subscribe(router, session, queue.handler.serves(), &answers)?;
        subscribe(router, events, queue.handler.hears(), &Role::Subscriber)
    }

    /// Ends the subscriptions to what the handler no longer serves or receives. It still answers the requests that it was
    /// given, those included that wait for it.
    pub fn unsubscribe(&self) {
        let Attached { router, queue, session, events } = &*self.0;
        unsubscribe(router, session, &queue.handler.serves());
        unsubscribe(router, events, &queue.handler.hears());
    }

    /// Puts other bounds in force.
    pub fn set_bounds(&self, bounds: Bounds) {
        self.0.queue.fair.lock().set_bounds(bounds);
        self.0.queue.changed.notify_one();
    }

    /// Returns the handler.
    pub fn handler(&self) -> &Arc<dyn Handler> {
        &self.0.queue.handler
    }

    /// Returns how many requests wait for the handler.
    pub fn waiting(&self) -> usize {
        self.0.queue.fair.lock().waiting()
    }

    /// Answers requests, and receives events, until `stop`, each in a task of its own on `tasks`.
    pub async fn run(self, tasks: TaskTracker, stop: CancellationToken) {
        let Self(host) = self;
        let publisher = Arc::clone(&host);
        let publish = move |event: Event| publisher.publish(&event);
        let work = stop.run_until_cancelled(host.queue.handler.work(&publish));
        tokio::join!(host.answer_requests(&tasks, &stop), host.receive_events(&tasks, &stop), work);
    }
}

impl Attached {
    async fn answer_requests(self: &Arc<Self>, tasks: &TaskTracker, stop: &CancellationToken) {
        let at_once = Arc::new(Semaphore::new(AT_ONCE));
        while let Ok(permit) = Arc::clone(&at_once).acquire_owned().await {
            let (in_flight, given) = tokio::select! {
                () = stop.cancelled() => break,
                next = self.queue.next() => next,
            };
            let host = Arc::clone(self);
            tasks.spawn(async move {
                host.answer(given).await;
                drop((in_flight, permit));
            });
        }
        self.router.detach(Instant::now().into_std(), &self.session);
    }

    async fn answer(&self, given: Given) {
        let (id, now) = (given.id, || Instant::now().into_std());
        // The requester may have gone, or waited long enough: then nobody gets the answer.
        match self.queue.handler.handle(given).await {
            Ok(response) => {
                self.router.answer(now(), &self.session, id, &response.data);
                response.events.iter().for_each(|event| self.publish(event));
            }
            Err(refusal) => {
                self.router.refuse(now(), &self.session, id, &refusal);
            }
        }
    }

    /// Publishes an event. It is one even if the handler no longer serves its triple, which may be another handler's by now.
    fn publish(&self, event: &Event) {
        let Event { triple, user, payload } = event;
        let published = Published {
            channel: &triple.channel,
            topic: &triple.topic,
            subtopic: &triple.subtopic,
            data: payload.as_deref(),
        };
        // Strings and raw JSON can always be written.
        let text = serde_json::to_string(&published).unwrap_or_default();
        let now = Instant::now().into_std();
        let announced = match decode(&text, DecodeLimits::OWN) {
            Ok(envelope) => self.router.announce(now, &self.session, &envelope, user.as_deref()),
            Err(malformed) => Err(malformed.refusal),
        };
        if let Err(refusal) = announced {
            tracing::warn!(%triple, %refusal, "an adapter's event was refused");
        }
    }

    async fn receive_events(self: &Arc<Self>, tasks: &TaskTracker, stop: &CancellationToken) {
        let session = &self.events;
        let at_once = Arc::new(Semaphore::new(AT_ONCE));
        let mut frames = Vec::new();
        while let Ok(permit) = Arc::clone(&at_once).acquire_owned().await {
            tokio::select! {
                () = stop.cancelled() => break,
                () = poll_fn(|cx| session.outbox().poll_ready(cx)) => {
                    // Retained values are for applications; a handler wants what happens.
                    drop(session.outbox().take(Instant::now().into_std(), 1, &mut frames));
                }
            }
            let Some(frame) = frames.pop() else { continue };
            frames.clear();
            let host = Arc::clone(self);
            tasks.spawn(async move {
                host.receive(frame).await;
                drop(permit);
            });
        }
        self.router.detach(Instant::now().into_std(), session);
    }

    async fn receive(&self, frame: Frame) {
        let Ok(envelope) = decode(frame.text(), DecodeLimits::OWN) else { return };
        if envelope.triple().is_broker() {
            return;
        }
        let triple = envelope.triple().to_owned();
        let user = envelope.user().map(str::to_owned);
        self.queue.handler.hear(Event { triple, user, payload: payload(&envelope) }).await;
    }
}

fn subscribe(router: &Router, session: &Arc<Session>, patterns: Vec<Pattern>, role: &Role) -> Result<(), Refusal> {
    for pattern in patterns {
        let wanted = Subscribe::new(pattern, role.clone());
        router.subscribe(Instant::now().into_std(), session, &wanted, |_| None)?;
    }
    Ok(())
}

/// Ends the subscriptions of a session to all but these patterns.
fn unsubscribe(router: &Router, session: &Arc<Session>, kept: &[Pattern]) {
    for subscription in router.subscriptions(session) {
        if !kept.contains(&subscription.pattern) {
            // It fails if the session has ended meanwhile, and its subscriptions with it.
            router.unsubscribe(Instant::now().into_std(), session, &subscription.id.to_string()).ok();
        }
    }
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
    data: Option<&'a RawValue>,
}
