//! The head of a request: its size, its time, and what is not a head at all.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::frames::RawSocket;
use crate::support::http::{HANDSHAKE, assert_refused, handshake_with, http, read_response};
use crate::support::{Broker, within};

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
    for garbage in ["hello\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
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
