//! [`decide`]: what a request is answered, as a pure function of its head. The checks run in the order of protocol.md,
//! Transport and handshake.

use hyper::header;
use hyper::{HeaderMap, Method, StatusCode, Version};

use super::admission::Cap;
use super::names;
use super::over_http::Endpoint;
use super::refusal::{Reason, Refusal};
use super::script::Script;
use super::tokens;
use super::upgrade;
use crate::config::Http;

/// After how many seconds a client that was refused for lack of room may try again.
const RETRY_AFTER_SECONDS: &str = "5";

/// Names of query parameters that may hold a token. URLs end up in logs and histories, so a token must not be in one.
const TOKEN_PARAMETERS: [&str; 4] = ["token", "access_token", "jwt", "auth"];

/// The head of a request, and whether there is room for a connection.
pub(super) struct Head<'a> {
    pub(super) method: &'a Method,
    pub(super) path: &'a str,
    pub(super) query: Option<&'a str>,
    /// The host of a request target in absolute form.
    pub(super) authority: Option<&'a str>,
    pub(super) version: Version,
    pub(super) headers: &'a HeaderMap,
    pub(super) busy: Option<Busy>,
}

/// Why there is no room for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Busy {
    Full(Cap),
    Draining,
}

/// How a request is answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// 101, with `Sec-WebSocket-Accept`, and our sub-protocol if it was offered.
    Upgrade { accept: String, subprotocol: bool },
    /// 200: what this server is.
    Probe,
    /// 204: a browser asks whether a page may send a request.
    Preflight,
    /// 200: a file of the JavaScript client.
    Script(Script),
    /// A message without a WebSocket, whose body is yet to be read.
    Call(Endpoint),
    /// An error status.
    Refuse(Refusal),
}

/// The paths that this server knows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Resource {
    Root,
    WebSocket,
    /// A file of the JavaScript client.
    Script(Script),
    /// HTTP without a WebSocket.
    Call(Endpoint),
}

impl Resource {
    fn of(path: &str) -> Option<Self> {
        match path {
            "/" => Some(Self::Root),
            "/ws" => Some(Self::WebSocket),
            _ => Script::at(path).map(Self::Script).or_else(|| Endpoint::of(path).map(Self::Call)),
        }
    }

    /// The methods that it has, as a header lists them.
    fn methods(self) -> &'static str {
        match self {
            Self::Root => "GET, HEAD, OPTIONS",
            Self::WebSocket | Self::Script(_) => "GET",
            Self::Call(_) => "POST",
        }
    }
}

/// Decides how to answer a request.
pub(super) fn decide(head: &Head<'_>, http: &Http) -> Decision {
    check(head, http).unwrap_or_else(Decision::Refuse)
}

/// The table of checks.
fn check(head: &Head<'_>, http: &Http) -> Result<Decision, Refusal> {
    let Some(resource) = Resource::of(head.path) else {
        let text = "there is nothing at this path; the WebSocket is at /ws";
        return Err(Refusal::new(StatusCode::NOT_FOUND, Reason::Path, text));
    };
    check_host(head, resource, http)?;
    check_origin(head.headers, resource, http)?;
    check_query(head, resource)?;
    match resource {
        Resource::WebSocket => drop(tokens::read(head.headers)?),
        Resource::Call(_) => drop(tokens::of_authorization(head.headers)?),
        Resource::Root | Resource::Script(_) => {}
    }
    check_method(head.method, resource)?;
    let decision = match resource {
        Resource::WebSocket => upgrade::check(head)?,
        Resource::Root if head.method == Method::OPTIONS => Decision::Preflight,
        Resource::Root => Decision::Probe,
        Resource::Script(script) => Decision::Script(script),
        Resource::Call(endpoint) => Decision::Call(endpoint),
    };
    check_room(head.busy)?;
    Ok(decision)
}

fn check_host(head: &Head<'_>, resource: Resource, http: &Http) -> Result<(), Refusal> {
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().ok(),
        (None, _) if head.version == Version::HTTP_10 && resource == Resource::Root => return Ok(()),
        (None | Some(_), _) => {
            let text = "a request needs exactly one Host header";
            return Err(Refusal::new(StatusCode::BAD_REQUEST, Reason::Host, text));
        }
    };
    let is_served = |host| names::is_served_host(host, http);
    if host.is_some_and(is_served) && head.authority.is_none_or(is_served) {
        return Ok(());
    }
    let text = "this Host is not served; use localhost or an IP address, or list the name in http.allowed_hosts";
    Err(Refusal::new(StatusCode::MISDIRECTED_REQUEST, Reason::Host, text).decided_by("http.allowed_hosts"))
}

