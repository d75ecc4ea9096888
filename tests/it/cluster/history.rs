//! Channels with history, on real NATS servers.

use std::time::Duration;

use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::servers::Servers;
use crate::support::{Broker, Peer, envelope};

/// The channels of the nodes.
pub(super) const CHANNELS: &str = r#"
[limits]
rate = 0
message_bytes = 65536
[channels.Phone]
history = { size = 10000, ttl = "10m" }
[channels.Queue]
scope = "shared"
history = { size = 10000, ttl = "10m" }
"#;

const PHONE: &str = "Phone/Call/Ringing";
const QUEUE: &str = "Queue/Call/Waiting";

/// A text that must not cross NATS in the clear.
const CANARY: &str = "canary-9c1e";

/// A node with these channels, which tries this server first.
pub(super) async fn node(servers: &Servers, name: &str, first: usize) -> Broker {
    Broker::open_with(&format!("{}{CHANNELS}", servers.table(name, first))).await
}

async fn publish(peer: &mut Peer, triple: &str, id: &str, more: Value) {
    let mut fields = json!({ "id": id });
    fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    peer.send(envelope(triple, fields)).await;
}

/// Subscribes, and returns what the reply says of the log.
async fn subscribe(peer: &mut Peer, triple: &str, recover: Value) -> Value {
    let reply = peer.command("Subscription", "Subscribe", envelope(triple, json!({ "recover": recover }))).await;
    reply["data"].clone()
}

/// The offsets of the next events on a triple.
async fn offsets(peer: &mut Peer, triple: &str, count: usize) -> Vec<u64> {
    let mut offsets = Vec::new();
    while offsets.len() < count {
        offsets.push(peer.next_on(triple).await["offset"].as_u64().unwrap());
    }
    offsets
}

#[tokio::test]
async fn the_first_event_of_a_log_has_the_epoch_that_was_shown_whichever_node_is_first() {
    const LOGS: usize = 30;
    let Some(servers) = Servers::start(1).await else { return };
    let (one, two) = tokio::join!(node(&servers, "one", 0), node(&servers, "two", 0));
    for number in 0..LOGS {
        let user = format!("agent-{number}");
        let mut crm = one.app_of("crm", &user).await;
        let shown = subscribe(&mut crm, PHONE, Value::Null).await;
        let (mut phone, mut cti) = (one.app_of("phone", &user).await, two.app_of("cti", &user).await);
        tokio::join!(publish(&mut phone, PHONE, "a", json!({})), publish(&mut cti, PHONE, "b", json!({})));
        for offset in [1, 2] {
            let event = crm.next_on(PHONE).await;
            assert_eq!((&event["offset"], &event["epoch"]), (&json!(offset), &shown["Epoch"]), "{user}: {event}");
        }
    }
}

