//! Topics that a reload adds, changes and removes.

use serde_json::json;

use super::{ALICE, BOB, NOTICE, NOTICES, OWN, SHARED, Stage, listener, next_message};
use crate::support::Broker;

const LOGINS: &str = "/data/CTI_Login__ChangeEvent";

async fn reload(broker: &Broker, config: &str) {
    broker.configure(config);
    let line = broker.reload().await;
    assert!(line.contains("was reloaded"), "{line}");
}

/// The credentials are in the directory, so the org is not used before the first topic.
#[tokio::test]
async fn topics_are_added_and_removed_and_continue_where_they_were() {
    let stage = Stage::start().await;
    let broker = Broker::with_config(&stage.config("")).await;
    let mut desk = listener(&broker, "alice-desk", NOTICE).await;
    assert_eq!(stage.org.logins(), 0);
    reload(&broker, &stage.config(OWN)).await;
    stage.streams(NOTICES, 1).await;
    stage.notice(ALICE, "first");
    assert_eq!(next_message(&mut desk).await, "first");

    let both = format!("{OWN}[salesforce.events.topics.logins]\ntopic = \"{LOGINS}\"\n");
    reload(&broker, &stage.config(&both)).await;
    stage.streams(LOGINS, 1).await;
    assert_eq!((stage.org.streams(NOTICES), stage.subscriptions()), (1, 2), "a topic that stays is left alone");

    reload(&broker, &stage.config("")).await;
    stage.streams(NOTICES, 0).await;
    stage.streams(LOGINS, 0).await;
    stage.notice(ALICE, "meanwhile");
    // Under another name it is the same topic, and its position is still known.
    reload(&broker, &stage.config(&OWN.replace("topics.notice", "topics.other"))).await;
    assert_eq!(next_message(&mut desk).await, "meanwhile");
    reload(&broker, &stage.config(&both)).await;
    stage.streams(LOGINS, 1).await;
    stage.streams(NOTICES, 1).await;
    stage.notice(ALICE, "last");
    assert_eq!(next_message(&mut desk).await, "last");
    desk.expect_nothing().await;
}

#[tokio::test]
async fn other_settings_of_a_topic_hold_for_its_next_event_on_the_same_stream() {
    let stage = Stage::start().await;
    let broker = stage.broker(SHARED).await;
    let mut alice = listener(&broker, "alice-desk", NOTICE).await;
    let mut bob = listener(&broker, "bob-desk", NOTICE).await;
    stage.notice(ALICE, "for all");
    assert_eq!((next_message(&mut alice).await, next_message(&mut bob).await), ("for all".into(), "for all".into()));
    reload(&broker, &stage.config(&format!("{OWN}fields = [\"Message__c\"]\n"))).await;
    stage.notice(BOB, "for bob");
    let event = bob.next_on(NOTICE).await;
    assert_eq!(event["data"]["Message__c"], json!("for bob"));
    assert!(event["data"].get("User_Id__c").is_none(), "{event}");
    alice.expect_nothing_from(&mut bob).await;
    assert_eq!((stage.org.streams(NOTICES), stage.subscriptions()), (1, 1), "the stream is the same");
}

/// The events are on a durable channel, so those of the old subscription are being written when the new one begins.
const DURABLE: &str = "[channels.Salesforce]\nhistory = { size = 10000, ttl = \"10m\", durable = true }\n";

/// Each reload gives the table of the topic another name, while events arrive.
#[tokio::test]
async fn no_event_is_missing_or_published_twice_over_many_reloads() {
    const RELOADS: usize = 20;
    const EVENTS: usize = 50;
    let stage = Stage::start().await;
    let broker = stage.broker(&format!("{DURABLE}{OWN}")).await;
    let mut desk = listener(&broker, "alice-desk", NOTICE).await;
    // From then on the position is known.
    stage.notice(ALICE, "first");
    assert_eq!(next_message(&mut desk).await, "first");
    let mut published = 0;
    for number in 0..RELOADS {
        let topic = OWN.replace("topics.notice", &format!("topics.n{number}"));
        broker.configure(&stage.config(&format!("{DURABLE}{topic}")));
        let publish = async {
            for _ in 0..EVENTS {
                stage.notice(ALICE, &published.to_string());
                published += 1;
                tokio::task::yield_now().await;
            }
        };
        let (line, ()) = tokio::join!(broker.reload(), publish);
        assert!(line.contains("was reloaded"), "{line}");
    }
    for number in 0..published {
        assert_eq!(next_message(&mut desk).await, number.to_string());
    }
    desk.expect_nothing().await;
    stage.streams(NOTICES, 1).await;
}
