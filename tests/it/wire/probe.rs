//! `GET /`: what a page, or a health check, learns of the broker.

use serde_json::Value;

use crate::support::Broker;
use crate::support::http::{assert_refused, http};

#[tokio::test]
async fn the_probe_answers_and_lets_allowed_origins_read_it() {
    let broker = Broker::start().await;
    let response =
        http(broker.address(), "GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost:3000\r\n\r\n").await;
    assert_eq!(response.status, 200);
    assert!(response.header("content-type").unwrap().starts_with("application/json"));
    assert_eq!(response.header("access-control-allow-origin"), Some("http://localhost:3000"));
    let body: Value = serde_json::from_str(&response.body).unwrap();
    let keys: Vec<&str> = body.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["server", "version", "protocol"]);
    assert_eq!((&body["server"], &body["protocol"]), (&Value::from("switchboard"), &Value::from(1)));

    let response = http(broker.address(), "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(response.status, 200, "no Origin: a health check");
    let foreign = "GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example\r\n\r\n";
    assert_eq!(http(broker.address(), foreign).await.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn a_preflight_of_an_allowed_origin_is_answered() {
    let broker = Broker::open_with("[http]\nallowed_origins = ['https://crm.example.com']").await;
    let preflight = |origin: &str| {
        format!(
            "OPTIONS / HTTP/1.1\r\nHost: localhost\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: GET\r\n\
             Access-Control-Request-Private-Network: true\r\n\r\n"
        )
    };
    let response = http(broker.address(), &preflight("https://crm.example.com")).await;
    assert_eq!(response.status, 204);
    for (name, value) in [
        ("access-control-allow-origin", "https://crm.example.com"),
        ("access-control-allow-methods", "GET, HEAD, OPTIONS"),
        ("access-control-allow-private-network", "true"),
        ("vary", "Origin"),
    ] {
        assert_eq!(response.header(name), Some(value), "{name}");
    }
    let response = http(broker.address(), &preflight("https://evil.example")).await;
    assert_refused(&response, 403, "allowed_origins");
    assert_eq!(response.header("access-control-allow-origin"), None);
}

/// A page tells a refused origin from other refusals by whether it can read the refusal.
#[tokio::test]
async fn an_allowed_origin_can_read_every_refusal_of_the_probe() {
    let broker = Broker::open_with("[limits]\nconnections = 1").await;
    let _app = broker.app("app").await;
    for (method, host, status) in [("GET", "localhost", 503), ("GET", "evil.example", 421), ("PUT", "localhost", 405)] {
        let head = format!("{method} / HTTP/1.1\r\nHost: {host}\r\nOrigin: http://localhost:3000\r\n\r\n");
        let response = http(broker.address(), &head).await;
        assert_eq!(response.status, status);
        assert_eq!(response.header("access-control-allow-origin"), Some("http://localhost:3000"), "{status}");
    }
}
