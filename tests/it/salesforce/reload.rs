//! What a reload changes of the org, and what needs a restart.

use serde_json::json;

use super::desk::{CASE, Desk, OBJECTS, UPDATE};

/// A change of the case.
fn update(text: &str) -> serde_json::Value {
    json!({ "callId": "1", "Name": "Case", "sfid": CASE, "params": { "variable1": text } })
}

#[tokio::test]
async fn a_limit_of_calls_is_another_one_after_a_reload() {
    let desk = Desk::start(&format!("calls_per_user = 1\n{OBJECTS}")).await;
    let mut peer = desk.broker.app_of("myapp", "alice").await;
    assert_eq!(desk.ask(&mut peer, UPDATE, "1", update("first")).await["data"]["Success"], true);
    assert_eq!(desk.ask(&mut peer, UPDATE, "2", update("second")).await["data"]["ErrorCode"], "RATE_LIMITED");
    desk.configure(&format!("calls_per_user = 3\n{OBJECTS}"));
    let line = desk.broker.reload().await;
    assert!(line.contains("changed=\"salesforce.calls_per_user\""), "{line}");
    assert_eq!(desk.ask(&mut peer, UPDATE, "3", update("third")).await["data"]["Success"], true);
    desk.rows_become("SELECT Subject FROM Case", json!([{ "Subject": "third" }])).await;
}

#[tokio::test]
async fn a_certificate_file_that_cannot_be_read_leaves_everything_as_it_was() {
    let desk = Desk::start(OBJECTS).await;
    let mut peer = desk.broker.app_of("myapp", "alice").await;
    desk.configure(&format!("ca_file = \"/nonexistent\"\ncalls_per_user = 1\n{OBJECTS}"));
    let line = desk.broker.reload().await;
    assert!(line.contains("refused") && line.contains("salesforce.ca_file"), "{line}");
    for text in ["first", "second"] {
        assert_eq!(desk.ask(&mut peer, UPDATE, text, update(text)).await["data"]["Success"], true);
    }
}

#[tokio::test]
async fn another_login_needs_a_restart() {
    let desk = Desk::start(OBJECTS).await;
    for (line, key) in [("audience = \"https://other.example.com\"", "audience"), ("concurrency = 2", "objects")] {
        let objects = if key == "objects" { "" } else { OBJECTS };
        desk.configure(&format!("{line}\n{objects}"));
        let line = desk.broker.reload().await;
        assert!(line.contains("need a restart") && line.contains(&format!("salesforce.{key}")), "{line}");
    }
}
