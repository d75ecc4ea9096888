//! Who may make a call. The checks run in this order: `Host`, `Origin`, `Sec-Fetch-Site`, type of the body, token, right.
//!
//! The first four keep pages of a browser away: those of foreign origins, and those behind a name that was rebound to this
//! address. There is no CORS, and a page on loopback has no privilege.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, FORWARDED, HOST, HeaderName, ORIGIN};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::body::Body as _;
use secrecy::SecretString;
use tokio::time::{Instant, sleep_until};

use wire::ErrorCode;

use super::acts::{self, Act};
use super::console;
use super::problem::{Code, Problem};
use super::{Admin, Shared};
use crate::auth::hash_token;
use crate::config::{Http, May};
use crate::server::forwarded::client_address;
use crate::server::listener::Remote;
use crate::server::names;

/// Says from where a browser sends a request.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// How long an answer that does not end outlives the token of its caller.
const REVOKED_WITHIN: Duration = Duration::from_secs(1);

/// Who may make a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Right {
    /// No token is needed.
    Anyone,
    /// A valid token.
    Read,
    /// A valid token; or, without a token, a program on this host of an accepted operating-system user.
    ReadOrSameUser,
    /// A token that may act. Each such call is an [`Act`].
    Act,
    /// A code in the body, which the call checks itself.
    Code,
}

/// The connection of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    /// The address of the broker's end.
    pub(super) local: SocketAddr,
    pub(super) is_encrypted: bool,
}

/// Who makes a call, once the token is verified.
#[derive(Clone)]
pub(super) struct Caller {
    /// The name of the token.
    pub(super) name: Arc<str>,
    pub(super) may: May,
    /// The address of the client, behind trusted proxies too.
    pub(super) address: IpAddr,
    /// The hash of the token.
    pub(super) token_hash: [u8; 32],
    /// The token is a key of a page of the console.
    pub(super) is_page: bool,
}

/// A valid token.
struct Known {
    name: Arc<str>,
    may: May,
    is_page: bool,
}

/// Checks the head of a request, and which type its body has.
pub(super) async fn check_request(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let is_encrypted = parts.extensions.get::<Peer>().is_some_and(|peer| peer.is_encrypted);
    let in_force = shared.broker.in_force.get();
    match check_head(&parts, !body.is_end_stream(), is_encrypted, &in_force.http) {
        Ok(()) => next.run(Request::from_parts(parts, body)).await,
        Err(problem) => {
            tracing::debug!(path = parts.uri.path(), code = problem.code.as_str(), "refused a call of the admin API");
            problem.into_response()
        }
    }
}

fn check_head(parts: &Parts, has_body: bool, is_encrypted: bool, http: &Http) -> Result<(), Problem> {
    let host = check_host(parts, http)?;
    check_origin(&parts.headers, host, is_encrypted)?;
    let mut sites = parts.headers.get_all(SEC_FETCH_SITE).iter();
    // A link on another page may open the console, as the file of `switchboard console` does.
    let is_file = parts.method.is_safe() && console::is_file(parts.uri.path());
    if !is_file && !sites.all(|site| site == "same-origin" || site == "none") {
        return Err(Problem::new(ErrorCode::Forbidden, "a page of another site may not call the admin API"));
    }
    if has_body && !is_json(&parts.headers) {
        return Err(Problem::new(
            Code::UnsupportedMediaType,
            "a body needs the header 'Content-Type: application/json'",
        ));
    }
    Ok(())
}

/// Returns the host that was asked for.
fn check_host<'a>(parts: &'a Parts, http: &Http) -> Result<&'a str, Problem> {
    let host = single(&parts.headers, &HOST).ok().flatten().filter(|host| names::is_served_host(host, http));
    let is_served = |authority: &str| names::is_served_host(authority, http);
    match host {
        Some(host) if parts.uri.authority().is_none_or(|it| is_served(it.as_str())) => Ok(host),
        Some(_) | None => Err(Problem::new(
            Code::MisdirectedRequest,
            "this Host is not served; use localhost or an IP address, or list the name in http.allowed_hosts",
        )),
    }
}

/// An origin is the listener's own if it has the host that was asked for. Behind a proxy that ends TLS, its scheme is https
/// although the listener's is not.
fn check_origin(headers: &HeaderMap, host: &str, is_encrypted: bool) -> Result<(), Problem> {
    let is_own = |origin: &str| {
        let of_scheme = |scheme| origin.strip_prefix(scheme).is_some_and(|own| own.eq_ignore_ascii_case(host));
        of_scheme("https://") || (!is_encrypted && of_scheme("http://"))
    };
    match single(headers, &ORIGIN) {
        Ok(None) => Ok(()),
        Ok(Some(origin)) if is_own(origin) => Ok(()),
        Ok(Some(_)) | Err(Unclear) => {
            Err(Problem::new(ErrorCode::Forbidden, "a page of this Origin may not call the admin API"))
        }
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let media_type = single(headers, &CONTENT_TYPE).ok().flatten().and_then(|it| it.split(';').next());
    media_type.is_some_and(|it| it.trim().eq_ignore_ascii_case("application/json"))
}

/// A header that is there twice, or is not text.
struct Unclear;

/// Returns the value of a header, if it is there.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Unclear> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| Unclear),
        (Some(_), Some(_)) => Err(Unclear),
    }
}

