//! Streams that end, sessions that expire, topics that are not there: what comes of them.

use std::time::Duration;

use salesforce_stand_in::{Broken, Fault, Wrong};
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::{ALICE, NOTICE, NOTICES, OWN, Stage, listener, next_message};
use crate::support::{Broker, Peer, within};

const FETCH: &str = "Salesforce/User/FetchCredentials";

fn fault(error: Broken, after: usize) -> Fault {
    Fault::new(Wrong::Events { error, after })
}

/// A broker that has subscribed, and an application of Alice's that has received one notice.
async fn heard(stage: &Stage) -> (Broker, Peer) {
    let broker = stage.broker(OWN).await;
    let mut desk = listener(&broker, "alice-desk", NOTICE).await;
    stage.notice(ALICE, "first");
    assert_eq!(next_message(&mut desk).await, "first");
    (broker, desk)
}

#[tokio::test]
async fn a_stream_that_ends_is_opened_again_where_it_was() {
    for error in [Broken::Cut, Broken::Unavailable] {
        let stage = Stage::start().await;
        stage.org.fault(fault(error, 4).times(1));
        let (broker, mut desk) = heard(&stage).await;
        for number in 0..10 {
            stage.notice(ALICE, &number.to_string());
        }
        // At least once: what was on its way when the stream ended may come again.
        let mut next = 0;
        while next < 10 {
            let number: usize = next_message(&mut desk).await.parse().unwrap();
            assert!(number <= next, "{number} in place of {next}");
            next = next.max(number + 1);
        }
        broker.log_until("that it is over", |log| log.contains("events arrive again")).await;
        assert!(broker.log().contains("no events arrive for now"));
    }
}

#[tokio::test]
async fn a_session_that_has_ended_is_renewed_and_nothing_is_missed() {
    let stage = Stage::start().await;
    // The stream ends once it has given the second notice; the session has ended then.
    stage.org.fault(fault(Broken::Cut, 2).times(1));
    let (_broker, mut desk) = heard(&stage).await;
    stage.org.expire_sessions();
    assert_eq!(stage.org.logins(), 1);
    stage.notice(ALICE, "an open stream outlives its session");
    assert_eq!(next_message(&mut desk).await, "an open stream outlives its session");
    stage.notice(ALICE, "after the login");
    assert_eq!(next_message(&mut desk).await, "after the login");
    assert_eq!(stage.org.logins(), 2);
}

#[tokio::test]
async fn a_session_that_has_ended_is_not_shown_again_after_a_login_that_failed() {
    let stage = Stage::start().await;
    stage.org.fault(fault(Broken::Cut, 2).times(1));
    let (_broker, mut desk) = heard(&stage).await;
    stage.org.expire_sessions();
    // A login is repeated twice before it has failed.
    stage.org.fault(Fault::new(Wrong::Unavailable { retry_after: None }).times(3).path("/oauth2/token"));
    stage.notice(ALICE, "second");
    assert_eq!(next_message(&mut desk).await, "second");
    stage.notice(ALICE, "third");
    assert_eq!(next_message(&mut desk).await, "third");
    let streams = stage.org.seen().iter().filter(|seen| seen.path.ends_with("Subscribe")).count();
    assert_eq!(streams, 3, "the first, the one that was refused, and the one after the login");
}

#[tokio::test]
async fn topics_share_a_login_that_fails_and_the_wait_after_it() {
    let stage = Stage::start().await;
    let refused = Wrong::LoginRefused { error: "invalid_grant".to_owned(), description: "user is locked".to_owned() };
    stage.org.fault(Fault::new(refused).path("/oauth2/token"));
    let topic = |number| format!("[salesforce.events.topics.n{number}]\ntopic = \"/event/CTI_Notice{number}__e\"\n");
    let topics: Vec<String> = (0..10).map(topic).collect();
    let started = Instant::now();
    let broker = Broker::with_config(&stage.config(&topics.concat())).await;
    let all = |log: &str| (0..10).all(|number| log.contains(&format!("name=\"n{number}\"")));
    broker.log_until("that each topic waits", |log| all(log)).await;
    let seconds = started.elapsed().as_secs();
    let logins = stage.org.seen().iter().filter(|seen| seen.path.ends_with("/oauth2/token")).count() as u64;
    assert!((1..=1 + seconds).contains(&logins), "{logins} logins in {seconds} s");
}

