//! Whose trouble stops whose requests: a breaker for each purpose and one for Salesforce as a whole; pauses that Salesforce
//! asks for; logins that fail.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use switchboard::adapter::{Given, Handler, Payload};
use switchboard::audit::{Audit, Rotation};
use switchboard::config::{Mode, Salesforce, WritableObject};
use switchboard::http::BreakerState;
use switchboard::salesforce::{CurrentOrg, Org, Writers};
use tempfile::TempDir;
use tokio::time::{Instant, sleep_until};
use wire::Triple;

use super::stand_in::{Answer, Seen, StandIn};
use super::{ID, SECRET, behind_login, config, error, fetched, org, row, rows, token};

/// Objects that may be changed.
pub(super) fn objects() -> BTreeMap<String, WritableObject> {
    let object = |name: &str| WritableObject {
        object: name.to_owned(),
        update: true,
        fields: [("subject".to_owned(), "Subject".to_owned())].into(),
        ..WritableObject::default()
    };
    ["Task", "Case"].map(|name| (name.to_owned(), object(name))).into()
}

/// An org with objects that may be changed, and what changes them.
fn writable(config: Salesforce) -> (Arc<Org>, Updates) {
    let org = Arc::new(Org::open(&Salesforce { objects: objects(), ..config }).unwrap());
    let updates = Updates::of(&org);
    (org, updates)
}

/// The handler of `UpdateObject`, and the folder of its audit log.
pub(super) struct Updates {
    handler: Arc<dyn Handler>,
    _folder: TempDir,
}

impl Updates {
    pub(super) fn of(org: &Arc<Org>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let audit = Arc::new(Audit::open(folder.path(), Rotation::default()).unwrap());
        let config = Salesforce { objects: objects(), ..Salesforce::default() };
        let current = Arc::new(CurrentOrg::from(Arc::clone(org)));
        Self { handler: Arc::clone(&Writers::new(&current, &config, &audit).handlers()[0]), _folder: folder }
    }
}

/// What an application gets for changing a record: `ok`, or the code and the words.
pub(super) async fn changed(updates: &Updates, user: &str, name: &str) -> String {
    let data = json!({ "callId": "1", "Name": name, "sfid": "500000000000001AAA", "params": { "subject": "x" } });
    let given = Given {
        id: "rAAAAAAAB".parse().unwrap(),
        triple: Triple::new("Salesforce", "Call", "UpdateObject"),
        source: "softphone".into(),
        user: Some(user.into()),
        session: uuid::Uuid::nil().into(),
        address: None,
        request_id: None,
        payload: Some(Payload::new(&data.to_string())),
        timeout: Duration::from_secs(10),
        waited: Duration::ZERO,
    };
    updates.handler.handle(given).await.map_or_else(|refusal| refusal.to_string(), |_| "ok".to_owned())
}

fn is_of(seen: &Seen, object: &str) -> bool {
    seen.path.contains(&format!("/sobjects/{object}/"))
}

#[tokio::test]
async fn apex_that_fails_for_one_user_stops_nobody_else_and_is_not_repeated() {
    let stand_in = StandIn::start(behind_login(|seen| match seen.path.ends_with("/mallory") {
        true => error(500, "APEX_ERROR", "System.NullPointerException: Attempt to de-reference a null object"),
        false => Answer::Json(200, row("").replace(ID, "alice")),
    }))
    .await;
    let mut config = config(&stand_in.url);
    config.credentials.mode = Mode::Apex;
    config.credentials.apex_path = Some("/cti/{user}".to_owned());
    config.credentials.key = switchboard::config::UserKey::Username;
    config.breaker_failures = 1;
    let org = Org::open(&config).unwrap();
    for _ in 0..5 {
        let fetched = fetched(&org, "mallory").await;
        assert!(fetched.starts_with("UPSTREAM_REJECTED: code of the Salesforce org failed"), "{fetched}");
    }
    assert_eq!(stand_in.calls(), 5);
    assert_eq!(fetched(&org, "alice").await, SECRET);
}