/// Checks who makes a call, and whether this caller may. Records an act.
pub(super) async fn check_caller(
    State((shared, right)): State<(Shared, Right)>,
    mut request: Request,
    next: Next,
) -> Response {
    if matches!(right, Right::Anyone | Right::Code) {
        return next.run(request).await;
    }
    let peer = request.extensions().get::<Peer>().copied();
    if right == Right::ReadOrSameUser && shared.is_same_user(request.headers(), peer).await {
        return next.run(request).await;
    }
    let address = shared.client(&request);
    let caller = match shared.caller(request.headers(), address) {
        Ok(caller) => caller,
        Err(problem) => return problem.into_response(),
    };
    request.extensions_mut().insert(caller.clone());
    if right != Right::Act {
        return next.run(request).await;
    }
    let (call, act, own) = (acts::name_of(&request), Act::default(), Shared::clone(&shared));
    let acting = async move {
        let response = match caller.may >= May::Act {
            true => {
                request.extensions_mut().insert(act.clone());
                next.run(request).await
            }
            false => {
                let why = format!("the token '{}' may read only; this call needs may = \"act\"", caller.name);
                Problem::new(ErrorCode::Forbidden, why).into_response()
            }
        };
        acts::record(&own.broker.adapters.audit(), &caller, &call, &act, &response);
        response
    };
    let failed = |_| Problem::new(ErrorCode::Internal, "the call has failed; the log says more").into_response();
    // In a task of its own: if the caller hangs up, the act still ends as it would have, and is recorded.
    shared.tasks.spawn(acting).await.unwrap_or_else(failed)
}

impl Admin {
    /// Returns the address that a request is from.
    pub(super) fn client(&self, request: &Request) -> IpAddr {
        let http = &self.broker.in_force.get().http;
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        let peer = request.extensions().get::<Peer>().map_or(unknown, |peer| peer.address).ip().to_canonical();
        let lines = request.headers().get_all(http.forwarded_header.name()).iter().map(HeaderValue::as_bytes);
        client_address(peer, lines, http)
    }

    /// Returns whether a request without a token is from a program on this host of a user that `http.same_user` accepts. A
    /// proxy on this host, which passes on what others send, is not such a program.
    async fn is_same_user(&self, headers: &HeaderMap, peer: Option<Peer>) -> bool {
        let in_force = self.broker.in_force.get();
        let is_passed_on = [AUTHORIZATION, FORWARDED, X_FORWARDED_FOR].iter().any(|name| headers.contains_key(name));
        let peer = peer.filter(|peer| peer.address.ip().to_canonical().is_loopback());
        let Some(peer) = peer.filter(|_| !is_passed_on && in_force.http.trusted_proxies.is_empty()) else {
            return false;
        };
        let from = Remote::Tcp { peer: peer.address, local: peer.local };
        in_force.same_user.is_on() && in_force.same_user.accepts(from).await
    }

    /// Returns who makes a call. Counts a failure.
    fn caller(&self, headers: &HeaderMap, address: IpAddr) -> Result<Caller, Problem> {
        let found = bearer(headers).and_then(|token| {
            let token_hash = hash_token(&token);
            let found = self.token(&token_hash)?;
            Some(Caller { name: found.name, may: found.may, address, token_hash, is_page: found.is_page })
        });
        found.ok_or_else(|| self.refuse(headers, address))
    }

    /// Returns the name of a token and what it allows, if it is valid now. A key of a page is valid no longer than the token
    /// that it was made with, and never allows more.
    fn token(&self, hash: &[u8; 32]) -> Option<Known> {
        if let Some((name, may)) = self.lasting(hash) {
            return Some(Known { name, may, is_page: false });
        }
        let owner = self.sign_ins.owner(Instant::now().into_std(), hash)?;
        let (name, may) = self.lasting(&owner.token_hash)?;
        Some(Known { name, may: may.min(owner.may), is_page: true })
    }

    /// Returns the name of a token of the configuration, or of the broker's own, and what it allows.
    fn lasting(&self, hash: &[u8; 32]) -> Option<(Arc<str>, May)> {
        self.broker.in_force.get().admin_tokens.find(hash).or_else(|| self.broker.own_token.find(hash))
    }

    /// Waits until a reload removes the token of a caller, or lets it do less. With `payloads`, also until a reload turns
    /// `admin.payloads` off.
    pub(super) async fn revoked(&self, caller: &Caller, payloads: bool) {
        loop {
            sleep_until(Instant::now() + REVOKED_WITHIN).await;
            let is_valid = self.token(&caller.token_hash).is_some_and(|found| found.may >= caller.may);
            if !is_valid || (payloads && !self.broker.in_force.get().admin.payloads) {
                return;
            }
        }
    }

