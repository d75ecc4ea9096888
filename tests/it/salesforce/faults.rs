//! What goes wrong between the broker and an org: each has its code, within its time, and passes without a restart.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use switchboard::http::BreakerState;
use switchboard::salesforce::Org;
use tokio::time::{Instant, sleep_until};

use super::stand_in::{Answer, StandIn};
use super::{ID, SECRET, behind_login, config, error, fetched, org, row, rows, token};

/// Answers `first` this number of times, then a row.
async fn after(times: usize, first: impl Fn() -> Answer + Send + Sync + 'static) -> StandIn {
    let count = AtomicUsize::new(0);
    StandIn::start(behind_login(
        move |_| {
            if count.fetch_add(1, Ordering::SeqCst) < times { first() } else { rows(&[row("")]) }
        },
    ))
    .await
}

#[tokio::test]
async fn what_may_pass_is_repeated_twice_and_no_more() {
    type Make = fn() -> Answer;
    let passing: [Make; 8] = [
        || Answer::Html(503),
        || Answer::Html(406),
        || Answer::Html(429),
        || error(500, "UNKNOWN_EXCEPTION", "x"),
        || error(400, "QUERY_TIMEOUT", "x"),
        || Answer::Cut,
        || Answer::Gone,
        || Answer::Html(200),
    ];
    for make in passing {
        let stand_in = after(2, make).await;
        assert_eq!(fetched(&org(&stand_in), ID).await, SECRET);
        assert_eq!(stand_in.calls(), 3);
    }
    let stand_in = after(3, || Answer::Html(503)).await;
    assert!(fetched(&org(&stand_in), ID).await.starts_with("UPSTREAM_UNAVAILABLE"));
    assert_eq!(stand_in.calls(), 3);
}

