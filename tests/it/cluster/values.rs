//! Retained values of brokers on real NATS servers.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, interval};

use super::servers::Servers;
use crate::support::{Broker, Peer, envelope};

const STATE: &str = "Phone/Agent/State";

/// Publishes a retained value, and waits for the receipt. Gives the code if it is refused.
async fn retain(peer: &mut Peer, triple: &str, data: Value) -> Result<(), String> {
    peer.send(envelope(triple, json!({ "retain": true, "id": "e", "data": data }))).await;
    loop {
        let told = peer.next().await;
        if told["inReplyTo"] == "e" {
            return match told["data"]["Success"] == true {
                true => Ok(()),
                false => Err(told["data"]["ErrorCode"].as_str().unwrap().to_owned()),
            };
        }
    }
}

/// What a new subscriber of a node receives.
async fn values(broker: &Broker, pattern: &str) -> Vec<Value> {
    let mut reader = broker.app_of("reader", "alice").await;
    reader.subscribe(pattern).await;
    let found = reader.drain_events().await;
    reader.close().await;
    assert!(found.iter().all(|it| it["retained"] == true), "{found:?}");
    found.iter().map(|it| it["data"].clone()).collect()
}

#[tokio::test]
async fn a_value_is_on_every_node_when_its_receipt_arrives() {
    const ROUNDS: usize = 40;
    let Some(servers) = Servers::start(1).await else { return };
    let client = async_nats::connect(servers.url(0)).await.unwrap();
    let mut everything = client.subscribe(">").await.unwrap();
    client.flush().await.unwrap();
    let (one, two) = tokio::join!(servers.node("one", 0), servers.node("two", 0));
    let mut phone = one.app_of("phone", "alice").await;
    for round in 0..ROUNDS {
        let data = json!(format!("canary-{round}"));
        retain(&mut phone, STATE, data.clone()).await.unwrap();
        assert_eq!(values(&two, "Phone/*/*").await, [data], "round {round}");
    }
    retain(&mut phone, STATE, json!(null)).await.unwrap();
    assert!(values(&two, "*/*/*").await.is_empty());
    let mut seen = 0;
    while let Ok(Some(message)) =
        tokio::time::timeout(Duration::from_millis(200), futures_util::StreamExt::next(&mut everything)).await
    {
        seen += 1;
        let text = String::from_utf8_lossy(&message.payload);
        assert!(!text.contains("canary"), "{}: {text}", message.subject);
        if seen > 500 {
            break;
        }
    }
    assert!(seen > ROUNDS, "only {seen} messages were seen");
}

#[tokio::test]
async fn nodes_that_race_for_a_value_end_with_the_same_one() {
    const ROUNDS: usize = 50;
    let Some(servers) = Servers::start(3).await else { return };
    let (one, two) = tokio::join!(servers.node("one", 0), servers.node("two", 1));
    let mut first = one.app_of("first", "alice").await;
    let mut second = two.app_of("second", "alice").await;
    for round in 0..ROUNDS {
        let (a, b) = tokio::join!(
            retain(&mut first, STATE, json!(format!("{round} of one"))),
            retain(&mut second, STATE, json!(format!("{round} of two")))
        );
        a.unwrap();
        b.unwrap();
        let (here, there) = (values(&one, "Phone/*/*").await, values(&two, "Phone/*/*").await);
        assert_eq!((here.len(), &here), (1, &there), "round {round}");
        assert!(here[0].as_str().unwrap().starts_with(&format!("{round} of")), "{here:?}");
    }
}

