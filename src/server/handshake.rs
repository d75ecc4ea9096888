//! Whether a request may become a WebSocket: [`decide`], a pure function over its head.
//!
//! The order of the checks is protocol.md's: path, `Host` (against DNS rebinding), `Origin` (or every page that an agent
//! opens could ask for the agent's password), then what RFC 6455, section 4.2.1 asks for, then room.

use std::net::{Ipv4Addr, Ipv6Addr};

use hyper::header::{self, HeaderName};
use hyper::{HeaderMap, Method, StatusCode, Version};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::config::Http;

/// Where the WebSocket is.
pub(super) const PATH: &str = "/ws";

/// The sub-protocol that is echoed when it is offered.
pub(super) const SUBPROTOCOL: &str = "switchboard.v1";

/// The one version there is (RFC 6455, section 4.4).
pub(super) const VERSION: &str = "13";

/// How much of a refused `Origin` the log shows.
const ORIGIN_CHARS_SHOWN: usize = 200;

/// The head of a request, and whether there is room.
pub(super) struct Head<'a> {
    pub(super) method: &'a Method,
    pub(super) path: &'a str,
    pub(super) version: Version,
    pub(super) headers: &'a HeaderMap,
    /// The configuration key of the limit that the connection is beyond.
    pub(super) full: Option<&'static str>,
}

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// 101: `Sec-WebSocket-Accept`, and whether our sub-protocol was offered.
    Upgrade { accept: String, subprotocol: bool },
    /// 200: the probe.
    Probe,
    /// An error status.
    Refuse(Refusal),
}

/// Why a request was refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// One line: why, and the configuration key where one decides.
    pub(super) text: String,
    pub(super) headers: Vec<(HeaderName, &'static str)>,
}

fn refuse(status: StatusCode, text: impl Into<String>, headers: &[(HeaderName, &'static str)]) -> Decision {
    Decision::Refuse(Refusal { status, text: text.into(), headers: headers.to_vec() })
}

/// Decides on a request.
pub(super) fn decide(head: &Head<'_>, http: &Http) -> Decision {
    if head.path != PATH && head.path != "/" {
        return refuse(StatusCode::NOT_FOUND, "nothing is here: the WebSocket is at /ws", &[]);
    }
    if let Some(refused) = refuse_host(head.headers, http).or_else(|| refuse_origin(head.headers, http)) {
        return refused;
    }
    if head.path == PATH { decide_upgrade(head) } else { decide_probe(head.method) }
}

fn refuse_host(headers: &HeaderMap, http: &Http) -> Option<Decision> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return Some(refuse(StatusCode::BAD_REQUEST, "a request needs one Host header", &[]));
    };
    let name = host.to_str().ok().and_then(host_name);
    let served = name.is_some_and(|name| {
        is_loopback(name) || http.allowed_hosts.iter().any(|allowed| bare(allowed).eq_ignore_ascii_case(bare(name)))
    });
    (!served).then(|| {
        let text = "this Host is not served: a loopback name or address is, or a name listed in http.allowed_hosts";
        refuse(StatusCode::MISDIRECTED_REQUEST, text, &[])
    })
}

fn refuse_origin(headers: &HeaderMap, http: &Http) -> Option<Decision> {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let origin = origins.next()?;
    let allowed = origins.next().is_none() && origin.to_str().is_ok_and(|origin| is_allowed(origin, http));
    if allowed {
        return None;
    }
    // Escaped and bounded: it is a stranger's text.
    let shown: String = String::from_utf8_lossy(origin.as_bytes()).escape_debug().take(ORIGIN_CHARS_SHOWN).collect();
    tracing::info!(origin = shown, key = "http.allowed_origins", "refused an origin that the key does not list");
    let text = "this Origin may not connect: a loopback origin may, or one listed in http.allowed_origins";
    Some(refuse(StatusCode::FORBIDDEN, text, &[]))
}

/// Origins are compared as browsers write them (RFC 6454, section 6.1): no path, no default port.
fn is_allowed(origin: &str, http: &Http) -> bool {
    http.allowed_origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)) || is_loopback_origin(origin)
}

fn is_loopback_origin(origin: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let web = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    web && host_name(authority).is_some_and(is_loopback)
}

