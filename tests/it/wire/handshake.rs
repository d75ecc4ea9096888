//! Handshakes: what is refused with which HTTP status (protocol.md, Transport and handshake).

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::http::{HANDSHAKE, assert_refused, handshake_to, handshake_with, http, read_response};
use crate::support::{Broker, within};

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
async fn the_javascript_client_is_served_to_pages_of_this_machine() {
    let broker = Broker::open_with("[http]\nallowed_origins = [\"https://crm.example.com\"]").await;
    let get = async |path: &str, origin: &str| {
        http(broker.address(), &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{origin}\r\n")).await
    };
    for (path, text) in [("/switchboard.js", "export{"), ("/switchboard.global.js", "var switchboard=")] {
        let response = get(path, "Origin: http://localhost:8000\r\n").await;
        assert_eq!(response.status, 200, "{path}");
        assert!(response.body.contains(text), "{path}");
        assert_eq!(response.header("content-type"), Some("text/javascript; charset=utf-8"));
        assert_eq!(response.header("cross-origin-resource-policy"), Some("same-site"));
        assert_eq!(response.header("access-control-allow-origin"), Some("http://localhost:8000"));
        // A page from elsewhere brings its own copy, whether it may connect or not.
        let listed = get(path, "Origin: https://crm.example.com\r\n").await;
        assert_eq!((listed.status, listed.header("access-control-allow-origin")), (200, None));
        assert_refused(&get(path, "Origin: https://evil.example\r\n").await, 403, "allowed_origins");
    }
}

#[tokio::test]
async fn a_refusal_arrives_although_the_body_is_not_read() {
    let broker = Broker::start().await;
    let body = vec![b'x'; 300 << 10];
    let head = format!("POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len());
    let mut stream = TcpStream::connect(broker.address()).await.unwrap();
    within("sending", stream.write_all(&[head.as_bytes(), &body].concat())).await.unwrap();
    assert_eq!(read_response(&mut stream).await.status, 401);
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
        "chrome-extension://abcdef",
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

/// Every status of the table of checks, each with its own line, whatever was logged before.
#[tokio::test]
async fn every_refused_handshake_is_logged_with_its_status() {
    let broker = Broker::start().await;
    let full = Broker::open_with("[limits]\nconnections = 1").await;
    let _app = full.app("app").await;
    let plain = |head: &str| format!("{head}\r\nHost: localhost\r\n\r\n");
    let refused = [
        (400, "head", "hello\r\n\r\n".to_owned()),
        (400, "host", HANDSHAKE.replace("Host: localhost\r\n", "")),
        (400, "query", HANDSHAKE.replace("/ws", "/ws?token=abc")),
        (403, "origin", handshake_with("Origin: https://evil.example")),
        (404, "path", HANDSHAKE.replace("/ws", "/ws/")),
        (405, "method", plain("PUT /ws HTTP/1.1")),
        (421, "host", handshake_to("evil.example")),
        (426, "method", plain("GET /ws HTTP/1.1")),
        (431, "head", handshake_with(&format!("Cookie: {}", "x".repeat(17 * 1024)))),
    ];
    let refused = refused.map(|it| (&broker, it)).into_iter().chain([(&full, (503, "cap", HANDSHAKE.to_owned()))]);
    for (broker, (status, reason, head)) in refused {
        assert_eq!(http(broker.address(), &head).await.status, status, "{head}");
        let wanted = format!("reason=\"{reason}\" status={status} address=127.0.0.1");
        broker.log_until(&wanted, |log| log.lines().any(|it| it.contains("INFO") && it.contains(&wanted))).await;
    }
}

#[tokio::test]
async fn a_null_origin_is_403_in_open_mode_too() {
    let broker = Broker::start().await;
    assert_refused(&http(broker.address(), &handshake_with("Origin: null")).await, 403, "allowed_origins");
}

#[tokio::test]
async fn loopback_and_listed_origins_pass() {
    let listed = "'https://crm.example.com', 'null', 'file://', 'app://', 'chrome-extension://abcdef'";
    let broker = Broker::open_with(&format!("[http]\nallowed_origins = [{listed}]")).await;
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
        "chrome-extension://abcdef",
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
        "chrome-extension://other",
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
    assert_refused(&response, 426, "WebSocket client");
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

/// What a proxy makes of a handshake that was not configured for them.
#[tokio::test]
async fn a_handshake_that_a_proxy_has_stripped_is_426_and_names_the_proxy() {
    let broker = Broker::start().await;
    let stripped = [
        HANDSHAKE.replace("HTTP/1.1", "HTTP/1.0"),
        HANDSHAKE.replace("Upgrade: websocket\r\n", ""),
        HANDSHAKE.replace("Connection: Upgrade\r\n", "Connection: close\r\n"),
    ];
    for head in stripped {
        assert_refused(&http(broker.address(), &head).await, 426, "a proxy in between did not pass on");
    }
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
    let two_lines = HANDSHAKE
        .replace("Connection: Upgrade", "CONNECTION: keep-alive\r\nCoNNection: UPGRADE")
        .replace("Upgrade: websocket", "Upgrade: h2c, websocket");
    assert_eq!(http(broker.address(), &two_lines).await.status, 101);
    let query = HANDSHAKE.replace("/ws ", "/ws?from=gadget ");
    assert_eq!(http(broker.address(), &query).await.status, 101, "a query is not part of the path");
    // Two hosts, or two origins, could be read in two ways.
    let two_hosts = handshake_with("Host: localhost");
    assert!((400..500).contains(&http(broker.address(), &two_hosts).await.status));
    let two_origins = handshake_with("Origin: http://localhost\r\nOrigin: https://evil.example");
    assert_refused(&http(broker.address(), &two_origins).await, 403, "allowed_origins");
}