fn check_origin(headers: &HeaderMap, resource: Resource, http: &Http) -> Result<(), Refusal> {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let Some(origin) = origins.next() else { return Ok(()) };
    let is_allowed = |origin: &str| match resource {
        Resource::Call(_) => names::is_listed_origin(origin, http),
        Resource::Root | Resource::WebSocket | Resource::Script(_) => names::is_allowed_origin(origin, http),
    };
    let origin = origin.to_str().ok().filter(|_| origins.next().is_none());
    if origin.is_some_and(is_allowed) {
        return Ok(());
    }
    let text = match resource {
        Resource::Call(_) => "this Origin may not call; list it in http.allowed_origins",
        Resource::Root | Resource::WebSocket | Resource::Script(_) => {
            "this Origin may not connect; loopback origins may, and those that http.allowed_origins lists"
        }
    };
    let refusal = Refusal::new(StatusCode::FORBIDDEN, Reason::Origin, text);
    // The log never advises to list what is not an origin.
    Err(if origin.is_some_and(names::can_be_listed) { refusal.decided_by("http.allowed_origins") } else { refusal })
}

fn check_query(head: &Head<'_>, resource: Resource) -> Result<(), Refusal> {
    let takes_token = matches!(resource, Resource::WebSocket | Resource::Call(_));
    let query = head.query.filter(|_| takes_token).unwrap_or_default();
    let names = query.split('&').map(|pair| pair.split('=').next().unwrap_or_default());
    if !names.map(decode).any(|name| TOKEN_PARAMETERS.iter().any(|token| name.eq_ignore_ascii_case(token.as_bytes()))) {
        return Ok(());
    }
    let text = match resource {
        Resource::Call(_) => "a token must not be in the URL; send it in the header Authorization",
        Resource::Root | Resource::WebSocket | Resource::Script(_) => {
            "a token must not be in the URL; send it in data.token of Broker/Application/Register, in the header \
             Authorization, or as the sub-protocol switchboard.token.<base64url>"
        }
    };
    Err(Refusal::new(StatusCode::BAD_REQUEST, Reason::Query, text))
}

/// Decodes the percent-encoding of a query. A percent sign without two hex digits stands for itself.
fn decode(mut text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    while let Some((before, after)) = text.split_once('%') {
        bytes.extend_from_slice(before.as_bytes());
        let digits = after.get(..2).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                text = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(b'%');
                text = after;
            }
        }
    }
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

fn check_method(method: &Method, resource: Resource) -> Result<(), Refusal> {
    let methods = resource.methods();
    if methods.split(", ").any(|known| known == method.as_str()) {
        return Ok(());
    }
    let refusal = Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        Reason::Method,
        format!("this path takes no other method than {methods}"),
    );
    Err(refusal.with(header::ALLOW, methods))
}

