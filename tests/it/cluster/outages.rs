//! Nodes that stand still, and a NATS that is away.

use std::time::Duration;

use serde_json::{Value, json};

use super::servers::Servers;
use crate::support::{Peer, within};

const DIAL: &str = "Calls/Call/Dial";

fn dial(id: &str) -> Value {
    json!({ "channel": "Calls", "topic": "Call", "subtopic": "Dial", "id": id, "timeout": 20_000 })
}

/// Waits until a peer is told that this source joined or left.
async fn until(peer: &mut Peer, what: &str, source: &str) {
    within(what, async {
        loop {
            let told = peer.next().await;
            if told["subtopic"] == what && told["data"]["Source"] == source {
                return;
            }
        }
    })
    .await;
}

/// Asks, and gives the answer's code; `None` is a success.
async fn ask(peer: &mut Peer, id: &str) -> Option<String> {
    peer.send(dial(id)).await;
    loop {
        let answer = peer.next().await;
        if answer["inReplyTo"] == id {
            return answer["data"]["ErrorCode"].as_str().map(str::to_owned);
        }
    }
}

#[tokio::test]
async fn a_node_that_stood_still_begins_anew() {
    let Some(servers) = Servers::start(1).await else { return };
    let (one, two) = tokio::join!(servers.node("one", 0), servers.node("two", 0));
    let mut crm = one.app_of("crm", "alice").await;
    crm.subscribe("Broker/Application/*").await;
    let mut phone = two.app_of("phone", "alice").await;
    phone.handle(DIAL).await;
    until(&mut crm, "Joined", "phone").await;
    crm.send(dial("first")).await;
    let first = phone.next_on(DIAL).await;
    two.signal("STOP").await;
    // Its applications are reported as gone, and the request ends.
    until(&mut crm, "Left", "phone").await;
    let failed = crm.next_answer(DIAL, "first").await;
    assert_eq!(failed["data"]["ErrorCode"], "HANDLER_GONE", "{failed}");
    two.signal("CONT").await;
    until(&mut crm, "Joined", "phone").await;
    two.log_until("the line of the pause", |log| log.contains("stood still")).await;
    let cancelled = phone.next_on("Broker/Request/Cancelled").await;
    assert_eq!(cancelled["inReplyTo"], first["id"]);
    crm.send(dial("second")).await;
    assert_eq!(phone.next_on(DIAL).await["requestId"], "second");
}

#[tokio::test]
async fn without_nats_each_node_goes_on_and_knows_what_it_cannot_reach() {
    let Some(mut servers) = Servers::start(1).await else { return };
    let (one, two) = tokio::join!(servers.node("one", 0), servers.node("two", 0));
    let mut crm = one.app_of("crm", "alice").await;
    crm.subscribe("Broker/Application/*").await;
    let mut screen = one.app_of("screen", "alice").await;
    screen.subscribe("Calls/Call/Ringing").await;
    let mut phone = two.app_of("phone", "alice").await;
    phone.handle(DIAL).await;
    until(&mut crm, "Joined", "phone").await;
    servers.kill(0).await;
    until(&mut crm, "Left", "phone").await;
    // The handler is remembered: the request does not turn into an event.
    let mut number = 0;
    let mut often = tokio::time::interval(Duration::from_millis(100));
    within("UPSTREAM_UNAVAILABLE", async {
        loop {
            often.tick().await;
            number += 1;
            if ask(&mut crm, &number.to_string()).await.as_deref() == Some("UPSTREAM_UNAVAILABLE") {
                return;
            }
        }
    })
    .await;
    crm.send(json!({ "channel": "Calls", "topic": "Call", "subtopic": "Ringing", "data": 7 })).await;
    assert_eq!(screen.next_on("Calls/Call/Ringing").await["data"], 7, "traffic of the node goes on");
    servers.restart(0).await;
    until(&mut crm, "Joined", "phone").await;
    crm.send(dial("again")).await;
    assert_eq!(phone.next_on(DIAL).await["requestId"], "again");
}
