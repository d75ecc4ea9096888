//! The address of a client behind a trusted proxy.

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::http::{HANDSHAKE, Response, http, read_response};
use crate::support::{Broker, within};

/// A handshake that a proxy passes on for this client.
fn handshake_for(client: &str) -> String {
    HANDSHAKE.replace("Host: ", &format!("X-Forwarded-For: {client}\r\nHost: "))
}

async fn open_for(broker: &Broker, client: &str) -> (TcpStream, Response) {
    let mut stream = within("a connection", TcpStream::connect(broker.address())).await.unwrap();
    stream.write_all(handshake_for(client).as_bytes()).await.unwrap();
    let response = read_response(&mut stream).await;
    (stream, response)
}

#[tokio::test]
async fn connections_behind_a_proxy_count_for_their_clients() {
    let toml = "http.trusted_proxies = ['127.0.0.0/8']\nlimits.connections_per_address = 1\n";
    let broker = Broker::open_with(toml).await;
    let (first, response) = open_for(&broker, "203.0.113.7").await;
    assert_eq!(response.status, 101);
    let (_other, response) = open_for(&broker, "203.0.113.8").await;
    assert_eq!(response.status, 101);
    let (_second, response) = open_for(&broker, "203.0.113.7").await;
    assert_eq!(response.status, 503);
    assert!(response.body.contains("limits.connections_per_address"), "{}", response.body);
    broker.log_until("the client's address", |log| log.contains("address=203.0.113.7")).await;
    // Its place is free again when it has gone.
    drop(first);
    let free = async { while open_for(&broker, "203.0.113.7").await.1.status != 101 {} };
    within("a free place", free).await;
}

#[tokio::test]
async fn a_header_of_another_peer_is_not_read() {
    let broker = Broker::open_with("http.trusted_proxies = ['10.0.0.0/8']\nlimits.connections_per_address = 1\n").await;
    let (_first, response) = open_for(&broker, "203.0.113.7").await;
    assert_eq!(response.status, 101);
    let (_second, response) = open_for(&broker, "203.0.113.8").await;
    assert_eq!(response.status, 503);
    broker.log_until("the refusal", |log| log.contains("address=127.0.0.1")).await;
    assert!(!broker.log().contains("203.0.113"), "{}", broker.log());
}

#[tokio::test]
async fn a_session_behind_a_proxy_is_logged_with_its_clients_address() {
    let broker = Broker::open_with("http.trusted_proxies = ['127.0.0.1']\n").await;
    let mut forwarded = broker.raw_with("desk", "X-Forwarded-For", "198.51.100.1, 203.0.113.7").await;
    assert_eq!(forwarded.register("desk", json!({})).await["data"]["Success"], true);
    let registered = |log: &str| log.contains("registered source=\"desk\"") && log.contains("address=203.0.113.7");
    broker.log_until("the registration", registered).await;
    // A foreign host is refused, whatever a proxy says.
    let foreign = handshake_for("203.0.113.7").replace("Host: localhost", "Host: evil.example");
    assert_eq!(http(broker.address(), &foreign).await.status, 421);
}
