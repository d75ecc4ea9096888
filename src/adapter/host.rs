//! [`Host`]: a [`Handler`] as an in-process subscriber. Requests come out of an outbox like any session's, answers go
//! back through the router like any reply: the router knows of no second way.

use std::sync::Arc;

use secrecy::ExposeSecret;
use serde_json::value::RawValue;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use zeroize::Zeroizing;

use crate::adapter::{Handler, Request};
use crate::envelope::command::{Role, Subscribe};
use crate::envelope::{DecodeLimits, Envelope, Triple, decode, notice};
use crate::error::{ErrorCode, Refusal};
use crate::router::{Declaration, Member, Outbox, OutboxLimits, Refused, RequestId, Router};

/// Requests that one handler works on at once; the others wait in its outbox.
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
        payload: None,
    }
}

/// A handler that is attached to a router.
pub struct Host {
    router: Arc<Router>,
    handler: Arc<dyn Handler>,
    member: Arc<Member>,
}

impl Host {
    /// Attaches a handler: from here on its requests wait for it.
    ///
    /// # Errors
    /// What the router refuses of its patterns.
    pub fn attach(router: Arc<Router>, handler: Arc<dyn Handler>) -> Result<Self, Refusal> {
        let now = Instant::now().into_std();
        let outbox = Arc::new(Outbox::new(WAITING_MAX));
        let member = router.attach_adapter(now, outbox);
        for pattern in handler.serves() {
            let role = Role::Handler { answers: true, ordered: false, replies: Vec::new() };
            let wanted = Subscribe { pattern, role, group: None, user: None, recover: false };
            router.subscribe(now, &member, &wanted, |_| None)?;
        }
        Ok(Self { router, handler, member })
    }

    /// Answers requests until `stop`, each in a task of its own on `tasks`.
    pub async fn run(self, tasks: TaskTracker, stop: CancellationToken) {
        let host = Arc::new(self);
        let at_once = Arc::new(Semaphore::new(AT_ONCE));
        let mut frames = Vec::new();
        loop {
            let Ok(permit) = Arc::clone(&at_once).acquire_owned().await else { return };
            tokio::select! {
                () = stop.cancelled() => break,
                () = host.member.outbox().ready() => host.member.outbox().take(1, &mut frames),
            }
            // A warning that it lags, or that a request was cancelled, asks for no answer.
            let Some(frame) = frames.pop() else { continue };
            frames.clear();
            let host = Arc::clone(&host);
            tasks.spawn(async move {
                host.answer(frame.text()).await;
                drop(permit);
            });
        }
        host.router.detach(Instant::now().into_std(), &host.member);
    }

    async fn answer(&self, text: &str) {
        let Some(delivered) = Delivered::read(text) else { return };
        let asker = self.router.asker(delivered.id);
        let request = Request {
            triple: delivered.envelope.triple().to_owned(),
            source: delivered.envelope.source().unwrap_or_default().to_owned(),
            user: delivered.envelope.user().map(str::to_owned),
            session: asker.map(|session| session.to_string()).unwrap_or_default(),
            payload: delivered.envelope.payload().and_then(|raw| RawValue::from_string(raw.to_owned()).ok()),
        };
        if asker.is_none() {
            // Nobody waits any more: to answer would only keep those waiting who still do.
            let late = Refusal::new(ErrorCode::RequestTimeout, "the request ended before its turn came");
            self.handler.refused(&request, &late);
            return;
        }
        let triple = request.triple.clone();
        let id = delivered.id.to_string();
        let answer = match self.handler.handle(request).await {
            Ok(response) => match serde_json::from_str::<&RawValue>(response.expose_secret()) {
                Ok(data) => notice::answer(&triple, &id, data),
                Err(_) => {
                    tracing::error!(%triple, "an adapter's answer is no JSON");
                    self.refuse(&triple, &id, &Refusal::new(ErrorCode::Internal, "the adapter failed; see the log"))
                }
            },
            Err(refusal) => self.refuse(&triple, &id, &refusal),
        };
        if let Ok(reply) = decode(&answer, DecodeLimits::OWN) {
            // The asker may have gone, or waited long enough.
            self.router.route(Instant::now().into_std(), &self.member, &reply).ok();
        }
    }

    fn refuse(&self, triple: &Triple<'_>, id: &str, refusal: &Refusal) -> Zeroizing<String> {
        Zeroizing::new(self.router.failure(triple, Some(id), refusal).text().to_owned())
    }
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
