//! Over a restart of the broker nothing is missed.

use std::fs;

use salesforce_stand_in::{Broken, Fault, Wrong};

use super::{ALICE, NOTICE, NOTICES, OWN, Stage, listener, next_message};
use crate::support::Broker;

/// Keeps the broker from hearing until applications are back, as `settle` does with time.
fn closed(stage: &Stage) {
    stage.org.fault(Fault::new(Wrong::Events { error: Broken::Unavailable, after: 0 }));
}

#[tokio::test]
async fn a_broker_that_comes_back_goes_on_after_the_last_event() {
    let stage = Stage::start().await;
    let mut broker = stage.broker(OWN).await;
    let mut desk = listener(&broker, "alice-desk", NOTICE).await;
    stage.notice(ALICE, "before");
    assert_eq!(next_message(&mut desk).await, "before");
    broker.terminate().await;
    assert_eq!(broker.exit_code().await, Some(0));
    closed(&stage);
    stage.notice(ALICE, "meanwhile");
    let broker = broker.successor().await;
    let mut desk = listener(&broker, "alice-desk", NOTICE).await;
    stage.org.clear_faults();
    assert_eq!(next_message(&mut desk).await, "meanwhile");
    stage.notice(ALICE, "after");
    assert_eq!(next_message(&mut desk).await, "after");
}

#[tokio::test]
async fn a_keep_alive_is_a_place_to_go_on_from_too() {
    let stage = Stage::start().await;
    let mut broker = stage.broker(OWN).await;
    stage.org.keep_alive();
    let kept = broker.data_dir().join("salesforce-events.json");
    let mut often = tokio::time::interval(std::time::Duration::from_millis(10));
    crate::support::within("a kept replay id", async {
        while !fs::read_to_string(&kept).is_ok_and(|text| text.contains(NOTICES)) {
            often.tick().await;
        }
    })
    .await;
    // Not even time to write: at least what was written before counts.
    broker.signal("KILL").await;
    broker.exit_code().await;
    closed(&stage);
    stage.notice(ALICE, "meanwhile");
    let broker = broker.successor().await;
    let mut desk = listener(&broker, "alice-desk", NOTICE).await;
    stage.org.clear_faults();
    assert_eq!(next_message(&mut desk).await, "meanwhile");
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&kept).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }
}

/// The notices are on a durable channel.
const DURABLE: &str = "[channels.Salesforce]\nhistory = { size = 1000, ttl = \"10m\", durable = true }\n";

#[tokio::test]
async fn an_event_that_cannot_be_written_to_the_disk_comes_again() {
    let stage = Stage::start().await;
    let config = stage.config(&format!("{OWN}{DURABLE}"));
    let broker = Broker::with_file_size(400, &config).await;
    stage.streams(NOTICES, 1).await;
    let mut desk = listener(&broker, "alice-desk", NOTICE).await;
    let messages: Vec<String> = (0..40).map(|number| format!("{number} {}", "x".repeat(20_000))).collect();
    for message in &messages {
        stage.notice(ALICE, message);
    }
    let first = next_message(&mut desk).await;
    assert_eq!(first, messages[0]);
    broker.log_until("the fault", |log| log.contains("events of durable channels are refused")).await;
    broker.log_until("the stream's end", |log| log.contains("cannot be written to the disk")).await;
    // Without the limit of its files.
    closed(&stage);
    let broker = broker.killed().await;
    let mut desk = broker.app_by_token("alice-desk").await;
    let subscribe = crate::support::envelope(NOTICE, serde_json::json!({ "recover": { "last": 1000 } }));
    let reply = desk.command("Subscription", "Subscribe", subscribe).await;
    let kept = reply["data"]["Replayed"].as_u64().unwrap();
    assert!(kept > 0 && kept < messages.len() as u64, "{kept}");
    stage.org.clear_faults();
    let mut seen: Vec<String> = Vec::new();
    while seen.last() != messages.last() {
        seen.push(next_message(&mut desk).await);
    }
    // None is missing. Those after the last position that was saved can come again.
    let mut once: Vec<String> = Vec::new();
    for message in seen {
        if !once.contains(&message) {
            once.push(message);
        }
    }
    assert_eq!(once, messages);
}
