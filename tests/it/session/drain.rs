//! How a broker ends (protocol.md, Close codes): everybody is told, what is in flight finishes, then 1012 and exit 0.

use serde_json::json;

use crate::support::{Broker, Peer};

const DIAL: &str = "Phone/Call/Dial";

async fn draining(peer: &mut Peer) -> u64 {
    let notice = peer.next_on("Broker/Connection/Draining").await;
    notice["data"]["ReconnectAfterMs"].as_u64().expect("milliseconds")
}

#[tokio::test]
async fn a_request_in_flight_is_finished_before_the_end() {
    let mut broker = Broker::start().await;
    let (mut asker, mut handler) = (broker.app("asker").await, broker.app("handler").await);
    let mut unregistered = broker.raw("unregistered").await;
    unregistered.expect_nothing().await;
    handler.handle(DIAL).await;
    asker.ask(DIAL, "r").await;
    let request = handler.next_on(DIAL).await;
    broker.terminate().await;
    draining(&mut asker).await;
    draining(&mut handler).await;
    handler.reply(&request, json!({"data": "still answered"})).await;
    assert_eq!(asker.next_answer(DIAL, "r").await["data"], "still answered");
    for peer in [&mut asker, &mut handler] {
        assert_eq!(peer.closed().await, 1012);
    }
    assert_eq!(unregistered.until_closed().await.1, 1012);
    assert_eq!(broker.exit_code().await, Some(0));
}

#[tokio::test]
async fn a_hangup_does_not_disturb_a_drain() {
    let mut broker = Broker::start().await;
    let (mut asker, mut handler) = (broker.app("asker").await, broker.app("handler").await);
    handler.handle(DIAL).await;
    asker.ask(DIAL, "r").await;
    let request = handler.next_on(DIAL).await;
    broker.terminate().await;
    draining(&mut asker).await;
    broker.signal("HUP").await;
    broker.log_until("the line about SIGHUP", |log| log.contains("SIGHUP")).await;
    draining(&mut handler).await;
    handler.reply(&request, json!({"data": "still answered"})).await;
    assert_eq!(asker.next_answer(DIAL, "r").await["data"], "still answered");
    assert_eq!(asker.closed().await, 1012);
    assert_eq!(broker.exit_code().await, Some(0));
}

#[tokio::test]
async fn a_request_that_nobody_answers_does_not_hold_the_end_up_for_ever() {
    let mut broker = Broker::open_with("[limits]\ndrain = \"500ms\"").await;
    let (mut asker, mut handler) = (broker.app("asker").await, broker.app("handler").await);
    handler.handle(DIAL).await;
    asker.ask(DIAL, "r").await;
    handler.next_on(DIAL).await;
    let start = tokio::time::Instant::now();
    broker.terminate().await;
    draining(&mut asker).await;
    // Exactly one answer, at the end of a broker too: that it was given up, or, where the handler was first, that it went.
    let (answers, code) = asker.until_closed().await;
    assert_eq!((answers.len(), code), (1, 1012), "{answers:?}");
    assert_eq!(answers[0]["inReplyTo"], "r");
    let why = answers[0]["data"]["ErrorCode"].as_str().unwrap();
    assert!(["REQUEST_CANCELLED", "HANDLER_GONE"].contains(&why), "{why}");
    assert_eq!(broker.exit_code().await, Some(0));
    assert!(start.elapsed().as_secs() < 8, "the request's own 10 s were waited for");
}

#[tokio::test]
async fn clients_are_spread_over_time_so_that_they_do_not_all_come_back_at_once() {
    let mut broker = Broker::start().await;
    let mut peers = Vec::new();
    for at in 0..20 {
        peers.push(broker.app(&format!("app-{at}")).await);
    }
    broker.terminate().await;
    let mut delays = Vec::new();
    for peer in &mut peers {
        delays.push(draining(peer).await);
        assert_eq!(peer.closed().await, 1012);
    }
    delays.sort_unstable();
    delays.dedup();
    assert!(delays.len() > 5, "{delays:?}");
    assert_eq!(broker.exit_code().await, Some(0));
}

#[tokio::test]
async fn an_idle_broker_ends_at_once_and_a_client_that_reads_nothing_does_not_hold_it() {
    let mut broker = Broker::open_with("[limits]\ndrain = \"1s\"").await;
    let mut stalled = broker.app("stalled").await;
    stalled.subscribe("Big/*/*").await;
    let mut sender = broker.app("sender").await;
    for _ in 0..200 {
        sender.publish("Big/Data/X", "x".repeat(16 * 1024)).await;
    }
    sender.fence().await;
    broker.terminate().await;
    assert_eq!(broker.exit_code().await, Some(0));
}

#[tokio::test]
async fn an_interrupt_drains_as_well() {
    let mut broker = Broker::start().await;
    let mut peer = broker.app("peer").await;
    broker.signal("INT").await;
    draining(&mut peer).await;
    assert_eq!(peer.closed().await, 1012);
    assert_eq!(broker.exit_code().await, Some(0));
}
