//! [`answer`]: one HTTP request. hyper parses it and writes the response. A stream that becomes a WebSocket is taken back
//! from hyper, with what was read ahead.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout};
use zeroize::Zeroizing;

use super::head;
use super::stream::Replay;
use crate::config::Http;
use crate::connection::{HandshakeToken, Stage, Upgraded, network_of};
use crate::server::Broker;
use crate::server::admission::{Cap, Slot};
use crate::server::forwarded::client_address;
use crate::server::handshake::{self, Busy, Decision, Head};
use crate::server::names;
use crate::server::over_http::{self, Post};
use crate::server::refusal::{Reason, Refusal};
use crate::server::script::Script;
use crate::server::tokens;
use crate::server::upgrade;

/// How long a peer may take for its response.
const RESPONSE_TIME: Duration = Duration::from_secs(10);

/// How long, and for how many bytes, a peer is read after its response. Closing with unread bytes resets the connection,
/// which could destroy the response.
const LINGER_TIME: Duration = Duration::from_secs(5);
const LINGER_BYTES_MAX: u64 = 1 << 20;

/// How much of a peer's text the log shows.
const CHARS_SHOWN: usize = 200;

/// What a browser may keep the outcome of a preflight for, in seconds.
const PREFLIGHT_SECONDS: &str = "600";

/// A Chromium before 142 asks whether a public page may send a request to a private address.
const ASKS_PRIVATE_NETWORK: &str = "access-control-request-private-network";
const ALLOWS_PRIVATE_NETWORK: &str = "access-control-allow-private-network";

/// Who sent a request, and what is known of the connection.
#[derive(Clone, Copy)]
pub(super) struct Peer<'a> {
    pub(super) address: IpAddr,
    pub(super) slot: &'a Slot,
    pub(super) beyond: Option<Cap>,
    /// It is from an operating-system user that is not accepted.
    pub(super) is_foreign: bool,
}

/// What the head of a request says of the client.
pub(super) struct Client {
    /// The address of the connection, or the one that a trusted proxy names.
    pub(super) address: IpAddr,
    /// Whether a page of a browser sent it.
    pub(super) has_origin: bool,
    /// The token of its handshake.
    pub(super) token: Option<HandshakeToken>,
}

/// What became of a request.
pub(super) enum Answered<S> {
    /// It was upgraded.
    WebSocket(Upgraded<S>, Client),
    /// It is a message without a WebSocket, and its body is yet to be read.
    Call(Post<S>),
    /// It has its response; see [`linger`].
    Response(S),
    /// hyper did not understand it.
    NotUnderstood(S),
    /// The connection was lost.
    Lost,
}

/// Answers the request whose head is at the start of `ahead`.
pub(super) async fn answer<S>(broker: &Broker, peer: Peer<'_>, stream: S, ahead: Vec<u8>) -> Answered<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let in_force = broker.in_force.get();
    let (understood, upgraded, called) = (AtomicBool::new(false), Mutex::new(None), Mutex::new(None));
    let (ahead, body) = head::split_body(ahead);
    let service = service_fn(|request: Request<Incoming>| {
        let lines = request.headers().get_all(in_force.http.forwarded_header.name()).iter().map(HeaderValue::as_bytes);
        let address = client_address(peer.address, lines, &in_force.http);
        let decision = decide(broker, &in_force.http, Peer { address, ..peer }, &request);
        understood.store(true, Ordering::Relaxed);
        if matches!(decision, Decision::Upgrade { .. }) {
            let has_origin = request.headers().contains_key(header::ORIGIN);
            // `decide` has refused what cannot be read.
            let token = tokens::read(request.headers()).ok().flatten();
            *upgraded.lock() = Some(Client { address, has_origin, token });
        }
        let mut response = match decision {
            // hyper reads no body, and writes no response: the stream is taken back from it.
            Decision::Call(endpoint) => {
                let token = tokens::of_authorization(request.headers()).ok().flatten();
                let (version, headers) = (request.version(), request.headers());
                *called.lock() = Some((over_http::Head::read(endpoint, address, version, headers, token), request));
                None
            }
            decision => Some(respond(decision, &request, &in_force.http)),
        };
        poll_fn(move |_| response.take().map_or(Poll::Pending, |response| Poll::Ready(Ok::<_, Infallible>(response))))
    });
    let mut http = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(RESPONSE_TIME)
        // The head has been measured already, and more may have arrived with it.
        .max_buf_size(head::BYTES_MAX * 2)
        .max_headers(head::HEADERS_MAX)
        .serve_connection(TokioIo::new(Replay::new(ahead.into(), stream, &understood)), service);
    let serving = poll_fn(|cx| {
        let served = http.poll_without_shutdown(cx);
        if called.lock().is_some() { Poll::Ready(Ok(())) } else { served }
    });
    let Ok(served) = timeout(RESPONSE_TIME, serving).await else { return Answered::Lost };
    let parts = http.into_parts();
    let (stream, ahead) = parts.io.into_inner().into_inner();
    // With the request, whose end would let hyper read the body.
    if let Some((head, _request)) = called.lock().take() {
        let read = [body.as_slice(), &parts.read_buf, &ahead];
        return Answered::Call(Post { stream, ahead: Zeroizing::new(read.concat()), head });
    }
    match served {
        Ok(()) if let Some(client) = upgraded.lock().take() => {
            let read_ahead = if ahead.is_empty() { parts.read_buf } else { [parts.read_buf, ahead].concat().into() };
            Answered::WebSocket(Upgraded { stream, read_ahead }, client)
        }
        Ok(()) => Answered::Response(stream),
        Err(error) if error.is_parse() && !understood.load(Ordering::Relaxed) => Answered::NotUnderstood(stream),
        Err(_) => Answered::Lost,
    }
}

