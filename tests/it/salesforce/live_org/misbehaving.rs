//! An org that misbehaves under load: nobody's fetch is lost, nobody waits longer than promised, nobody else notices.

use std::time::Duration;

use salesforce_stand_in::{Fault, Wrong};
use serde_json::json;
use tokio::time::{Instant, interval};

use super::{ALICE, ALICES, BOB, BOBS, FETCH, Fixture, answers, ask, demo, fetched, org_at};
use crate::support::{envelope, within};

#[tokio::test]
async fn many_fetches_over_an_expiring_token_log_in_once_more_and_none_fails() {
    let fixture = Fixture::start().await;
    let (mut alice, mut bob) = (fixture.gadget(ALICE).await, fixture.gadget(BOB).await);
    assert_eq!(fetched(&mut alice).await, ALICES);
    fixture.org.fault(Fault::new(Wrong::Slow { milliseconds: 20 }).path("/query"));
    // As many of each as may wait for an adapter.
    ask(&mut alice, 64).await;
    ask(&mut bob, 64).await;
    // Some are answered, eight are under way, the others wait for their turn.
    let mut first = answers(&mut alice, 20).await;
    fixture.org.expire_sessions();
    first.extend(answers(&mut alice, 44).await);
    assert!(first.iter().all(|it| it == ALICES), "{first:?}");
    let others = answers(&mut bob, 64).await;
    assert!(others.iter().all(|it| it == BOBS), "{others:?}");
    assert_eq!(fixture.org.logins(), 2);
}

#[tokio::test]
async fn an_org_that_is_down_for_five_seconds_is_told_at_once_and_found_again() {
    let fixture = Fixture::with("timeout = '3s'\nbreaker_open = '1s'", demo(), &[]).await;
    let (mut alice, mut phone) = (fixture.gadget(ALICE).await, fixture.broker.app_of("phone", ALICE).await);
    assert_eq!(fetched(&mut alice).await, ALICES);
    let address = fixture.org.url().strip_prefix("http://").unwrap().parse().unwrap();
    fixture.org.stop().await;

    let down = Instant::now();
    let mut beats = interval(Duration::from_millis(100));
    while down.elapsed() < Duration::from_secs(5) {
        beats.tick().await;
        let asked = Instant::now();
        assert_eq!(fetched(&mut alice).await, "UPSTREAM_UNAVAILABLE");
        // The deadline is the broker's; what is over it is this machine's.
        assert!(asked.elapsed() < Duration::from_secs(6), "{:?}", asked.elapsed());
        phone.fence().await;
    }
    let org = org_at(address, &demo()).await;
    within("the org to be found again", async {
        while fetched(&mut alice).await != ALICES {
            beats.tick().await;
        }
    })
    .await;
    assert_eq!(org.logins(), 1, "a token of the org that went down is worth nothing");
}

#[tokio::test]
async fn a_slow_org_holds_nobody_else_up() {
    let fixture = Fixture::start().await;
    fixture.org.fault(Fault::new(Wrong::Slow { milliseconds: 3000 }).path("/query"));
    let mut alice = fixture.gadget(ALICE).await;
    ask(&mut alice, 64).await;
    let (mut desk, mut phone) = (fixture.broker.app_of("desk", BOB).await, fixture.broker.app_of("phone", BOB).await);
    phone.handle("Phone/Call/Dial").await;
    for at in 0..50 {
        desk.ask("Phone/Call/Dial", &format!("d{at}")).await;
        let request = phone.next_on("Phone/Call/Dial").await;
        phone.reply(&request, json!({ "data": at })).await;
        assert_eq!(desk.next_answer("Phone/Call/Dial", &format!("d{at}")).await["data"], at);
    }
    // Also on the connection that waits itself; and none of its answers was there before this one.
    alice.send(envelope("Phone/Call/Note", json!({ "id": "n" }))).await;
    assert_eq!(alice.next_receipt("n").await, 0);
}

#[tokio::test]
async fn each_fault_in_the_middle_of_a_load_is_overcome_or_told_by_its_own_code() {
    let fixture = Fixture::with("breaker_failures = 1000\nbreaker_open = '10ms'", demo(), &[]).await;
    let (mut alice, mut bob) = (fixture.gadget(ALICE).await, fixture.gadget(BOB).await);
    let query = |wrong| Fault::new(wrong).path("/query");
    let secret = || ("CTI_Login__c".to_owned(), "CTI_Password__c".to_owned());
    let ((object, field), (object2, field2)) = (secret(), secret());
    for (what, fault, expected) in [
        ("a 503 that passes", query(Wrong::Unavailable { retry_after: None }).times(2), ALICES),
        ("a cut body", query(Wrong::CutBody {}).times(2), ALICES),
        ("a page", query(Wrong::HtmlBody { status: 200 }).times(2), ALICES),
        ("a dropped connection", query(Wrong::Reset {}).times(2), ALICES),
        ("a token that ended", query(Wrong::SessionExpired {}).times(1), ALICES),
        ("a 503 that stays", query(Wrong::Unavailable { retry_after: None }), "UPSTREAM_UNAVAILABLE"),
        ("a 401 that stays", query(Wrong::SessionExpired {}), "UPSTREAM_REJECTED"),
        ("a 401 that no login cures", query(Wrong::SessionNotValid {}), "UPSTREAM_REJECTED"),
        ("an expired password", query(Wrong::PasswordExpired {}), "UPSTREAM_REJECTED"),
        ("a mask", Fault::new(Wrong::MaskedField { object, field }), "UPSTREAM_REJECTED"),
        ("a hidden field", Fault::new(Wrong::HiddenField { object: object2, field: field2 }), "UPSTREAM_REJECTED"),
        ("two rows", Fault::new(Wrong::TwoRows {}), "UPSTREAM_REJECTED"),
        ("the daily limit", query(Wrong::DailyLimit {}), "UPSTREAM_UNAVAILABLE"),
    ] {
        fixture.org.fault(fault);
        ask(&mut alice, 4).await;
        ask(&mut bob, 4).await;
        let (hers, his) = (answers(&mut alice, 4).await, answers(&mut bob, 4).await);
        let his_expected = if expected == ALICES { BOBS } else { expected };
        assert!(hers.iter().all(|it| it == expected), "{what}: {hers:?}");
        assert!(his.iter().all(|it| it == his_expected), "{what}: {his:?}");
        fixture.org.clear_faults();
    }
    let log = fixture.broker.log();
    assert!(!log.contains(ALICES) && !log.contains("***"), "{log}");
    assert!(fixture.org.seen().iter().all(|it| !it.path.contains(FETCH)));
}
