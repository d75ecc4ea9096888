//! Many threads that subscribe, unsubscribe, publish and register at once, on one router without a runtime: what is indexed
//! leaves the index, and each retained value reaches each subscriber exactly once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use serde_json::Value;
use switchboard::config::{Channel, Config, Scope};
use switchboard::router::{OutboxLimits, Session, Size};
use wire::command::{Role, Subscribe};

use crate::support::core::{Core, WIDE, event};

const SESSIONS: usize = 100;

fn config() -> Config {
    let mut config = Config::default();
    config.channels.insert("Queue".into(), Channel { scope: Scope::Shared, ..Channel::default() });
    config.channels.insert("Memo".into(), Channel { fold_case: true, ..Channel::default() });
    config
}

/// What the sessions of one round subscribe to, all of them to the same.
fn wanted(round: usize) -> Subscribe {
    let pattern = ["News/Item/New", "*/*/*", "Memo/Item/NEW", "Queue/*/New", "News/Item/*"][round % 5];
    let handler = Role::Handler { answers: true, ordered: round.is_multiple_of(2), replies: Vec::new() };
    let role = if round.is_multiple_of(3) && !pattern.starts_with('*') { handler } else { Role::Subscriber };
    Subscribe {
        group: (round.is_multiple_of(7)).then(|| "group".to_owned()),
        ..Subscribe::new(pattern.parse().unwrap(), role)
    }
}

#[test]
fn a_hundred_sessions_subscribe_and_unsubscribe_at_once_and_leave_nothing() {
    const ROUNDS: usize = 120;
    let core = Core::new(&config());
    let user = |number: usize| (!number.is_multiple_of(3)).then_some(["alice", "bob"][number % 2]);
    let sessions: Vec<_> = (0..SESSIONS).map(|number| core.attach("gadget", user(number))).collect();
    let barrier = Barrier::new(SESSIONS);
    thread::scope(|scope| {
        for session in &sessions {
            scope.spawn(|| {
                for round in 0..ROUNDS {
                    barrier.wait();
                    core.subscribe_as(session, &wanted(round));
                    barrier.wait();
                    core.unsubscribe_all(session);
                }
            });
        }
    });
    assert_eq!(core.router.size(), Size { sessions: SESSIONS, ..Size::default() });
    let publisher = core.attach("publisher", Some("alice"));
    for triple in ["News/Item/New", "Memo/Item/New", "Queue/Item/New"] {
        let routed = core.send(&publisher, &event(triple, "")).map_err(|denied| denied.refusal).unwrap();
        assert_eq!(routed.receipt.unwrap().receivers, 0, "{triple}");
    }
}

#[test]
fn subscribers_that_leave_while_events_are_published_leave_nothing() {
    let core = Core::new(&config());
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let comers: Vec<_> = (0..4)
            .map(|number| {
                let core = &core;
                scope.spawn(move || {
                    for round in 0..200 {
                        let session = core.attach("gadget", Some(["alice", "bob"][(number + round) % 2]));
                        core.subscribe_as(&session, &wanted(round));
                        core.subscribe(&session, "News/*/*");
                        core.take(&session);
                        core.router.detach(core.now, &session);
                    }
                })
            })
            .collect();
        for number in 0..2 {
            let (core, over) = (&core, &over);
            scope.spawn(move || {
                let publisher = core.attach("publisher", Some("alice"));
                while !over.load(Ordering::SeqCst) {
                    core.send(&publisher, &event(["News/Item/New", "Memo/Item/New"][number], "")).ok();
                }
                core.router.detach(core.now, &publisher);
            });
        }
        for it in comers {
            it.join().unwrap();
        }
        over.store(true, Ordering::SeqCst);
    });
    let size = core.router.size();
    assert_eq!((size.sessions, size.subscribers, size.handlers, size.hints), (0, 0, 0, 0), "{size:?}");
}

const PUBLISHERS: usize = 3;
const VALUES: usize = 2_000;

/// Reads until every publisher has finished and nothing waits any more.
fn read_all(core: &Core, session: &Arc<Session>, finished: &AtomicUsize) -> Vec<Value> {
    let mut read = Vec::new();
    loop {
        let was_finished = finished.load(Ordering::SeqCst) == PUBLISHERS;
        read.extend(core.take(session));
        if was_finished {
            return read;
        }
        thread::yield_now();
    }
}