fn check_room(busy: Option<Busy>) -> Result<(), Refusal> {
    let refuse = |reason, text: String| {
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, reason, text).with(header::RETRY_AFTER, RETRY_AFTER_SECONDS)
    };
    match busy {
        None => Ok(()),
        Some(Busy::Draining) => {
            Err(refuse(Reason::Draining, "the broker is shutting down; try again later".to_owned()))
        }
        Some(Busy::Full(cap)) => {
            let reason = match cap {
                Cap::Connections | Cap::Unregistered => Reason::Cap,
                Cap::PerAddress => Reason::AddressCap,
            };
            let text = format!("too many connections; try again later, or raise {}", cap.key());
            Err(refuse(reason, text).decided_by(cap.key()))
        }
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::{HeaderName, HeaderValue};

    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    /// Decides on a browser's request for a WebSocket with these changes. An empty value removes a header; `:path`,
    /// `:version` and `:authority` change what is not a header.
    fn answer(method: &str, target: &str, changes: &[(&str, &str)], busy: Option<Busy>) -> Decision {
        let mut headers = HeaderMap::new();
        let usual = [
            ("host", "127.0.0.1:7420"),
            ("upgrade", "websocket"),
            ("connection", "keep-alive, Upgrade"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", KEY),
        ];
        for (name, value) in usual.iter().filter(|(name, _)| !changes.iter().any(|(changed, _)| changed == name)) {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        for (name, value) in changes.iter().filter(|(name, value)| !value.is_empty() && !name.starts_with(':')) {
            headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        let pseudo = |wanted| changes.iter().find(|(name, _)| *name == wanted).map(|(_, value)| *value);
        let http = Http { allowed_origins: vec!["https://crm.example.com".to_owned()], ..Http::default() };
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let version = if pseudo(":version") == Some("1.0") { Version::HTTP_10 } else { Version::HTTP_11 };
        let authority = pseudo(":authority");
        let method = method.parse().unwrap();
        decide(&Head { method: &method, path, query, authority, version, headers: &headers, busy }, &http)
    }

    fn status(method: &str, target: &str, changes: &[(&str, &str)]) -> u16 {
        match answer(method, target, changes, None) {
            Decision::Upgrade { .. } => 101,
            Decision::Probe | Decision::Script(_) => 200,
            Decision::Preflight => 204,
            // The call itself decides.
            Decision::Call(_) => 100,
            Decision::Refuse(refusal) => refusal.status.as_u16(),
        }
    }

    fn refusal(method: &str, target: &str, changes: &[(&str, &str)], busy: Option<Busy>) -> Refusal {
        match answer(method, target, changes, busy) {
            Decision::Refuse(refusal) => refusal,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn paths_and_methods() {
        for (method, target, expected) in [
            ("GET", "/ws", 101),
            ("HEAD", "/ws", 405),
            ("POST", "/ws", 405),
            ("OPTIONS", "/ws", 405),
            ("GET", "/", 200),
            ("HEAD", "/", 200),
            ("OPTIONS", "/", 204),
            ("POST", "/", 405),
            ("GET", "/switchboard.js", 200),
            ("GET", "/switchboard.global.js", 200),
            ("POST", "/switchboard.js", 405),
            ("POST", "/v1/publish", 100),
            ("POST", "/v1/request", 100),
            ("POST", "/v1/request/", 404),
            ("OPTIONS", "/v1/request", 405),
            ("GET", "/v1/publish", 405),
            ("GET", "/ws/", 404),
            ("GET", "/WS", 404),
            ("GET", "/../ws", 404),
            ("POST", "/other", 404),
            ("OPTIONS", "*", 404),
        ] {
            assert_eq!(status(method, target, &[]), expected, "{method} {target}");
        }
    }

    #[test]
    fn a_token_can_be_in_the_header_or_in_a_sub_protocol_once() {
        let (protocol, header) = ("sec-websocket-protocol", "authorization");
        for (changes, expected) in [
            (&[(header, "Bearer t")][..], 101),
            (&[(header, "bEARER t")], 101),
            (&[(header, "Bearer")], 101),
            (&[(header, "Basic dTpw")], 101),
            (&[(header, "Bearer t"), (header, "Bearer t")], 400),
            (&[(header, "Basic dTpw"), (header, "Bearer t")], 400),
            (&[(protocol, "switchboard.v1, switchboard.token.dA")], 101),
            (&[(protocol, "switchboard.token.dA"), (protocol, "switchboard.v1")], 101),
            (&[(protocol, "switchboard.v1,switchboard.token.dA"), (header, "Bearer other")], 101),
            (&[(protocol, "switchboard.token.dA")], 400),
            (&[(protocol, "switchboard.token.dA, chat")], 400),
            (&[(protocol, "switchboard.v1, switchboard.token.dA, switchboard.token.dA")], 400),
            (&[(protocol, "switchboard.v1, switchboard.token.dA==")], 400),
            (&[(protocol, "switchboard.v1, switchboard.token.d+/A")], 400),
            (&[(protocol, "switchboard.v1, switchboard.token._w")], 400),
            (&[(protocol, "switchboard.v1, switchboard.tokens")], 101),
        ] {
            assert_eq!(status("GET", "/ws", changes), expected, "{changes:?}");
        }
        let both = &[(protocol, "switchboard.token.dA"), ("origin", "null")];
        assert_eq!(refusal("GET", "/ws", both, None).reason, Reason::Origin);
    }

    /// Each request breaks its own rule and all that are checked later.
    #[test]
    fn the_first_rule_that_is_broken_decides() {
        let all = [
            (":path", "/other", Reason::Path),
            ("host", "", Reason::Host),
            ("host", "evil.example", Reason::Host),
            ("origin", "null", Reason::Origin),
            (":query", "token=t", Reason::Query),
            ("sec-websocket-protocol", "switchboard.token.dA", Reason::Token),
            (":method", "POST", Reason::Method),
            ("upgrade", "", Reason::Method),
        ];
        for (at, (.., expected)) in all.iter().enumerate() {
            let broken = &all[at..];
            let pseudo = |wanted| broken.iter().find(|(name, ..)| *name == wanted).map(|(_, value, _)| *value);
            let target = format!(
                "{}{}",
                pseudo(":path").unwrap_or("/ws"),
                pseudo(":query").map(|query| format!("?{query}")).unwrap_or_default()
            );
            // Only the first change of a header counts.
            let mut changes: Vec<(&str, &str)> = Vec::new();
            for (name, value, _) in broken {
                if !changes.iter().any(|(changed, _)| changed == name) {
                    changes.push((name, value));
                }
            }
            let refusal = refusal(pseudo(":method").unwrap_or("GET"), &target, &changes, Some(Busy::Draining));
            assert_eq!(refusal.reason, *expected, "{changes:?}: {}", refusal.text);
        }
    }

    #[test]
    fn hosts() {
        assert_eq!(status("GET", "/ws", &[("host", "localhost"), ("host", "evil.example")]), 400);
        assert_eq!(status("GET", "/ws", &[(":authority", "evil.example")]), 421);
        assert_eq!(status("GET", "/ws", &[(":authority", "localhost:7420")]), 101);
        for (target, version, expected) in
            [("/", "1.1", 400), ("/", "1.0", 200), ("/ws", "1.0", 400), ("/switchboard.js", "1.0", 400)]
        {
            assert_eq!(status("GET", target, &[("host", ""), (":version", version)]), expected, "{target} {version}");
        }
        assert_eq!(status("GET", "/", &[("host", "evil.example"), (":version", "1.0")]), 421);
    }

    #[test]
    fn only_listed_origins_may_call_over_http() {
        for (origin, page, call) in [
            ("http://localhost:3000", 200, 403),
            ("https://crm.example.com", 200, 100),
            ("null", 403, 403),
            ("", 200, 100),
        ] {
            assert_eq!(status("GET", "/", &[("origin", origin)]), page, "{origin}");
            assert_eq!(status("POST", "/v1/publish", &[("origin", origin)]), call, "{origin}");
        }
        assert_eq!(status("GET", "/ws", &[("origin", "http://localhost"), ("origin", "http://localhost")]), 403);
    }

    #[test]
    fn a_token_must_not_be_in_the_query_of_a_web_socket() {
        for (query, expected) in [
            ("", 101),
            ("from=gadget", 101),
            ("tokens=1&x=token", 101),
            ("%=1&%zz=token", 101),
            ("token=abc", 400),
            ("token", 400),
            ("a=b&TOKEN=abc", 400),
            ("Access_Token=abc", 400),
            ("jwt=abc", 400),
            ("auth=", 400),
            ("%74oken=abc", 400),
            ("acces%73%5Ftoken=abc", 400),
        ] {
            assert_eq!(status("GET", &format!("/ws?{query}"), &[]), expected, "{query}");
        }
        assert_eq!(status("GET", "/?token=abc", &[]), 200);
        assert_eq!(status("POST", "/v1/publish?token=abc", &[]), 400);
        let two = [("authorization", "Bearer one"), ("authorization", "Bearer two")];
        assert_eq!(status("POST", "/v1/publish", &two), 400);
    }

    #[test]
    fn what_a_web_socket_needs() {
        for (name, value, expected) in [
            ("upgrade", "", 426),
            ("upgrade", "h2c", 426),
            ("upgrade", "h2c, WebSocket", 101),
            ("connection", "", 426),
            ("connection", "close", 426),
            (":version", "1.0", 426),
            ("sec-websocket-version", "", 426),
            ("sec-websocket-version", "8", 426),
            ("sec-websocket-key", "", 400),
            ("sec-websocket-key", "c2hvcnQ=", 400),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25j*Q==", 400),
        ] {
            assert_eq!(status("GET", "/ws", &[(name, value)]), expected, "{name}: {value}");
        }
        assert!(refusal("GET", "/ws", &[("upgrade", "")], None).headers.contains(&(header::UPGRADE, "websocket")));
        // The sample of RFC 6455, section 1.3.
        let accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".to_owned();
        let plain = Decision::Upgrade { accept: accept.clone(), subprotocol: false };
        assert_eq!(answer("GET", "/ws", &[], None), plain);
        let offered = [("sec-websocket-protocol", "other, switchboard.v1")];
        assert_eq!(answer("GET", "/ws", &offered, None), Decision::Upgrade { accept, subprotocol: true });
    }

    #[test]
    fn a_refusal_names_the_key_that_decides() {
        for (changes, busy, key) in [
            ([("origin", "null")].as_slice(), None, "http.allowed_origins"),
            (&[("host", "evil.example")], None, "http.allowed_hosts"),
            (&[], Some(Busy::Full(Cap::Connections)), "limits.connections"),
            (&[], Some(Busy::Full(Cap::PerAddress)), "limits.connections_per_address"),
            (&[], Some(Busy::Full(Cap::Unregistered)), "limits.unregistered"),
        ] {
            let refusal = refusal("GET", "/ws", changes, busy);
            assert_eq!(refusal.key, Some(key));
            assert!(refusal.text.contains(key), "{}", refusal.text);
            let is_busy = refusal.headers == [(header::RETRY_AFTER, RETRY_AFTER_SECONDS)];
            assert_eq!((refusal.status.as_u16() == 503, is_busy), (busy.is_some(), busy.is_some()));
        }
        assert_eq!(refusal("GET", "/", &[], Some(Busy::Draining)).reason, Reason::Draining);
    }
}
