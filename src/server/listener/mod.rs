//! Listeners, and what happens to a connection: hyper reads the head of its requests and writes refusals and the probe;
//! a stream that may become a WebSocket is taken back from it, with what was read ahead, and served as a session.

mod stream;

use std::convert::Infallible;
use std::future::{Future, poll_fn, ready};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::TokioTimer;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::yield_now;
use tokio::time::{Instant, timeout};
use tracing::Instrument;

use self::stream::SilentUntilRequest;
use super::Broker;
use super::admission::Slot;
use super::handshake::{self, Decision, Head, Refusal};
use crate::connection::{self, Admission, Connection, Context, Upgraded};

/// Connections that the system keeps until they are accepted. A call centre's applications may come back all at once, and
/// one that finds no room tries again a second later (RFC 6298, section 2.1), so the bound is the system's own: it cuts
/// this to `net.core.somaxconn`, 4,096 on Linux. With 1,024 some of 5,000 waited that second.
const BACKLOG: i32 = 0xffff;

/// Bytes that the system may hold for a peer beyond what is on its way. Without a bound it holds 4 MiB, a thousand
/// messages that no limit of ours counts, and says only after a third of them that there is room again: a publisher that
/// waits 250 ms for a slow receiver would wait in vain.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNSENT_BYTES: u32 = 128 << 10;

/// How long a request's head may take, and how large it may be (protocol.md, Transport).
const HEAD_TIME: Duration = Duration::from_secs(10);
const HEAD_BYTES_MAX: usize = 16 << 10;

/// How long a connection keeps its turn while its head does not come.
const PROMPT: Duration = Duration::from_millis(5);

/// How long a connection may stay without becoming a WebSocket.
const HTTP_TIME: Duration = Duration::from_mins(1);

/// How long, and for how many bytes, a peer whose head was refused unread is still read from: the reset that follows
/// unread bytes would take the refusal away from it.
const LINGER_TIME: Duration = Duration::from_secs(5);
const LINGER_BYTES_MAX: u64 = 1 << 20;

/// Connections that are accepted between two turns of those who are there; each takes some 20 microseconds.
const ACCEPTED_AT_ONCE: u64 = 16;

/// The pause after a failed accept, doubled up to the second value.
const ACCEPT_PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// Opens a listener.
pub(super) fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // 0.0.0.0 and [::] may both be listened on only if the second leaves IPv4 alone.
        socket.set_only_v6(true)?;
    }
    // Elsewhere than on Unix it would let two brokers share an address.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    // Connections inherit it.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_notsent_lowat(UNSENT_BYTES)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts connections until the broker drains. No error ends it: they pass (EMFILE), or belong to a peer.
pub(super) async fn accept(listener: TcpListener, broker: Arc<Broker>) {
    let mut pause = ACCEPT_PAUSE.0;
    for number in 1_u64.. {
        if number.is_multiple_of(ACCEPTED_AT_ONCE) {
            yield_now().await;
        }
        let accepted = tokio::select! {
            () = broker.stopping.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                pause = ACCEPT_PAUSE.0;
                admit(&broker, stream, peer);
            }
            Err(error) if is_of_the_peer(&error) => {}
            Err(error) => {
                tracing::warn!(%error, ?pause, "could not accept a connection");
                timeout(pause, broker.stopping.cancelled()).await.ok();
                pause = (pause * 2).min(ACCEPT_PAUSE.1);
            }
        }
    }
}

fn is_of_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

fn admit(broker: &Arc<Broker>, stream: TcpStream, peer: SocketAddr) {
    let Some(seat) = broker.seats.take(peer.ip().to_canonical()) else {
        tracing::debug!(%peer, "dropped a connection far over limits.connections");
        return;
    };
    let span = tracing::info_span!("session", %peer, id = tracing::field::Empty, source = tracing::field::Empty);
    broker.sessions.spawn(connection(Arc::clone(broker), stream, peer, seat).instrument(span));
}

/// A connection from its first byte to its last. An idle session is little more than this future, so nothing of the
/// handshake is left in it.
#[expect(clippy::manual_async_fn, reason = "an async fn keeps room for its arguments twice: 128 bytes a session")]
fn connection(broker: Arc<Broker>, stream: TcpStream, peer: SocketAddr, seat: Slot) -> impl Future<Output = ()> {
    async move {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "the connection is gone already");
            return;
        }
        let serving = {
            let greeted = tokio::select! {
                // Boxed, and gone before the session begins, with hyper's state.
                greeted = Box::pin(in_turn(&broker.admission, greet(&broker, stream, &seat))) => greeted,
                () = broker.stopping.cancelled() => return,
            };
            let Some(upgraded) = greeted else { return };
            tracing::debug!("connected");
            let (now, settings) = (Instant::now().into_std(), Arc::clone(&broker.settings));
            let connection = Connection::new(now, peer.ip().to_canonical(), settings, rand::random());
            let context = Context {
                router: &broker.router,
                verifier: &*broker.verifier,
                admission: &broker.admission,
                shutdown: &broker.shutdown,
            };
            connection::serve(upgraded, connection, context)
        };
        let serving = pin!(serving);
        tokio::select! {
            () = serving => {}
            () = broker.ended.cancelled() => tracing::warn!("ended: it did not drain in time"),
        }
        tracing::debug!("disconnected");
    }
}

