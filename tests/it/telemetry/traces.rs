//! `traceparent`: passed on as any unknown field, recorded with a request, and written to the log.

use serde_json::json;

use crate::support::Broker;
use crate::support::envelope;

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[tokio::test]
async fn a_traceparent_is_passed_on_and_in_the_log_if_it_is_well_formed() {
    let broker = Broker::launch(None, &["--log", "trace"]).await;
    let (mut crm, mut gadget) = (broker.app("crm").await, broker.app("gadget").await);
    crm.handle("Crm/Contact/Get").await;
    let malformed = TRACE.replace("4bf9", "4BF9");
    for trace in [json!(TRACE), json!(malformed), json!(7), json!("00-hunter2"), json!(null)] {
        gadget.send(envelope("Crm/Contact/Get", json!({"id": "t", "timeout": 1, "traceparent": trace}))).await;
        assert_eq!(crm.next_on("Crm/Contact/Get").await["traceparent"], trace);
        gadget.next_failure("Crm/Contact/Get", "REQUEST_TIMEOUT").await;
    }
    broker.log_until("five failures", |log| log.matches("a request failed").count() == 5).await;
    let log = broker.log();
    for words in ["a message", "a request failed"] {
        let with = log.lines().filter(|line| line.contains(words) && line.contains("traceparent="));
        assert_eq!(with.filter(|line| line.contains(&format!("traceparent={TRACE}"))).count(), 1, "{log}");
    }
    assert!(!log.contains(&malformed) && !log.contains("hunter2"), "{log}");
}
