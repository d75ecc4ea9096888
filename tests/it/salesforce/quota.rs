//! `salesforce.calls_per_user`: how much of the org one user can use up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use switchboard::config::Salesforce;
use switchboard::salesforce::Org;
use tokio::time::{Instant, sleep_until};

use super::breakers::{Updates, changed, objects};
use super::stand_in::{Answer, StandIn};
use super::{ID, SECRET, behind_login, config, error, fetched, handled, handler, row, rows, token};

/// Another user, of whom the org has a row.
const OTHER: &str = "005000000000002AAA";

/// Answers every fetch with the row of its user, and every write with success.
async fn stand_in(late: Duration) -> StandIn {
    StandIn::start(behind_login(move |seen| {
        let answer = match seen.query.get("q") {
            Some(query) if query.contains(OTHER) => rows(&[row("").replace(ID, OTHER)]),
            Some(_) => rows(&[row("")]),
            None => Answer::Json(200, "null".to_owned()),
        };
        Answer::Late(late, Box::new(answer))
    }))
    .await
}

fn allowing(calls_per_user: u32, stand_in: &StandIn) -> Salesforce {
    Salesforce { calls_per_user, objects: objects(), ..config(&stand_in.url) }
}

#[tokio::test]
async fn fetches_and_writes_of_a_user_count_together_and_nobody_elses() {
    let stand_in = stand_in(Duration::ZERO).await;
    let org = Arc::new(Org::open(&allowing(5, &stand_in)).unwrap());
    let updates = Updates::of(&org);
    let mut outcomes = Vec::new();
    for _ in 0..4 {
        outcomes.push(fetched(&org, ID).await);
        outcomes.push(changed(&updates, ID, "Task").await);
    }
    assert_eq!(outcomes[..5], [SECRET, "ok", SECRET, "ok", SECRET].map(str::to_owned));
    assert!(
        outcomes[5..].iter().all(|it| it.starts_with("RATE_LIMITED: this user has caused 5 calls")),
        "{outcomes:?}"
    );
    assert_eq!(stand_in.calls(), 5);
    assert_eq!((fetched(&org, OTHER).await.as_str(), stand_in.calls()), (SECRET, 6));
    let free = Org::open(&allowing(0, &stand_in)).unwrap();
    for _ in 0..200 {
        assert_eq!(fetched(&free, ID).await, SECRET);
    }
}

#[tokio::test]
async fn what_the_org_is_not_asked_does_not_count() {
    let stand_in = stand_in(Duration::from_millis(200)).await;
    let folder = tempfile::tempdir().unwrap();
    // Fetches that share an exchange.
    let handler = handler(Org::open(&allowing(1, &stand_in)).unwrap(), folder.path());
    let fetched_at_once = futures_util::future::join_all((0..50).map(|_| handled(&handler, Some(ID)))).await;
    assert!(fetched_at_once.iter().all(|it| it.contains(SECRET)), "{fetched_at_once:?}");
    let refused = handled(&handler, Some(ID)).await;
    assert!(refused.starts_with("RATE_LIMITED"), "{refused}");
    assert_eq!(stand_in.calls(), 1);
    // Answers from the cache, and users that the org cannot have.
    let mut cached = allowing(1, &stand_in);
    cached.credentials.cache = Duration::from_mins(5);
    let org = Org::open(&cached).unwrap();
    for _ in 0..20 {
        assert_eq!(fetched(&org, ID).await, SECRET);
        assert!(fetched(&org, "alice").await.starts_with("CREDENTIALS_NOT_FOUND"));
    }
    assert_eq!(stand_in.calls(), 2);
}

/// An org whose logins, or else whose queries, fail for as long as `fails`.
async fn failing(of_login: bool, fails: &Arc<AtomicBool>) -> StandIn {
    let fails = Arc::clone(fails);
    StandIn::start(move |seen| match seen.is_login() {
        is_login if is_login == of_login && fails.load(Ordering::SeqCst) => error(503, "", ""),
        true => token("t1"),
        false => rows(&[row("")]),
    })
    .await
}

#[tokio::test]
async fn requests_that_are_not_sent_because_salesforce_fails_do_not_count() {
    // After the failure of a request the breaker is open. After the failed login the next one waits.
    for (of_login, breaker_failures) in [(false, 1), (true, 1000)] {
        let fails = Arc::new(AtomicBool::new(true));
        let stand_in = failing(of_login, &fails).await;
        let mut limited = allowing(10, &stand_in);
        (limited.breaker_failures, limited.breaker_open) = (breaker_failures, Duration::from_secs(1));
        let org = Org::open(&limited).unwrap();
        for _ in 0..50 {
            let outcome = fetched(&org, ID).await;
            assert!(outcome.starts_with("UPSTREAM_UNAVAILABLE"), "{outcome}");
        }
        fails.store(false, Ordering::SeqCst);
        let outcome = tokio::time::timeout(Duration::from_secs(20), async {
            loop {
                let outcome = fetched(&org, ID).await;
                if !outcome.starts_with("UPSTREAM_UNAVAILABLE") {
                    return outcome;
                }
                sleep_until(Instant::now() + Duration::from_millis(50)).await;
            }
        });
        assert_eq!(outcome.await.unwrap(), SECRET, "login: {of_login}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn exactly_so_many_of_a_flood_reach_the_org() {
    let stand_in = stand_in(Duration::ZERO).await;
    let mut limited = allowing(40, &stand_in);
    limited.timeout = Duration::from_secs(30);
    let org = Arc::new(Org::open(&limited).unwrap());
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..400 {
        let org = Arc::clone(&org);
        tasks.spawn(async move { fetched(&org, if number % 2 == 0 { ID } else { OTHER }).await });
    }
    let outcomes = tasks.join_all().await;
    let count = |start: &str| outcomes.iter().filter(|it| it.starts_with(start)).count();
    assert_eq!((count(SECRET), count("RATE_LIMITED"), stand_in.calls()), (80, 320, 80), "{}", json!(outcomes));
}
