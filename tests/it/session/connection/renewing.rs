//! The end of a session's proof, and its renewal.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use switchboard::auth::{Claim, Ends, Identity, Permissions, Principal, Proof, Verification, Verifier};
use switchboard::config::Limits;
use switchboard::connection::Settings;
use tokio::time::{Instant, sleep_until};

use super::{Broker, command, limits};

const LEEWAY: Duration = Duration::from_secs(30);

/// Proves alice by an issuer until some time of day. The first answer comes at once, the others after 5 s.
struct Issuer {
    expires: SystemTime,
    answered: AtomicUsize,
}

impl Issuer {
    fn new(expires: SystemTime) -> Arc<Self> {
        Arc::new(Self { expires, answered: AtomicUsize::new(0) })
    }
}

impl Verifier for Issuer {
    fn verify(&self, _: Claim) -> Verification<'_> {
        Box::pin(async {
            if self.answered.fetch_add(1, Ordering::Relaxed) > 0 {
                sleep_until(Instant::now() + Duration::from_secs(5)).await;
            }
            let identity = Identity::unproved(Principal::User("alice".into()), Permissions::all());
            let ends = Ends::At { expires: self.expires, leeway: LEEWAY };
            Ok(Identity { proof: Proof::Issuer("idp".into()), ends, ..identity })
        })
    }
}

/// A broker without pings on a machine that has slept for this number of seconds.
fn broker_with_calendar(day: SystemTime, slept: &Arc<AtomicU64>) -> Broker {
    let limits = Limits { heartbeat: Duration::from_hours(24), ..limits() };
    let mut broker = Broker::new(limits.clone());
    let (began, slept) = (Instant::now().into_std(), Arc::clone(slept));
    let settings = Settings::new(limits).with_time_of_day(move |now| {
        day + now.duration_since(began) + Duration::from_secs(slept.load(Ordering::Relaxed))
    });
    broker.settings = Arc::new(settings);
    broker
}

fn register() -> Value {
    let mut register = command("Application", "Register", &json!({ "token": "t" }));
    register["source"] = "app".into();
    register
}

#[tokio::test(start_paused = true)]
async fn sessions_end_by_the_time_of_day_on_a_machine_that_slept() {
    let (day, slept) = (SystemTime::UNIX_EPOCH + Duration::from_hours(500_000), Arc::default());
    let broker = broker_with_calendar(day, &slept);
    let mut app = broker.connect_with(1 << 16, Issuer::new(day + Duration::from_hours(1)), Arc::default());
    app.say(&register()).await;
    assert_eq!(app.next().await["data"]["ExpiresInSeconds"], 3600);
    let woke = Instant::now();
    slept.store(3570, Ordering::Relaxed);
    let notice = app.next().await;
    assert_eq!((&notice["subtopic"], &notice["data"]["ExpiresInSeconds"]), (&"Expiring".into(), &0.into()));
    assert_eq!(woke.elapsed().as_secs(), 30);
    assert_eq!(app.next().await["data"]["ErrorCode"], "UNAUTHENTICATED");
    assert_eq!(app.closed().await, 4401);
    assert_eq!(woke.elapsed().as_secs(), 60, "the broker accepts the proof for the leeway");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_read_while_a_renewal_is_verified() {
    let day = SystemTime::UNIX_EPOCH;
    let broker = broker_with_calendar(day, &Arc::default());
    let mut app = broker.connect_with(1 << 16, Issuer::new(day + Duration::from_hours(1)), Arc::default());
    app.say(&register()).await;
    let session = app.next().await["data"]["SessionId"].clone();
    assert!(session.is_string(), "{session}");
    let start = Instant::now();
    app.say(&command("Application", "Renew", &json!({ "token": "t" }))).await;
    app.say(&command("Connection", "Ping", &json!({}))).await;
    let renewed = app.next().await;
    assert_eq!((&renewed["subtopic"], &renewed["data"]["ExpiresInSeconds"]), (&"Renew".into(), &3595.into()));
    assert_eq!(start.elapsed().as_secs(), 5);
    assert_eq!(app.next().await["subtopic"], "Ping");
}
