//! Events that have to be on disk first, in the core: what is planned, delivered and refused. `reload` ends their logs,
//! `taken_over` has logs from a file.

mod reload;
mod taken_over;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;
use switchboard::auth::{Identity, Permissions, Principal};
use switchboard::config::{Channel, Config, LogBounds, Scope};
use switchboard::router::{
    CommitQueue, CommitTicket, Ids, Outbox, OutboxLimits, Policy, Registration, Routed, Router, Session, Uncommitted,
};
use switchboard::store::history::{Change, LogName};
use wire::command::{Role, Subscribe};
use wire::{DecodeLimits, decode};

use crate::support::core::event;

const LIMITS: OutboxLimits = OutboxLimits { messages: 1000, bytes: 1 << 20, refuses: false };

struct Stage {
    router: Router,
    queue: CommitQueue,
    now: Instant,
}

/// What a sender is told.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Kept { offset: u64, receivers: usize, is_duplicate: bool },
    Refused(&'static str),
}

impl Stage {
    fn new() -> Self {
        let config = Self::config();
        #[expect(clippy::disallowed_methods, reason = "some instant to begin with")]
        let now = Instant::now();
        let router = Router::new(now, SystemTime::UNIX_EPOCH, Policy::new(&config), Ids::seeded(1), Vec::new());
        let (router, queue) = router.with_commits();
        Self { router, queue, now }
    }

    fn config() -> Config {
        let mut config = Config::default();
        let history = Some(LogBounds { size: 3, ttl: Duration::from_mins(10) });
        let durable = Channel { history, durable: true, retain_durable: true, ..Channel::default() };
        config.channels.insert("Phone".into(), durable);
        config.channels.insert("Queue".into(), Channel { scope: Scope::Shared, ..durable });
        config.channels.insert("State".into(), Channel { durable: false, ..durable });
        config.limits.retained_bytes = 2000;
        config
    }

    /// Gives the channel Phone another scope.
    fn rescope(&self, scope: Scope) {
        let mut config = Self::config();
        config.channels.get_mut("Phone").unwrap().scope = scope;
        self.router.replace_policy(self.now, &config);
        assert!(self.queue.receive(Duration::ZERO).is_err(), "the thread that commits is only woken");
    }

    fn session(&self, source: &str, user: &str) -> Arc<Session> {
        let identity = Identity::unproved(Principal::User(user.into()), Permissions::all());
        let outbox = Outbox::new(LIMITS);
        let registration =
            Registration { source: source.into(), identity, echo: false, address: None, outbox, will: None };
        let session = self.router.attach(self.now, registration).unwrap();
        let wanted = Subscribe::new("*/*/*".parse().unwrap(), Role::Subscriber);
        self.router.subscribe(self.now, &session, &wanted, |_| None).unwrap();
        session
    }

    fn send(&self, sender: &Arc<Session>, text: &str) -> CommitTicket {
        let envelope = decode(text, DecodeLimits::default()).unwrap();
        let Routed { ticket, receipt, .. } = self.router.route(self.now, sender, &envelope).unwrap();
        assert_eq!(receipt, None, "there is no receipt before the commit");
        *ticket.unwrap()
    }

    /// Commits what waits, or fails to. Returns what had to be written.
    fn commit(&self, is_on_disk: bool) -> Vec<Change> {
        let events: Vec<Uncommitted> = std::iter::from_fn(|| self.queue.receive(Duration::ZERO).ok()).collect();
        let batch = self.router.plan(self.now, events);
        let changes = batch.changes().to_vec();
        self.router.finish(self.now, batch, is_on_disk);
        changes
    }
}

fn told(ticket: &mut CommitTicket) -> Option<Told> {
    let Poll::Ready(outcome) = ticket.poll(&mut Context::from_waker(Waker::noop())) else { return None };
    Some(match outcome {
        Ok(routed) => {
            let receipt = routed.receipt.unwrap();
            let kept = receipt.kept.unwrap();
            Told::Kept { offset: kept.position.offset, receivers: receipt.receivers, is_duplicate: kept.is_duplicate }
        }
        Err(denied) => Told::Refused(denied.refusal.code.as_str()),
    })
}