/// Greets in a turn of the crowd's: of those who come at once, so many between two turns of those who are there. Who takes
/// long keeps no place: it is the peer that is waited for then.
async fn in_turn<T>(admission: &Admission, greeting: impl Future<Output = T>) -> T {
    let mut greeting = pin!(greeting);
    let permit = admission.permit().await;
    if let Ok(greeted) = timeout(PROMPT, &mut greeting).await {
        return greeted;
    }
    drop(permit);
    greeting.await
}

/// The HTTP phase. `None`: it did not become a WebSocket.
async fn greet(broker: &Broker, stream: TcpStream, seat: &Slot) -> Option<Upgraded<TcpStream>> {
    let (understood, upgraded) = (AtomicBool::new(false), AtomicBool::new(false));
    let service = service_fn(|request: Request<hyper::body::Incoming>| {
        let decision = decide(broker, &request, seat);
        understood.store(true, Ordering::Relaxed);
        upgraded.store(matches!(decision, Decision::Upgrade { .. }), Ordering::Relaxed);
        ready(Ok::<_, Infallible>(respond(decision, request.headers())))
    });
    let mut http = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(SilentUntilRequest::new(stream, &understood), service);
    let served = timeout(HTTP_TIME, poll_fn(|cx| http.poll_without_shutdown(cx))).await.ok()?;
    let parts = http.into_parts();
    let mut stream = parts.io.into_inner();
    if let Err(error) = served {
        if !understood.load(Ordering::Relaxed) {
            refuse_head(stream, &error).await;
        }
        return None;
    }
    if !upgraded.load(Ordering::Relaxed) {
        stream.shutdown().await.ok();
        return None;
    }
    Some(Upgraded { stream, read_ahead: parts.read_buf })
}

/// Says why no request could be read, where there is somebody to hear it.
async fn refuse_head(mut stream: TcpStream, error: &hyper::Error) {
    let (status, text) = if error.is_timeout() {
        ("408 Request Timeout", "the head of a request has to come within 10 s\n")
    } else if error.is_parse_too_large() {
        ("431 Request Header Fields Too Large", "the head of a request may have 16 KiB\n")
    } else if error.is_parse() {
        ("400 Bad Request", "this is no request of HTTP/1.1, which a WebSocket begins with\n")
    } else {
        // The connection was lost.
        return;
    };
    tracing::debug!(status, "refused a head: {}", text.trim_end());
    let length = text.len();
    let response = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {length}\r\n\
         connection: close\r\n\r\n{text}"
    );
    let told = async {
        stream.write_all(response.as_bytes()).await?;
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(LINGER_BYTES_MAX), &mut tokio::io::sink()).await
    };
    timeout(LINGER_TIME, told).await.ok();
}

fn decide(broker: &Broker, request: &Request<hyper::body::Incoming>, seat: &Slot) -> Decision {
    let head = Head {
        method: request.method(),
        path: request.uri().path(),
        version: request.version(),
        headers: request.headers(),
        full: seat.full(),
    };
    let decision = handshake::decide(&head, &broker.http);
    if let Decision::Refuse(refusal) = &decision {
        tracing::debug!(status = refusal.status.as_u16(), "refused a request: {}", refusal.text);
    }
    decision
}

fn respond(decision: Decision, asked: &HeaderMap) -> Response<Full<Bytes>> {
    match decision {
        Decision::Upgrade { accept, subprotocol } => upgrade(&accept, subprotocol),
        Decision::Probe => probe(asked),
        Decision::Refuse(refusal) => refuse(refusal),
    }
}

fn upgrade(accept: &str, subprotocol: bool) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    // Base64 is always a header's value.
    if let Ok(accept) = HeaderValue::from_str(accept) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    if subprotocol {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(handshake::SUBPROTOCOL));
    }
    response
}

/// Tells a page whose WebSocket was blocked that the broker runs.
fn probe(asked: &HeaderMap) -> Response<Full<Bytes>> {
    let version = env!("CARGO_PKG_VERSION");
    let mut response =
        Response::new(format!(r#"{{"server":"switchboard","version":"{version}","protocol":1}}"#).into());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    // One request a connection: what cannot be read is then always the first, see `SilentUntilRequest`.
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    // An origin that came so far is allowed.
    if let Some(origin) = asked.get(header::ORIGIN) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    }
    response
}

fn refuse(refusal: Refusal) -> Response<Full<Bytes>> {
    let mut response = Response::new((refusal.text + "\n").into());
    *response.status_mut() = refusal.status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    // Whoever was refused asks again on a new connection, if at all.
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    for (name, value) in refusal.headers {
        headers.append(name, HeaderValue::from_static(value));
    }
    response
}