#[tokio::test]
async fn an_objects_trouble_stops_that_object_alone() {
    let stand_in = StandIn::start(behind_login(|seen| match seen {
        _ if is_of(seen, "Case") => Answer::Json(500, "an unexpected error".to_owned()),
        _ if is_of(seen, "Task") => Answer::Json(200, "null".to_owned()),
        _ => rows(&[row("")]),
    }))
    .await;
    let (org, updates) = writable(config(&stand_in.url));
    for _ in 0..6 {
        assert!(changed(&updates, "alice", "Case").await.starts_with("UPSTREAM_UNAVAILABLE"));
    }
    assert_eq!(stand_in.calls(), 5, "the sixth was not sent");
    assert_eq!(fetched(&org, ID).await, SECRET);
    assert_eq!(changed(&updates, "alice", "Task").await, "ok");
    let stats = org.stats();
    assert_eq!((stats.breaker, stats.breakers["Case"]), (BreakerState::Closed, BreakerState::Open));
}

/// It may be one record's, and others are still written.
#[tokio::test]
async fn a_trigger_that_fails_stops_nothing() {
    let stand_in =
        StandIn::start(behind_login(|_| error(500, "UNKNOWN_EXCEPTION", "An unexpected error occurred"))).await;
    let (org, updates) = writable(config(&stand_in.url));
    for _ in 0..6 {
        assert!(changed(&updates, "alice", "Case").await.starts_with("UPSTREAM_UNAVAILABLE"));
    }
    let stats = org.stats();
    assert_eq!(
        (stand_in.calls(), stats.breakers.get("Case").copied().unwrap_or(BreakerState::Closed)),
        (6, BreakerState::Closed)
    );
}

#[tokio::test]
async fn a_hidden_field_of_the_logins_stops_no_writes() {
    let stand_in = StandIn::start(behind_login(|seen| match is_of(seen, "Task") {
        true => Answer::Json(200, "null".to_owned()),
        false => error(400, "INVALID_FIELD", "No such column 'CTI_Password__c'"),
    }))
    .await;
    let (org, updates) = writable(config(&stand_in.url));
    for _ in 0..6 {
        assert!(fetched(&org, ID).await.starts_with("UPSTREAM_REJECTED"));
    }
    assert_eq!(stand_in.calls(), 5);
    assert_eq!(changed(&updates, "alice", "Task").await, "ok");
}

#[tokio::test]
async fn salesforce_that_is_gone_is_gone_for_every_purpose() {
    let gone: [fn() -> Answer; 2] = [|| Answer::Html(503), || Answer::Gone];
    for answer in gone {
        let stand_in = StandIn::start(behind_login(move |_| answer())).await;
        let mut config = config(&stand_in.url);
        config.breaker_failures = 2;
        let (org, updates) = writable(config);
        assert!(changed(&updates, "alice", "Task").await.starts_with("UPSTREAM_UNAVAILABLE"));
        assert!(changed(&updates, "alice", "Case").await.starts_with("UPSTREAM_UNAVAILABLE"));
        assert_eq!((stand_in.calls(), org.stats().breaker), (2, BreakerState::Open));
        assert!(fetched(&org, ID).await.starts_with("UPSTREAM_UNAVAILABLE"));
        assert_eq!(stand_in.calls(), 2);
    }
}

#[tokio::test]
async fn a_write_whose_answer_was_not_read_may_have_been_done() {
    let large = || Answer::Json(201, format!("[\"{}\"]", "x".repeat(2 << 20)));
    let stand_in = StandIn::start(behind_login(move |_| large())).await;
    let (_org, updates) = writable(config(&stand_in.url));
    let told = changed(&updates, "alice", "Task").await;
    assert!(told.starts_with("UPSTREAM_UNAVAILABLE") && told.contains("not known whether it was done"), "{told}");
    assert_eq!(stand_in.calls(), 1, "a write is not repeated if it may have been done");
}

/// An answer with Retry-After.
fn later(status: u16, retry_after: &str, body: &str) -> Answer {
    let length = body.len();
    Answer::Raw(format!(
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nRetry-After: {retry_after}\r\n\
         Connection: close\r\n\r\n{body}"
    ))
}

const CROWDED: &str = r#"[{"message":"ConcurrentPerOrgLongTxn Limit exceeded.","errorCode":"REQUEST_LIMIT_EXCEEDED"}]"#;