#[tokio::test]
async fn two_nodes_append_to_one_log_without_a_gap() {
    const EACH: usize = 100;
    let Some(servers) = Servers::start(1).await else { return };
    let client = async_nats::connect(servers.url(0)).await.unwrap();
    let mut everything = client.subscribe(">").await.unwrap();
    client.flush().await.unwrap();
    let (one, two) = tokio::join!(node(&servers, "one", 0), node(&servers, "two", 0));
    for triple in [PHONE, QUEUE] {
        let (mut crm, mut other) = (one.app_of("crm", "alice").await, two.app_of("crm", "alice").await);
        let (mine, others) =
            (subscribe(&mut crm, triple, Value::Null).await, subscribe(&mut other, triple, Value::Null).await);
        assert_eq!((&mine["Epoch"], &mine["Offset"]), (&others["Epoch"], &json!(0)), "{mine} {others}");
        let (mut phone, mut cti) = (one.app_of("phone", "alice").await, two.app_of("cti", "alice").await);
        let send = async |peer: &mut Peer| {
            for number in 0..EACH {
                publish(peer, triple, &number.to_string(), json!({ "data": CANARY })).await;
                peer.next_on("Broker/Message/Receipt").await;
            }
        };
        let receive = async |peer: &mut Peer| {
            let mut seen = Vec::new();
            while seen.len() < 2 * EACH {
                let event = peer.next_on(triple).await;
                seen.push((event["offset"].as_u64().unwrap(), event["source"].clone(), event["epoch"].clone()));
            }
            seen
        };
        let (seen, also, (), ()) =
            tokio::join!(receive(&mut crm), receive(&mut other), send(&mut phone), send(&mut cti));
        assert!(seen.iter().map(|(offset, ..)| *offset).eq(1..=2 * EACH as u64), "{triple}: {seen:?}");
        assert_eq!(seen, also, "{triple}");
        assert!(seen.iter().all(|(.., epoch)| *epoch == mine["Epoch"]), "the epoch that the subscription showed");

        // A third session recovers on the node that it was not on.
        let mut third = two.app_of("third", "alice").await;
        let reply = subscribe(&mut third, triple, json!({ "epoch": mine["Epoch"], "offset": 150 })).await;
        assert_eq!((&reply["Recovered"], &reply["Replayed"]), (&json!(true), &json!(50)), "{reply}");
        assert!(offsets(&mut third, triple, 50).await.into_iter().eq(151..=200));
    }
    let mut messages = 0;
    while let Ok(Some(message)) = timeout(Duration::from_millis(200), everything.next()).await {
        messages += 1;
        assert!(!String::from_utf8_lossy(&message.payload).contains(CANARY), "{}", message.subject);
        if messages > 2000 {
            break;
        }
    }
    assert!(messages > 400, "only {messages} messages were seen");
}

#[tokio::test]
async fn a_node_that_starts_recovers_what_was_kept_before() {
    const EVENTS: usize = 600;
    let Some(servers) = Servers::start(1).await else { return };
    let one = node(&servers, "one", 0).await;
    let mut phone = one.app_of("phone", "alice").await;
    let mut bobs = one.app_of("phone", "bob").await;
    for number in 0..EVENTS {
        publish(&mut phone, PHONE, &number.to_string(), json!({ "data": number })).await;
        if number % 3 == 0 {
            bobs.publish(PHONE, number).await;
        }
    }
    for _ in 0..EVENTS {
        phone.next_on("Broker/Message/Receipt").await;
    }
    drop(one.killed().await);
    let two = node(&servers, "two", 0).await;
    let mut crm = two.app_of("crm", "alice").await;
    let reply = subscribe(&mut crm, PHONE, json!({ "last": 5 })).await;
    assert_eq!((&reply["Replayed"], &reply["Offset"]), (&json!(5), &json!(600)), "{reply}");
    assert_eq!(offsets(&mut crm, PHONE, 5).await, [596, 597, 598, 599, 600]);
    for (from, recovered) in [(0, 600), (1, 599), (299, 301), (300, 300), (598, 2), (600, 0)] {
        let mut crm = two.app_of("crm", "alice").await;
        let reply = subscribe(&mut crm, PHONE, json!({ "epoch": reply["Epoch"], "offset": from })).await;
        assert_eq!(reply["Replayed"], json!(recovered), "{reply}");
        assert!(offsets(&mut crm, PHONE, recovered).await.into_iter().eq(from + 1..=600), "from {from}");
    }
    let refused =
        [(json!({ "epoch": reply["Epoch"], "offset": 601 }), "AHEAD"), (json!({ "epoch": "e", "offset": 1 }), "EPOCH")];
    for (recover, reason) in refused {
        let reply = subscribe(&mut two.app_of("crm", "alice").await, PHONE, recover).await;
        assert_eq!(reply["RecoverReason"], reason, "{reply}");
    }
}

