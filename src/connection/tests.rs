//! A connection without a socket: what goes in, and what it wants.

use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime};

use wire::command::{Role, Subscribe};
use wire::{CloseCode, ErrorCode, Refusal};

use super::*;
use crate::auth::{AuthError, Claim, Identity, Open, Permissions, Principal, Proved, Review, Verification, Verifier};
use crate::config::{Channel, Config, Limits, LogBounds};
use crate::connection::register::Registering;
use crate::router::{Ids, Outbox, OutboxLimits, Policy, Registration, Reviewed};

/// A connection that is registered, and that takes nothing from now on.
fn registered(limits: Limits) -> (Instant, Connection, Router) {
    registered_as(start(), Settings::new(limits), alice())
}

/// Some moment.
#[expect(clippy::disallowed_methods, reason = "where the clock begins does not matter")]
pub(super) fn start() -> Instant {
    Instant::now()
}

/// The user alice, whom nothing proved.
pub(super) fn alice() -> Identity {
    Identity::unproved(Principal::User("alice".into()), Permissions::all())
}

/// A connection that is registered with this identity, as the source `phone`.
pub(super) fn registered_as(now: Instant, settings: Settings, identity: Identity) -> (Instant, Connection, Router) {
    let policy = Policy::new(&Config::default());
    let router = Router::new(now, SystemTime::UNIX_EPOCH, policy, Ids::seeded(1), Vec::new());
    let mut connection = Connection::new(now, Ipv4Addr::LOCALHOST.into(), Arc::new(settings), 1);
    let text = r#"{"channel":"Broker","topic":"Application","subtopic":"Register","source":"phone"}"#;
    assert!(matches!(connection.handle(now, Input::Text(text), &router), Some(Effect::Verify(_))));
    assert!(!connection.reads(), "nothing is read until the verifier has answered");
    assert!(connection.handle(now, Input::Verified(Ok(identity)), &router).is_none());
    (now, connection, router)
}

pub(super) fn taken(now: Instant, connection: &mut Connection, router: &Router) -> Vec<String> {
    let mut frames = Vec::new();
    connection.take(now, usize::MAX, router, &mut frames);
    frames.iter().map(|frame| frame.text().to_owned()).collect()
}

#[test]
fn a_connection_is_not_read_until_its_replay_is_sent() {
    const EVENTS: usize = 300;
    let mut config = Config::default();
    let history = Some(LogBounds { size: EVENTS, ttl: Duration::from_mins(10) });
    config.channels.insert("Phone".into(), Channel { history, ..Channel::default() });
    let now = start();
    let router = Router::new(now, SystemTime::UNIX_EPOCH, Policy::new(&config), Ids::seeded(1), Vec::new());
    let settings = Settings::new(Limits { rate: 0, ..Limits::default() });
    let mut connection = Connection::new(now, Ipv4Addr::LOCALHOST.into(), Arc::new(settings), 1);
    let say = |connection: &mut Connection, text: &str| connection.handle(now, Input::Text(text), &router);
    say(&mut connection, r#"{"channel":"Broker","topic":"Application","subtopic":"Register","source":"phone"}"#);
    connection.handle(now, Input::Verified(Ok(alice())), &router);
    for _ in 0..EVENTS {
        say(&mut connection, r#"{"channel":"Phone","topic":"Call","subtopic":"Ring"}"#);
    }
    let subscribe = |last: u64| {
        format!(
            r#"{{"channel":"Broker","topic":"Subscription","subtopic":"Subscribe",
                "data":{{"channel":"Phone","recover":{{"last":{last}}}}}}}"#
        )
    };
    say(&mut connection, &subscribe(EVENTS as u64));
    let is_over = |connection: &mut Connection| {
        connection.poll_pause(&mut task::Context::from_waker(task::Waker::noop())).is_ready()
    };
    assert!(!connection.reads() && !is_over(&mut connection));
    let mut frames = Vec::new();
    connection.take(now, 100, &router, &mut frames);
    // However long the peer takes for it, as long as it takes something.
    for seconds in [5, 10, 15] {
        connection.handle(now + Duration::from_secs(seconds), Input::Timeout, &router);
        assert!(!connection.reads() && !is_over(&mut connection), "after {seconds} s");
    }
    let left = taken(now, &mut connection, &router);
    assert_eq!(frames.len() + left.len(), 2 + EVENTS, "two replies and the events");
    assert!(is_over(&mut connection));
    connection.handle(now, Input::Relieved, &router);
    assert!(connection.reads());
    // If nothing is replayed, it is read on.
    router.replace_policy(now, &Config::default());
    router.replace_policy(now, &config);
    say(&mut connection, &subscribe(1));
    assert!(connection.reads());
}

