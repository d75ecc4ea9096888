//! What is counted of JetStream.

use serde_json::json;

use super::everything::scrape;
use crate::cluster::servers::Servers;
use crate::support::{Broker, envelope};

const FAILED: &str = "switchboard_storage_errors_total{file=\"jetstream\"}";
const CHANNELS: &str = r#"
[admin]
listen = ['127.0.0.1:0']
[limits]
message_bytes = 65536
[channels.Phone]
history = { size = 100, ttl = "10m" }
"#;

#[tokio::test]
async fn reads_and_writes_that_fail_are_counted() {
    let Some(mut servers) = Servers::start(1).await else { return };
    let node = Broker::open_with(&format!("{}storage_wait = \"1s\"\n{CHANNELS}", servers.table("one", 0))).await;
    let admin = node.admin().await;
    let mut phone = node.app_of("phone", "alice").await;
    phone.send(envelope("Phone/Call/Ringing", json!({ "id": "kept" }))).await;
    phone.next_receipt("kept").await;
    assert!(scrape(&node, admin).await.value(FAILED).abs() < 0.5, "nothing has failed");
    servers.kill(0).await;
    let mut before = 0.0;
    for (triple, more) in [("Phone/Call/Ringing", json!({})), ("State/Agent/Mood", json!({ "retain": true }))] {
        let mut event = envelope(triple, more);
        event["id"] = json!("e");
        phone.send(event).await;
        phone.next_error("STORAGE_UNAVAILABLE").await;
        let failed = scrape(&node, admin).await.value(FAILED);
        assert!(failed > before, "{triple}: {failed} after {before}");
        before = failed;
    }
    // A read: where the log of another user is.
    let mut bob = node.app_of("phone", "bob").await;
    assert_eq!(bob.subscribe_refused("Phone/*/*", json!({})).await, "STORAGE_UNAVAILABLE");
    let failed = scrape(&node, admin).await.value(FAILED);
    assert!(failed > before, "reads: {failed} after {before}");
}
