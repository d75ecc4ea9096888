//! What is refused before the first envelope, with which HTTP status, and the probe on `/` (protocol.md, Transport).

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

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
async fn a_rebound_host_is_421() {
    let broker = Broker::start().await;
    let foreign = ["evil.example", "evil.example:7420", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1"];
    for host in foreign {
        assert_refused(&http(broker.address(), &handshake_to(host)).await, 421, "allowed_hosts");
        let probe = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_refused(&http(broker.address(), &probe).await, 421, "allowed_hosts");
    }
    for host in ["localhost", "LOCALHOST:7420", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:7420", "127.8.9.1"] {
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
            log.contains("https://evil.example") && log.contains("allowed_origins")
        })
        .await;
}

#[tokio::test]
async fn a_null_origin_is_403_in_open_mode_too() {
    let broker = Broker::start().await;
    assert_refused(&http(broker.address(), &handshake_with("Origin: null")).await, 403, "allowed_origins");
}

#[tokio::test]
async fn loopback_and_listed_origins_pass() {
    let broker = Broker::open_with("[http]\nallowed_origins = [\"https://crm.example.com\", \"null\"]").await;
    let good = [
        "http://localhost",
        "http://localhost:3000",
        "https://localhost:8443",
        "http://127.0.0.1:5173",
        "http://[::1]:3000",
        "https://crm.example.com",
        "null",
    ];
    for origin in good {
        let response = http(broker.address(), &handshake_with(&format!("Origin: {origin}"))).await;
        assert_eq!(response.status, 101, "{origin}: {}", response.body);
    }
    for origin in ["http://crm.example.com", "https://crm.example.com:444", "https://crm.example.com.evil.example"] {
        let response = http(broker.address(), &handshake_with(&format!("Origin: {origin}"))).await;
        assert_refused(&response, 403, "allowed_origins");
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
}

#[tokio::test]
async fn connections_beyond_the_cap_are_503_with_retry_after() {
    for key in ["connections", "connections_per_address"] {
        let broker = Broker::open_with(&format!("[limits]\n{key} = 2")).await;
        let first = broker.app("first").await;
        let _second = broker.app("second").await;
        let response = http(broker.address(), HANDSHAKE).await;
        assert_refused(&response, 503, key);
        let seconds: u32 = response.header("retry-after").expect("Retry-After").parse().expect("seconds");
        assert!(seconds >= 1);
        // A place that is given back can be taken.
        first.close().await;
        let mut often = tokio::time::interval(std::time::Duration::from_millis(20));
        within("a free place", async {
            while http(broker.address(), HANDSHAKE).await.status != 101 {
                often.tick().await;
            }
        })
        .await;
    }
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
async fn a_head_over_16_kib_is_431_which_arrives() {
    let broker = Broker::start().await;
    for length in [17, 200] {
        let long = handshake_with(&format!("X-Long: {}", "x".repeat(length * 1024)));
        let mut stream = TcpStream::connect(broker.address()).await.unwrap();
        within("sending", stream.write_all(long.as_bytes())).await.unwrap();
        assert_refused(&read_response(&mut stream).await, 431, "16 KiB");
        assert_eq!(within("the end of the connection", stream.read(&mut [0])).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn what_is_no_http_is_400() {
    let broker = Broker::start().await;
    for garbage in ["\x16\x03\x01\x02\0\x01\0", "hello\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        assert_refused(&http(broker.address(), garbage).await, 400, "HTTP/1.1");
    }
}

#[tokio::test]
async fn a_head_that_does_not_come_within_10_s_is_408() {
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

/// Those who come stand in a line of eight: whoever sends nothing must not keep a place in it for its 10 s.
#[tokio::test]
async fn two_hundred_silent_connections_keep_nobody_waiting() {
    let broker = Broker::start().await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(within("a connection", TcpStream::connect(broker.address())).await.unwrap());
    }
    // Behind them all, and long before the first of them is told 408.
    let start = tokio::time::Instant::now();
    broker.app("softphone").await;
    assert!(start.elapsed().as_secs() < 8, "{:?}", start.elapsed());
}

#[tokio::test]
async fn an_unknown_version_of_websocket_is_refused() {
    let broker = Broker::start().await;
    let response = http(broker.address(), &HANDSHAKE.replace("Version: 13", "Version: 8")).await;
    assert!((400..500).contains(&response.status), "{}", response.status);
}

#[tokio::test]
async fn what_browsers_and_proxies_write_differently_is_understood() {
    let broker = Broker::start().await;
    let firefox = HANDSHAKE
        .replace("Connection: Upgrade", "connection: keep-alive, Upgrade")
        .replace("Upgrade: websocket", "upgrade: WebSocket");
    assert_eq!(http(broker.address(), &firefox).await.status, 101);
    let query = HANDSHAKE.replace("/ws ", "/ws?from=gadget ");
    assert_eq!(http(broker.address(), &query).await.status, 101, "a query is not part of the path");
    // Two hosts, or two origins, are an attempt to be read in two ways.
    let two_hosts = handshake_with("Host: localhost");
    assert!((400..500).contains(&http(broker.address(), &two_hosts).await.status));
    let two_origins = handshake_with("Origin: http://localhost\r\nOrigin: https://evil.example");
    assert_refused(&http(broker.address(), &two_origins).await, 403, "allowed_origins");
}
