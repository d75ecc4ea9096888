//! Logins that hang: each costs its own request only, and the login host is left alone for a while.

use std::time::Duration;

use salesforce_stand_in::{Fault, Wrong};
use serde_json::json;
use switchboard::salesforce::Org;
use tokio::time::Instant;

use super::desk::{CREATE, Desk, OBJECTS, UPDATE, create, update};
use super::stand_in::{Answer, StandIn};
use super::{ID, config, fetched, row, rows, token};
use crate::support::{envelope, within};

#[tokio::test]
async fn a_login_that_hangs_in_a_creation_ends_with_its_time_limit_and_others_log_in() {
    let desk = Desk::start(OBJECTS).await;
    let mut peer = desk.broker.app("myapp").await;
    let hangs = Wrong::Slow { milliseconds: 90_000 };
    desk.org.fault(Fault::new(hangs).path("/oauth2/token").times(1));
    let task = create(json!({ "subject": "MyTask" }));
    peer.send(envelope(CREATE, json!({ "data": task }))).await;
    let answer = within("an answer", peer.next_on(CREATE)).await;
    assert_eq!(answer["data"]["ErrorCode"], "UPSTREAM_UNAVAILABLE", "{answer}");

    let mut often = tokio::time::interval(Duration::from_millis(100));
    within("an update", async {
        for number in 0.. {
            often.tick().await;
            let answer = desk.ask(&mut peer, UPDATE, &number.to_string(), update(json!({ "variable1": "x" }))).await;
            if answer["data"]["Success"] == true {
                return;
            }
        }
    })
    .await;
    let tasks = desk.org.seen().into_iter().filter(|seen| seen.path.contains("Task")).count();
    assert_eq!(tasks, 0, "nothing was sent, so nothing is sent late and there is no record to look for");
}

#[tokio::test]
async fn a_creation_whose_token_is_refused_after_the_time_limit_is_not_sent_late() {
    let desk = Desk::start(OBJECTS).await;
    let mut peer = desk.broker.app("myapp").await;
    for wrong in [Wrong::Slow { milliseconds: 3000 }, Wrong::SessionExpired {}] {
        desk.org.fault(Fault::new(wrong).method("POST").path("/sobjects/Task").times(1));
    }
    let task = || create(json!({ "subject": "MyTask" }));
    let unknown = desk.ask(&mut peer, CREATE, "r1", task()).await;
    assert!(unknown["data"]["ErrorMessage"].as_str().unwrap().contains("has not said yet"), "{unknown}");
    let refused = desk.ask(&mut peer, CREATE, "r1", task()).await;
    assert_eq!(refused["data"]["ErrorCode"], "UPSTREAM_UNAVAILABLE", "{refused}");
    assert_eq!((desk.asked("POST", "/sobjects/Task"), desk.org.logins()), (1, 1));
    let created = desk.ask(&mut peer, CREATE, "r1", task()).await;
    assert_eq!(created["data"]["Success"], true, "{created}");
    assert_eq!(desk.rows("SELECT Id FROM Task").await.len(), 1);
}

#[tokio::test]
async fn after_a_login_that_was_not_answered_the_next_waits() {
    let hangs = || Answer::Late(Duration::from_mins(1), Box::new(token("t")));
    let stand_in = StandIn::start(move |seen| if seen.is_login() { hangs() } else { rows(&[row("")]) }).await;
    let mut config = config(&stand_in.url);
    (config.timeout, config.breaker_failures) = (Duration::from_millis(200), 1000);
    let org = Org::open(&config).unwrap();
    let started = Instant::now();
    for _ in 0..10 {
        assert!(fetched(&org, ID).await.starts_with("UPSTREAM_UNAVAILABLE"));
    }
    let seconds = started.elapsed().as_secs();
    assert!(stand_in.logins() as u64 <= 1 + seconds, "{} logins in {seconds} s", stand_in.logins());
}
