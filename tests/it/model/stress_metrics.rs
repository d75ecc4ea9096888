//! Many threads on one router: at the end every counter is exactly what the threads did, zeros included.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use switchboard::auth::{Identity, Permissions, Principal};
use switchboard::config::{Channel, Config, Scope};
use switchboard::router::{Ids, Outbox, OutboxLimits, Policy, Registration, Router, Session};
use switchboard::telemetry::metrics::{Format, Gauges, encode};
use wire::command::{Role, Subscribe};
use wire::{DecodeLimits, decode};

use super::threads::{now, take};

const THREADS: u64 = 8;
/// How often each thread does everything once.
const ROUNDS: u64 = 1_000;

/// Each user has a publisher, two subscribers and a handler. Nobody else receives what is sent for the user.
struct Desk<'r> {
    router: &'r Router,
    sender: Arc<Session>,
    subscribers: [Arc<Session>; 2],
    handler: Arc<Session>,
}

fn attach(router: &Router, user: &str, source: &str) -> Arc<Session> {
    let identity = Identity::unproved(Principal::User(user.into()), Permissions::all());
    let outbox = Outbox::new(OutboxLimits { messages: 10_000_000, bytes: usize::MAX / 4, refuses: false });
    let registration = Registration { source: source.into(), identity, echo: false, address: None, outbox, will: None };
    router.attach(now(), registration).unwrap()
}

fn subscribe(router: &Router, session: &Arc<Session>, pattern: &str, role: Role) {
    router.subscribe(now(), session, &Subscribe::new(pattern.parse().unwrap(), role), |_| None).unwrap();
}

impl<'r> Desk<'r> {
    fn new(router: &'r Router, user: &str) -> Self {
        let subscribers = ["pop", "log"].map(|source| attach(router, user, source));
        for subscriber in &subscribers {
            subscribe(router, subscriber, "Phone/Call/*", Role::Subscriber);
        }
        let handler = attach(router, user, "dialler");
        subscribe(
            router,
            &handler,
            "Phone/Dial/*",
            Role::Handler { answers: true, ordered: false, replies: Vec::new() },
        );
        subscribe(
            router,
            &handler,
            "Phone/Note/*",
            Role::Handler { answers: false, ordered: false, replies: Vec::new() },
        );
        Self { router, sender: attach(router, user, "gadget"), subscribers, handler }
    }

    fn send(&self, sender: &Arc<Session>, text: &str) -> bool {
        let envelope = decode(text, DecodeLimits::default()).unwrap();
        self.router.route(now(), sender, &envelope).is_ok()
    }

    /// Two events with and without receivers, a request with its answer, one without a handler, a command, and a refusal.
    fn round(&self) {
        assert!(self.send(&self.sender, r#"{"channel":"Phone","topic":"Call","subtopic":"Ring"}"#));
        assert!(self.send(&self.sender, r#"{"channel":"Unknown","topic":"a","subtopic":"b"}"#));
        assert!(
            self.send(&self.sender, r#"{"channel":"Phone","topic":"Dial","subtopic":"Now","id":"q","timeout":9000}"#)
        );
        let request = take(&self.handler).into_iter().find(|it| it["subtopic"] == "Now").unwrap();
        let reply = format!(r#"{{"channel":"Phone","topic":"Dial","subtopic":"Now","inReplyTo":{}}}"#, request["id"]);
        assert!(self.send(&self.handler, &reply));
        assert!(!self.send(&self.handler, &reply), "the request has ended");
        assert!(
            !self.send(&self.sender, r#"{"channel":"Phone","topic":"No","subtopic":"One","id":"n","timeout":9000}"#)
        );
        assert!(self.send(&self.sender, r#"{"channel":"Phone","topic":"Note","subtopic":"It","id":"c"}"#));
        assert!(!self.send(&self.sender, r#"{"source":"other","channel":"Phone","topic":"Call","subtopic":"Ring"}"#));
        for session in self.subscribers.iter().chain([&self.sender, &self.handler]) {
            take(session);
        }
    }
}

/// Every sample of a scrape, by its name and labels.
fn scrape(router: &Router) -> BTreeMap<String, f64> {
    let gauges = Gauges { router: router.gauges(), ..Gauges::default() };
    let text = encode(router.metrics(), &gauges, Format::Text).unwrap();
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, it)| (name.to_owned(), it.parse().unwrap()))
        .collect()
}

#[test]
fn counters_of_many_threads_are_exactly_what_was_done() {
    let phone = Channel { scope: Scope::User, ..Channel::default() };
    let config = Config { channels: [("Phone".to_owned(), phone)].into(), ..Config::default() };
    let router = Router::new(now(), SystemTime::UNIX_EPOCH, Policy::new(&config), Ids::seeded(1), Vec::new());
    let before = scrape(&router);
    thread::scope(|scope| {
        for number in 0..THREADS {
            let router = &router;
            scope.spawn(move || {
                let desk = Desk::new(router, &format!("user{number}"));
                (0..ROUNDS).for_each(|_| desk.round());
            });
        }
    });
    router.expire(now() + Duration::from_mins(1));
    let after = scrape(&router);
    let each = THREADS * ROUNDS;
    let expected: BTreeMap<&str, u64> = [
        ("switchboard_envelopes_total{kind=\"event\"}", 3 * each),
        ("switchboard_envelopes_total{kind=\"request\"}", 3 * each),
        ("switchboard_envelopes_total{kind=\"reply\"}", 2 * each),
        ("switchboard_deliveries_total", 5 * each),
        ("switchboard_events_unheard_total", each),
        ("switchboard_channel_events_total{channel=\"Phone\"}", each),
        ("switchboard_channel_events_total{channel=\"other\"}", each),
        ("switchboard_channel_deliveries_total{channel=\"Phone\"}", 5 * each),
        ("switchboard_channel_requests_total{channel=\"Phone\"}", 2 * each),
        ("switchboard_requests_total{outcome=\"answered\"}", each),
        ("switchboard_requests_total{outcome=\"delivered\"}", each),
        ("switchboard_requests_total{outcome=\"no_handler\"}", each),
        ("switchboard_request_duration_seconds_count{handler=\"user\"}", each),
        ("switchboard_sessions{kind=\"user\",state=\"active\"}", 4 * THREADS),
        ("switchboard_subscriptions{role=\"subscriber\"}", 2 * THREADS),
        ("switchboard_subscriptions{role=\"handler\"}", 2 * THREADS),
    ]
    .into();
    for (name, value) in &after {
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let expected = expected.get(name.as_str()).map(|it| *it as f64);
        if expected.is_none() && name.starts_with("switchboard_request_duration_seconds") {
            // How long they took is not known.
            continue;
        }
        let expected = expected.unwrap_or(before.get(name).copied().unwrap_or_default());
        assert!((value - expected).abs() < f64::EPSILON, "{name} is {value}, not {expected}");
    }
    assert!(expected.keys().all(|name| after.contains_key(*name)), "{:?} of {after:#?}", expected.keys());
}