/// Refuses a head that hyper has not understood, or not seen.
pub(super) async fn refuse<S>(broker: &Broker, peer: Peer<'_>, mut stream: S, refusal: &Refusal)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    log(broker, peer, refusal, None);
    let (status, text) = (refusal.status, &refusal.text);
    let response = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{text}\n",
        text.len() + 1
    );
    if let Ok(Ok(())) = timeout(RESPONSE_TIME, stream.write_all(response.as_bytes())).await {
        linger(stream).await;
    }
}

/// Ends the outgoing half and waits until the peer has read its response.
pub(super) async fn linger<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    let read = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(LINGER_BYTES_MAX), &mut tokio::io::sink()).await
    };
    timeout(LINGER_TIME, read).await.ok();
}

fn decide(broker: &Broker, http: &Http, peer: Peer<'_>, request: &Request<Incoming>) -> Decision {
    // The address of a client behind a proxy is known only now; any other is counted already.
    let of_address = peer.slot.count_address(peer.address);
    let busy = match broker.shutdown.stage() {
        Stage::Serving => peer.beyond.or(of_address).map(Busy::Full),
        Stage::Draining | Stage::Closing => Some(Busy::Draining),
    };
    let head = Head {
        method: request.method(),
        path: request.uri().path(),
        query: request.uri().query(),
        authority: request.uri().authority().map(hyper::http::uri::Authority::as_str),
        version: request.version(),
        headers: request.headers(),
        busy,
    };
    let decision = handshake::decide(&head, http);
    if let Decision::Refuse(refusal) = &decision {
        log(broker, peer, refusal, Some(request));
    }
    decision
}

/// Logs a refusal, without the query, at most once a minute for each reason, status and address.
fn log(broker: &Broker, peer: Peer<'_>, refusal: &Refusal, request: Option<&Request<Incoming>>) {
    broker.metrics.refused.count(refusal.reason.counted());
    let Some(omitted) = count(broker, refusal.reason, Some(refusal.status), peer.address) else { return };
    let header = |name| request.and_then(|request| request.headers().get(name)).map(|value| shown(value.as_bytes()));
    tracing::info!(
        reason = refusal.reason.as_str(),
        status = refusal.status.as_u16(),
        address = %peer.address,
        path = request.map(|request| shown(request.uri().path().as_bytes())),
        host = header(header::HOST),
        origin = header(header::ORIGIN),
        key = refusal.key,
        omitted,
        "refused a request"
    );
}

/// Logs a connection that is dropped unanswered because it is far beyond a limit.
pub(super) fn log_dropped(broker: &Broker, address: IpAddr, cap: Cap) {
    let reason = Reason::Dropped;
    broker.metrics.refused.count(reason.counted());
    if let Some(omitted) = count(broker, reason, None, address) {
        tracing::info!(reason = reason.as_str(), %address, key = cap.key(), omitted, "dropped a connection");
    }
}

