//! Handshakes that are refused for lack of room, or because the broker drains: 503 with `Retry-After`.

use std::time::Duration;

use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::interval;

use crate::support::frames::RawSocket;
use crate::support::http::{HANDSHAKE, Response, assert_refused, handshake_to, http};
use crate::support::{Broker, within};

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
