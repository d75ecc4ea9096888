//! Connections: each is a task that reads calls, passes them to the org, and applies the faults to the answers.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::header::DATE;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::StartError;
use super::body::{Cut, Payload};
use super::call::Call;
use super::clock::{Clock, http_date};
use super::control;
use super::faults::{Effects, Faults};
use super::gadget::Signer;
use super::org::State;
use super::pubsub::{self, Bus};
use super::reply::Reply;
use super::seed::{Seed, SeedError};

/// Larger bodies of requests are refused.
const BODY_MAX: usize = 6 * 1024 * 1024;
/// The largest URI with headers; above it, hyper answers 431.
const HEAD_MAX: usize = 32 * 1024;
/// How many of the newest calls are remembered.
const SEEN_MAX: usize = 10_000;
const HANDSHAKE: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// An org and everything around it.
pub(super) struct Shared {
    pub(super) state: Mutex<State>,
    pub(super) faults: Mutex<Faults>,
    seen: Mutex<VecDeque<Seen>>,
    pub(super) clock: Clock,
    pub(super) bus: Bus,
    seed: Seed,
    scheme: &'static str,
    address: String,
    pub(super) ca_pem: Option<String>,
    pub(super) signer: Arc<Signer>,
    /// The tasks of connections and of transactions. A transaction is committed even if its caller has disconnected.
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
}

/// An answered call, except those of the control API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// The method.
    pub method: String,
    /// The path without the query, still percent-encoded.
    pub path: String,
    /// The status; 0 if the connection was ended instead.
    pub status: u16,
    /// The caller's name for itself: `client` of Sforce-Call-Options.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
}

impl Shared {
    /// An org at an address.
    pub(super) fn new(seed: Seed, address: SocketAddr, ca_pem: Option<String>) -> Result<Self, StartError> {
        let clock = Clock::default();
        let signer = Arc::new(Signer::new()?);
        Ok(Self {
            state: Mutex::new(State::new(seed.grow(clock.now())?, Arc::clone(&signer))),
            faults: Mutex::default(),
            seen: Mutex::default(),
            clock,
            bus: Bus::default(),
            seed,
            scheme: if ca_pem.is_some() { "https" } else { "http" },
            address: address.to_string(),
            ca_pem,
            signer,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        })
    }

    /// Its own address.
    pub(super) fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// The calls that were answered, oldest first.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().iter().cloned().collect()
    }

    /// The numbers of logins and of API calls.
    pub(super) fn counts(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.logins, state.calls_used)
    }

    /// Forgets the calls and resets the counts.
    pub(super) fn forget(&self) {
        self.seen.lock().clear();
        let mut state = self.state.lock();
        state.logins = 0;
        state.calls_used = 0;
    }

    /// Expires every access token.
    pub(super) fn expire_sessions(&self) {
        self.state.lock().sessions.end_all();
    }

    /// Resets everything to the seed.
    pub(super) fn reset(&self) -> Result<(), SeedError> {
        *self.state.lock() = State::new(self.seed.grow(self.clock.now())?, Arc::clone(&self.signer));
        self.faults.lock().clear();
        self.seen.lock().clear();
        self.bus.clear();
        Ok(())
    }

    /// Publishes a record on a topic as the first user, or says why it cannot.
    pub(super) fn publish(&self, topic: &str, record: &Map<String, Value>) -> Result<(), String> {
        let (schema, by) = {
            let state = self.state.lock();
            (Arc::clone(&state.schema), state.users.first().map(|user| user.id.clone()).unwrap_or_default())
        };
        self.bus.publish(self.clock.now(), &schema, topic, &by, record)
    }

    /// Records a call of the Pub/Sub API, whose outcome is in the trailers.
    pub(super) fn note_grpc(&self, path: &str) {
        self.remember(Seen { method: "POST".to_owned(), path: path.to_owned(), status: 200, client: None });
    }

    fn note(&self, call: &Call, status: u16) {
        let options = call.header("sforce-call-options").unwrap_or_default();
        // Documented with a semicolon between them, formerly with a comma.
        let client = options.split([';', ',']).find_map(|it| it.trim().strip_prefix("client="));
        self.remember(Seen {
            method: call.method.to_string(),
            path: call.path.clone(),
            status,
            client: client.map(ToOwned::to_owned),
        });
    }

    fn remember(&self, call: Seen) {
        let mut seen = self.seen.lock();
        if seen.len() >= SEEN_MAX {
            seen.pop_front();
        }
        seen.push_back(call);
    }

    /// The org's answer with the effects of the faults.
    fn answer(&self, call: &Call, effects: &Effects) -> Reply {
        let now = self.clock.now();
        let (reply, changes, schema) = {
            let mut state = self.state.lock();
            let reply = state.answer(now, call, effects.clone());
            (reply, std::mem::take(&mut state.changes), Arc::clone(&state.schema))
        };
        for change in changes {
            // Every object has a topic, and a row fits it.
            self.bus.tell(now, &schema, &change).ok();
        }
        self.note(call, if effects.reset { 0 } else { reply.status.as_u16() });
        reply
    }

    /// Like [`answer`](Self::answer), after the duration of the transaction. It is committed even if its caller has
    /// disconnected.
    async fn answer_in_time(self: &Arc<Self>, call: Call, effects: &Effects) -> io::Result<Reply> {
        let Some(span) = effects.transaction else { return Ok(self.answer(&call, effects)) };
        let (shared, effects) = (Arc::clone(self), effects.clone());
        let done = self.tasks.spawn(async move {
            let stopped = timeout(span, shared.stop.cancelled()).await.is_ok();
            if stopped { None } else { Some(shared.answer(&call, &effects)) }
        });
        done.await.ok().flatten().ok_or_else(|| io::Error::other(Cut))
    }
}