#[tokio::test]
async fn a_session_that_is_refused_again_and_again_does_not_log_in_without_end() {
    let stage = Stage::start().await;
    stage.org.fault(fault(Broken::Auth, 0));
    let broker = Broker::with_config(&stage.config(OWN)).await;
    broker.log_until("that it waits", |log| log.contains("no events arrive for now")).await;
    assert_eq!(stage.org.logins(), 2, "one login for each refusal, and a wait from the second on");
    stage.org.clear_faults();
    stage.streams(NOTICES, 1).await;
}

#[tokio::test]
async fn a_session_that_is_refused_after_each_event_does_not_log_in_without_end() {
    let stage = Stage::start().await;
    stage.org.fault(fault(Broken::Auth, 1));
    let broker = stage.broker(OWN).await;
    for number in 0..20 {
        stage.notice(ALICE, &number.to_string());
    }
    broker.log_until("that it waits", |log| log.contains("no events arrive for now")).await;
    sleep_until(Instant::now() + Duration::from_millis(500)).await;
    let logins = stage.org.logins();
    assert!(logins <= 3, "{logins} logins within a second");
    stage.org.clear_faults();
    stage.streams(NOTICES, 1).await;
}

#[tokio::test]
async fn a_replay_id_that_is_not_taken_begins_the_topic_as_it_is_configured() {
    let stage = Stage::start().await;
    stage.org.fault(fault(Broken::Cut, 1).times(1));
    stage.org.fault(fault(Broken::Replay, 0).times(1));
    let broker = stage.broker(&format!("{OWN}start = \"earliest\"\n")).await;
    let mut desk = listener(&broker, "alice-desk", NOTICE).await;
    for message in ["first", "second"] {
        stage.notice(ALICE, message);
    }
    // From the earliest on: the first comes twice.
    for message in ["first", "first", "second"] {
        assert_eq!(next_message(&mut desk).await, message);
    }
    assert!(broker.log().contains("replay id is not taken any more"), "{}", broker.log());
}

#[tokio::test]
async fn a_topic_that_is_not_there_is_told_once_and_holds_up_no_other() {
    let stage = Stage::start().await;
    let missing = "[salesforce.events.topics.missing]\ntopic = \"/event/Missing__e\"\n";
    let broker = stage.broker(&format!("{OWN}{missing}")).await;
    let mut desk = listener(&broker, "alice-desk", NOTICE).await;
    broker.log_until("the missing topic", |log| log.contains("there is no such topic")).await;
    stage.notice(ALICE, "received");
    assert_eq!(next_message(&mut desk).await, "received");
    assert_eq!(broker.log().matches("/event/Missing__e").count(), 2, "the summary, and one line: {}", broker.log());
}

#[tokio::test]
async fn a_pub_sub_api_that_is_silent_or_down_holds_up_no_fetch() {
    for error in [Broken::Silent, Broken::Unavailable] {
        let stage = Stage::start().await;
        stage.org.fault(fault(error, 0));
        let config = format!("{}\n[credentials]\nstore = \"salesforce\"\n", stage.config(OWN));
        let broker = Broker::with_config(&config).await;
        let mut desk = broker.app_by_token("alice-desk").await;
        let asked = || stage.org.seen().iter().any(|seen| seen.path.ends_with("Subscribe"));
        let mut often = tokio::time::interval(Duration::from_millis(5));
        within("a stream", async {
            while !asked() {
                often.tick().await;
            }
        })
        .await;
        for number in 0..20 {
            let id = number.to_string();
            desk.ask(FETCH, &id).await;
            assert_eq!(desk.next_answer(FETCH, &id).await["data"]["Password"], "made-up-Alice");
        }
        assert_eq!(stage.org.logins(), 1, "one session for both");
        broker.terminate().await;
    }
}

#[tokio::test]
async fn the_log_at_trace_has_no_token_and_no_event() {
    let stage = Stage::with(true).await;
    let broker = Broker::launch(Some(&stage.config(OWN)), &["--log", "trace"]).await;
    stage.streams(NOTICES, 1).await;
    let mut desk = listener(&broker, "alice-desk", NOTICE).await;
    stage.publish(&json!({ "User_Id__c": ALICE, "Message__c": "for-her-eyes-only" }));
    assert_eq!(next_message(&mut desk).await, "for-her-eyes-only");
    let log = broker.log();
    assert!(log.contains("subscribed to the topic"));
    // A token begins with the org's id and an exclamation mark.
    for secret in ["00D000000000001!", "demo-secret", "for-her-eyes-only"] {
        let found: Vec<&str> = log.lines().filter(|line| line.contains(secret)).collect();
        assert!(found.is_empty(), "{secret}: {found:?}");
    }
}
