//! Many threads on one log: publishers publish while sessions subscribe and recover from random positions. Each session
//! receives each event exactly once, in the order of the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use switchboard::config::{Channel, Config, History, LogBounds, Scope};
use switchboard::router::{RecoverReason, Recovered, Session, Size, Subscribed};
use wire::command::{Recover, Role, Subscribe};

use crate::support::core::{Core, event};

const PUBLISHERS: usize = 3;
const EVENTS: usize = 3_000;
const READERS: usize = 24;

fn core(size: usize, bytes: usize) -> Core {
    let bounds = LogBounds { size, ttl: Duration::from_mins(10) };
    let mut config = Config { history: History { bytes, ..History::default() }, ..Config::default() };
    for (channel, scope) in [("News", Scope::User), ("Queue", Scope::Shared)] {
        config.channels.insert(channel.into(), Channel { scope, history: Some(bounds), ..Channel::default() });
    }
    Core::new(&config)
}

fn subscribe(core: &Core, session: &Arc<Session>, channel: &str, recover: Option<Recover>) -> Subscribed {
    let pattern = format!("{channel}/*/*").parse().unwrap();
    let wanted = Subscribe { recover, ..Subscribe::new(pattern, Role::Subscriber) };
    let mut told = None;
    core.router
        .subscribe(core.now, session, &wanted, |subscribed| {
            told = Some(subscribed);
            None
        })
        .unwrap();
    told.unwrap()
}