/// The host of `host` or `host:port`, with the brackets of an IPv6 address; `None` for anything else.
fn host_name(authority: &str) -> Option<&str> {
    let name_len = match authority.strip_prefix('[') {
        Some(rest) => rest.find(']')? + 2,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (name, rest) = authority.split_at_checked(name_len)?;
    let port_is_fine = rest.strip_prefix(':').map_or(rest.is_empty(), |port| port.parse::<u16>().is_ok());
    (port_is_fine && !name.is_empty()).then_some(name)
}

/// A loopback name or address. The name is `localhost` alone: anybody can point another one at 127.0.0.1.
fn is_loopback(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
        || (name.starts_with('[') && bare(name).parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback()))
}

fn bare(name: &str) -> &str {
    name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name)
}

fn decide_probe(method: &Method) -> Decision {
    if method == Method::GET || method == Method::HEAD {
        return Decision::Probe;
    }
    let text = "only GET and HEAD are answered here: the WebSocket is at /ws";
    refuse(StatusCode::METHOD_NOT_ALLOWED, text, &[(header::ALLOW, "GET, HEAD")])
}

fn decide_upgrade(head: &Head<'_>) -> Decision {
    let headers = head.headers;
    if head.method != Method::GET {
        let text = "a WebSocket is opened by GET";
        return refuse(StatusCode::METHOD_NOT_ALLOWED, text, &[(header::ALLOW, "GET")]);
    }
    let upgrades = head.version >= Version::HTTP_11
        && has_token(headers, &header::UPGRADE, "websocket")
        && has_token(headers, &header::CONNECTION, "upgrade");
    if !upgrades {
        return upgrade_required("this is a WebSocket: connect with a WebSocket client");
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version.as_bytes() != VERSION.as_bytes()) {
        return upgrade_required("Sec-WebSocket-Version has to be 13");
    }
    let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY).filter(|key| is_key(key.as_bytes())) else {
        return refuse(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key has to be 16 bytes in base64", &[]);
    };
    if let Some(limit) = head.full {
        let text = format!("too many connections ({limit}): try again later");
        return refuse(StatusCode::SERVICE_UNAVAILABLE, text, &[(header::RETRY_AFTER, "5")]);
    }
    let subprotocol = has_token(headers, &header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL);
    Decision::Upgrade { accept: derive_accept_key(key.as_bytes()), subprotocol }
}

fn upgrade_required(text: &str) -> Decision {
    let headers =
        [(header::UPGRADE, "websocket"), (header::CONNECTION, "upgrade"), (header::SEC_WEBSOCKET_VERSION, VERSION)];
    refuse(StatusCode::UPGRADE_REQUIRED, text, &headers)
}

/// Whether a header that is a list has the token.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(token))
}

