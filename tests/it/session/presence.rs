//! Presence: `Left` follows every way in which a connection ends. Transcripts show the rest.

use serde_json::json;

use crate::support::Broker;

#[tokio::test]
async fn left_follows_however_the_connection_ends() {
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
