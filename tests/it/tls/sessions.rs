//! Sessions over TLS, against the real broker.

use std::sync::Arc;

use futures_util::SinkExt;
use serde_json::json;
use switchboard_client::{Client, Triple};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::support::tls::{TlsFiles, connect};
use crate::support::{envelope, within};

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
async fn a_client_that_stops_reading_is_closed_over_tls_too() {
    let files = TlsFiles::new();
    let (broker, url) = files.broker("[limits]\nslow_consumer = '300ms'\n").await;
    let stream = connect(&url, &Arc::new(files.client(None))).await.unwrap();
    let request = url.replace("wss://", "ws://").into_client_request().unwrap();
    let (mut slow, _) = within("a handshake", tokio_tungstenite::client_async(request, stream)).await.unwrap();
    let command = |topic: &str, subtopic: &str, data| {
        let command =
            json!({"channel": "Broker", "topic": topic, "subtopic": subtopic, "source": "slow", "data": data});
        Message::text(command.to_string())
    };
    slow.send(command("Application", "Register", json!({}))).await.unwrap();
    slow.send(command("Subscription", "Subscribe", envelope("Phone/*/*", json!({})))).await.unwrap();
    let mut phone = broker.app("phone").await;
    let mut published = 0;
    // More than the buffers of the sockets and of TLS hold, from the moment when it has subscribed.
    while !broker.log().contains("code=4413") {
        phone.publish("Phone/Call/Ringing", "x".repeat(200_000)).await;
        phone.fence().await;
        published += 1;
        assert!(published < 1000, "nothing slows the publisher down, and the client is not closed");
    }
    phone.publish("Phone/Call/Ended", json!({})).await;
    phone.fence().await;
    drop(slow);
}
