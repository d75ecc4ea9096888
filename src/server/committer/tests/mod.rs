//! The threads that commit and watch, with a disk that fails, hangs, or is full.

mod reads;

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::runtime::Builder;
use tokio::time::timeout;
use wire::command::{Role, Subscribe};
use wire::{DecodeLimits, ErrorCode, decode};

use super::work::EVENTS_MAX;
use super::*;
use crate::auth::{Identity, Permissions, Principal};
use crate::config::{Channel, LogBounds};
use crate::router::{CommitTicket, Ending, Ids, Outbox, OutboxLimits, Policy, Registration, Session};
use crate::store::history::{FaultyDisk, Loaded};

const DEADLINE: Duration = Duration::from_secs(30);

struct Stage {
    disk: FaultyDisk,
    router: Arc<Router>,
    committer: Committer,
}

fn config() -> Config {
    let mut config = Config::default();
    let history = Some(LogBounds { size: 1_000_000, ttl: Duration::from_hours(1) });
    config.channels.insert("Phone".into(), Channel { history, durable: true, ..Channel::default() });
    config.history.timeout = Duration::from_secs(1);
    config
}

fn router(config: &Config) -> Router {
    Router::new(now(), SystemTime::UNIX_EPOCH, Policy::new(config), Ids::seeded(1), Vec::new())
}

impl Stage {
    fn new(config: &Config) -> Self {
        Self::on(FaultyDisk::with_history('a'), config)
    }

    /// A broker that begins with what the disk has.
    fn on(disk: FaultyDisk, config: &Config) -> Self {
        let (router, queue) = router(config).with_commits();
        let (router, reads) = router.with_disk_reads();
        let mut loading = router.loading(now(), SystemTime::UNIX_EPOCH);
        let file = disk.open_history('a', limits(config), &mut |it| loading.add(it)).unwrap().unwrap();
        drop(loading);
        let router = Arc::new(router);
        let committer = Committer::start(&router, (queue, reads), file, config).unwrap();
        Self { disk, router, committer }
    }

    /// Waits until the disk works, or does not.
    fn wait_until_failing(&self, is_failing: bool) {
        let until = now() + DEADLINE;
        while self.committer.is_failing() != is_failing {
            assert!(now() < until, "the committer is failing: {}", !is_failing);
            thread::yield_now();
        }
    }

    /// Ends the broker. Returns the texts that its log has, by their offsets.
    fn end(self) -> BTreeMap<u64, String> {
        self.committer.stop();
        drop(self.committer);
        let mut entries = BTreeMap::new();
        let mut visit = |loaded| {
            if let Loaded::Entry(offset, entry) = loaded {
                entries.insert(offset, entry.text.into_string());
            }
        };
        self.disk.open_history('a', limits(&config()), &mut visit).unwrap().unwrap();
        entries
    }
}

fn session(router: &Router, source: &str) -> Arc<Session> {
    session_with(source, None, router)
}

fn session_with(source: &str, will: Option<&str>, router: &Router) -> Arc<Session> {
    let identity = Identity::unproved(Principal::User("alice".into()), Permissions::all());
    let limits = OutboxLimits { messages: 1_000_000, bytes: usize::MAX / 4, refuses: false };
    let outbox = Outbox::new(limits);
    let will = will.map(Into::into);
    let registration = Registration { source: source.into(), identity, echo: false, address: None, outbox, will };
    router.attach(now(), registration).unwrap()
}

