//! Brokers that are nodes of a cluster, on real NATS servers.

use std::time::Duration;

use futures_util::StreamExt;
use serde_json::json;

use super::servers::Servers;
use crate::support::Peer;

/// A text that must not cross NATS in the clear.
const CANARY: &str = "canary-7f3a";

/// Publishes events until one arrives: the receiver's node may be joining.
async fn publish(peer: &mut Peer, number: usize) {
    peer.send(json!({ "channel": "Calls", "topic": "Call", "subtopic": "Ringing", "data": number })).await;
}

#[tokio::test]
async fn applications_on_two_nodes_are_as_on_one() {
    let Some(servers) = Servers::start(1).await else { return };
    let client = async_nats::connect(servers.url(0)).await.unwrap();
    let mut everything = client.subscribe(">").await.unwrap();
    client.flush().await.unwrap();
    let (one, two) = tokio::join!(servers.node("one", 0), servers.node("two", 0));
    let mut crm = one.app_of("crm", "alice").await;
    let mut phone = two.app_of("phone", "alice").await;
    crm.subscribe("Calls/*/*").await;
    phone.handle("Calls/Call/Dial").await;

    // As soon as the other node has confirmed them, both are in force.
    phone.send(json!({ "channel": "Calls", "topic": "Call", "subtopic": "Ringing", "data": CANARY, "id": "e" })).await;
    let receipt = phone.next().await;
    assert_eq!((&receipt["data"]["Cluster"], &receipt["data"]["Nodes"]), (&json!(true), &json!(1)), "{receipt}");
    let event = crm.next().await;
    assert_eq!((&event["source"], &event["data"]), (&json!("phone"), &json!(CANARY)), "{event}");
    crm.send(json!({ "channel": "Calls", "topic": "Call", "subtopic": "Dial", "data": CANARY, "id": "r" })).await;
    let request = phone.next().await;
    assert_eq!(request["source"], "crm", "{request}");
    let reply = json!({
        "channel": "Calls", "topic": "Call", "subtopic": "Dial", "inReplyTo": request["id"], "data": CANARY
    });
    phone.send(reply).await;
    let reply = crm.next().await;
    assert_eq!((&reply["inReplyTo"], &reply["data"]), (&json!("r"), &json!(CANARY)), "{reply}");

    // What crossed NATS shows nothing of it.
    let mut seen = 0;
    while let Ok(Some(message)) = tokio::time::timeout(Duration::from_millis(200), everything.next()).await {
        seen += 1;
        let text = String::from_utf8_lossy(&message.payload);
        assert!(!text.contains(CANARY) && !text.contains("crm"), "{}: {text}", message.subject);
        if seen > 50 {
            break;
        }
    }
    assert!(seen > 4, "only {seen} messages were seen");
}

#[tokio::test]
async fn a_reload_of_one_node_changes_nothing_that_all_have_in_common() {
    let Some(servers) = Servers::start(1).await else { return };
    let node = servers.node("one", 0).await;
    let table = |more: &str| format!("{}[auth]\nmode = 'open'\n{more}", servers.table("one", 0));
    node.configure(&table("[channels.Queue]\nscope = 'shared'\n"));
    let line = node.reload().await;
    assert!(line.contains("channels.Queue.scope") && line.contains("the reload was refused"), "{line}");
    node.configure(&table("[limits]\nrate = 77\n"));
    assert!(node.reload().await.contains("the configuration was reloaded"));
}

#[tokio::test]
async fn a_node_that_is_killed_is_noticed_and_one_that_starts_is_found() {
    let Some(servers) = Servers::start(1).await else { return };
    let (one, two) = tokio::join!(servers.node("one", 0), servers.node("two", 0));
    let mut crm = one.app_of("crm", "alice").await;
    let mut phone = two.app_of("phone", "alice").await;
    phone.handle("Calls/Call/Dial").await;
    crm.send(json!({ "channel": "Calls", "topic": "Call", "subtopic": "Dial", "id": "r" })).await;
    phone.next().await;
    let two = two.killed().await;
    let failure = crm.next().await;
    assert_eq!(failure["data"]["ErrorCode"], "HANDLER_GONE", "{failure}");
    let mut phone = two.app_of("phone", "alice").await;
    phone.handle("Calls/Call/Dial").await;
    crm.send(json!({ "channel": "Calls", "topic": "Call", "subtopic": "Dial", "id": "s" })).await;
    assert_eq!(phone.next().await["requestId"], "s");
}

#[tokio::test]
async fn no_event_is_lost_or_repeated_when_nats_servers_are_killed_or_frozen() {
    const EVENTS: usize = 600;
    let Some(mut servers) = Servers::start(3).await else { return };
    let (one, two) = tokio::join!(servers.node("one", 0), servers.node("two", 1));
    let mut crm = two.app_of("crm", "alice").await;
    let mut phone = one.app_of("phone", "alice").await;
    crm.subscribe("Calls/*/*").await;
    let receive = async {
        let mut numbers = Vec::new();
        while numbers.len() < EVENTS {
            numbers.push(crm.next().await["data"].as_u64().unwrap());
        }
        numbers
    };
    let send = async {
        let mut often = tokio::time::interval(Duration::from_millis(5));
        for number in 0..EVENTS {
            often.tick().await;
            match number {
                100 => servers.kill(0).await,
                250 => servers.restart(0).await,
                // Less than the 2 s after which a peer is lost.
                350 => servers.signal(1, "STOP").await,
                500 => servers.signal(1, "CONT").await,
                _ => {}
            }
            publish(&mut phone, number).await;
        }
    };
    let (numbers, ()) = tokio::join!(receive, send);
    assert!(numbers.iter().copied().eq(0..EVENTS as u64), "lost, repeated or out of order: {numbers:?}");
}