#[test]
fn each_subscriber_gets_each_retained_value_exactly_once() {
    const COMERS: usize = 40;
    let mut config = config();
    config.limits.retained_values = usize::MAX;
    let core = Core::new(&config);
    let [published, finished, live] = [0; 3].map(AtomicUsize::new);
    let mut received_live = 0;
    thread::scope(|scope| {
        let (core, published, finished, live) = (&core, &published, &finished, &live);
        for publisher in 0..PUBLISHERS {
            scope.spawn(move || {
                let session = core.attach("publisher", Some("alice"));
                for value in 0..VALUES {
                    let channel = ["News", "Queue"][value % 2];
                    let text = event(&format!("{channel}/{publisher}/{value}"), r#","retain":true,"data":1"#);
                    let routed = core.send(&session, &text).map_err(|it| it.refusal).unwrap();
                    published.fetch_add(1, Ordering::SeqCst);
                    live.fetch_add(routed.receipt.unwrap().receivers, Ordering::SeqCst);
                }
                finished.fetch_add(1, Ordering::SeqCst);
            });
        }
        let comers: Vec<_> = (0..COMERS)
            .map(|number| {
                scope.spawn(move || {
                    // A service sees all users.
                    let session = core.attach("comer", (number % 4 > 0).then_some("alice"));
                    while published.load(Ordering::SeqCst) < number * PUBLISHERS * VALUES / COMERS {
                        thread::yield_now();
                    }
                    core.subscribe(&session, "*/*/*");
                    read_all(core, &session, finished)
                })
            })
            .collect();
        for comer in comers {
            let mut counts = BTreeMap::<String, usize>::new();
            for value in comer.join().unwrap() {
                received_live += usize::from(value.get("retained").is_none());
                *counts.entry(format!("{}/{}/{}", value["channel"], value["topic"], value["subtopic"])).or_default() +=
                    1;
            }
            assert_eq!(counts.len(), PUBLISHERS * VALUES, "a value is missing");
            let twice: Vec<_> = counts.iter().filter(|(_, count)| **count != 1).collect();
            assert!(twice.is_empty(), "{twice:?}");
        }
    });
    assert_eq!(live.load(Ordering::SeqCst), received_live, "the receipts count what came");
    assert_eq!(core.router.size().retained_values, PUBLISHERS * VALUES);
}

#[test]
fn the_value_that_is_kept_is_the_one_that_was_delivered_last() {
    let core = Core::new(&config());
    let stable: Vec<_> = (0..3).map(|_| core.attach("stable", Some("alice"))).collect();
    for session in &stable {
        core.subscribe(session, "News/*/*");
    }
    // All publish on one triple after the other, at the same moment.
    let (finished, barrier) = (AtomicUsize::new(0), Barrier::new(PUBLISHERS));
    let read: Vec<Vec<Value>> = thread::scope(|scope| {
        let (core, finished, barrier) = (&core, &finished, &barrier);
        for publisher in 0..PUBLISHERS {
            scope.spawn(move || {
                let session = core.attach("publisher", Some("alice"));
                for value in 0..VALUES {
                    let text = event(&format!("News/Item/{value}"), &format!(r#","retain":true,"data":{publisher}"#));
                    barrier.wait();
                    core.send(&session, &text).ok().unwrap();
                }
                finished.fetch_add(1, Ordering::SeqCst);
            });
        }
        let readers: Vec<_> =
            stable.iter().map(|session| scope.spawn(move || read_all(core, session, finished))).collect();
        readers.into_iter().map(|it| it.join().unwrap()).collect()
    });
    let late = core.attach("late", Some("alice"));
    core.subscribe(&late, "News/*/*");
    let kept: BTreeMap<String, String> =
        core.take(&late).iter().map(|it| (it["subtopic"].to_string(), it["data"].to_string())).collect();
    assert_eq!(kept.len(), VALUES);
    for read in read {
        assert_eq!(read.len(), PUBLISHERS * VALUES);
        let last: BTreeMap<String, String> =
            read.iter().map(|it| (it["subtopic"].to_string(), it["data"].to_string())).collect();
        let differ = last.iter().filter(|(triple, value)| kept.get(*triple) != Some(value)).count();
        assert_eq!(differ, 0, "triples whose kept value is not the last one that was delivered");
    }
}

#[test]
fn two_sessions_that_register_in_bursts_close_no_watcher() {
    const BURST: usize = 2_000;
    let core = Core::new(&config());
    let narrow = OutboxLimits { messages: 16, bytes: 1 << 20, refuses: false };
    let watcher = core.attach_with("watcher", None, narrow);
    core.subscribe(&watcher, "Broker/Application/*");
    let stays = core.attach_with("stays", Some("alice"), WIDE);
    let done = AtomicUsize::new(0);
    let told = thread::scope(|scope| {
        let (core, done) = (&core, &done);
        for _ in 0..2 {
            scope.spawn(move || {
                for _ in 0..BURST {
                    let session = core.attach("restless", Some("alice"));
                    core.router.detach(core.now, &session);
                }
                done.fetch_add(1, Ordering::SeqCst);
            });
        }
        let watcher = &watcher;
        let reading = scope.spawn(move || {
            let mut told = Vec::new();
            loop {
                let was_done = done.load(Ordering::SeqCst) == 2;
                told.extend(core.take(watcher));
                if was_done {
                    return told;
                }
                thread::yield_now();
            }
        });
        reading.join().unwrap()
    });
    assert_eq!(watcher.outbox().ended(), None);
    // Each session that joined has left, in this order, and each at most once.
    let mut there = BTreeMap::new();
    for event in &told {
        let session = event["data"]["SessionId"].as_str().unwrap().to_owned();
        let before = there.insert(session, event["subtopic"] == "Joined");
        assert_eq!(before, (event["subtopic"] == "Left").then_some(true), "{event}");
    }
    there.retain(|_, is_there| *is_there);
    assert_eq!(there.into_keys().collect::<Vec<_>>(), [stays.id().to_string()]);
}
