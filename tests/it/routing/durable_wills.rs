//! Wills that have to be on disk before they are delivered, and wills of sessions whose events wait for the disk.

use std::iter::from_fn;
use std::time::Duration;

use serde_json::{Value, json};
use switchboard::config::{Channel, Config, LogBounds};
use switchboard::router::CommitQueue;

use crate::support::client::{Client, Desk};
use crate::support::core::event;
use crate::support::{Broker, Peer, envelope};

fn desk() -> (Desk, CommitQueue) {
    let mut config = Config::default();
    let history = Some(LogBounds { size: 10, ttl: Duration::from_mins(10) });
    config.channels.insert("Phone".into(), Channel { history, durable: true, ..Channel::default() });
    // A grace is over before the disk has written anything.
    config.history.timeout = Duration::from_hours(1);
    config.resume.grace = Duration::from_secs(1);
    let mut desk = Desk::new(&config);
    let (router, queue) = desk.core.router.with_commits();
    desk.core.router = router;
    (desk, queue)
}

fn commit(desk: &Desk, queue: &CommitQueue, is_on_disk: bool) -> usize {
    let events: Vec<_> = from_fn(|| queue.receive(Duration::ZERO).ok()).collect();
    let batch = desk.core.router.plan(desk.now(), events);
    let changes = batch.changes().len();
    desk.core.router.finish(desk.now(), batch, is_on_disk);
    changes
}

fn will(channel: &str) -> Value {
    json!({ "channel": channel, "topic": "Agent", "subtopic": "Gone", "data": "will" })
}

/// A client with a will, and one that receives everything.
fn with_will(desk: &Desk, channel: &str) -> (Client, Client) {
    let mut crm = desk.begin("crm");
    crm.subscribe(desk, "Phone/*/*");
    crm.subscribe(desk, "Other/*/*");
    (desk.begin_with("gadget", &json!({ "resume": true, "will": will(channel) })), crm)
}

#[test]
fn a_will_is_on_disk_before_it_is_delivered() {
    let (mut desk, queue) = desk();
    let (mut gadget, mut crm) = with_will(&desk, "Phone");
    gadget.lose(&desk);
    assert_eq!(commit(&desk, &queue, true), 0, "the session is away");
    let grace = desk.core.router.deadline().unwrap();
    desk.core.now = grace;
    desk.core.router.expire(grace);
    assert!(crm.payloads(&desk).is_empty());
    assert_eq!(commit(&desk, &queue, true), 1);
    assert_eq!(crm.payloads(&desk), ["will"]);
    assert_eq!(commit(&desk, &queue, true), 0, "once");
}

