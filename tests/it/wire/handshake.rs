//! Handshakes: what is refused with which HTTP status, and the probe on `/` (protocol.md, Transport and handshake).

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::interval;

use crate::support::frames::RawSocket;
use crate::support::http::{HANDSHAKE, Response, http, read_response};
use crate::support::{Broker, within};

/// A good handshake with one header line more.
fn handshake_with(line: &str) -> String {
    HANDSHAKE.replace("\r\n\r\n", &format!("\r\n{line}\r\n\r\n"))
}

fn handshake_to(host: &str) -> String {
    HANDSHAKE.replace("Host: localhost", &format!("Host: {host}"))
}

/// A refusal is one line of plain text that says why.
fn assert_refused(response: &Response, status: u16, word: &str) {
    assert_eq!(response.status, status, "{}", response.body);
    let kind = response.header("content-type").unwrap_or_default();
    assert!(kind.starts_with("text/plain"), "{kind}");
    assert_eq!(response.body.trim_end().lines().count(), 1, "{:?}", response.body);
    assert!(response.body.contains(word), "'{word}' is not in {:?}", response.body);
}

#[tokio::test]
async fn a_good_handshake_is_upgraded() {
    let broker = Broker::start().await;
    let response = http(broker.address(), HANDSHAKE).await;
    assert_eq!(response.status, 101);
    // The answer to the sample key of RFC 6455, section 1.3.
    assert_eq!(response.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(response.header("sec-websocket-protocol"), None);
}

#[tokio::test]
async fn the_sub_protocol_is_echoed_when_offered_and_no_extension_is() {
    let broker = Broker::start().await;
    let offer = "Sec-WebSocket-Protocol: chat, switchboard.v1\r\nSec-WebSocket-Extensions: permessage-deflate";
    let response = http(broker.address(), &handshake_with(offer)).await;
    assert_eq!(response.status, 101);
    assert_eq!(response.header("sec-websocket-protocol"), Some("switchboard.v1"));
    assert_eq!(response.header("sec-websocket-extensions"), None);
    let response = http(broker.address(), &handshake_with("Sec-WebSocket-Protocol: chat")).await;
    assert_eq!((response.status, response.header("sec-websocket-protocol")), (101, None));
}

#[tokio::test]
async fn another_path_is_404() {
    let broker = Broker::start().await;
    for path in ["/socket", "/ws/", "/ws/x", "/WS", "/favicon.ico"] {
        let response = http(broker.address(), &HANDSHAKE.replace("/ws", path)).await;
        assert_refused(&response, 404, "/ws");
    }
}

#[tokio::test]
async fn a_known_path_that_this_version_does_not_serve_is_501() {
    let broker = Broker::start().await;
    for (method, path) in [
        ("GET", "/switchboard.js"),
        ("GET", "/switchboard.global.js"),
        ("POST", "/v1/publish"),
        ("POST", "/v1/request"),
    ] {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
        assert_refused(&http(broker.address(), &head).await, 501, path);
    }
    // The refusal arrives although the body is not read.
    let body = vec![b'x'; 300 << 10];
    let head = format!("POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len());
    let mut stream = TcpStream::connect(broker.address()).await.unwrap();
    within("sending", stream.write_all(&[head.as_bytes(), &body].concat())).await.unwrap();
    assert_refused(&read_response(&mut stream).await, 501, "/v1/publish");
}

#[tokio::test]
async fn a_rebound_host_is_421() {
    let broker = Broker::start().await;
    let foreign = ["evil.example", "evil.example:7420", "localhost.evil.example", "127.0.0.1.evil.example", "127.1"];
    for host in foreign {
        assert_refused(&http(broker.address(), &handshake_to(host)).await, 421, "allowed_hosts");
        let probe = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_refused(&http(broker.address(), &probe).await, 421, "allowed_hosts");
    }
    // An address cannot be rebound.
    let good =
        ["localhost", "LOCALHOST:7420", "127.0.0.1", "127.8.9.1:1", "[::1]", "[::1]:7420", "10.0.0.1", "[fd00::1]:80"];
    for host in good {
        assert_eq!(http(broker.address(), &handshake_to(host)).await.status, 101, "{host}");
    }
}

#[tokio::test]
async fn a_listed_host_passes() {
    let broker = Broker::open_with("[http]\nallowed_hosts = [\"switchboard.example.com\"]").await;
    for host in ["switchboard.example.com", "switchboard.example.com:443", "Switchboard.Example.Com"] {
        assert_eq!(http(broker.address(), &handshake_to(host)).await.status, 101, "{host}");
    }
    assert_refused(&http(broker.address(), &handshake_to("x.switchboard.example.com")).await, 421, "allowed_hosts");
}

#[tokio::test]
async fn a_foreign_origin_is_403_and_the_log_names_the_key() {
    let broker = Broker::start().await;
    let foreign = [
        "https://evil.example",
        "http://localhost.evil.example",
        "http://127.0.0.1.evil.example:80",
        "http://evil.example/localhost",
        "file://",
        "localhost",
    ];
    for origin in foreign {
        let response = http(broker.address(), &handshake_with(&format!("Origin: {origin}"))).await;
        assert_refused(&response, 403, "allowed_origins");
    }
    broker
        .log_until("the refused origin in the log", |log| {
            log.contains("https://evil.example") && log.contains("http.allowed_origins")
        })
        .await;
}

#[tokio::test]
async fn a_refusal_is_logged_once_a_minute_for_its_reason_and_without_the_query() {
    let broker = Broker::start().await;
    for at in 0..20 {
        http(broker.address(), &HANDSHAKE.replace("/ws", &format!("/nowhere-{at}?secret=hunter2"))).await;
        http(broker.address(), &HANDSHAKE.replace("/ws", "/ws?token=hunter2")).await;
        http(broker.address(), &handshake_to("evil.example")).await;
    }
    broker.log_until("the last reason", |log| log.contains("http.allowed_hosts")).await;
    let log = broker.log();
    assert!(!log.contains("hunter2"), "{log}");
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("refused a request")).collect();
    assert_eq!(lines.len(), 3, "{log}");
    for (line, reason, shown) in
        [(lines[0], "path", "/nowhere-0"), (lines[1], "query", "/ws"), (lines[2], "host", "evil.example")]
    {
        assert!(line.contains(&format!("reason=\"{reason}\"")) && line.contains(shown), "{line}");
        assert!(line.contains("address=127.0.0.1") && line.contains("INFO"), "{line}");
    }
}

#[tokio::test]
async fn a_null_origin_is_403_in_open_mode_too() {
    let broker = Broker::start().await;
    assert_refused(&http(broker.address(), &handshake_with("Origin: null")).await, 403, "allowed_origins");
}

#[tokio::test]
async fn loopback_and_listed_origins_pass() {
    let broker =
        Broker::open_with("[http]\nallowed_origins = ['https://crm.example.com', 'null', 'file://', 'app://']").await;
    let good = [
        "http://localhost",
        "http://localhost:3000",
        "https://localhost:8443",
        "http://127.0.0.1:5173",
        "http://[::1]:3000",
        "https://crm.example.com",
        "null",
        "file://",
        "app://",
    ];
    for origin in good {
        let response = http(broker.address(), &handshake_with(&format!("Origin: {origin}"))).await;
        assert_eq!(response.status, 101, "{origin}: {}", response.body);
    }
    let foreign = [
        "http://crm.example.com",
        "https://crm.example.com:444",
        "https://crm.example.com.evil.example",
        "app://other",
    ];
    for origin in foreign {
        let response = http(broker.address(), &handshake_with(&format!("Origin: {origin}"))).await;
        assert_refused(&response, 403, "allowed_origins");
    }
}

#[tokio::test]
async fn a_token_in_the_query_is_400() {
    let broker = Broker::start().await;
    for query in ["token=abc", "from=x&Access_Token=abc", "jwt=abc", "%61uth=abc"] {
        let response = http(broker.address(), &HANDSHAKE.replace("/ws", &format!("/ws?{query}"))).await;
        assert_refused(&response, 400, "data.token");
        assert!(!response.body.contains("abc"), "{}", response.body);
    }
}

#[tokio::test]
async fn a_plain_get_is_426_another_method_405_and_no_host_400() {
    let broker = Broker::start().await;
    let response = http(broker.address(), "GET /ws HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_refused(&response, 426, "WebSocket");
    assert_eq!(response.header("upgrade").map(str::to_ascii_lowercase).as_deref(), Some("websocket"));
    for method in ["POST", "PUT", "DELETE"] {
        let head = format!("{method} /ws HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
        assert_refused(&http(broker.address(), &head).await, 405, "GET");
    }
    let response = http(broker.address(), &HANDSHAKE.replace("Host: localhost\r\n", "")).await;
    assert_refused(&response, 400, "Host");
    // Health checks of proxies.
    assert_eq!(http(broker.address(), "GET / HTTP/1.0\r\n\r\n").await.status, 200);
    assert_refused(&http(broker.address(), "GET /ws HTTP/1.0\r\n\r\n").await, 400, "Host");
}

/// A refusal because there is no room, which says when to try again.
fn assert_busy(response: &Response, word: &str) {
    assert_refused(response, 503, word);
    let seconds: u32 = response.header("retry-after").expect("Retry-After").parse().expect("seconds");
    assert!(seconds >= 1);
}

/// Shakes hands until there is room.
async fn until_upgraded(broker: &Broker) -> RawSocket {
    let mut often = interval(Duration::from_millis(20));
    within("room for a connection", async {
        loop {
            often.tick().await;
            if let Some(socket) = RawSocket::try_connect(broker).await {
                return socket;
            }
        }
    })
    .await
}

#[tokio::test]
async fn connections_beyond_the_cap_are_503_with_retry_after() {
    for key in ["connections", "connections_per_address"] {
        let broker = Broker::open_with(&format!("[limits]\n{key} = 2")).await;
        let first = broker.app("first").await;
        let _second = broker.app("second").await;
        assert_busy(&http(broker.address(), HANDSHAKE).await, key);
        // The limit is the last check.
        assert_eq!(http(broker.address(), &handshake_to("evil.example")).await.status, 421);
        first.close().await;
        until_upgraded(&broker).await;
    }
}

#[tokio::test]
async fn unregistered_connections_have_a_cap_of_their_own() {
    let broker = Broker::open_with("[limits]\nunregistered = 2").await;
    let mut peer = broker.raw("first").await;
    let silent = TcpStream::connect(broker.address()).await.unwrap();
    // A connection counts from accept, so the refused one counts too, until the broker has seen its end.
    assert_busy(&http(broker.address(), HANDSHAKE).await, "limits.unregistered");
    peer.register("first", json!({})).await;
    let second = until_upgraded(&broker).await;
    assert_busy(&http(broker.address(), HANDSHAKE).await, "limits.unregistered");
    drop(second);
    let _second = until_upgraded(&broker).await;
    drop(silent);
    let third = until_upgraded(&broker).await;
    drop(third);
    // After Unregister the first one counts again.
    peer.command("Application", "Unregister", json!({})).await;
    assert_busy(&http(broker.address(), HANDSHAKE).await, "limits.unregistered");
}

#[tokio::test]
async fn a_flood_of_connections_is_refused_and_its_cause_is_logged() {
    let broker = Broker::open_with("[limits]\nunregistered = 10").await;
    let mut flood = Vec::new();
    for _ in 0..400 {
        flood.push(within("a connection", TcpStream::connect(broker.address())).await.unwrap());
    }
    broker.log_until("the flood", |log| log.contains("dropped a connection")).await;
    assert_eq!(broker.log().matches("dropped a connection").count(), 1);
    assert!(broker.log().contains("limits.unregistered"));
    drop(flood);
    until_upgraded(&broker).await;
}

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

#[tokio::test]
async fn a_draining_broker_answers_503() {
    let mut broker = Broker::start().await;
    let (mut asker, mut handler) = (broker.app("asker").await, broker.app("handler").await);
    handler.handle("Phone/Call/Dial").await;
    asker.ask("Phone/Call/Dial", "r").await;
    let request = handler.next_on("Phone/Call/Dial").await;
    broker.terminate().await;
    asker.next_on("Broker/Connection/Draining").await;
    assert_busy(&http(broker.address(), HANDSHAKE).await, "shutting down");
    assert_busy(&http(broker.address(), "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await, "shutting down");
    assert_eq!(http(broker.address(), &handshake_to("evil.example")).await.status, 421);
    handler.next_on("Broker/Connection/Draining").await;
    handler.reply(&request, json!({"data": "answered"})).await;
    assert_eq!(asker.next_answer("Phone/Call/Dial", "r").await["data"], "answered");
    assert_eq!(broker.exit_code().await, Some(0));
}

#[tokio::test]
async fn a_head_over_16_kib_is_431_which_arrives() {
    let broker = Broker::start().await;
    for length in [17, 200] {
        let long = handshake_with(&format!("Cookie: {}", "x".repeat(length * 1024)));
        let mut stream = TcpStream::connect(broker.address()).await.unwrap();
        within("sending", stream.write_all(long.as_bytes())).await.unwrap();
        let response = read_response(&mut stream).await;
        assert_refused(&response, 431, "16 KiB");
        assert!(response.body.contains("Cookie"), "{}", response.body);
        assert_eq!(within("the end of the connection", stream.read(&mut [0])).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn more_than_200_headers_are_431() {
    let broker = Broker::start().await;
    let headers = |count: usize| vec!["X-Trace: 1"; count].join("\r\n");
    let usual = HANDSHAKE.matches("\r\n").count() - 2;
    assert_eq!(http(broker.address(), &handshake_with(&headers(200 - usual))).await.status, 101);
    assert_refused(&http(broker.address(), &handshake_with(&headers(201 - usual))).await, 431, "200 headers");
}

#[tokio::test]
async fn what_is_not_http_is_400() {
    let broker = Broker::start().await;
    for garbage in ["\x16\x03\x01\x02\0\x01\0", "hello\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        assert_refused(&http(broker.address(), garbage).await, 400, "HTTP/1.1");
    }
}

#[tokio::test]
async fn a_head_that_is_not_complete_within_10_s_is_408() {
    let broker = Broker::start().await;
    let mut halfway = TcpStream::connect(broker.address()).await.unwrap();
    halfway.write_all(b"GET /ws HTTP/1.1\r\nHost: local").await.unwrap();
    let mut silent = TcpStream::connect(broker.address()).await.unwrap();
    for stream in [&mut halfway, &mut silent] {
        within("the broker's patience", stream.readable()).await.unwrap();
        assert_refused(&read_response(stream).await, 408, "10 s");
        assert_eq!(within("the end of the connection", stream.read(&mut [0])).await.unwrap(), 0);
    }
}

/// Neither a newcomer nor the end of a handler waits for connections that send nothing, or half a head.
#[tokio::test]
async fn silent_connections_delay_nobody() {
    let broker = Broker::open_with("[limits]\nunregistered = 2000").await;
    let (mut asker, mut handler) = (broker.app("asker").await, RawSocket::registered(&broker, "handler").await);
    handler.handle("Phone/Call/Dial").await;
    let mut silent = Vec::new();
    for at in 0..1000 {
        let mut stream = within("a connection", TcpStream::connect(broker.address())).await.unwrap();
        if at % 2 == 0 {
            stream.write_all(b"GET /ws HTTP/1.1\r\n").await.unwrap();
        }
        silent.push(stream);
    }
    let start = tokio::time::Instant::now();
    asker.ask("Phone/Call/Dial", "r").await;
    handler.read_message().await.expect("the request");
    handler.kill();
    asker.next_failure("Phone/Call/Dial", "HANDLER_GONE").await;
    broker.app("newcomer").await;
    // Long before the first silent one is answered 408. `server::listener` has the exact test, with a paused clock.
    assert!(start.elapsed().as_secs() < 8, "{:?}", start.elapsed());
}

#[tokio::test]
async fn an_unknown_version_of_websocket_is_refused() {
    let broker = Broker::start().await;
    let response = http(broker.address(), &HANDSHAKE.replace("Version: 13", "Version: 8")).await;
    assert!((400..500).contains(&response.status), "{}", response.status);
}

#[tokio::test]
async fn other_spellings_of_browsers_and_proxies_are_understood() {
    let broker = Broker::start().await;
    let firefox = HANDSHAKE
        .replace("Connection: Upgrade", "connection: keep-alive, Upgrade")
        .replace("Upgrade: websocket", "upgrade: WebSocket");
    assert_eq!(http(broker.address(), &firefox).await.status, 101);
    let query = HANDSHAKE.replace("/ws ", "/ws?from=gadget ");
    assert_eq!(http(broker.address(), &query).await.status, 101, "a query is not part of the path");
    // Two hosts, or two origins, could be read in two ways.
    let two_hosts = handshake_with("Host: localhost");
    assert!((400..500).contains(&http(broker.address(), &two_hosts).await.status));
    let two_origins = handshake_with("Origin: http://localhost\r\nOrigin: https://evil.example");
    assert_refused(&http(broker.address(), &two_origins).await, 403, "allowed_origins");
}
