//! Who may call: each check of the admin API, for each registered call.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use super::*;

/// The calls of the OpenAPI document: method, path, and who may call.
async fn registered(site: &Site) -> Vec<(String, String, String)> {
    let document = call_with(site.address, "GET", "/v1/openapi.json", &[], None).await.json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."), "{}", document["openapi"]);
    let paths = document["paths"].as_object().unwrap();
    let calls = paths.iter().flat_map(|(path, methods)| {
        let path = path.replace("{id}", "none");
        methods.as_object().unwrap().iter().map(move |(method, call)| {
            let may = call["x-may"].as_str().unwrap_or_else(|| panic!("{method} {path} does not say who may call"));
            (method.to_uppercase(), path.clone(), may.to_owned())
        })
    });
    calls.collect()
}

#[tokio::test]
async fn each_call_has_its_right_and_refuses_everybody_else() {
    let site = Site::with_tokens("limits.failed_registrations = 100000").await;
    let calls = registered(&site).await;
    let found: BTreeMap<_, _> =
        calls.iter().map(|(method, path, may)| (format!("{method} {path}"), may.as_str())).collect();
    let expected = [
        ("GET /healthz", "anyone"),
        ("GET /readyz", "anyone"),
        ("GET /v1/openapi.json", "anyone"),
        ("GET /metrics", "read"),
        ("GET /v1/info", "read"),
        ("GET /v1/config", "read"),
        ("GET /v1/stats", "read"),
        ("GET /v1/applications", "read"),
        ("GET /v1/sessions", "read"),
        ("GET /v1/sessions/none", "read"),
        ("GET /v1/subscriptions", "read"),
        ("GET /v1/requests", "read"),
        ("GET /v1/channels", "read"),
        ("GET /v1/cluster", "read"),
        ("GET /v1/retained", "read"),
        ("GET /v1/history", "read"),
        ("GET /v1/recent", "read"),
        ("GET /v1/tap", "read"),
        ("POST /v1/explain", "read"),
        ("POST /v1/sessions/close", "act"),
        ("DELETE /v1/retained", "act"),
        ("POST /v1/recent/dump", "act"),
        ("POST /v1/reload", "act"),
        ("PUT /v1/log", "act"),
        ("POST /v1/drain", "act"),
        ("GET /v1/doctor", "read"),
        ("POST /v1/console/code", "read"),
        ("POST /v1/console/session", "code"),
    ];
    assert_eq!(found, BTreeMap::from(expected.map(|(call, may)| (call.to_owned(), may))));
    for (method, path, may) in &calls {
        let what = format!("{method} {path}");
        // A good one does not end.
        let path = if path == "/v1/tap" { "/v1/tap?rate=0" } else { path };
        let anonymous = call_with(site.address, method, path, &[], None).await;
        if may == "anyone" {
            assert_eq!(anonymous.status, 200, "{what}: {anonymous:?}");
            continue;
        }
        if may == "code" {
            anonymous.is_problem(400, "INVALID_REQUEST");
            continue;
        }
        // A program of the broker's user reads metrics without a token.
        if path != "/metrics" {
            anonymous.is_problem(401, "UNAUTHENTICATED");
            assert!(anonymous.header("www-authenticate").is_some_and(|it| it.starts_with("Bearer")), "{anonymous:?}");
        }
        for wrong in ["Bearer wrong", "Bearer ", "Basic cmVhZGVyOg==", "reader", "Bearer reader, Bearer reader"] {
            let answer = call_with(site.address, method, path, &[("Authorization", wrong)], None).await;
            answer.is_problem(401, "UNAUTHENTICATED");
        }
        let reader = site.call("reader", method, path, None).await;
        match may.as_str() {
            "act" => reader.is_problem(403, "FORBIDDEN"),
            // Arguments may be missing.
            "read" => assert!(!matches!(reader.status, 401 | 403), "{what}: {reader:?}"),
            other => panic!("{what}: '{other}' is not a right"),
        }
    }
    // A caller that was refused has changed nothing.
    assert_eq!(call_with(site.address, "GET", "/readyz", &[], None).await.status, 200);
}

#[tokio::test]
async fn no_call_is_for_a_page_of_another_site_or_behind_a_rebound_name() {
    let site = Site::with_tokens("http.allowed_origins = ['https://crm.example.com']").await;
    let token = ("Authorization", "Bearer actor");
    for (method, path, _) in registered(&site).await {
        let refused = async |header: (&str, &str), body: Option<&str>| {
            call_with(site.address, &method, &path, &[token, header], body).await
        };
        for host in ["evil.example", "evil.example:7421", "localhost.evil.example"] {
            refused(("Host", host), None).await.is_problem(421, "MISDIRECTED_REQUEST");
        }
        // An origin that may connect as an application, and one on loopback, have no privilege here.
        for origin in ["https://evil.example", "https://crm.example.com", "http://localhost:3000", "null"] {
            refused(("Origin", origin), None).await.is_problem(403, "FORBIDDEN");
        }
        for place in ["cross-site", "same-site"] {
            refused(("Sec-Fetch-Site", place), None).await.is_problem(403, "FORBIDDEN");
        }
        // What a page can send without asking first.
        for media_type in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
            refused(("Content-Type", media_type), Some("{}")).await.is_problem(415, "UNSUPPORTED_MEDIA_TYPE");
        }
        let preflight = call_with(site.address, "OPTIONS", &path, &[("Origin", "https://evil.example")], None).await;
        assert!(preflight.status >= 400 && preflight.header("access-control-allow-origin").is_none(), "{preflight:?}");
    }
    // A page of the listener itself may.
    let own = format!("http://{}", site.address);
    let headers = [token, ("Origin", own.as_str()), ("Sec-Fetch-Site", "same-origin")];
    assert_eq!(call_with(site.address, "GET", "/v1/info", &headers, None).await.status, 200);
}

