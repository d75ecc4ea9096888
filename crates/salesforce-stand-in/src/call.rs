//! [`Call`]: one parsed HTTP request. Bodies arrive whole, sized or chunked.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap};
use hyper::{Method, StatusCode};
use serde_json::{Map, Value};

use super::reply::Refusal;

/// A request.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) method: Method,
    /// The path, still percent-encoded.
    pub(super) path: String,
    /// The decoded segments of the path, without empty ones at the end.
    pub(super) segments: Vec<String>,
    pub(super) query: Vec<(String, String)>,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// The length of path and query in bytes.
    pub(super) uri_bytes: usize,
    /// The address under which the caller reached the org.
    pub(super) base: String,
}

impl Call {
    /// Parses a request. Returns `None` if the decoded path or query is not UTF-8.
    pub(super) fn new(
        method: Method,
        target: &str,
        headers: HeaderMap,
        body: Bytes,
        base: (&'static str, &str),
    ) -> Option<Self> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        // simple-salesforce logs in at `HOST/.salesforce.com/…` if its host is not Salesforce's.
        let path = path.strip_prefix("/.salesforce.com").unwrap_or(path);
        let segments = path.trim_matches('/').split('/').map(|it| decoded(it, false)).collect::<Option<_>>()?;
        let host = headers.get(HOST).and_then(|it| it.to_str().ok()).unwrap_or(base.1);
        let base = format!("{}://{host}", base.0);
        let (path, query) = (path.to_owned(), form(query.as_bytes())?);
        Some(Self { method, path, segments, query, headers, body, uri_bytes: target.len(), base })
    }

    /// A parameter of the query.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        find(&self.query, name)
    }

    /// A header as text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The access token of `Authorization`.
    pub(super) fn token(&self) -> Option<&str> {
        let (scheme, token) = self.headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
        ["bearer", "oauth"].iter().any(|it| scheme.eq_ignore_ascii_case(it)).then(|| token.trim())
    }

    /// User and password of HTTP Basic.
    pub(super) fn basic(&self) -> Option<(String, String)> {
        let (scheme, text) = self.headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
        let text = scheme.eq_ignore_ascii_case("basic").then(|| BASE64_STANDARD.decode(text.trim()).ok())??;
        let text = String::from_utf8(text).ok()?;
        text.split_once(':').map(|(user, password)| (user.to_owned(), password.to_owned()))
    }

    /// The body as a form; `None` if it is not one.
    pub(super) fn form(&self) -> Option<Vec<(String, String)>> {
        let content_type = self.headers.get(CONTENT_TYPE)?.to_str().ok()?;
        content_type.starts_with("application/x-www-form-urlencoded").then(|| form(&self.body))?
    }

    /// The body as a JSON object.
    pub(super) fn object(&self) -> Result<Map<String, Value>, Refusal> {
        let content_type = self.headers.get(CONTENT_TYPE).and_then(|it| it.to_str().ok()).unwrap_or_default();
        if !content_type.starts_with("application/json") {
            return Err(Refusal::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "UNSUPPORTED_MEDIA_TYPE",
                format!("content-type {content_type} not supported"),
            ));
        }
        serde_json::from_slice(&self.body).map_err(|error| Refusal::bad("JSON_PARSER_ERROR", error.to_string()))
    }
}

/// The first value of a name.
pub(super) fn find<'p>(pairs: &'p [(String, String)], name: &str) -> Option<&'p str> {
    pairs.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
}

/// Decodes `a=1&b=2`.
fn form(text: &[u8]) -> Option<Vec<(String, String)>> {
    let text = std::str::from_utf8(text).ok()?;
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decoded(name, true)?, decoded(value, true)?))
        })
        .collect()
}

/// Decodes percent-encoding; in a form, a plus is a space. A percent sign that does not begin a code is kept.
fn decoded(text: &str, plus: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = match first {
            b'%' => after.split_at_checked(2).and_then(|(code, after)| Some((hex::decode(code).ok()?, after))),
            _ => None,
        };
        match code {
            Some((code, after)) => {
                bytes.extend_from_slice(&code);
                rest = after;
            }
            None => {
                bytes.push(if plus && *first == b'+' { b' ' } else { *first });
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).ok()
}