#[tokio::test]
async fn a_login_is_repeated_where_it_may_pass_and_not_where_it_was_refused() {
    for (fault, logins, expected) in [(503, 3, SECRET), (400, 1, "UPSTREAM_REJECTED: Salesforce refuses the broker")] {
        let count = AtomicUsize::new(0);
        let stand_in = StandIn::start(move |seen| match (seen.is_login(), count.fetch_add(1, Ordering::SeqCst)) {
            (true, 0..2) => {
                Answer::Json(fault, r#"{"error":"invalid_grant","error_description":"user is locked"}"#.to_owned())
            }
            (true, _) => token("t"),
            (false, _) => rows(&[row("")]),
        })
        .await;
        assert!(fetched(&org(&stand_in), ID).await.starts_with(expected));
        assert_eq!(stand_in.logins(), logins);
    }
}

#[tokio::test]
async fn those_who_waited_for_a_login_share_its_failure() {
    let stand_in = StandIn::start(|_| {
        let refused = r#"{"error":"invalid_grant","error_description":"invalid assertion"}"#.to_owned();
        Answer::Late(Duration::from_millis(100), Box::new(Answer::Json(400, refused)))
    })
    .await;
    let org = org(&stand_in);
    let fetched = futures_util::future::join_all((0..8).map(|_| fetched(&org, ID))).await;
    assert!(fetched.iter().all(|it| it.starts_with("UPSTREAM_REJECTED")), "{fetched:?}");
    assert_eq!(stand_in.logins(), 1);
}

#[tokio::test]
async fn the_kinds_of_401_are_told_apart() {
    for (code, message, logins, calls) in [
        ("INVALID_SESSION_ID", "Session expired or invalid", 2, 2),
        ("INVALID_SESSION_ID", "This session is not valid for use with the REST API", 1, 1),
        ("INVALID_SESSION_ID", "Connected app is not attached to Agent", 1, 1),
        ("INVALID_OPERATION_WITH_EXPIRED_PASSWORD", "expired", 1, 1),
    ] {
        let stand_in = StandIn::start(behind_login(move |_| error(401, code, message))).await;
        let fetched = fetched(&org(&stand_in), ID).await;
        assert!(fetched.starts_with("UPSTREAM_REJECTED"), "{fetched}");
        assert!(!fetched.contains("session"), "an answer's words are not the agent's: {fetched}");
        assert_eq!((stand_in.logins(), stand_in.calls()), (logins, calls), "{code} {message}");
    }
}

#[tokio::test]
async fn the_daily_limit_is_not_repeated_and_opens_the_breaker() {
    let stand_in = StandIn::start(behind_login(|_| error(403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit"))).await;
    let org = org(&stand_in);
    for _ in 0..3 {
        assert!(fetched(&org, ID).await.starts_with("UPSTREAM_UNAVAILABLE: the Salesforce org has used up"));
    }
    assert_eq!((stand_in.calls(), org.stats().breaker), (1, BreakerState::Open));
}

#[tokio::test]
async fn a_failing_org_is_left_alone_and_found_again() {
    let down = Arc::new(Mutex::new(true));
    let script = Arc::clone(&down);
    let stand_in =
        StandIn::start(behind_login(
            move |_| {
                if *script.lock() { error(400, "INVALID_TYPE", "x") } else { rows(&[row("")]) }
            },
        ))
        .await;
    let mut config = config(&stand_in.url);
    (config.breaker_failures, config.breaker_open) = (3, Duration::from_millis(300));
    let org = Org::open(&config).unwrap();
    for _ in 0..6 {
        assert!(fetched(&org, ID).await.starts_with("UPSTREAM_REJECTED"));
    }
    assert_eq!((stand_in.calls(), org.stats().kept_away), (3, 3));
    assert_eq!(org.stats().breaker, BreakerState::Closed, "a wrong setting of one object is not Salesforce's trouble");
    *down.lock() = false;
    sleep_until(Instant::now() + Duration::from_millis(320)).await;
    let fetched_at_once = futures_util::future::join_all((0..4).map(|_| fetched(&org, ID))).await;
    assert_eq!(fetched_at_once.iter().filter(|it| *it == SECRET).count(), 1, "one tries: {fetched_at_once:?}");
    assert_eq!(fetched(&org, ID).await, SECRET);
    assert_eq!(org.stats().breakers["credentials"], BreakerState::Closed);
}

#[tokio::test]
async fn rows_that_cannot_be_used_do_not_open_the_breaker() {
    let stand_in = StandIn::start(behind_login(|_| rows(&[row(",\"CTI_Password__c\":null")]))).await;
    let org = org(&stand_in);
    for _ in 0..10 {
        assert!(fetched(&org, ID).await.starts_with("UPSTREAM_REJECTED"));
    }
    assert_eq!((stand_in.calls(), org.stats().breaker), (10, BreakerState::Closed));
}

#[tokio::test]
async fn a_deadline_stands_over_waiting_and_answers() {
    let stand_in =
        StandIn::start(behind_login(|_| Answer::Late(Duration::from_secs(30), Box::new(Answer::Gone)))).await;
    let mut config = config(&stand_in.url);
    (config.timeout, config.concurrency, config.breaker_failures) = (Duration::from_millis(400), 1, 100);
    let org = Org::open(&config).unwrap();
    let started = Instant::now();
    let fetched = futures_util::future::join_all((0..5).map(|_| fetched(&org, ID))).await;
    assert!(fetched.iter().all(|it| it.starts_with("UPSTREAM_UNAVAILABLE: Salesforce takes too long")), "{fetched:?}");
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    assert!(stand_in.calls() <= 2, "requests whose time is over are not sent");
}

#[tokio::test]
async fn an_org_that_is_not_there_is_unavailable() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let fetched = fetched(&Org::open(&config(&url)).unwrap(), ID).await;
    assert!(fetched.starts_with("UPSTREAM_UNAVAILABLE: Salesforce cannot be reached"), "{fetched}");
}

#[tokio::test]
async fn a_token_is_sent_to_no_other_host_and_no_redirect_is_followed() {
    for elsewhere in
        ["http://localhost:1", "http://127.1:1", "https://evil.example", "http://x@127.0.0.1", "http://[::1]:1"]
    {
        let body = format!(r#"{{"access_token":"t","instance_url":"{elsewhere}"}}"#);
        let stand_in = StandIn::start(move |_| Answer::Json(200, body.clone())).await;
        assert!(fetched(&org(&stand_in), ID).await.starts_with("UPSTREAM_REJECTED"), "{elsewhere}");
        assert_eq!(stand_in.calls(), 0);
    }
    for status in [301, 302, 307, 308] {
        let redirect = move || {
            Answer::Raw(format!("HTTP/1.1 {status} X\r\nLocation: {{url}}/elsewhere\r\nContent-Length: 0\r\n\r\n"))
        };
        let stand_in = StandIn::start(behind_login(move |_| redirect())).await;
        assert!(fetched(&org(&stand_in), ID).await.starts_with("UPSTREAM_REJECTED"), "{status}");
        assert!(stand_in.seen().iter().all(|seen| seen.path != "/elsewhere"));
        let stand_in = StandIn::start(move |_| redirect()).await;
        assert!(fetched(&org(&stand_in), ID).await.starts_with("UPSTREAM_REJECTED"), "{status}");
        assert_eq!(stand_in.seen().len(), 1);
    }
}

#[tokio::test]
async fn an_answer_over_a_mebibyte_is_not_read() {
    let stand_in = StandIn::start(behind_login(|_| Answer::Json(200, format!("[\"{}\"]", "x".repeat(2 << 20))))).await;
    assert!(fetched(&org(&stand_in), ID).await.starts_with("UPSTREAM_REJECTED: Salesforce sends too much"));
}

/// Collects what is logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn no_secret_is_logged_and_a_failure_is_one_line_that_says_what_to_change() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let masked = AtomicUsize::new(0);
        let stand_in = StandIn::start(move |seen| match (seen.is_login(), masked.fetch_add(1, Ordering::SeqCst)) {
            (true, _) => token("00D-token-never-shown"),
            (false, 1) => rows(&[row("")]),
            (false, _) => rows(&[row(",\"CTI_Password__c\":\"****5678\"")]),
        })
        .await;
        let org = org(&stand_in);
        assert_eq!(fetched(&org, ID).await, SECRET);
        assert!(fetched(&org, ID).await.starts_with("UPSTREAM_REJECTED"));
    });
    let text = String::from_utf8(lines.0.lock().clone()).unwrap();
    for secret in [SECRET, "never-shown", "****5678", "eyJ", "assertion="] {
        assert!(!text.contains(secret), "{secret} in\n{text}");
    }
    let told: Vec<&str> =
        text.lines().filter(|line| line.contains("switchboard::") && line.contains("ERROR")).collect();
    assert_eq!(told.len(), 1, "{text}");
    assert!(
        told[0].contains("View Encrypted Data") && told[0].contains("Setup > Users > Permission Sets"),
        "{}",
        told[0]
    );
}