fn received(stage: &Stage, session: &Session) -> Vec<u64> {
    let mut frames = Vec::new();
    session.outbox().take(stage.now, usize::MAX, &mut frames);
    let values = frames.iter().map(|frame| serde_json::from_str::<Value>(frame.text()).unwrap());
    values.filter_map(|value| value["offset"].as_u64()).collect()
}

fn payloads(stage: &Stage, session: &Session) -> Vec<u64> {
    let mut frames = Vec::new();
    session.outbox().take(stage.now, usize::MAX, &mut frames);
    let values = frames.iter().map(|frame| serde_json::from_str::<Value>(frame.text()).unwrap());
    values.filter_map(|value| value["data"].as_u64()).collect()
}

const EVENT: &str = r#"{"channel":"Phone","topic":"Call","subtopic":"Ring","id":"1"}"#;

#[test]
fn an_event_is_delivered_and_confirmed_only_when_it_is_on_disk() {
    let stage = Stage::new();
    let (cti, agent) = (stage.session("cti", "alice"), stage.session("agent", "alice"));
    let mut ticket = stage.send(&cti, EVENT);
    assert_eq!((told(&mut ticket), received(&stage, &agent)), (None, vec![]));
    let changes = stage.commit(true);
    let [Change::Append { log, offset: 1, first: 1, .. }] = &*changes else { panic!("{changes:?}") };
    assert_eq!(log, &LogName { channel: "Phone".into(), user: Some("alice".into()) });
    assert_eq!(told(&mut ticket), Some(Told::Kept { offset: 1, receivers: 1, is_duplicate: false }));
    assert_eq!(received(&stage, &agent), [1]);
}