/// Accepts connections until it is stopped.
pub(super) async fn accept(
    shared: Arc<Shared>,
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    connections: TaskTracker,
) {
    loop {
        let accepted = tokio::select! {
            () = shared.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(connection(Arc::clone(&shared), stream, tls.clone()));
            }
            // Usually out of file descriptors.
            Err(_) => {
                timeout(ACCEPT_PAUSE, shared.stop.cancelled()).await.ok();
            }
        }
    }
}

async fn connection(shared: Arc<Shared>, stream: TcpStream, tls: Option<TlsAcceptor>) {
    stream.set_nodelay(true).ok();
    let stop = shared.stop.clone();
    let served = async {
        match tls {
            None => serve(shared, stream).await,
            Some(tls) => {
                // The handshake failed: the client does not trust the authority, or has gone away.
                let Ok(Ok(stream)) = timeout(HANDSHAKE, tls.accept(stream)).await else { return };
                Box::pin(serve(shared, stream)).await;
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = served => {}
    }
}

/// Serves HTTP/1.1 or HTTP/2, whichever the client begins with; HTTP/2 also without TLS, as gRPC does.
async fn serve<S: AsyncRead + AsyncWrite + Unpin + 'static>(shared: Arc<Shared>, stream: S) {
    let service = service_fn(|request: Request<Incoming>| {
        let shared = Arc::clone(&shared);
        async move {
            match pubsub::is_grpc(request.headers()) {
                true => Ok(pubsub::answer(shared, request).await),
                false => respond(&shared, request)
                    .await
                    .map(|it| it.map(|body| body.map_err(io::Error::other).boxed_unsync())),
            }
        }
    });
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).max_buf_size(HEAD_MAX);
    server.http2().timer(TokioTimer::new());
    // The outcome is ignored: a connection that a fault cuts on purpose ends with an error too.
    server.serve_connection(TokioIo::new(stream), service).await.ok();
}

async fn respond(shared: &Arc<Shared>, request: Request<Incoming>) -> io::Result<Response<Payload>> {
    let (parts, body) = request.into_parts();
    let body = match Limited::new(body, BODY_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return Err(io::Error::other("the body broke off, or is too large")),
    };
    let target = parts.uri.path_and_query().map_or("/", |it| it.as_str());
    // HTTP/2 names the host in the address.
    let authority = parts.uri.authority().map_or(shared.address.as_str(), |it| it.as_str());
    let base = (shared.scheme, authority);
    let Some(call) = Call::new(parts.method, target, parts.headers, body, base) else {
        return Ok(shaped(Reply::of(StatusCode::BAD_REQUEST, "text/html", Bytes::new()), false));
    };
    let below: Vec<&str> = call.segments.iter().map(String::as_str).collect();
    if let ["simulator", below @ ..] = below.as_slice() {
        return Ok(shaped(control::answer(shared, &call, below), false));
    }
    let effects = shared.faults.lock().meet(&call);
    if effects.lost {
        shared.note(&call, 0);
        return Err(io::Error::other(Cut));
    }
    if effects.reset && effects.transaction.is_some() {
        let late = Arc::clone(shared);
        shared.tasks.spawn(async move { late.answer_in_time(call, &effects).await.is_ok() });
        return Err(io::Error::other(Cut));
    }
    let reply = shared.answer_in_time(call, &effects).await?;
    if !effects.delay.is_zero() {
        timeout(effects.delay, shared.stop.cancelled()).await.ok();
    }
    if effects.reset {
        return Err(io::Error::other(Cut));
    }
    // The org's own time, which a test may have moved.
    Ok(shaped(reply.with(DATE, &http_date(shared.clock.now())), effects.cut))
}

fn shaped(reply: Reply, cut: bool) -> Response<Payload> {
    let mut response = Response::new(Payload::new(reply.body, cut));
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    response
}