    /// Counts a call without a valid token or code. Returns the answer if its address has made too many.
    pub(super) fn limit(&self, address: IpAddr) -> Option<Problem> {
        self.failed.set_failures_max(self.broker.settings.limits().failed_registrations);
        let why = "too many calls without a valid token from this address; limits.failed_registrations says how many a minute";
        self.failed.fail(Instant::now().into_std(), address).then(|| Problem::new(ErrorCode::RateLimited, why))
    }

    fn refuse(&self, headers: &HeaderMap, address: IpAddr) -> Problem {
        if let Some(limited) = self.limit(address) {
            return limited;
        }
        let why = match headers.contains_key(AUTHORIZATION) {
            true => {
                "the token is not one of the admin API: compare its hash with [[admin.tokens]]; without them, the token is in \
                     admin.token in the data folder"
            }
            false => {
                "this call needs the header 'Authorization: Bearer TOKEN'; without [[admin.tokens]], the token is in \
                      admin.token in the data folder"
            }
        };
        Problem::new(ErrorCode::Unauthenticated, why)
    }
}

/// Returns the token of a request, if it has exactly one.
fn bearer(headers: &HeaderMap) -> Option<SecretString> {
    let (scheme, token) = single(headers, &AUTHORIZATION).ok()??.split_once(' ')?;
    let token = token.trim_matches(' ');
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| SecretString::from(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(headers: &[(&'static str, &str)], has_body: bool, is_encrypted: bool) -> Option<&'static str> {
        let mut request = Request::builder().method("POST").uri("/v1/drain");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let http = Http { allowed_hosts: vec!["broker.example.com".to_owned()], ..Http::default() };
        check_head(&parts, has_body, is_encrypted, &http).err().map(|problem| problem.code.as_str())
    }

    #[test]
    fn the_checks_of_a_head_run_in_order() {
        const HOST: (&str, &str) = ("host", "127.0.0.1:7421");
        let foreign = [("host", "evil.example"), ("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")];
        assert_eq!(status(&foreign, true, false), Some("MISDIRECTED_REQUEST"));
        assert_eq!(status(&[HOST, foreign[1], foreign[2]], true, false), Some("FORBIDDEN"));
        assert_eq!(status(&[HOST, foreign[2]], true, false), Some("FORBIDDEN"));
        assert_eq!(status(&[HOST], true, false), Some("UNSUPPORTED_MEDIA_TYPE"));
        assert_eq!(status(&[HOST], false, false), None);
        assert_eq!(status(&[HOST, ("content-type", "application/json; charset=utf-8")], true, false), None);
    }

    #[test]
    fn a_host_is_a_loopback_name_an_address_or_a_listed_name() {
        for host in ["localhost:7421", "127.0.0.1", "[::1]:7421", "10.0.0.7:7421", "Broker.example.com"] {
            assert_eq!(status(&[("host", host)], false, false), None, "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", ""] {
            assert_eq!(status(&[("host", host)], false, false), Some("MISDIRECTED_REQUEST"), "{host}");
        }
        assert_eq!(status(&[], false, false), Some("MISDIRECTED_REQUEST"));
        let twice = [("host", "localhost"), ("host", "localhost")];
        assert_eq!(status(&twice, false, false), Some("MISDIRECTED_REQUEST"));
    }

    #[test]
    fn an_origin_is_the_listeners_own_and_no_other_loopback_one() {
        let with = |host, origin, is_encrypted| status(&[("host", host), ("origin", origin)], false, is_encrypted);
        assert_eq!(with("localhost:7421", "http://localhost:7421", false), None);
        assert_eq!(with("broker.example.com", "https://broker.example.com", false), None);
        assert_eq!(with("localhost:7421", "https://localhost:7421", true), None);
        for (origin, is_encrypted) in [
            ("http://localhost:7421", true),
            ("http://localhost:3000", false),
            ("http://localhost", false),
            ("http://127.0.0.1:7421", false),
            ("null", false),
            ("", false),
        ] {
            assert_eq!(with("localhost:7421", origin, is_encrypted), Some("FORBIDDEN"), "{origin}");
        }
        let twice = [("host", "localhost"), ("origin", "http://localhost"), ("origin", "http://localhost")];
        assert_eq!(status(&twice, false, false), Some("FORBIDDEN"));
    }

    #[test]
    fn a_browser_may_call_from_the_same_origin_or_its_address_bar() {
        for (site, refused) in [
            ("same-origin", None),
            ("none", None),
            ("same-site", Some("FORBIDDEN")),
            ("cross-site", Some("FORBIDDEN")),
            ("", Some("FORBIDDEN")),
        ] {
            assert_eq!(status(&[("host", "localhost"), ("sec-fetch-site", site)], false, false), refused, "{site}");
        }
    }

    #[test]
    fn a_token_is_a_bearers() {
        let token = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            }
            bearer(&headers).is_some()
        };
        assert!(token(&["Bearer abc"]) && token(&["bearer  abc"]));
        assert!(!token(&[]) && !token(&["Basic abc"]) && !token(&["Bearer"]) && !token(&["Bearer "]));
        assert!(!token(&["Bearer abc", "Bearer abc"]));
    }
}