/// Publishes on both channels until all are published; each event twice with `once`, by two publishers.
fn publish(core: &Core, publisher: usize, finished: &AtomicUsize) -> usize {
    let session = core.attach("publisher", Some("alice"));
    let mut duplicates = 0;
    for number in 0..EVENTS {
        let channel = ["News", "Queue"][number % 2];
        // Two publishers send the same ids.
        let text = event(&format!("{channel}/Item/New"), &format!(r#","id":"{}-{number}","once":true"#, publisher / 2));
        let routed = core.send(&session, &text).map_err(|it| it.refusal).unwrap();
        duplicates += usize::from(routed.receipt.unwrap().kept.unwrap().is_duplicate);
    }
    core.router.detach(core.now, &session);
    finished.fetch_add(1, Ordering::SeqCst);
    duplicates
}

/// Reads until all publishers have finished: the offsets that came, in their order.
fn read_all(core: &Core, session: &Arc<Session>, finished: &AtomicUsize) -> Vec<u64> {
    let mut offsets = Vec::new();
    loop {
        let was_finished = finished.load(Ordering::SeqCst) == PUBLISHERS;
        offsets.extend(core.take(session).iter().map(|it| it["offset"].as_u64().unwrap()));
        if was_finished {
            return offsets;
        }
        thread::yield_now();
    }
}

/// Subscribes from a random position, reads for a while, loses its connection, and recovers from what it read last.
fn reconnect(core: &Core, number: usize, finished: &AtomicUsize) -> (usize, usize) {
    let mut chance = StdRng::seed_from_u64(number as u64);
    let channel = ["News", "Queue"][number % 2];
    let (mut last, mut epoch, mut lost, mut replayed) = (None, None, 0, 0);
    loop {
        let session = core.attach("reader", Some("alice"));
        let recover = match (&epoch, last) {
            (Some(epoch), Some(last)) => Recover::After { epoch: String::clone(epoch), offset: last },
            _ => Recover::Last(chance.random_range(1..500)),
        };
        let was_finished = finished.load(Ordering::SeqCst) == PUBLISHERS;
        let told = subscribe(core, &session, channel, Some(recover));
        let position = told.position.unwrap();
        match told.recovered {
            Some(Recovered::Replayed(count)) => replayed += count,
            Some(Recovered::Lost(RecoverReason::TooOld)) => {
                lost += 1;
                last = Some(position.offset);
            }
            other => panic!("{other:?}"),
        }
        epoch = Some(position.epoch.to_string());
        if !was_finished {
            thread::sleep(Duration::from_micros(chance.random_range(0..2_000)));
        }
        let offsets: Vec<u64> = core.take(&session).iter().map(|it| it["offset"].as_u64().unwrap()).collect();
        core.router.detach(core.now, &session);
        for offset in offsets {
            assert!(last.is_none_or(|last| offset == last + 1), "{offset} after {last:?}");
            last = Some(offset);
        }
        if was_finished {
            assert_eq!(last.unwrap_or_default(), position.offset, "nothing is missing at the end");
            return (lost, replayed);
        }
    }
}

fn play(core: &Core) -> (usize, usize, usize) {
    let finished = AtomicUsize::new(0);
    thread::scope(|scope| {
        let finished = &finished;
        let publishers: Vec<_> =
            (0..PUBLISHERS).map(|number| scope.spawn(move || publish(core, number, finished))).collect();
        let readers: Vec<_> =
            (0..READERS).map(|number| scope.spawn(move || reconnect(core, number, finished))).collect();
        let stays = core.attach("stays", Some("alice"));
        let first = subscribe(core, &stays, "News", None).position.unwrap().offset;
        let offsets = read_all(core, &stays, finished);
        core.router.detach(core.now, &stays);
        assert!(offsets.iter().copied().eq(first + 1..=first + offsets.len() as u64), "the order of the log");
        let duplicates = publishers.into_iter().map(|it| it.join().unwrap()).sum();
        let (lost, replayed) =
            readers.into_iter().map(|it| it.join().unwrap()).fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
        (duplicates, lost, replayed)
    })
}

/// Lets everything expire.
fn pass(core: &mut Core) {
    while let Some(due) = core.router.deadline() {
        core.now = core.now.max(due);
        core.router.expire(core.now);
    }
    core.now += Duration::from_mins(10);
    core.router.expire(core.now);
}

#[test]
fn a_session_that_reconnects_gets_each_event_exactly_once_in_the_order_of_the_log() {
    let mut core = core(1_000_000, usize::MAX);
    let (duplicates, lost, replayed) = play(&core);
    // Publishers 0 and 1 send the same ids, 2 others.
    assert_eq!((duplicates, lost), (EVENTS, 0));
    assert!(replayed > 0);
    let size = core.router.size();
    let found = (size.sessions, size.logs, size.log_entries, size.known_ids);
    assert_eq!(found, (0, 2, 2 * EVENTS, 2 * EVENTS));
    pass(&mut core);
    assert_eq!(core.router.size(), Size::default(), "nothing is left");
}

#[test]
fn a_session_that_reconnects_too_late_is_told_so_and_otherwise_misses_nothing() {
    let mut core = core(40, 60_000);
    let (duplicates, _, _) = play(&core);
    assert_eq!(duplicates, EVENTS);
    let size = core.router.size();
    assert!(size.log_entries <= 80 && size.log_bytes <= 60_000, "{size:?}");
    pass(&mut core);
    assert_eq!(core.router.size(), Size::default(), "nothing is left");
}

#[test]
fn an_event_that_meets_a_subscription_to_an_empty_log_is_in_the_log() {
    for round in 0..30 {
        let core = &core(10, 1 << 20);
        let (crm, phone) = (core.attach("crm", Some("alice")), &core.attach("phone", Some("alice")));
        let wanted = Subscribe::new("News/*/*".parse().unwrap(), Role::Subscriber);
        thread::scope(|scope| {
            // The subscription holds the lock of a log that is removed afterwards, because nothing is in it.
            let told = |_: Subscribed| {
                let (begins, begun) = std::sync::mpsc::channel();
                scope.spawn(move || {
                    begins.send(()).unwrap();
                    core.send(phone, &event("News/Item/New", "")).unwrap();
                });
                begun.recv().unwrap();
                (0..100).for_each(|_| thread::yield_now());
                None
            };
            core.router.subscribe(core.now, &crm, &wanted, told).unwrap();
        });
        assert_eq!(core.router.size().log_entries, 1, "round {round}");
    }
}