#[test]
fn a_refused_event_takes_no_offset_and_reaches_nobody() {
    let stage = Stage::new();
    let (cti, agent) = (stage.session("cti", "alice"), stage.session("agent", "alice"));
    let once = EVENT.replacen('{', r#"{"once":true,"#, 1);
    let mut tickets = [stage.send(&cti, &once), stage.send(&cti, EVENT)];
    assert_eq!(stage.commit(false).len(), 2);
    for ticket in &mut tickets {
        assert_eq!(told(ticket), Some(Told::Refused("STORAGE_UNAVAILABLE")));
    }
    assert!(received(&stage, &agent).is_empty());
    // Its id is not known either.
    let mut ticket = stage.send(&cti, &once);
    stage.commit(true);
    assert_eq!(told(&mut ticket), Some(Told::Kept { offset: 1, receivers: 1, is_duplicate: false }));
    assert_eq!(received(&stage, &agent), [1]);
}

#[test]
fn a_second_event_with_an_id_waits_for_the_outcome_of_the_first() {
    let stage = Stage::new();
    let (cti, agent) = (stage.session("cti", "alice"), stage.session("agent", "alice"));
    let once = EVENT.replacen('{', r#"{"once":true,"#, 1);
    for is_on_disk in [false, true] {
        let mut tickets = [stage.send(&cti, &once), stage.send(&cti, &once)];
        assert_eq!(stage.commit(is_on_disk).len(), 1);
        let [first, second] = &mut tickets;
        let outcomes = (told(first), told(second));
        let kept = |is_duplicate| Some(Told::Kept { offset: 1, receivers: 1, is_duplicate });
        let refused = || Some(Told::Refused("STORAGE_UNAVAILABLE"));
        assert_eq!(outcomes, if is_on_disk { (kept(false), kept(true)) } else { (refused(), refused()) });
    }
    assert_eq!(received(&stage, &agent), [1]);
}

#[test]
fn an_event_with_the_id_of_a_refused_one_is_written() {
    let stage = Stage::new();
    let (cti, agent) = (stage.session("cti", "alice"), stage.session("agent", "alice"));
    let once = EVENT.replacen('{', r#"{"once":true,"#, 1);
    let too_large = once.replacen('{', &format!(r#"{{"retain":true,"data":{:?},"#, "x".repeat(3000)), 1);
    let [mut refused, mut first, mut second] = [&too_large, &once, &once].map(|text| stage.send(&cti, text));
    let changes = stage.commit(true);
    assert!(matches!(&*changes, [Change::Append { offset: 1, .. }]), "{changes:?}");
    assert_eq!(told(&mut refused), Some(Told::Refused("TOO_LARGE")));
    let kept = |is_duplicate| Some(Told::Kept { offset: 1, receivers: 1, is_duplicate });
    assert_eq!((told(&mut first), told(&mut second)), (kept(false), kept(true)));
    assert_eq!(received(&stage, &agent), [1]);
}

#[test]
fn a_duplicate_is_not_retained_on_disk_either() {
    let stage = Stage::new();
    let cti = stage.session("cti", "alice");
    let value = |data: u64| event("State/Agent/One", &format!(r#","id":"1","once":true,"retain":true,"data":{data}"#));
    let mut first = stage.send(&cti, &value(1));
    let changes = stage.commit(true);
    assert!(matches!(&*changes, [Change::Keep(..)]), "its log is not on disk: {changes:?}");
    let mut second = stage.send(&cti, &value(2));
    assert!(stage.commit(true).is_empty());
    let kept = |is_duplicate| Some(Told::Kept { offset: 1, receivers: 0, is_duplicate });
    assert_eq!((told(&mut first), told(&mut second)), (kept(false), kept(true)));
}

#[test]
fn what_is_not_retained_because_of_a_limit_is_not_written() {
    let stage = Stage::new();
    let (cti, agent) = (stage.session("cti", "alice"), stage.session("agent", "alice"));
    let retained = |data: &str| {
        format!(r#"{{"channel":"Phone","topic":"Call","subtopic":"State","id":"1","retain":true,"data":{data}}}"#)
    };
    let mut too_large = stage.send(&cti, &retained(&format!("{:?}", "x".repeat(3000))));
    assert_eq!(stage.commit(true).len(), 0);
    assert_eq!(told(&mut too_large), Some(Told::Refused("TOO_LARGE")));
    let mut kept = stage.send(&cti, &retained("1"));
    let changes = stage.commit(true);
    assert!(matches!(&*changes, [Change::Append { .. }, Change::Keep(..)]), "{changes:?}");
    assert_eq!(told(&mut kept), Some(Told::Kept { offset: 1, receivers: 1, is_duplicate: false }));
    stage.send(&cti, &retained("null"));
    assert!(matches!(&*stage.commit(true), [Change::Append { .. }, Change::Clear(_)]));
    assert_eq!(received(&stage, &agent), [1, 2]);
}

#[test]
fn what_an_adapter_announces_to_all_enters_each_log() {
    let stage = Stage::new();
    let sessions = ["alice", "bob"].map(|user| stage.session("agent", user));
    let adapter = stage.router.attach_adapter(stage.now, Outbox::new(LIMITS));
    let envelope = decode(EVENT, DecodeLimits::OWN).unwrap();
    let mut ticket = stage.router.announce(stage.now, &adapter, &envelope, None).unwrap().ticket.unwrap();
    assert!(is_pending(&mut ticket), "its source keeps it until it is on disk");
    assert!(sessions.iter().all(|session| received(&stage, session).is_empty()));
    // A user who comes while it is written has no log with it, and gets it nevertheless or not; nobody's offsets differ.
    let events = vec![stage.queue.receive(Duration::ZERO).unwrap()];
    let batch = stage.router.plan(stage.now, events);
    assert_eq!(batch.changes().len(), 2);
    let carol = stage.session("agent", "carol");
    stage.router.finish(stage.now, batch, true);
    assert!(!is_pending(&mut ticket));
    assert!(sessions.iter().all(|session| received(&stage, session) == [1]));
    assert!(received(&stage, &carol).is_empty());
    let mut ticket = stage.send(&carol, EVENT);
    stage.commit(true);
    assert_eq!(told(&mut ticket), Some(Told::Kept { offset: 1, receivers: 0, is_duplicate: false }));
}

fn is_pending(ticket: &mut CommitTicket) -> bool {
    ticket.poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

#[test]
fn nothing_that_an_adapter_announces_overtakes_an_event_that_waits_for_the_disk() {
    for is_on_disk in [true, false] {
        let stage = Stage::new();
        let agent = stage.session("agent", "alice");
        let adapter = stage.router.attach_adapter(stage.now, Outbox::new(LIMITS));
        let announce = |channel: &str, data: u64| {
            let text = event(&format!("{channel}/Call/Ring"), &format!(r#","data":{data}"#));
            let envelope = decode(&text, DecodeLimits::OWN).unwrap();
            stage.router.announce(stage.now, &adapter, &envelope, Some("alice")).unwrap().ticket
        };
        let mut tickets = [announce("Phone", 1), announce("Other", 2), announce("Phone", 3)];
        assert!(payloads(&stage, &agent).is_empty());
        stage.commit(is_on_disk);
        // What need not be on disk is delivered whatever becomes of the disk.
        assert_eq!(payloads(&stage, &agent), if is_on_disk { vec![1, 2, 3] } else { vec![2] });
        for (ticket, on_disk) in tickets.iter_mut().flatten().zip([true, false, true]) {
            let outcome = ticket.poll(&mut Context::from_waker(Waker::noop()));
            assert!(matches!(outcome, Poll::Ready(outcome) if outcome.is_ok() == (is_on_disk || !on_disk)));
        }
        assert!(announce("Other", 4).is_none(), "nothing waits any more");
        assert_eq!(payloads(&stage, &agent), [4]);
    }
}

#[test]
fn a_log_on_disk_is_shortened_by_its_size() {
    let stage = Stage::new();
    let cti = stage.session("cti", "alice");
    let firsts: Vec<_> = (0..6)
        .map(|_| {
            stage.send(&cti, EVENT);
            match &*stage.commit(true) {
                [Change::Append { first, .. }] => *first,
                changes => panic!("{changes:?}"),
            }
        })
        .collect();
    assert_eq!(firsts, [1, 1, 1, 2, 3, 4]);
}

#[test]
fn the_end_of_the_broker_refuses_what_comes_later() {
    let stage = Stage::new();
    let cti = stage.session("cti", "alice");
    let mut ticket = stage.send(&cti, EVENT);
    stage.router.end_commits();
    let envelope = decode(EVENT, DecodeLimits::default()).unwrap();
    let denied = stage.router.route(stage.now, &cti, &envelope).err().unwrap();
    assert_eq!(denied.refusal.code.as_str(), "STORAGE_UNAVAILABLE");
    // What waited before is still committed.
    stage.commit(true);
    assert!(matches!(told(&mut ticket), Some(Told::Kept { offset: 1, .. })));
}

#[test]
fn a_log_that_the_disk_disagrees_about_costs_its_own_events_only_and_begins_anew() {
    let stage = Stage::new();
    let (cti, agent) = (stage.session("cti", "alice"), stage.session("agent", "alice"));
    let queue_event = EVENT.replace("Phone", "Queue");
    let retained = EVENT.replacen('{', r#"{"retain":true,"data":1,"#, 1);
    let mut tickets = [EVENT, &*queue_event, &*retained].map(|text| stage.send(&cti, text));
    let events = std::iter::from_fn(|| stage.queue.receive(Duration::ZERO).ok()).collect();
    let mut batch = stage.router.plan(stage.now, events);
    assert_eq!(batch.changes().len(), 4);
    let phone = LogName { channel: "Phone".into(), user: Some("alice".into()) };
    stage.router.leave_out(&mut batch, &BTreeSet::from([phone.clone()]));
    let changes = batch.take_changes();
    assert!(matches!(&*changes, [Change::Append { log, .. }] if &*log.channel == "Queue"), "{changes:?}");
    stage.router.finish(stage.now, batch, true);
    let [one, other, last] = &mut tickets;
    assert_eq!(told(one), Some(Told::Refused("STORAGE_UNAVAILABLE")));
    assert_eq!(told(other), Some(Told::Kept { offset: 1, receivers: 1, is_duplicate: false }));
    assert_eq!(told(last), Some(Told::Refused("STORAGE_UNAVAILABLE")));
    assert_eq!(received(&stage, &agent), [1]);
    // The disk loses it too, and its next event begins it with another epoch.
    assert_eq!(forgotten(&stage.router.forgotten(|log, _| *log == phone)), 1);
    let mut ticket = stage.send(&cti, EVENT);
    let changes = stage.commit(true);
    assert_eq!(told(&mut ticket), Some(Told::Kept { offset: 1, receivers: 1, is_duplicate: false }));
    assert!(matches!(&*changes, [Change::Append { offset: 1, .. }]), "{changes:?}");
}

/// How many logs are to be forgotten.
fn forgotten(changes: &[Change]) -> usize {
    changes.iter().filter(|change| matches!(change, Change::Forget(_))).count()
}

#[test]
fn an_event_for_all_is_left_out_of_the_log_that_the_disk_disagrees_about() {
    let stage = Stage::new();
    let [alice, bob] = ["alice", "bob"].map(|user| stage.session("agent", user));
    let adapter = stage.router.attach_adapter(stage.now, Outbox::new(LIMITS));
    let envelope = decode(EVENT, DecodeLimits::default()).unwrap();
    let announced = stage.router.announce(stage.now, &adapter, &envelope, None).unwrap();
    assert!(announced.ticket.is_some());
    let events = std::iter::from_fn(|| stage.queue.receive(Duration::ZERO).ok()).collect();
    let mut batch = stage.router.plan(stage.now, events);
    let phone = LogName { channel: "Phone".into(), user: Some("alice".into()) };
    stage.router.leave_out(&mut batch, &BTreeSet::from([phone]));
    assert_eq!(batch.changes().len(), 1);
    stage.router.finish(stage.now, batch, true);
    assert_eq!((received(&stage, &alice), received(&stage, &bob)), (vec![], vec![1]));
}

#[test]
fn an_event_that_has_waited_too_long_is_refused_and_one_that_need_not_be_on_disk_is_not() {
    let mut stage = Stage::new();
    let (cti, agent) = (stage.session("cti", "alice"), stage.session("agent", "alice"));
    let mut tickets = [stage.send(&cti, EVENT)];
    stage.now += Duration::from_secs(10);
    let mut in_time = stage.send(&cti, EVENT);
    stage.now += Duration::from_millis(1);
    assert_eq!(stage.commit(true).len(), 1);
    assert_eq!(told(&mut tickets[0]), Some(Told::Refused("STORAGE_UNAVAILABLE")));
    assert_eq!(told(&mut in_time), Some(Told::Kept { offset: 1, receivers: 1, is_duplicate: false }));
    assert_eq!(received(&stage, &agent), [1]);
}

#[test]
fn what_waits_for_the_disk_is_bounded_by_events_and_bytes() {
    for (waiting, waiting_bytes) in [(3, usize::MAX / 2), (1000, 3 * EVENT.len())] {
        let mut config = Stage::config();
        (config.history.waiting, config.history.waiting_bytes) = (waiting, waiting_bytes);
        let stage = Stage::new();
        stage.router.replace_policy(stage.now, &config);
        let cti = stage.session("cti", "alice");
        let mut tickets: Vec<_> = (0..3).map(|_| stage.send(&cti, EVENT)).collect();
        let envelope = decode(EVENT, DecodeLimits::default()).unwrap();
        let refused = stage.router.route(stage.now, &cti, &envelope).map(drop).unwrap_err().refusal;
        assert_eq!((refused.code.as_str(), tickets.len()), ("STORAGE_UNAVAILABLE", 3));
        stage.commit(true);
        assert!(tickets.iter_mut().all(|ticket| matches!(told(ticket), Some(Told::Kept { .. }))));
        tickets.push(stage.send(&cti, EVENT));
        stage.commit(true);
        assert!(matches!(told(&mut tickets[3]), Some(Told::Kept { offset: 4, .. })));
    }
}