/// Logs a TLS handshake that failed, at most once a minute for each address.
pub(super) fn log_tls(broker: &Broker, peer: Peer<'_>, why: &str, what: &'static str) {
    broker.metrics.refused.count(Reason::Tls.counted());
    if let Some(omitted) = count(broker, Reason::Tls, None, peer.address) {
        tracing::info!(reason = why, address = %peer.address, omitted, "{what}");
    }
}

/// Returns how many lines about this cause were left out if one is to be logged.
fn count(broker: &Broker, reason: Reason, status: Option<StatusCode>, address: IpAddr) -> Option<u64> {
    broker.refusals.count(Instant::now().into_std(), (reason, status), network_of(address))
}

/// A peer's text, bounded and escaped.
fn shown(text: &[u8]) -> String {
    String::from_utf8_lossy(text).escape_debug().take(CHARS_SHOWN).collect()
}

fn respond(decision: Decision, request: &Request<Incoming>, http: &Http) -> Response<Full<Bytes>> {
    let mut response = match decision {
        Decision::Upgrade { accept, subprotocol } => return upgrade(&accept, subprotocol),
        Decision::Probe => probe(),
        Decision::Script(script) => served(script, request.headers()),
        Decision::Preflight => preflight(request.headers()),
        Decision::Refuse(refusal) => refused(refusal),
        // Its answer is written elsewhere.
        Decision::Call(_) => Response::default(),
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // One request per connection: what comes after it is never read as another one.
    headers.entry(header::CONNECTION).or_insert(HeaderValue::from_static("close"));
    if request.uri().path() == "/" {
        headers.insert(header::VARY, HeaderValue::from_static("Origin"));
        // With refusals too: a page that can read a refusal knows that it is not the origin that was refused.
        if let Some(origin) = allowed_origin(request.headers(), http) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        }
    }
    response
}

fn allowed_origin(headers: &HeaderMap, http: &Http) -> Option<HeaderValue> {
    let origin = only_origin(headers)?;
    origin.to_str().is_ok_and(|origin| names::is_allowed_origin(origin, http)).then(|| origin.clone())
}

/// The header `Origin`, if there is exactly one.
fn only_origin(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let (Some(origin), None) = (origins.next(), origins.next()) else { return None };
    Some(origin)
}

fn upgrade(accept: &str, subprotocol: bool) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    // Base64 is always valid in a header.
    if let Ok(accept) = HeaderValue::from_str(accept) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    if subprotocol {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(upgrade::SUBPROTOCOL));
    }
    response
}

/// Tells a page whose WebSocket was blocked that the broker runs.
fn probe() -> Response<Full<Bytes>> {
    let version = env!("CARGO_PKG_VERSION");
    let mut response =
        Response::new(format!(r#"{{"server":"switchboard","version":"{version}","protocol":1}}"#).into());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Returns a file of the JavaScript client. Only pages of this machine can use it: the script runs with the rights of the page
/// that loads it, and any program of the machine could have this port.
fn served(script: Script, asked: &HeaderMap) -> Response<Full<Bytes>> {
    let mut response = Response::new(script.text().into());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/javascript; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-site"));
    headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    if let Some(origin) = only_origin(asked).filter(|origin| origin.to_str().is_ok_and(names::is_loopback_origin)) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    }
    response
}

/// Tells a browser what a page may send. It matters only to a page whose origin is allowed.
fn preflight(asked: &HeaderMap) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    let methods = HeaderValue::from_static("GET, HEAD, OPTIONS");
    headers.insert(header::ALLOW, methods.clone());
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(PREFLIGHT_SECONDS));
    if asked.get(ASKS_PRIVATE_NETWORK).is_some_and(|asked| asked == "true") {
        headers.insert(ALLOWS_PRIVATE_NETWORK, HeaderValue::from_static("true"));
    }
    response
}

fn refused(refusal: Refusal) -> Response<Full<Bytes>> {
    let mut response = Response::new((refusal.text + "\n").into());
    *response.status_mut() = refusal.status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    for (name, value) in refusal.headers {
        headers.append(name, HeaderValue::from_static(value));
    }
    response
}
