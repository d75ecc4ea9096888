//! Connections: each a task that reads calls, asks the org, and shapes the answer as the faults want it.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::header::DATE;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::body::{Cut, Payload};
use super::call::Call;
use super::clock::{Clock, http_date};
use super::control;
use super::faults::{Effects, Faults};
use super::org::State;
use super::reply::Reply;
use super::seed::{Seed, SeedError};
use super::tls;

/// Larger bodies of requests are refused.
const BODY_MAX: usize = 6 * 1024 * 1024;
/// URI and headers together; above it hyper answers 431.
const HEAD_MAX: usize = 32 * 1024;
/// Only the newest calls are remembered.
const SEEN_MAX: usize = 10_000;
const HANDSHAKE: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// An org with what surrounds it.
pub(super) struct Shared {
    pub(super) state: Mutex<State>,
    pub(super) faults: Mutex<Faults>,
    seen: Mutex<VecDeque<Seen>>,
    pub(super) clock: Clock,
    seed: Seed,
    scheme: &'static str,
    address: String,
    pub(super) ca_pem: Option<String>,
    pub(super) stop: CancellationToken,
}

/// A call that was answered; the control API's own are not among them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// The method.
    pub method: String,
    /// The path as it came, without the query.
    pub path: String,
    /// The status; 0 where the connection was ended instead.
    pub status: u16,
    /// What the caller calls itself: `client` of Sforce-Call-Options.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
}

impl Shared {
    /// An org at an address.
    pub(super) fn new(seed: Seed, address: SocketAddr, ca_pem: Option<String>) -> Result<Self, SeedError> {
        let clock = Clock::default();
        Ok(Self {
            state: Mutex::new(State::new(seed.grow(clock.now())?)),
            faults: Mutex::default(),
            seen: Mutex::default(),
            clock,
            seed,
            scheme: if ca_pem.is_some() { "https" } else { "http" },
            address: address.to_string(),
            ca_pem,
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

    /// How often someone logged in, and how many API calls there were.
    pub(super) fn counts(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.logins, state.calls_used)
    }

    /// Forgets the calls, and counts from nothing.
    pub(super) fn forget(&self) {
        self.seen.lock().clear();
        let mut state = self.state.lock();
        state.logins = 0;
        state.calls_used = 0;
    }

    /// Ends every access token.
    pub(super) fn expire_sessions(&self) {
        self.state.lock().sessions.end_all();
    }

    /// Begins anew.
    pub(super) fn reset(&self) -> Result<(), SeedError> {
        *self.state.lock() = State::new(self.seed.grow(self.clock.now())?);
        self.faults.lock().clear();
        self.seen.lock().clear();
        Ok(())
    }

    fn note(&self, call: &Call, status: u16) {
        let mut seen = self.seen.lock();
        if seen.len() >= SEEN_MAX {
            seen.pop_front();
        }
        let options = call.header("sforce-call-options").unwrap_or_default();
        // Documented with a semicolon between them, formerly with a comma.
        let client = options.split([';', ',']).find_map(|it| it.trim().strip_prefix("client="));
        seen.push_back(Seen {
            method: call.method.to_string(),
            path: call.path.clone(),
            status,
            client: client.map(ToOwned::to_owned),
        });
    }

    /// The org's answer, and what the faults make of it.
    fn answer(&self, call: &Call) -> (Reply, Effects) {
        let below: Vec<&str> = call.segments.iter().map(String::as_str).collect();
        if let ["simulator", below @ ..] = below.as_slice() {
            return (control::answer(self, call, below), Effects::default());
        }
        let effects = self.faults.lock().meet(call);
        let reply = self.state.lock().answer(self.clock.now(), call, effects.clone());
        self.note(call, if effects.reset { 0 } else { reply.status.as_u16() });
        (reply, effects)
    }
}

/// Takes connections until it is stopped.
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
            // Out of file descriptors, mostly.
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
            None => serve(&shared, stream).await,
            Some(tls) => {
                // No handshake: a client that does not trust the authority, or went away.
                let Ok(Ok(stream)) = timeout(HANDSHAKE, tls.accept(stream)).await else { return };
                match stream.get_ref().1.alpn_protocol() {
                    Some(tls::HTTP_2) => Box::pin(serve_http_2(&shared, stream)).await,
                    _ => Box::pin(serve(&shared, stream)).await,
                }
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = served => {}
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(shared: &Shared, stream: S) {
    let service = service_fn(|request| respond(shared, request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .max_buf_size(HEAD_MAX)
        .serve_connection(TokioIo::new(stream), service);
    // How a connection ended is the client's affair; a cut on demand ends it with an error.
    connection.await.ok();
}

async fn serve_http_2<S: AsyncRead + AsyncWrite + Unpin>(shared: &Arc<Shared>, stream: S) {
    let service = service_fn(|request| {
        let shared = Arc::clone(shared);
        async move { respond(&shared, request).await }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service);
    connection.await.ok();
}

async fn respond(shared: &Shared, request: Request<Incoming>) -> io::Result<Response<Payload>> {
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
    let (reply, effects) = shared.answer(&call);
    if !effects.delay.is_zero() {
        timeout(effects.delay, shared.stop.cancelled()).await.ok();
    }
    if effects.reset {
        return Err(io::Error::other(Cut));
    }
    // The org's own time, which may be off on purpose.
    Ok(shaped(reply.with(DATE, &http_date(shared.clock.now())), effects.cut))
}

fn shaped(reply: Reply, cut: bool) -> Response<Payload> {
    let mut response = Response::new(Payload::new(reply.body, cut));
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    response
}