#[test]
fn a_will_that_cannot_be_written_reaches_nobody() {
    let (mut desk, queue) = desk();
    let (mut gadget, mut crm) = with_will(&desk, "Phone");
    gadget.lose(&desk);
    desk.core.now = desk.core.router.deadline().unwrap();
    desk.core.router.expire(desk.now());
    commit(&desk, &queue, false);
    assert!(crm.payloads(&desk).is_empty());
    // It took no offset.
    let mut phone = desk.begin("phone");
    phone.say(&desk, &event("Phone/Call/Ring", r#","data":1"#));
    commit(&desk, &queue, true);
    let ring = crm.take(&desk, 8).into_iter().find(|it| it["subtopic"] == "Ring").unwrap();
    assert_eq!(ring["offset"], 1, "{ring}");
}

#[test]
fn a_will_follows_the_events_of_its_session_that_wait_for_the_disk() {
    for channel in ["Phone", "Other"] {
        for is_on_disk in [true, false] {
            let (mut desk, queue) = desk();
            let (mut gadget, mut crm) = with_will(&desk, channel);
            gadget.say(&desk, &event("Phone/Call/Ring", r#","data":"ring""#));
            gadget.lose(&desk);
            desk.core.now = desk.core.router.deadline().unwrap();
            desk.core.router.expire(desk.now());
            assert!(crm.payloads(&desk).is_empty(), "{channel}");
            commit(&desk, &queue, is_on_disk);
            // A will that need not be on disk is delivered whatever becomes of the disk.
            let expected: &[&str] = match (channel, is_on_disk) {
                (_, true) => &["ring", "will"],
                ("Other", false) => &["will"],
                (_, false) => &[],
            };
            assert_eq!(crm.payloads(&desk), expected, "{channel} {is_on_disk}");
        }
    }
}

#[test]
fn left_and_the_ends_of_requests_follow_a_will_that_waits_for_the_disk() {
    for is_on_disk in [true, false] {
        let (mut desk, queue) = desk();
        let (mut gadget, mut crm) = with_will(&desk, "Phone");
        crm.subscribe(&desk, "Broker/Application/Left");
        let mut asker = desk.begin("asker");
        let handler = json!({"channel": "Phone", "topic": "Call", "subtopic": "Dial", "role": "handler"});
        gadget.command(&desk, "Subscription", "Subscribe", &handler);
        asker.say(&desk, &event("Phone/Call/Dial", r#","id":"1""#));
        gadget.lose(&desk);
        desk.core.now = desk.core.router.deadline().unwrap();
        desk.core.router.expire(desk.now());
        assert_eq!(desk.core.router.size().away, 0, "its grace is over");
        assert!(crm.take(&desk, 9).is_empty() && asker.take(&desk, 9).is_empty(), "the will comes first");
        commit(&desk, &queue, is_on_disk);
        let told: Vec<Value> = crm.take(&desk, 9).iter().map(|it| it["subtopic"].clone()).collect();
        let expected: &[&str] = if is_on_disk { &["Gone", "Left"] } else { &["Left"] };
        assert_eq!(told, expected);
        assert_eq!(asker.take(&desk, 9)[0]["data"]["ErrorCode"], "HANDLER_GONE");
        assert_eq!(desk.core.router.size().requests, 0);
    }
}

#[test]
fn left_follows_the_events_that_wait_for_the_disk() {
    for is_on_disk in [true, false] {
        let (mut desk, queue) = desk();
        let mut crm = desk.begin("crm");
        crm.subscribe(&desk, "Phone/*/*");
        crm.subscribe(&desk, "Broker/Application/Left");
        let mut gadget = desk.begin("gadget");
        gadget.say(&desk, &event("Phone/Call/Ring", r#","data":"ring""#));
        gadget.lose(&desk);
        desk.core.now = desk.core.router.deadline().unwrap();
        desk.core.router.expire(desk.now());
        assert_eq!(desk.core.router.size().away, 0, "its grace is over");
        assert!(crm.take(&desk, 9).is_empty(), "its event comes first");
        assert_eq!(commit(&desk, &queue, is_on_disk), 1, "that it has left need not be on disk");
        let told: Vec<Value> = crm.take(&desk, 9).iter().map(|it| it["subtopic"].clone()).collect();
        let expected: &[&str] = if is_on_disk { &["Ring", "Left"] } else { &["Left"] };
        assert_eq!(told, expected);
        assert_eq!(desk.core.router.uncommitted(), 0);
    }
}

const CONFIG: &str = r#"
[auth]
mode = "open"
[channels.Phone]
history = { size = 1000, ttl = "10m", durable = true }
"#;

async fn gadget(broker: &Broker) -> Peer {
    broker.app_with("gadget", json!({ "will": envelope("Phone/Agent/Gone", json!({ "data": "will" })) })).await
}

#[tokio::test]
async fn a_will_that_was_delivered_survives_a_kill() {
    let broker = Broker::with_config(CONFIG).await;
    let (gadget, mut crm) = (gadget(&broker).await, broker.app("crm").await);
    crm.subscribe("Phone/*/*").await;
    gadget.kill();
    let delivered = crm.next_on("Phone/Agent/Gone").await;
    let broker = broker.killed().await;
    let mut crm = broker.app("crm").await;
    let recover = json!({ "recover": { "epoch": delivered["epoch"], "offset": 0 } });
    crm.command("Subscription", "Subscribe", envelope("Phone/*/*", recover)).await;
    let replayed = crm.next_on("Phone/Agent/Gone").await;
    assert_eq!((&replayed["offset"], &replayed["data"]), (&delivered["offset"], &json!("will")));
    crm.expect_nothing().await;
}

#[tokio::test]
async fn the_log_says_that_a_will_could_not_be_written() {
    let broker = Broker::with_file_size(400, CONFIG).await;
    let (gadget, mut crm) = (gadget(&broker).await, broker.app("crm").await);
    crm.subscribe("Phone/*/*").await;
    let mut phone = broker.app("phone").await;
    let text = "x".repeat(20_000);
    let mut is_full = false;
    for number in 0..100 {
        phone.send(envelope("Phone/Call/Ring", json!({ "id": number.to_string(), "data": text }))).await;
        is_full = phone.next().await["subtopic"] == "Error";
        if is_full {
            break;
        }
        crm.next_on("Phone/Call/Ring").await;
    }
    assert!(is_full);
    gadget.kill();
    broker.log_until("the will", |log| log.contains("a will was refused") && log.contains("STORAGE_UNAVAILABLE")).await;
    crm.expect_nothing().await;
}