#[tokio::test]
async fn calls_without_a_valid_token_are_limited_per_address_and_valid_ones_are_not() {
    let site = Site::with_tokens("limits.failed_registrations = 3").await;
    for _ in 0..3 {
        site.call("guess", "GET", "/v1/info", None).await.is_problem(401, "UNAUTHENTICATED");
    }
    let limited = site.call("guess", "GET", "/v1/info", None).await;
    limited.is_problem(429, "RATE_LIMITED");
    assert!(limited.header("retry-after").is_some());
    site.get("/v1/info").await;
    assert_eq!(call_with(site.address, "GET", "/healthz", &[], None).await.status, 200);
    // Applications register as before.
    site.broker.app("phone").await;
}

#[tokio::test]
async fn on_loopback_without_tokens_each_start_makes_one_that_may_act() {
    let mut site = Site::with("[auth]\nmode = 'open'\n[admin]\nlisten = ['127.0.0.1:0']").await;
    let path = site.broker.data_dir().join("admin.token");
    let token = |path| std::fs::read_to_string(path).unwrap().trim_end().to_owned();
    let first = token(&path);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(site.call(&first, "PUT", "/v1/log", Some(&json!({"filter": "info"}))).await.status, 200);
    assert_eq!(site.records_of(1).await[0]["token"], "admin.token");

    site.broker.terminate().await;
    assert_eq!(site.broker.exit_code().await, Some(0));
    let site = Site::of(site.broker.successor().await).await;
    assert_ne!(token(&path), first);
    site.call(&first, "GET", "/v1/info", None).await.is_problem(401, "UNAUTHENTICATED");
    assert_eq!(site.call(&token(&path), "GET", "/v1/info", None).await.status, 200);
    assert!(!site.broker.log().contains(&token(&path)));

    // With tokens in the configuration, the one of the start is not good any more.
    let last = token(&path);
    site.broker.configure(&format!("[auth]\nmode = 'open'\n[admin]\nlisten = ['127.0.0.1:0']\n{TOKENS}"));
    site.broker.reload().await;
    site.call(&last, "GET", "/v1/info", None).await.is_problem(401, "UNAUTHENTICATED");
    assert!(!path.exists());
    site.get("/v1/info").await;
}

#[tokio::test]
async fn an_act_leaves_a_record_without_secrets_and_so_does_one_that_is_refused() {
    let site = Site::with_tokens("").await;
    let body = json!({"filter": "info", "for": "1h"});
    assert_eq!(site.call("actor", "PUT", "/v1/log", Some(&body)).await.status, 200);
    site.call("reader", "PUT", "/v1/log", Some(&body)).await.is_problem(403, "FORBIDDEN");
    site.call("actor", "PUT", "/v1/log", Some(&json!({"filter": "warning"}))).await.is_problem(400, "INVALID_REQUEST");
    let read = |records: &[Value]| -> Vec<Value> {
        let part = |it: &Value| json!([it["token"], it["address"], it["target"], it["arguments"], it["outcome"]]);
        records.iter().map(part).collect()
    };
    let (call, from) = ("PUT /v1/log", "127.0.0.1");
    assert_eq!(
        read(&site.records_of(3).await),
        [
            json!(["actor", from, call, body, "ok"]),
            json!(["reader", from, call, null, "FORBIDDEN"]),
            json!(["actor", from, call, {"filter": "warning"}, "INVALID_REQUEST"]),
        ]
    );
    // Reading leaves none: the next record is that of the next act.
    site.get("/v1/info").await;
    assert_eq!(site.call("actor", "PUT", "/v1/log", Some(&body)).await.status, 200);
    assert_eq!(read(&site.records_of(4).await)[3..], [json!(["actor", from, call, body, "ok"])]);
}

#[tokio::test]
async fn an_act_is_recorded_although_its_caller_hangs_up() {
    let site = Site::with_tokens("").await;
    let mut stream = within("a connection", TcpStream::connect(site.address)).await.unwrap();
    let host = site.address;
    // It waits for the disk, and the caller has left by then.
    let request = format!("POST /v1/recent/dump HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer actor\r\n\r\n");
    tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.unwrap();
    drop(stream);
    let records = site.records_of(1).await;
    assert_eq!((&records[0]["target"], &records[0]["outcome"]), (&json!("POST /v1/recent/dump"), &json!("ok")));
}
