//! Which ends of a session publish its will.

use serde_json::{Value, json};

use crate::support::{Broker, Peer, application, envelope, token_of};

const GONE: &str = "Phone/Agent/Gone";

/// An application that registers with a will, and one that receives it.
async fn with_will(broker: &Broker) -> (Peer, Peer) {
    let mut board = broker.app("wallboard").await;
    board.subscribe("Phone/*/*").await;
    let phone = broker.app_with("softphone", json!({ "will": envelope(GONE, json!({})) })).await;
    (phone, board)
}

async fn published(board: &mut Peer) {
    assert_eq!(board.next_on(GONE).await["source"], "softphone");
}

#[tokio::test]
async fn a_close_without_a_code_or_with_1000_counts_as_leaving() {
    let broker = Broker::start().await;
    for code in [None, Some(1000)] {
        let (phone, mut board) = with_will(&broker).await;
        match code {
            None => phone.close().await,
            Some(code) => phone.close_with(code).await,
        }
        board.expect_nothing().await;
    }
}

#[tokio::test]
async fn any_other_close_of_the_client_publishes_the_will() {
    let broker = Broker::start().await;
    for code in [1001, 3000, 4000] {
        let (phone, mut board) = with_will(&broker).await;
        phone.close_with(code).await;
        published(&mut board).await;
        board.expect_nothing().await;
    }
    let (phone, mut board) = with_will(&broker).await;
    phone.kill();
    published(&mut board).await;
}

#[tokio::test]
async fn a_close_by_the_broker_for_a_cause_publishes_the_will() {
    let broker = Broker::open_with("[limits]\nmalformed = 1").await;
    let (mut phone, mut board) = with_will(&broker).await;
    phone.send_text("{").await;
    phone.next_error("INVALID_JSON").await;
    assert_eq!(phone.closed().await, 1008);
    published(&mut board).await;
    let (mut phone, mut board) = with_will(&broker).await;
    phone.send_text(&format!("\"{}\"", "x".repeat(2 << 20))).await;
    assert_eq!(phone.until_closed().await.1, 1009);
    published(&mut board).await;
}

#[tokio::test]
async fn a_drain_publishes_no_will() {
    let mut broker = Broker::start().await;
    let (mut phone, mut board) = with_will(&broker).await;
    broker.terminate().await;
    for peer in [&mut phone, &mut board] {
        let (messages, code) = peer.until_closed().await;
        let triples: Vec<&Value> = messages.iter().map(|message| &message["subtopic"]).collect();
        assert_eq!((triples, code), (vec![&json!("Draining")], 1012));
    }
    assert_eq!(broker.exit_code().await, Some(0));
}

#[tokio::test]
async fn a_revocation_publishes_no_will() {
    let rows = [application("wallboard", Some("alice"), ""), application("softphone", Some("alice"), "")];
    let broker = Broker::with_config(&rows.concat()).await;
    let mut board = broker.app_by_token("wallboard").await;
    board.subscribe("Phone/*/*").await;
    let options = json!({ "token": token_of("softphone"), "will": envelope(GONE, json!({})) });
    let mut phone = broker.app_with("softphone", options).await;
    broker.configure(&rows[0]);
    broker.reload().await;
    phone.next_error("UNAUTHENTICATED").await;
    assert_eq!(phone.closed().await, 4401);
    board.expect_nothing().await;
}

#[tokio::test]
async fn a_will_that_is_no_longer_allowed_is_logged_and_not_published() {
    let row = |publish: &str| {
        let permissions =
            format!("permissions = {{ publish = ['{publish}'], subscribe = ['*/*/*'], request = [], handle = [] }}\n");
        application("softphone", Some("alice"), &permissions) + &application("wallboard", Some("alice"), "")
    };
    let broker = Broker::with_config(&row("Phone/*/*")).await;
    let mut board = broker.app_by_token("wallboard").await;
    board.subscribe("Phone/*/*").await;
    let options = json!({ "token": token_of("softphone"), "will": envelope(GONE, json!({})) });
    let phone = broker.app_with("softphone", options).await;
    broker.configure(&row("Desk/*/*"));
    broker.reload().await;
    phone.kill();
    broker.log_until("the refused will", |log| log.contains("a will was refused") && log.contains("FORBIDDEN")).await;
    board.expect_nothing().await;
}

#[tokio::test]
async fn a_will_has_at_most_8_kib() {
    let broker = Broker::start().await;
    let will = |bytes: usize| {
        let empty = envelope(GONE, json!({ "data": "" })).to_string().len();
        json!({ "will": envelope(GONE, json!({ "data": "x".repeat(bytes - empty) })) })
    };
    let mut phone = broker.raw("softphone").await;
    let reply = phone.register("softphone", will(8193)).await;
    assert_eq!((&reply["data"]["Success"], &reply["data"]["ErrorCode"]), (&json!(false), &json!("TOO_LARGE")));
    assert!(reply["data"]["ErrorMessage"].as_str().unwrap().contains("will"), "{reply}");
    let reply = phone.register("softphone", will(8192)).await;
    assert_eq!(reply["data"]["Success"], true, "the connection lives on: {reply}");
}