#[tokio::test]
async fn a_short_pause_is_waited_for_and_nobody_else_asks_meanwhile() {
    // Too many concurrent calls pause for at least a second, whatever the answer says.
    for (status, retry_after, body) in [(503, "1", "[]"), (429, "1", "[]"), (403, "0", CROWDED)] {
        let count = AtomicUsize::new(0);
        let stand_in = StandIn::start(behind_login(move |_| match count.fetch_add(1, Ordering::SeqCst) {
            0 => later(status, retry_after, body),
            _ => rows(&[row("")]),
        }))
        .await;
        let org = org(&stand_in);
        let started = Instant::now();
        let other = async {
            sleep_until(started + Duration::from_millis(500)).await;
            fetched(&org, ID).await
        };
        let (fetched, other) = tokio::join!(fetched(&org, ID), other);
        assert_eq!(fetched, SECRET, "{status}");
        assert!(other.starts_with("UPSTREAM_UNAVAILABLE"), "{status}: {other}");
        assert!(started.elapsed() >= Duration::from_secs(1), "{status}: {:?}", started.elapsed());
        assert_eq!((stand_in.calls(), org.stats().breaker), (2, BreakerState::Closed), "{status}");
    }
}

#[tokio::test]
async fn a_pause_beyond_the_time_limit_ends_the_request_at_once() {
    for (status, body) in [(503, "[]"), (429, "[]")] {
        let stand_in = StandIn::start(behind_login(move |_| later(status, "3600", body))).await;
        let (org, updates) = writable(config(&stand_in.url));
        let started = Instant::now();
        assert!(fetched(&org, ID).await.starts_with("UPSTREAM_UNAVAILABLE"));
        assert!(started.elapsed() < Duration::from_secs(3), "it does not wait for what would be too late");
        assert!(changed(&updates, "alice", "Task").await.starts_with("UPSTREAM_UNAVAILABLE"));
        assert_eq!((stand_in.calls(), org.stats().kept_away), (1, 1), "{status}");
    }
}

#[tokio::test]
async fn after_a_failed_login_the_next_waits() {
    let down = Arc::new(AtomicUsize::new(1));
    let script = Arc::clone(&down);
    let stand_in = StandIn::start(move |seen| match (seen.is_login(), script.load(Ordering::SeqCst)) {
        (true, 1) => Answer::Json(400, r#"{"error":"invalid_grant","error_description":"user is locked"}"#.to_owned()),
        (true, _) => token("t"),
        (false, _) => rows(&[row("")]),
    })
    .await;
    let (org, updates) = writable(config(&stand_in.url));
    let started = Instant::now();
    for _ in 0..10 {
        assert!(fetched(&org, ID).await.starts_with("UPSTREAM_REJECTED"));
        assert!(changed(&updates, "alice", "Task").await.starts_with("UPSTREAM_REJECTED"));
    }
    let seconds = started.elapsed().as_secs();
    assert!(stand_in.logins() as u64 <= 1 + seconds, "{} logins in {seconds} s", stand_in.logins());
    down.store(0, Ordering::SeqCst);
    sleep_until(Instant::now() + Duration::from_secs(1 << stand_in.logins().min(4))).await;
    assert_eq!(fetched(&org, ID).await, SECRET);
}

/// A slow trigger is a matter of its record; but a probe has to find out.
#[tokio::test]
async fn a_slow_write_that_is_the_probe_of_everything_opens_that_breaker_and_not_its_objects() {
    let down = Arc::new(AtomicUsize::new(1));
    let script = Arc::clone(&down);
    let stand_in = StandIn::start(behind_login(move |seen| match script.load(Ordering::SeqCst) {
        1 => Answer::Html(503),
        _ if is_of(seen, "Task") => {
            Answer::Late(Duration::from_mins(1), Box::new(Answer::Json(200, "null".to_owned())))
        }
        _ => rows(&[row("")]),
    }))
    .await;
    let mut config = config(&stand_in.url);
    (config.timeout, config.breaker_failures) = (Duration::from_secs(1), 1);
    config.breaker_open = Duration::from_secs(1);
    let (org, updates) = writable(config);
    assert!(changed(&updates, "alice", "Case").await.starts_with("UPSTREAM_UNAVAILABLE"));
    assert_eq!(org.stats().breaker, BreakerState::Open);
    down.store(0, Ordering::SeqCst);
    let before = stand_in.calls();
    while stand_in.calls() == before {
        assert!(changed(&updates, "alice", "Task").await.starts_with("UPSTREAM_UNAVAILABLE"));
        sleep_until(Instant::now() + Duration::from_millis(50)).await;
    }
    let stats = org.stats();
    assert_eq!((stats.breaker, stats.breakers["Task"]), (BreakerState::Open, BreakerState::Closed));
    assert!(fetched(&org, ID).await.starts_with("UPSTREAM_UNAVAILABLE"), "it opened for twice as long");
}
