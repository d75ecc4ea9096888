//! `GET /metrics`: who may read it, and in which format.

use std::io::Read as _;

use flate2::read::GzDecoder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::everything::ask;
use crate::support::http::http;
use crate::support::{Broker, within};

const ADMIN: &str = "[admin]\nlisten = ['127.0.0.1:0']\n";

#[tokio::test]
async fn metrics_come_in_the_format_that_a_client_asks_for() {
    let broker = Broker::open_with(ADMIN).await;
    let admin = broker.admin().await;
    let open = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
    for (accept, kind, last) in [
        ("", "text/plain; version=0.0.4; charset=utf-8", false),
        ("Accept: text/html\r\n", "text/plain; version=0.0.4; charset=utf-8", false),
        (&format!("Accept: {open}\r\n"), "application/openmetrics-text; version=1.0.0; charset=utf-8", true),
    ] {
        let response = ask(&broker, admin, accept).await;
        assert_eq!((response.status, response.header("content-type")), (200, Some(kind)), "{accept}");
        assert_eq!(response.body.ends_with("# EOF\n"), last, "{accept}");
        assert!(response.body.contains("\nswitchboard_build_info{version=\""), "{}", response.body);
        assert!(response.header("content-encoding").is_none());
    }
}

#[tokio::test]
async fn metrics_are_compressed_for_a_client_that_accepts_gzip() {
    let broker = Broker::open_with(ADMIN).await;
    let admin = broker.admin().await;
    let token = std::fs::read_to_string(broker.data_dir().join("admin.token")).unwrap();
    let mut stream = within("a connection", TcpStream::connect(admin)).await.unwrap();
    let head = format!(
        "GET /metrics HTTP/1.1\r\nHost: {admin}\r\nAuthorization: Bearer {}\r\nAccept-Encoding: gzip\r\n\
         Connection: close\r\n\r\n",
        token.trim()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    within("an answer", stream.read_to_end(&mut answer)).await.unwrap();
    let end = answer.windows(4).position(|it| it == b"\r\n\r\n").unwrap() + 4;
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    assert!(head.contains("\r\ncontent-encoding: gzip\r\n") && head.contains("\r\nvary: "), "{head}");
    let mut text = String::new();
    GzDecoder::new(&answer[end..]).read_to_string(&mut text).unwrap();
    assert!(text.contains("\nswitchboard_build_info{"), "{text}");
}

#[tokio::test]
async fn a_program_of_the_brokers_user_needs_no_token_for_metrics_and_one_for_everything_else() {
    let broker = Broker::open_with(ADMIN).await;
    let admin = broker.admin().await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    assert_eq!(http(admin, &get("/metrics")).await.status, 200);
    assert_eq!(http(admin, &get("/v1/info")).await.status, 401);
    let wrong = format!("GET /metrics HTTP/1.1\r\nHost: {admin}\r\nAuthorization: Bearer wrong\r\n\r\n");
    assert_eq!(http(admin, &wrong).await.status, 401, "a wrong token is not no token");
}

#[tokio::test]
async fn behind_a_trusted_proxy_metrics_need_a_token() {
    let broker = Broker::open_with(&format!("{ADMIN}[http]\ntrusted_proxies = ['127.0.0.1']\n")).await;
    let admin = broker.admin().await;
    let get = format!("GET /metrics HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    assert_eq!(http(admin, &get).await.status, 401);
    assert_eq!(ask(&broker, admin, "").await.status, 200);
}
