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

/// Reads until a peer was told all of this, in any order.
async fn told_all(peer: &mut Peer, wanted: &[&dyn Fn(&Value) -> bool]) {
    let mut missing: Vec<_> = wanted.iter().collect();
    within("everything that was to be told", async {
        while !missing.is_empty() {
            let told = peer.next().await;
            missing.retain(|is_it| !is_it(&told));
        }
    })
    .await;
}

/// The sources that `Application/List` shows, sorted.
async fn applications(peer: &mut Peer) -> Vec<String> {
    let reply = peer.command("Application", "List", json!({})).await;
    let rows = reply["data"]["Applications"].as_array().unwrap();
    let mut sources: Vec<_> = rows
        .iter()
        .map(|row| {
            assert_eq!(row["Sessions"], 1, "{reply}");
            row["Source"].as_str().unwrap().to_owned()
        })
        .collect();
    sources.sort();
    sources
}

#[tokio::test]
async fn requests_in_both_directions_end_when_a_node_stands_still_for_three_seconds() {
    const SHOW: &str = "Calls/Call/Show";
    let Some(servers) = Servers::start(1).await else { return };
    let (one, two) = tokio::join!(servers.node("one", 0), servers.node("two", 0));
    let mut crm = one.app_of("crm", "alice").await;
    crm.subscribe("Broker/Application/*").await;
    crm.handle(SHOW).await;
    let mut phone = two.app_of("phone", "alice").await;
    phone.handle(DIAL).await;
    until(&mut crm, "Joined", "phone").await;
    crm.send(dial("dial")).await;
    phone.next_on(DIAL).await;
    phone
        .send(json!({ "channel": "Calls", "topic": "Call", "subtopic": "Show", "id": "show", "timeout": 20_000 }))
        .await;
    let show = crm.next_on(SHOW).await;
    two.signal("STOP").await;
    // The time itself matters here.
    tokio::time::timeout(Duration::from_secs(3), std::future::pending::<()>()).await.unwrap_err();
    two.signal("CONT").await;
    let is_gone = |it: &Value, id: &str| it["inReplyTo"] == id && it["data"]["ErrorCode"] == "HANDLER_GONE";
    let is_cancelled = |it: &Value| it["topic"] == "Request" && it["subtopic"] == "Cancelled";
    let is_phone = |it: &Value, what: &str| it["subtopic"] == what && it["data"]["Source"] == "phone";
    told_all(
        &mut crm,
        &[
            &|it| is_gone(it, "dial"),
            &|it| is_cancelled(it) && it["inReplyTo"] == show["id"],
            &|it| is_phone(it, "Left"),
            &|it| is_phone(it, "Joined"),
        ],
    )
    .await;
    told_all(&mut phone, &[&|it| is_gone(it, "show"), &is_cancelled]).await;
    // It has another incarnation, and each node knows the applications of both once.
    assert_eq!(one.log().matches("found another node").count(), 2, "{}", one.log());
    within("the applications of both nodes", async {
        while applications(&mut phone).await != ["crm", "phone"] || applications(&mut crm).await != ["crm", "phone"] {}
    })
    .await;
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