fn publish(router: &Router, sender: &Arc<Session>, number: usize, payload: &str) -> CommitTicket {
    let text = format!(r#"{{"channel":"Phone","topic":"Call","subtopic":"Ring","id":"{number}","data":"{payload}"}}"#);
    let envelope = decode(&text, DecodeLimits::default()).unwrap();
    *router.route(now(), sender, &envelope).unwrap().ticket.unwrap()
}

/// Waits for the outcome: the offset, or the code of the refusal.
fn outcome(mut ticket: CommitTicket) -> Result<u64, ErrorCode> {
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let outcome = runtime.block_on(async { timeout(DEADLINE, poll_fn(|cx| ticket.poll(cx))).await });
    match outcome.expect("an event waits for longer than it may") {
        Ok(routed) => Ok(routed.receipt.unwrap().kept.unwrap().position.offset),
        Err(denied) => Err(denied.refusal.code),
    }
}

/// The numbers of the events that a session was sent, in their order.
fn received(session: &Session) -> Vec<String> {
    let mut frames = Vec::new();
    session.outbox().take(now(), usize::MAX, &mut frames);
    let values = frames.iter().map(|frame| serde_json::from_str::<serde_json::Value>(frame.text()).unwrap());
    values.filter(|it| it["channel"] == "Phone").map(|it| it["data"].as_str().unwrap().to_owned()).collect()
}

fn subscribe(router: &Router, session: &Arc<Session>) {
    let wanted = Subscribe::new("Phone/*/*".parse().unwrap(), Role::Subscriber);
    router.subscribe(now(), session, &wanted, |_| None).unwrap();
}

#[test]
fn a_disk_that_hangs_refuses_events_in_time_and_works_again_without_an_event() {
    let stage = Stage::new(&config());
    let (cti, agent) = (session(&stage.router, "cti"), session(&stage.router, "agent"));
    subscribe(&stage.router, &agent);
    assert_eq!(outcome(publish(&stage.router, &cti, 1, "1")), Ok(1));
    stage.disk.hang();
    let written = publish(&stage.router, &cti, 2, "2");
    stage.disk.wait_until_it_hangs();
    let queued = publish(&stage.router, &cti, 3, "3");
    for ticket in [written, queued] {
        assert_eq!(outcome(ticket), Err(ErrorCode::StorageUnavailable));
    }
    stage.wait_until_failing(true);
    assert_eq!(outcome(publish(&stage.router, &cti, 4, "4")), Err(ErrorCode::StorageUnavailable));
    stage.disk.heal();
    stage.wait_until_failing(false);
    assert_eq!(outcome(publish(&stage.router, &cti, 5, "5")), Ok(2));
    assert_eq!(received(&agent), ["1", "5"]);
    let entries = stage.end();
    assert!(entries.len() == 2 && entries[&1].contains(r#""1""#) && entries[&2].contains(r#""5""#), "{entries:?}");
}

#[test]
fn a_full_disk_that_has_room_again_is_found_without_an_event() {
    let stage = Stage::new(&config());
    let cti = session(&stage.router, "cti");
    stage.disk.fill_at(0);
    let text = "x".repeat(100_000);
    let mut accepted = 0;
    while outcome(publish(&stage.router, &cti, 1, &text)).is_ok() {
        accepted += 1;
        assert!(accepted < 100, "the disk is never full");
    }
    stage.wait_until_failing(true);
    stage.disk.heal();
    stage.wait_until_failing(false);
    assert_eq!(outcome(publish(&stage.router, &cti, 1, &text)), Ok(accepted + 1));
    assert_eq!(stage.end().len() as u64, accepted + 1);
}

#[test]
fn many_publishers_of_a_disk_that_hangs_and_fails_are_told_exactly_what_is_in_the_log() {
    const PUBLISHERS: usize = 6;
    let stage = &Stage::new(&config());
    let agent = session(&stage.router, "agent");
    subscribe(&stage.router, &agent);
    let (is_over, sent) = (&AtomicBool::new(false), &AtomicUsize::new(0));
    let accepted: Vec<(u64, String)> = thread::scope(|scope| {
        let publishers = (0..PUBLISHERS).map(|publisher| {
            scope.spawn(move || {
                let sender = session(&stage.router, &format!("cti {publisher}"));
                let mut accepted = Vec::new();
                while !is_over.load(Ordering::Relaxed) {
                    let number = sent.fetch_add(1, Ordering::Relaxed);
                    match outcome(publish(&stage.router, &sender, number, &number.to_string())) {
                        Ok(offset) => accepted.push((offset, number.to_string())),
                        Err(code) => {
                            assert_eq!(code, ErrorCode::StorageUnavailable);
                            thread::park_timeout(Duration::from_millis(1));
                        }
                    }
                }
                accepted
            })
        });
        let publishers: Vec<_> = publishers.collect();
        for fault in 0..3 {
            stage.wait_until_failing(false);
            match fault {
                1 => stage.disk.fail_after(3),
                _ => stage.disk.hang(),
            }
            stage.wait_until_failing(true);
            stage.disk.heal();
        }
        stage.wait_until_failing(false);
        is_over.store(true, Ordering::Relaxed);
        publishers.into_iter().flat_map(|publisher| publisher.join().unwrap()).collect()
    });
    let accepted: BTreeMap<u64, String> = accepted.into_iter().collect();
    let refused = sent.load(Ordering::Relaxed) - accepted.len();
    assert!(refused >= 3 && !accepted.is_empty(), "{refused} refused, {} accepted", accepted.len());
    assert!(accepted.keys().copied().eq(1..=accepted.len() as u64), "each offset once, without a gap");
    assert_eq!(received(&agent), accepted.values().cloned().collect::<Vec<_>>(), "delivered in the order of the log");
    stage.committer.stop();
    let mut entries = Vec::new();
    let mut visit = |loaded| {
        if let Loaded::Entry(offset, entry) = loaded {
            entries.push((offset, entry.text.into_string()));
        }
    };
    stage.disk.kill().open_history('a', limits(&config()), &mut visit).unwrap().unwrap();
    assert_eq!(entries.len(), accepted.len());
    for (offset, text) in entries {
        assert!(text.contains(&format!(r#""data":"{}""#, accepted[&offset])), "{offset}: {text}");
    }
}

#[test]
fn a_commit_is_bounded_by_events_and_by_bytes() {
    let mut config = config();
    config.history.commit = Duration::ZERO;
    let disk = FaultyDisk::with_history('a');
    let (router, queue) = router(&config).with_commits();
    let router = Arc::new(router);
    let file = disk.open_history('a', limits(&config), &mut |_| {}).unwrap().unwrap();
    let settings = Arc::new(ArcSwap::from_pointee(Settings::new(&config)));
    let is_failing = Arc::<AtomicBool>::default();
    let watch = Arc::new(DiskWatch::new(&router, &queue, &is_failing));
    let mut work = Work::new(&router, queue, file, &settings, &watch, &is_failing);
    let cti = session(&router, "cti");
    let gathered = |work: &mut Work| work.gather().unwrap().len();
    let tickets: Vec<_> = (0..2500).map(|number| publish(&router, &cti, number, "")).collect();
    assert_eq!([0; 3].map(|_| gathered(&mut work)), [EVENTS_MAX, EVENTS_MAX, 500]);
    let text = "x".repeat(1 << 20);
    let long: Vec<_> = (0..20).map(|number| publish(&router, &cti, number, &text)).collect();
    assert_eq!([0; 2].map(|_| gathered(&mut work)), [16, 4]);
    drop((tickets, long));
}

#[test]
fn the_end_of_the_thread_that_commits_loses_no_end_of_a_session() {
    let disk = FaultyDisk::with_history('a');
    let config = config();
    let (router, queue) = router(&config).with_commits();
    let router = Arc::new(router);
    let file = disk.open_history('a', limits(&config), &mut |_| {}).unwrap().unwrap();
    let settings = Arc::new(ArcSwap::from_pointee(Settings::new(&config)));
    let is_failing = Arc::<AtomicBool>::default();
    let watch = Arc::new(DiskWatch::new(&router, &queue, &is_failing));
    let waiting = queue.clone();
    let work = Work::new(&router, queue, file, &settings, &watch, &is_failing);
    let observer = session(&router, "observer");
    let left = Subscribe::new("Broker/Application/Left".parse().unwrap(), Role::Subscriber);
    router.subscribe(now(), &observer, &left, |_| None).unwrap();
    let will = r#"{"channel":"Phone","topic":"Call","subtopic":"Ring","data":"over"}"#;
    let being_written = session_with("being written", Some(will), &router);
    router.leave(now(), &being_written, 0, Ending::Lost, None);
    let events = std::iter::from_fn(|| waiting.receive(Duration::ZERO).ok()).collect();
    watch.begin(now(), Some(router.plan(now(), events)));
    let queued = session_with("queued", Some(will), &router);
    router.leave(now(), &queued, 0, Ending::Lost, None);
    assert!(observer.outbox().is_empty(), "what follows a will waits for it");
    drop(work);
    let mut frames = Vec::new();
    observer.outbox().take(now(), usize::MAX, &mut frames);
    let sources = frames.iter().map(|frame| serde_json::from_str::<serde_json::Value>(frame.text()).unwrap());
    let sources: Vec<_> = sources.map(|it| it["data"]["Source"].as_str().unwrap().to_owned()).collect();
    assert_eq!(sources, ["being written", "queued"]);
    let late = session_with("late", Some(will), &router);
    router.leave(now(), &late, 0, Ending::Lost, None);
    assert!(!observer.outbox().is_empty(), "nothing is written any more");
}
