//! The files of the console, which are in the program. They have no data of the broker, so anyone may read them.

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderName, REFERRER_POLICY};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::server::admin::Shared;
use crate::server::admin::problem::{Code, Problem};

const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");

const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

const HTML: &str = "text/html; charset=utf-8";

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The folder of all files but the first page.
const FOLDER: &str = "/console/";

/// What the first page is called.
const FIRST: &str = "index.html";

/// A file of the folder `console`, or the JavaScript client.
struct File {
    name: &'static str,
    media_type: &'static str,
    text: &'static str,
}

macro_rules! file {
    ($name:literal, $media_type:expr) => {
        file!($name, $media_type, concat!("../../../../console/", $name))
    };
    ($name:literal, $media_type:expr, $path:expr) => {
        File { name: $name, media_type: $media_type, text: include_str!($path) }
    };
}

const FILES: &[File] = &[
    file!("index.html", HTML),
    file!("style.css", "text/css; charset=utf-8"),
    file!("icon.svg", "image/svg+xml"),
    file!("app.js", SCRIPT),
    file!("api.js", SCRIPT),
    file!("dom.js", SCRIPT),
    file!("chart.js", SCRIPT),
    file!("overview.js", SCRIPT),
    file!("applications.js", SCRIPT),
    file!("traffic.js", SCRIPT),
    file!("why.js", SCRIPT),
    file!("cluster.js", SCRIPT),
    file!("health.js", SCRIPT),
    file!("metrics.js", SCRIPT),
    file!("salesforce.js", SCRIPT),
    file!("try.js", SCRIPT),
    file!("doctor.js", SCRIPT),
    file!("listeners.js", SCRIPT),
    file!("switchboard.js", SCRIPT, "../../../../clients/js/bundle/switchboard.js"),
];

/// Returns whether a path is one of the console's.
pub(in crate::server::admin) fn is_file(path: &str) -> bool {
    path == "/" || path.starts_with(FOLDER)
}

/// Registers the files.
pub(in crate::server::admin) fn files() -> Router<Shared> {
    let first = |state, request| answer(state, Path(FIRST.to_owned()), request);
    Router::new().route("/", get(first)).route("/console/{name}", get(answer))
}

async fn answer(State(shared): State<Shared>, Path(name): Path<String>, request: Request) -> Response {
    let Some(file) = FILES.iter().find(|file| file.name == name) else {
        return Problem::new(Code::NotFound, "the console has no such file").into_response();
    };
    let mut response = file.text.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(file.media_type));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(OPENER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if let Ok(policy) = HeaderValue::from_str(&policy(&shared.listeners, host)) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    response
}

/// Returns the Content Security Policy: nothing but these files, the admin API, and the broker's listeners for applications,
/// which a page asks by `GET /` too.
fn policy(listeners: &[String], host: &str) -> String {
    let mut sources = String::new();
    for (scheme, address) in listeners.iter().filter_map(|url| listener_source(url, host)) {
        let http = if scheme == "wss" { "https" } else { "http" };
        for part in [" ", scheme, "://", &address, " ", http, "://", &address] {
            sources.push_str(part);
        }
    }
    format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'{sources}; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    )
}

/// Returns scheme and address of a listener, as a policy writes them. A listener on all addresses is at the host of the page. A
/// policy cannot name an IPv6 address (CSP Level 3, section 2.3.1), nor a Unix socket.
fn listener_source<'u>(url: &'u str, host: &str) -> Option<(&'u str, String)> {
    let (scheme, rest) = url.split_once("://").filter(|(scheme, _)| matches!(*scheme, "ws" | "wss"))?;
    let (name, port) = rest.split('/').next()?.rsplit_once(':')?;
    let name = match name {
        "0.0.0.0" | "[::]" => host.rsplit_once(':').map_or(host, |(name, _)| name),
        name => name,
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b".-".contains(&byte);
    (!name.is_empty() && name.bytes().all(is_name)).then(|| (scheme, format!("{name}:{port}")))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    /// The most bytes of all files, compressed.
    const BYTES_MAX: usize = 150 << 10;

    #[test]
    fn all_files_together_are_small() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        for file in FILES {
            encoder.write_all(file.text.as_bytes()).unwrap();
        }
        let bytes = encoder.finish().unwrap().len();
        assert!(bytes <= BYTES_MAX, "{bytes}");
    }

    #[test]
    fn every_file_of_the_folder_is_in_the_program() {
        let folder = std::fs::read_dir("console").unwrap();
        let mut found: Vec<_> = folder.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
        // The client is in a folder of its own.
        found.push("switchboard.js".to_owned());
        let mut known: Vec<_> = FILES.iter().map(|file| file.name.to_owned()).collect();
        found.sort();
        known.sort();
        assert_eq!(found, known);
    }

    #[test]
    fn a_policy_names_the_listeners_that_it_can_name() {
        let source = |url| listener_source(url, "broker.example.com:7421");
        for (url, expected) in [
            ("ws://127.0.0.1:7420/ws", Some(("ws", "127.0.0.1:7420"))),
            ("wss://0.0.0.0:7443/ws", Some(("wss", "broker.example.com:7443"))),
            ("ws://[::]:7420/ws", Some(("ws", "broker.example.com:7420"))),
            ("ws://[::1]:7420/ws", None),
            ("unix:/run/switchboard.sock", None),
        ] {
            let expected = expected.map(|(scheme, address)| (scheme, address.to_owned()));
            assert_eq!(source(url), expected, "{url}");
        }
        assert_eq!(listener_source("ws://0.0.0.0:1/ws", "[::1]:7421"), None);
        let policy = policy(&["ws://127.0.0.1:7420/ws".to_owned(), "wss://a.example:7443/ws".to_owned()], "localhost");
        let sources = "ws://127.0.0.1:7420 http://127.0.0.1:7420 wss://a.example:7443 https://a.example:7443";
        assert!(policy.contains(&format!("connect-src 'self' {sources}; base-uri")), "{policy}");
    }
}