/// A connection that reads none of the answers to `bad` pauses before its own queue overflows.
fn check_own_queue(bad: fn() -> Input<'static>) {
    let (now, mut connection, router) =
        registered(Limits { outbound_messages: 32, rate: 0, malformed: 1000, ..Limits::default() });
    let read = (0..32).take_while(|_| {
        assert!(connection.handle(now, bad(), &router).is_none());
        connection.reads()
    });
    assert_eq!(read.count(), 15, "with the reply to Register, 17 messages are over half");
    taken(now, &mut connection, &router);
    assert!(connection.poll_pause(&mut task::Context::from_waker(task::Waker::noop())).is_ready());
    connection.handle(now, Input::Relieved, &router);
    assert!(connection.reads());
}

#[test]
fn a_client_that_reads_no_answers_is_not_read() {
    check_own_queue(|| Input::Text("not JSON"));
    check_own_queue(|| Input::Binary);
}

/// Says that no proof is valid any longer.
struct Nobody;

impl Verifier for Nobody {
    fn verify(&self, _claim: Claim) -> Verification<'_> {
        Box::pin(std::future::pending())
    }
}

#[test]
fn an_identity_that_was_verified_before_a_reload_is_verified_again() {
    let (now, mut connection, router) = registered(Limits::default());
    connection.handle(now, Input::Text(&command("Unregister")), &router);
    assert!(matches!(connection.handle(now, Input::Text(&command("Register")), &router), Some(Effect::Verify(_))));
    router.review(now, &Nobody);
    let alice = || Identity::unproved(Principal::User("alice".into()), Permissions::all());
    let again = connection.handle(now, Input::Verified(Ok(alice())), &router);
    let Some(Effect::Verify(claim)) = again else { panic!("{again:?}") };
    assert_eq!((claim.source.as_str(), router.size().sessions), ("phone", 0));
    assert!(connection.session().is_none() && !connection.reads());
    assert!(connection.handle(now, Input::Verified(Ok(alice())), &router).is_none());
    assert!(connection.session().is_some());
}

/// Says that the proof of this source is no longer valid.
struct Without(&'static str);

impl Verifier for Without {
    fn verify(&self, _claim: Claim) -> Verification<'_> {
        Box::pin(std::future::pending())
    }

    fn review(&self, proved: &Proved<'_>) -> Review {
        if proved.source == self.0 { Review::End } else { Review::Same }
    }
}

#[test]
fn what_a_session_sends_after_its_proof_was_removed_is_not_routed() {
    let (now, mut connection, router) = registered(Limits::default());
    let identity = Identity::unproved(Principal::User("alice".into()), Permissions::all());
    let outbox = Settings::new(Limits::default()).outbox();
    let registration =
        Registration { source: "screen".into(), identity, echo: false, address: None, outbox, will: None };
    let screen = router.attach(now, registration).unwrap();
    let everything = Subscribe::new("Phone/*/*".parse().unwrap(), Role::Subscriber);
    router.subscribe(now, &screen, &everything, |_| None).unwrap();
    taken(now, &mut connection, &router);

    let text = r#"{"channel":"Phone","topic":"Call","subtopic":"Ringing","id":"1"}"#;
    assert!(connection.handle(now, Input::Text(text), &router).is_none());
    assert_eq!(screen.outbox().depth().messages, 1);
    assert_eq!(router.review(now, &Without("phone")), Reviewed { ended: 1, changed: 0, expiring: 0 });
    assert!(connection.handle(now, Input::Text(text), &router).is_none());
    assert_eq!(screen.outbox().depth().messages, 1);
    let end = connection.ended().unwrap();
    let effect = connection.handle(now, Input::Ended(end), &router);
    check_close(effect, CloseCode::Unauthenticated, "the proof of identity was removed");
    let texts = taken(now, &mut connection, &router);
    assert!(texts.len() == 1 && texts[0].contains("UNAUTHENTICATED"), "neither a reply nor a receipt: {texts:?}");
}