#[tokio::test]
async fn a_node_that_starts_again_has_all_values() {
    const VALUES: usize = 400;
    let Some(servers) = Servers::start(1).await else { return };
    let (one, two) = tokio::join!(servers.node("one", 0), servers.node("two", 0));
    let mut phone = one.app_of("phone", "alice").await;
    for number in 0..VALUES {
        // They share their way to the storage.
        let triple = format!("Phone/Line {number}/State");
        phone.send(envelope(&triple, json!({ "retain": true, "id": triple, "data": number }))).await;
    }
    for _ in 0..VALUES {
        let receipt = phone.next_on("Broker/Message/Receipt").await;
        assert_eq!(receipt["data"]["Success"], true, "{receipt}");
    }
    retain(&mut phone, "Phone/Line 7/State", json!(null)).await.unwrap();
    retain(&mut phone, "Phone/Line 8/State", json!("new")).await.unwrap();
    let two = two.killed().await;
    let mut found = values(&two, "Phone/*/*").await;
    found.sort_by_key(Value::as_u64);
    let mut wanted: Vec<_> = (0..VALUES).filter(|it| ![7, 8].contains(it)).map(|it| json!(it)).collect();
    wanted.insert(0, json!("new"));
    assert_eq!(found, wanted);
    // All of them, though no node runs meanwhile.
    one.signal("KILL").await;
    let two = two.killed().await;
    assert_eq!(values(&two, "Phone/*/*").await.len(), VALUES - 1);
}

#[tokio::test]
async fn a_node_that_stood_still_has_what_was_set_meanwhile_once_it_is_linked_again() {
    let Some(mut servers) = Servers::start(3).await else { return };
    let (one, two) = tokio::join!(servers.node("one", 0), servers.node("two", 1));
    let mut phone = one.app_of("phone", "alice").await;
    let mut crm = two.app_of("crm", "alice").await;
    crm.subscribe("Broker/Application/Joined").await;
    retain(&mut phone, STATE, json!("before")).await.unwrap();
    // The bucket has lost its leader, and the connection of the second node its server.
    let leader = servers.leader_of("KV_sb1_test_retained").await;
    two.signal("STOP").await;
    servers.kill(leader).await;
    retain(&mut phone, STATE, json!("meanwhile")).await.unwrap();
    two.signal("CONT").await;
    two.log_until("the line of the pause", |log| log.contains("stood still")).await;
    // As soon as the other node is known again: its applications are reported as joined.
    while crm.next_on("Broker/Application/Joined").await["data"]["Source"] != "phone" {}
    assert_eq!(values(&two, "Phone/*/*").await, [json!("meanwhile")]);
    servers.restart(leader).await;
}

#[tokio::test]
async fn without_nats_a_retained_event_is_refused_and_other_events_go_on() {
    let Some(mut servers) = Servers::start(1).await else { return };
    let table = servers.table("one", 0) + "storage_wait = \"1s\"\n";
    let one = Broker::open_with(&table).await;
    let two = Broker::open_with(&(servers.table("two", 0) + "storage_wait = \"1s\"\n")).await;
    let mut phone = one.app_of("phone", "alice").await;
    let mut crm = one.app_of("crm", "alice").await;
    crm.subscribe("Phone/*/*").await;
    retain(&mut phone, STATE, json!("before")).await.unwrap();
    assert_eq!(crm.next_on(STATE).await["data"], "before");
    servers.kill(0).await;
    assert_eq!(retain(&mut phone, STATE, json!("lost")).await, Err("STORAGE_UNAVAILABLE".to_owned()));
    phone.publish(STATE, "now").await;
    assert_eq!(crm.next_on(STATE).await["data"], "now", "what was refused was not delivered");
    assert_eq!(values(&one, "Phone/*/*").await, [json!("before")]);
    servers.restart(0).await;
    let mut often = interval(Duration::from_millis(100));
    let until = Instant::now() + Duration::from_secs(20);
    while let Err(code) = retain(&mut phone, STATE, json!("after")).await {
        assert!(code == "STORAGE_UNAVAILABLE" && Instant::now() < until, "{code}");
        often.tick().await;
    }
    // The nodes find each other again, and both have the value.
    while values(&two, "Phone/*/*").await != [json!("after")] || values(&one, "Phone/*/*").await != [json!("after")] {
        assert!(Instant::now() < until, "the nodes differ");
        often.tick().await;
    }
}