/// 16 bytes in base64: 22 digits and two equals signs.
fn is_key(key: &[u8]) -> bool {
    let Some((digits, b"==")) = key.split_last_chunk::<2>().map(|(digits, end)| (digits, end.as_slice())) else {
        return false;
    };
    digits.len() == 22 && digits.iter().all(|digit| digit.is_ascii_alphanumeric() || b"+/".contains(digit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    /// The head of a browser's request for a WebSocket, changed by `changes`: an empty value takes a header away.
    fn check(method: &str, path: &str, changes: &[(&str, &str)], full: Option<&'static str>) -> Decision {
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
        for (name, value) in changes.iter().filter(|(_, value)| !value.is_empty()) {
            headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        let http = Http {
            allowed_origins: vec!["https://crm.example.com".to_owned(), "chrome-extension://abc".to_owned()],
            allowed_hosts: vec!["switchboard.example.com".to_owned(), "[2001:db8::1]".to_owned()],
        };
        let method = method.parse().unwrap();
        decide(&Head { method: &method, path, version: Version::HTTP_11, headers: &headers, full }, &http)
    }

    fn status(method: &str, path: &str, changes: &[(&str, &str)]) -> u16 {
        match check(method, path, changes, None) {
            Decision::Upgrade { .. } => 101,
            Decision::Probe => 200,
            Decision::Refuse(refusal) => refusal.status.as_u16(),
        }
    }

    #[test]
    fn paths_and_methods() {
        for (method, path, expected) in [
            ("GET", "/ws", 101),
            ("HEAD", "/ws", 405),
            ("POST", "/ws", 405),
            ("OPTIONS", "/ws", 405),
            ("GET", "/", 200),
            ("HEAD", "/", 200),
            ("POST", "/", 405),
            ("GET", "/ws/", 404),
            ("GET", "/WS", 404),
            ("GET", "/../ws", 404),
            ("POST", "/other", 404),
        ] {
            assert_eq!(status(method, path, &[]), expected, "{method} {path}");
        }
    }

    #[test]
    fn hosts() {
        for (host, expected) in [
            ("localhost", 101),
            ("LOCALHOST:7420", 101),
            ("127.0.0.1", 101),
            ("127.255.0.1:80", 101),
            ("[::1]:7420", 101),
            ("[::1]", 101),
            ("switchboard.example.com", 101),
            ("Switchboard.Example.com:443", 101),
            ("[2001:db8::1]:443", 101),
            ("", 400),
            ("evil.example", 421),
            ("localhost.evil.example", 421),
            ("127.0.0.1.evil.example", 421),
            ("sub.switchboard.example.com", 421),
            ("128.0.0.1", 421),
            ("127.1", 421),
            ("::1", 421),
            ("[::1", 421),
            ("[::1]x", 421),
            ("[localhost]", 421),
            ("localhost:", 421),
            ("localhost:99999", 421),
            ("user@localhost", 421),
            ("localhost, evil.example", 421),
            (":7420", 421),
            ("h\u{f6}st", 421),
        ] {
            assert_eq!(status("GET", "/ws", &[("host", host)]), expected, "{host}");
        }
        assert_eq!(status("GET", "/ws", &[("host", "localhost"), ("host", "evil.example")]), 400);
    }

    #[test]
    fn origins() {
        for (origin, expected) in [
            ("", 101),
            ("http://localhost", 101),
            ("http://localhost:3000", 101),
            ("https://127.0.0.1:8443", 101),
            ("http://[::1]:3000", 101),
            ("HTTPS://CRM.example.com", 101),
            ("https://crm.example.com", 101),
            ("chrome-extension://abc", 101),
            ("null", 403),
            ("file://", 403),
            ("http://crm.example.com", 403),
            ("https://crm.example.com:8443", 403),
            ("https://crm.example.com.evil.example", 403),
            ("https://evil.example", 403),
            ("http://localhost.evil.example", 403),
            ("http://localhost@evil.example", 403),
            ("http://evil.example/localhost", 403),
            ("ftp://localhost", 403),
            ("localhost", 403),
            ("http://localhost http://evil.example", 403),
        ] {
            for path in ["/ws", "/"] {
                let expected = if path == "/" && expected == 101 { 200 } else { expected };
                assert_eq!(status("GET", path, &[("origin", origin)]), expected, "{origin} {path}");
            }
        }
        assert_eq!(status("GET", "/ws", &[("origin", "http://localhost"), ("origin", "https://evil.example")]), 403);
    }

    #[test]
    fn what_a_websocket_asks_for() {
        for (name, value, expected) in [
            ("upgrade", "", 426),
            ("upgrade", "h2c", 426),
            ("upgrade", "h2c, WebSocket", 101),
            ("connection", "", 426),
            ("connection", "close", 426),
            ("sec-websocket-version", "", 426),
            ("sec-websocket-version", "8", 426),
            ("sec-websocket-key", "", 400),
            ("sec-websocket-key", "c2hvcnQ=", 400),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25j*Q==", 400),
        ] {
            assert_eq!(status("GET", "/ws", &[(name, value)]), expected, "{name}: {value}");
        }
        // The sample of RFC 6455, section 1.3.
        let accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".to_owned();
        assert_eq!(check("GET", "/ws", &[], None), Decision::Upgrade { accept: accept.clone(), subprotocol: false });
        let offered = [("sec-websocket-protocol", "other, switchboard.v1")];
        assert_eq!(check("GET", "/ws", &offered, None), Decision::Upgrade { accept, subprotocol: true });
    }

    #[test]
    fn a_refusal_says_why_and_names_the_key() {
        let refused = |changes: &[(&str, &str)], full| match check("GET", "/ws", changes, full) {
            Decision::Refuse(refusal) => refusal,
            other => panic!("{other:?}"),
        };
        assert!(refused(&[("origin", "null")], None).text.contains("http.allowed_origins"));
        assert!(refused(&[("host", "evil.example")], None).text.contains("http.allowed_hosts"));
        let full = refused(&[], Some("limits.connections"));
        assert_eq!(full.status, 503);
        assert!(full.text.contains("limits.connections"));
        assert_eq!(full.headers, [(header::RETRY_AFTER, "5")]);
        assert!(refused(&[("upgrade", "")], None).headers.contains(&(header::UPGRADE, "websocket")));
    }
}