fn command(subtopic: &str) -> String {
    format!(r#"{{"channel":"Broker","topic":"Application","subtopic":"{subtopic}","source":"phone"}}"#)
}

#[test]
fn every_frame_counts_against_the_rate() {
    for frame in [|| Input::Text("not JSON"), || Input::Binary, || Input::Frame] {
        let (now, mut connection, router) = registered(Limits { rate: 10, burst: 3, ..Limits::default() });
        let read = (0..4).take_while(|_| {
            assert!(connection.handle(now, frame(), &router).is_none());
            connection.reads()
        });
        assert_eq!(read.count(), 2, "Register and two frames are the burst");
        assert_eq!(connection.deadline(), Some(now + Duration::from_millis(100)));
    }
}

#[test]
fn bytes_count_against_their_rate_and_a_largest_message_is_read_as_a_whole() {
    let limits = Limits { rate_bytes: 100, message_bytes: 1000, ..Limits::default() };
    let (now, mut connection, router) = registered(limits);
    assert!(connection.counts_bytes());
    assert!(connection.handle(now, Input::Received(1000), &router).is_none());
    assert!(connection.reads(), "a burst of one largest message");
    assert!(connection.handle(now, Input::Received(50), &router).is_none());
    let until = now + Duration::from_millis(500);
    assert_eq!((connection.reads(), connection.deadline()), (false, Some(until)));
    assert!(connection.handle(until, Input::Timeout, &router).is_none());
    assert!(connection.reads());

    // The burst of a second, if that is more.
    let limits = Limits { rate_bytes: 5000, message_bytes: 1000, ..Limits::default() };
    let (now, mut connection, router) = registered(limits);
    for (bytes, reads) in [(5000, true), (1, false)] {
        assert!(connection.handle(now, Input::Received(bytes), &router).is_none());
        assert_eq!(connection.reads(), reads, "{bytes} more");
    }
    assert!(!registered(Limits::default()).1.counts_bytes());
}

#[test]
fn a_peer_that_takes_nothing_is_closed_as_a_slow_consumer() {
    let (now, mut connection, router) = registered(Limits::default());
    let after = |ms| now + Duration::from_millis(ms);
    assert!(connection.handle(now, Input::Blocked, &router).is_none());
    assert!(connection.handle(after(4_000), Input::Taken, &router).is_none());
    assert!(connection.handle(after(4_500), Input::Blocked, &router).is_none());
    assert!(connection.handle(after(9_400), Input::Timeout, &router).is_none());
    let effect = connection.handle(after(9_500), Input::Timeout, &router);
    check_close(effect, CloseCode::SlowConsumer, "slow consumer: nothing was taken for too long");
    assert!(taken(after(9_500), &mut connection, &router).is_empty(), "what waited is dropped");

    // A peer that has taken something in time is not closed later.
    let (now, mut connection, router) = registered(Limits::default());
    assert!(connection.handle(now, Input::Blocked, &router).is_none());
    assert!(connection.handle(now + Duration::from_secs(1), Input::Taken, &router).is_none());
    assert!(connection.handle(now + Duration::from_secs(6), Input::Timeout, &router).is_none());

    let (now, mut connection, router) = registered(Limits::default());
    let effect = connection.handle(now, Input::Ended(End::Overflowed), &router);
    check_close(effect, CloseCode::SlowConsumer, "slow consumer: the outbound queue overflowed");
}

#[test]
fn a_refused_registration_is_closed_with_its_own_reason() {
    use ErrorCode::{Forbidden, RateLimited, SourceInUse, TooManySessions, Unauthenticated};
    for (code, close, reason) in [
        (Unauthenticated, CloseCode::Unauthenticated, "unauthenticated"),
        (RateLimited, CloseCode::Unauthenticated, "too many failed registrations"),
        (Forbidden, CloseCode::Forbidden, "source not allowed"),
        (SourceInUse, CloseCode::SourceInUse, "source in use"),
        (TooManySessions, CloseCode::SourceInUse, "too many sessions"),
    ] {
        let (now, mut connection, router) = registered(Limits::default());
        let registering = Registering::of("phone");
        let effect = connection.refuse(now, &registering, None, &Refusal::new(code, "why"), &router);
        check_close(Some(effect), close, reason);
    }
}

#[track_caller]
pub(super) fn check_close(effect: Option<Effect>, code: CloseCode, reason: &str) {
    let Some(Effect::Close(close)) = effect else { panic!("{effect:?}") };
    assert_eq!((close.code(), close.reason()), (code, reason));
}

/// Anybody can name a key that the broker cannot look up at the moment.
#[test]
fn the_time_to_register_starts_anew_six_times() {
    let (mut now, mut connection, router) = registered(Limits::default());
    connection.handle(now, Input::Text(&command("Unregister")), &router);
    for number in 0..8 {
        now += Duration::from_secs(8);
        connection.handle(now, Input::Text(&command("Register")), &router);
        let unavailable = AuthError::Unavailable("not now".into());
        assert!(connection.handle(now, Input::Verified(Err(unavailable)), &router).is_none());
        taken(now, &mut connection, &router);
        let just_before = now + Duration::from_millis(9_999);
        let is_closed = connection.handle(just_before, Input::Timeout, &router).is_some();
        assert_eq!(is_closed, number > 5, "{number}");
        if is_closed {
            break;
        }
    }
    assert!(connection.ended().is_none() && connection.session().is_none());
}

#[test]
fn a_rate_that_a_reload_lifts_keeps_nobody_waiting() {
    let limited = [Limits { rate: 10, burst: 1, ..Limits::default() }, Limits { rate_bytes: 10, ..Limits::default() }];
    for limits in limited {
        let (now, mut connection, router) = registered(Limits { heartbeat: Duration::from_hours(24), ..limits });
        for _ in 0..3 {
            connection.handle(now, Input::Frame, &router);
            connection.handle(now, Input::Received(10 << 20), &router);
        }
        assert!(!connection.reads());
        connection.settings.replace_limits(Limits { rate: 0, ..Limits::default() });
        router.review(now, &Open);
        connection.handle(now, Input::Timeout, &router);
        assert!(connection.reads());
    }
}

/// A session of alice that receives everything of the channel Phone in a short queue.
fn receiver(now: Instant, router: &Router, source: &str) -> Arc<Session> {
    let outbox = Outbox::new(OutboxLimits { messages: 4, bytes: 1 << 20, refuses: false });
    let source = source.to_owned();
    let registration = Registration { source, identity: alice(), echo: false, address: None, outbox, will: None };
    let session = router.attach(now, registration).unwrap();
    let everything = Subscribe::new("Phone/*/*".parse().unwrap(), Role::Subscriber);
    router.subscribe(now, &session, &everything, |_| None).unwrap();
    session
}

#[test]
fn a_publisher_waits_for_each_receiver_as_long_as_that_one_may_hold_it() {
    let (now, mut connection, router) = registered(Limits { heartbeat: Duration::from_hours(1), ..Limits::default() });
    let [first, _second] = ["first", "second"].map(|source| receiver(now, &router, source));
    // The first one has used 900 ms of its second.
    let earlier = now;
    let now = now + Duration::from_millis(900);
    first.outbox().begin_wait(earlier);
    let text = r#"{"channel":"Phone","topic":"Call","subtopic":"Ringing"}"#;
    for _ in 0..3 {
        connection.handle(now, Input::Text(text), &router);
    }
    for (millis, next) in [(100, Some(250)), (250, None)] {
        let at = now + Duration::from_millis(millis);
        assert_eq!((connection.reads(), connection.deadline()), (false, Some(at)));
        assert!(connection.handle(at, Input::Timeout, &router).is_none());
        assert_eq!(connection.reads(), next.is_none(), "after {millis} ms");
    }
}

#[test]
fn a_session_whose_proof_was_removed_cannot_renew_it() {
    let (now, mut connection, router) = registered(Limits::default());
    router.review(now, &Without("phone"));
    let renew = r#"{"channel":"Broker","topic":"Application","subtopic":"Renew","id":"n","data":{"token":"next"}}"#;
    assert!(connection.handle(now, Input::Text(renew), &router).is_none());
    assert!(connection.take_secret_read(), "the token is wiped");
    assert!(connection.session().is_some_and(|session| session.is_revoked()));
}

#[test]
fn a_message_that_is_acknowledged_leaves_the_memory() {
    let settings = Arc::new(Settings::new(Limits::default()));
    let router =
        Router::new(start(), SystemTime::UNIX_EPOCH, Policy::new(&Config::default()), Ids::seeded(1), Vec::new());
    let now = start();
    let mut connection = Connection::new(now, Ipv4Addr::LOCALHOST.into(), Arc::clone(&settings), 1);
    let say = |connection: &mut Connection, topic: &str, subtopic: &str, data: &str| {
        let text = format!(
            r#"{{"channel":"Broker","topic":"{topic}","subtopic":"{subtopic}","source":"phone","data":{data}}}"#
        );
        connection.handle(now, Input::Text(&text), &router)
    };
    say(&mut connection, "Application", "Register", r#"{"resume":true}"#);
    connection.handle(now, Input::Verified(Ok(alice())), &router);
    taken(now, &mut connection, &router);
    assert_eq!(settings.memory().bytes(), 0);
    for _ in 0..3 {
        say(&mut connection, "Connection", "Ping", "{}");
    }
    assert_eq!(taken(now, &mut connection, &router).len(), 3);
    let of_three = settings.memory().bytes();
    assert!(of_three > 0, "they are kept until they are acknowledged");
    for (received, left) in [(1, 2), (3, 0)] {
        say(&mut connection, "Connection", "Acknowledge", &format!(r#"{{"received":{received}}}"#));
        assert_eq!(settings.memory().bytes(), of_three / 3 * left, "after {received} messages");
    }
}