#[tokio::test]
async fn an_id_with_once_is_one_event_on_all_nodes() {
    let Some(servers) = Servers::start(1).await else { return };
    let (one, two) = tokio::join!(node(&servers, "one", 0), node(&servers, "two", 0));
    for triple in [PHONE, QUEUE] {
        let mut crm = two.app_of("crm", "alice").await;
        subscribe(&mut crm, triple, Value::Null).await;
        let mut senders = [one.app_of("cti", "alice").await, two.app_of("cti", "alice").await];
        for round in 0..10 {
            let id = format!("call {round}");
            for sender in &mut senders {
                publish(sender, triple, &id, json!({ "once": true })).await;
            }
            let mut receipts = Vec::new();
            for sender in &mut senders {
                receipts.push(sender.next_on("Broker/Message/Receipt").await["data"].clone());
            }
            let duplicates = receipts.iter().filter(|it| it["Duplicate"] == true).count();
            assert_eq!(duplicates, 1, "{receipts:?}");
            let place = |receipt: &Value| (receipt["Offset"].clone(), receipt["Epoch"].clone());
            assert_eq!(place(&receipts[0]), place(&receipts[1]), "{receipts:?}");
        }
        assert!(offsets(&mut crm, triple, 10).await.into_iter().eq(1..=10), "{triple}");
        crm.expect_nothing_from(&mut senders[1]).await;
    }
}

#[tokio::test]
async fn without_jetstream_events_are_refused_and_the_rest_goes_on() {
    let Some(mut servers) = Servers::start(1).await else { return };
    let table = format!("{}storage_wait = \"1s\"\n{CHANNELS}", servers.table("one", 0));
    let one = Broker::open_with(&table).await;
    let (mut crm, mut phone) = (one.app_of("crm", "alice").await, one.app_of("phone", "alice").await);
    let before = subscribe(&mut crm, PHONE, Value::Null).await;
    crm.subscribe("Other/*/*").await;
    servers.kill(0).await;
    publish(&mut phone, PHONE, "a", json!({})).await;
    let refused = phone.next_error("STORAGE_UNAVAILABLE").await;
    assert_eq!(refused["inReplyTo"], "a", "{refused}");
    let mut late = one.app_of("late", "alice").await;
    assert_eq!(late.subscribe_refused(PHONE, json!({})).await, "STORAGE_UNAVAILABLE");
    phone.publish("Other/Call/Ringing", 1).await;
    crm.next_on("Other/Call/Ringing").await;
    servers.restart(0).await;
    let receipt = loop {
        publish(&mut phone, PHONE, "b", json!({})).await;
        let told = phone.next().await;
        if told["subtopic"] == "Receipt" {
            break told["data"].clone();
        }
    };
    assert_eq!((&receipt["Offset"], &receipt["Epoch"]), (&json!(1), &before["Epoch"]), "{receipt}");
    assert_eq!(offsets(&mut crm, PHONE, 1).await, [1]);
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_when_the_leader_of_a_log_is_killed() {
    const EVENTS: usize = 300;
    let Some(mut servers) = Servers::start(3).await else { return };
    let (one, two) = tokio::join!(node(&servers, "one", 0), node(&servers, "two", 1));
    let mut crm = two.app_of("crm", "alice").await;
    let epoch = subscribe(&mut crm, PHONE, Value::Null).await["Epoch"].clone();
    let leader = servers.leader_of("sb1_test_h_Phone").await;
    let mut phone = one.app_of("phone", "alice").await;
    let receive = async {
        let mut seen = Vec::new();
        while seen.len() < EVENTS {
            let event = crm.next_on(PHONE).await;
            seen.push((event["offset"].as_u64().unwrap(), event["data"].as_u64().unwrap()));
        }
        seen
    };
    let send = async {
        let mut positions = Vec::new();
        for number in 0..EVENTS {
            if number == 100 {
                servers.kill(leader).await;
            }
            publish(&mut phone, PHONE, "e", json!({ "data": number })).await;
            let receipt = phone.next_on("Broker/Message/Receipt").await;
            positions.push((receipt["data"]["Offset"].as_u64().unwrap(), number as u64));
        }
        positions
    };
    let (seen, receipts) = tokio::join!(receive, send);
    assert_eq!(seen, receipts, "each event once, where its receipt says");
    assert!(seen.iter().map(|(offset, _)| *offset).eq(1..=EVENTS as u64));
    let mut late = two.app_of("late", "alice").await;
    let reply = subscribe(&mut late, PHONE, json!({ "epoch": epoch, "offset": 0 })).await;
    assert_eq!(reply["Replayed"], json!(EVENTS), "{reply}");
}
