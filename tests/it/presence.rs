//! Presence: the list of applications, Joined and Left, and the state of a tab (protocol.md, Resume, … presence).

use serde_json::{Value, json};

use crate::support::{Broker, Peer, envelope};

/// Source -> (sessions, state), as the list has it.
async fn listed(peer: &mut Peer) -> Vec<(String, u64, String)> {
    let list = peer.command("Application", "List", Value::Null).await;
    let mut rows: Vec<(String, u64, String)> = list["data"]["Applications"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let keys: Vec<&str> = row.as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(keys, ["Source", "User", "Since", "Sessions", "State"]);
            humantime::parse_rfc3339(row["Since"].as_str().unwrap()).expect("RFC 3339");
            let text = |key: &str| row[key].as_str().unwrap().to_owned();
            (text("Source"), row["Sessions"].as_u64().unwrap(), text("State"))
        })
        .collect();
    rows.sort();
    rows
}

fn row(source: &str, sessions: u64, state: &str) -> (String, u64, String) {
    (source.to_owned(), sessions, state.to_owned())
}

#[tokio::test]
async fn an_application_is_active_if_any_session_is() {
    let broker = Broker::start().await;
    let mut board = broker.app("board").await;
    let (mut one, mut two) = (broker.app("tab").await, broker.app("tab").await);
    assert_eq!(listed(&mut board).await, [row("board", 1, "active"), row("tab", 2, "active")]);
    one.command("Application", "SetState", json!({"state": "asleep"})).await;
    assert_eq!(listed(&mut board).await[1], row("tab", 2, "active"));
    two.command("Application", "SetState", json!({"state": "asleep"})).await;
    assert_eq!(listed(&mut board).await[1], row("tab", 2, "asleep"));
    one.command("Application", "SetState", json!({"state": "active"})).await;
    assert_eq!(listed(&mut board).await[1], row("tab", 2, "active"));
    one.command("Application", "Unregister", json!({})).await;
    assert_eq!(listed(&mut board).await[1], row("tab", 1, "asleep"));
    two.command("Application", "Unregister", json!({})).await;
    assert_eq!(listed(&mut board).await, [row("board", 1, "active")]);
}

#[tokio::test]
async fn since_is_the_earliest_sessions() {
    let broker = Broker::start().await;
    let mut board = broker.app("board").await;
    let first = broker.app("tab").await;
    let since = |list: Value| {
        list["data"]["Applications"].as_array().unwrap().iter().find(|it| it["Source"] == "tab").unwrap()["Since"]
            .clone()
    };
    let before = since(board.command("Application", "List", Value::Null).await);
    let _second = broker.app("tab").await;
    assert_eq!(since(board.command("Application", "List", Value::Null).await), before);
    drop(first);
}

#[tokio::test]
async fn joined_and_left_tell_of_every_session() {
    let broker = Broker::start().await;
    let mut board = broker.app("board").await;
    board.subscribe("Broker/Application/Joined").await;
    board.subscribe("Broker/Application/Left").await;
    let mut peer = broker.raw("peer").await;
    board.expect_nothing().await;
    for (source, ending) in [("a", "unregister"), ("b", "close"), ("c", "kill")] {
        let reply = peer.register(source, json!({})).await;
        let joined = board.next_on("Broker/Application/Joined").await;
        let keys: Vec<&str> = joined["data"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["Source", "User", "SessionId"]);
        assert_eq!((&joined["data"]["Source"], &joined["data"]["User"]), (&source.into(), &"local".into()));
        assert_eq!(joined["data"]["SessionId"], reply["data"]["SessionId"]);
        peer = match ending {
            "unregister" => {
                peer.command("Application", "Unregister", json!({})).await;
                peer
            }
            "close" => {
                peer.close().await;
                broker.raw("peer").await
            }
            _ => {
                peer.kill();
                broker.raw("peer").await
            }
        };
        let left = board.next_on("Broker/Application/Left").await;
        assert_eq!(left["data"], joined["data"], "{ending}");
    }
    board.expect_nothing().await;
}

#[tokio::test]
async fn one_that_was_asleep_is_asked_as_any_other_when_it_is_active_again() {
    let broker = Broker::start().await;
    let (mut asker, mut tab) = (broker.app("asker").await, broker.app("tab").await);
    let mut other = broker.app("other").await;
    tab.handle("Phone/Call/*").await;
    other.handle("Phone/Call/*").await;
    tab.command("Application", "SetState", json!({"state": "asleep"})).await;
    asker.send(envelope("Phone/Call/Dial", json!({"id": "a"}))).await;
    other.next_on("Phone/Call/Dial").await;
    tab.command("Application", "SetState", json!({"state": "active"})).await;
    asker.send(envelope("Phone/Call/Dial", json!({"id": "b"}))).await;
    tab.next_on("Phone/Call/Dial").await;
}
