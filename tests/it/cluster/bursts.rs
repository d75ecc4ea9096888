//! Much at once from one node to another: it arrives whole, and neither node takes the other one for lost.

use serde_json::{Value, json};

use super::servers::Servers;
use crate::support::{Broker, Peer};

/// Messages of a burst, and the bytes of each.
const MESSAGES: u64 = 150;
const BYTES: usize = 100_000;

/// Publishes a burst.
async fn publish(peer: &mut Peer) {
    let pad = "x".repeat(BYTES);
    for number in 0..MESSAGES {
        let data = json!({ "number": number, "pad": pad });
        peer.send(json!({ "channel": "Big", "topic": "Burst", "subtopic": "Part", "data": data })).await;
    }
}

/// The numbers of what arrives, up to the last one of a burst.
async fn receive(peer: &mut Peer) -> Vec<u64> {
    let mut numbers = Vec::new();
    while numbers.last() != Some(&(MESSAGES - 1)) {
        let event = peer.next().await;
        let number = event["data"]["number"].as_u64();
        numbers.push(number.unwrap_or_else(|| panic!("{} {}", event["topic"], event["subtopic"])));
    }
    numbers
}

#[tokio::test]
async fn a_burst_of_15_mb_reaches_another_node_whole() {
    let Some(servers) = Servers::start(1).await else { return };
    let table = |node: &str| format!("{}[limits]\nrate = 0\n", servers.table(node, 0));
    let (one, two) = (table("one"), table("two"));
    let (one, two) = tokio::join!(Broker::open_with(&one), Broker::open_with(&two));
    let mut phone = one.app_of("phone", "alice").await;
    let mut crm = two.app_of("crm", "alice").await;
    crm.subscribe("Big/*/*").await;
    crm.subscribe("Broker/Cluster/Gap").await;
    let ((), numbers) = tokio::join!(publish(&mut phone), receive(&mut crm));
    assert!(numbers.iter().copied().eq(0..MESSAGES), "lost, repeated or out of order: {numbers:?}");
    for node in [&one, &two] {
        let log = node.log();
        let words = ["is lost", "is broken", "stood still", "cut off", "is not connected"];
        assert!(!words.iter().any(|words| log.contains(words)), "{log}");
    }
    // Both directions work still.
    phone.subscribe("Calls/*/*").await;
    crm.send(json!({ "channel": "Calls", "topic": "Call", "subtopic": "Ringing", "id": "e" })).await;
    assert_eq!(crm.next().await["data"]["Nodes"], Value::from(1));
    phone.next_on("Calls/Call/Ringing").await;
}
