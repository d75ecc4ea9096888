//! Handshakes on a TLS listener, against the real broker.

use std::sync::Arc;

use rustls::HandshakeKind;
use serde_json::json;
use switchboard_client::{Client, Triple};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::http::{HANDSHAKE, http, read_response};
use crate::support::tls::{TlsFiles, address_of, connect};
use crate::support::{DEADLINE, within};

#[tokio::test]
async fn clients_work_over_tls() {
    let files = TlsFiles::new();
    let (broker, url) = files.broker("").await;
    assert!(url.starts_with("wss://127.0.0.1:"), "{url}");
    let builder = |source: &str| Client::builder(&url).source(source).ca_file(files.path("ca.pem"));
    let crm = builder("crm").connect().await.unwrap();
    let _serving = crm.serve("Crm/Contact/Find".parse().unwrap(), async |_| Ok(json!("Ada").into())).await.unwrap();
    // One session of the same user is on the plain listener.
    let mut plain = broker.app("plain").await;
    plain.subscribe("Phone/*/*").await;
    let phone = builder("softphone").connect().await.unwrap();
    // Larger than a TLS record and than the socket's buffer.
    let payload = json!("x".repeat(900_000));
    phone.publish(Triple::new("Phone", "Call", "Ringing"), payload.clone()).receipt().await.unwrap();
    assert_eq!(plain.next_on("Phone/Call/Ringing").await["data"], payload);
    let answer = phone.request(Triple::new("Crm", "Contact", "Find"), ()).await.unwrap();
    assert_eq!(answer.payload(), Some("\"Ada\""));
    phone.close().await;
    crm.close().await;
}

#[tokio::test]
async fn many_events_in_a_row_arrive_in_order_over_tls() {
    let files = TlsFiles::new();
    let (broker, url) = files.broker("").await;
    let log = Client::builder(&url).source("log").ca_file(files.path("ca.pem")).connect().await.unwrap();
    let mut events = log.subscribe("Phone/*/*".parse().unwrap()).await.unwrap();
    let mut phone = broker.app("phone").await;
    for number in 0..1000 {
        phone.publish("Phone/Call/Ringing", json!([number, "x".repeat(500)])).await;
    }
    for number in 0..1000 {
        let event = within("an event", events.next()).await.unwrap();
        let payload: serde_json::Value = serde_json::from_str(event.payload().unwrap()).unwrap();
        assert_eq!(payload[0], number);
    }
    log.close().await;
}

#[tokio::test]
async fn http_1_1_is_negotiated_and_a_session_is_resumed() {
    let files = TlsFiles::new();
    let (_broker, url) = files.broker("").await;
    let mut config = files.client(None);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let config = Arc::new(config);
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let mut stream = connect(&url, &config).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        kinds.push(stream.get_ref().1.handshake_kind().unwrap());
        // The ticket arrives with the first response at the latest.
        stream.write_all(HANDSHAKE.as_bytes()).await.unwrap();
        let mut status = [0; 12];
        within("a response", stream.read_exact(&mut status)).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 101");
    }
    assert_eq!(kinds, [HandshakeKind::Full, HandshakeKind::Resumed]);

    let mut only_h2 = files.client(None);
    only_h2.alpn_protocols = vec![b"h2".to_vec()];
    assert!(connect(&url, &Arc::new(only_h2)).await.is_err());
}

#[tokio::test]
async fn a_listener_with_minimum_1_3_refuses_tls_1_2() {
    let files = TlsFiles::new();
    let (broker, url) = files.broker("minimum = '1.3'").await;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider);
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS12]).unwrap();
    let old = builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
    assert!(connect(&url, &Arc::new(old)).await.is_err());
    broker.log_until("the version in the log", |log| log.contains("tls.minimum")).await;
    connect(&url, &Arc::new(files.client(None))).await.unwrap();
}

#[tokio::test]
async fn a_client_that_does_not_trust_the_certificate_is_logged_once_a_minute() {
    let (files, others) = (TlsFiles::new(), TlsFiles::new());
    let (broker, url) = files.broker("").await;
    let config = Arc::new(others.client(None));
    for _ in 0..3 {
        assert!(connect(&url, &config).await.is_err());
    }
    broker.log_until("the failure in the log", |log| log.contains("a TLS handshake failed")).await;
    let log = broker.log();
    assert_eq!(log.matches("a TLS handshake failed").count(), 1, "{log}");
    assert!(log.contains("the client does not trust tls.certificate_file"), "{log}");
}

#[tokio::test]
async fn plain_text_on_a_tls_listener_is_told_to_use_wss() {
    let files = TlsFiles::new();
    let (broker, url) = files.broker("").await;
    let response = http(address_of(&url), HANDSHAKE).await;
    assert_eq!(response.status, 400);
    assert!(response.body.contains("connect with wss://"), "{}", response.body);
    broker.log_until("the refusal in the log", |log| log.contains("reason=\"tls\"")).await;
}

#[tokio::test]
async fn tls_on_a_plain_listener_is_told_to_use_ws() {
    let files = TlsFiles::new();
    let (broker, _url) = files.broker("").await;
    let mut stream = TcpStream::connect(broker.address()).await.unwrap();
    // The beginning of any client's first message.
    stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await.unwrap();
    let response = read_response(&mut stream).await;
    assert_eq!(response.status, 400);
    assert!(response.body.contains("does not speak TLS"), "{}", response.body);
    broker.log_until("the refusal in the log", |log| log.contains("reason=\"tls\"")).await;
}

#[tokio::test]
async fn a_connection_counts_while_it_shakes_hands() {
    let files = TlsFiles::new();
    let (broker, url) = files.broker("[limits]\nconnections = 1\n").await;
    let silent = TcpStream::connect(address_of(&url)).await.unwrap();
    let full =
        async { while http(broker.address(), "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.status != 503 {} };
    tokio::time::timeout(DEADLINE, full).await.expect("a silent connection does not count");
    drop(silent);
}
