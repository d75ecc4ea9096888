//! Many threads on one router while rights change: publishers publish, a subscriber, a publisher and a handler lose their
//! rights and get them back, and subscriptions under a deny rule begin and end. What is allowed all the time arrives exactly
//! once, what is not allowed never, and every request has one answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use switchboard::auth::Permissions;
use switchboard::config::Config;
use switchboard::router::{Reason, Session, Size};
use wire::Pattern;
use wire::command::{Role, SubscriptionFilter};

use super::threads::{Live, now, take};
use crate::support::core::event;
use crate::support::rights::permissions;

const FOR: Duration = Duration::from_secs(1);
const PUBLISHERS: u64 = 2;

impl Live {
    fn change(&self, session: &Arc<Session>, permissions: Permissions) {
        self.router.change_permissions(now(), session, permissions, Reason::Reloaded);
    }

    fn expect_nothing_left(&self) {
        let Size { sessions, requests, subscribers, handlers, turns, .. } = self.router.size();
        assert_eq!((sessions, requests, subscribers, handlers, turns), (0, 0, 0, 0, 0));
    }
}

fn handler() -> Role {
    Role::Handler { answers: true, ordered: false, replies: Vec::new() }
}

fn rest() {
    thread::sleep(Duration::from_micros(100));
}

/// Publishes numbered events on two channels; how many on each.
fn publish(broker: &Live, publisher: u64) -> u64 {
    let session = broker.attach("publisher");
    let mut sent = 0;
    while broker.runs() {
        sent += 1;
        for channel in ["Open", "Shut"] {
            assert!(
                broker.send(&session, &event(&format!("{channel}/{publisher}/Item"), &format!(r#","data":{sent}"#)))
            );
        }
        if sent % 8 == 0 {
            rest();
        }
    }
    broker.router.detach(now(), &session);
    sent
}

/// The last number of each publisher on each channel.
type Last = BTreeMap<(String, String), u64>;

fn follow(taken: &[Value], last: &mut Last) {
    for event in taken.iter().filter(|event| event["channel"] != "Broker") {
        let [channel, publisher] = ["channel", "topic"].map(|key| event[key].as_str().unwrap().to_owned());
        let number = event["data"].as_u64().unwrap();
        let is_open = channel == "Open";
        let before = last.insert((channel, publisher), number).unwrap_or(0);
        assert!(if is_open { number == before + 1 } else { number > before }, "{number} after {before}");
    }
}

/// Loses the right to one channel and gets it back. What it reads between the two has nothing of that channel.
fn subscribe_with_changing_rights(broker: &Live, session: &Arc<Session>) -> Last {
    let mut last = Last::new();
    let mut narrowed = 0;
    while broker.runs() {
        rest();
        // What was taken before the change may have anything.
        follow(&take(session), &mut last);
        broker.change(session, permissions("subscribe Open/*/*"));
        let mut taken = take(session);
        rest();
        taken.extend(take(session));
        assert!(taken.iter().all(|it| it["channel"] != "Shut"), "nothing is received without the right");
        narrowed += taken.iter().filter(|it| it["subtopic"] == "Ended").count();
        follow(&taken, &mut last);
        broker.change(session, Permissions::default());
    }
    assert!(narrowed > 10, "{narrowed}");
    last
}

/// Subscribes to a part of what it receives anyway, and unsubscribes, again and again. Each delivery is checked.
fn subscribe_to_a_part_again_and_again(broker: &Live, session: &Arc<Session>) -> Last {
    let mut last = Last::new();
    let part = "Open/*/Item".parse::<Pattern>().unwrap();
    while broker.runs() {
        broker.subscribe(session, "Open/*/Item", Role::Subscriber);
        let filter = SubscriptionFilter { pattern: part.clone(), role: None, group: None, user: None };
        broker.router.unsubscribe_matching(now(), session, &filter).unwrap();
        follow(&take(session), &mut last);
    }
    last
}

/// The state of a right: allowed, changing, taken away, changing.
struct Turning(AtomicU64);

impl Turning {
    fn next(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    /// The state, and how often it has changed.
    fn look(&self) -> (u64, u64) {
        let at = self.0.load(Ordering::SeqCst);
        (at % 4, at)
    }
}

fn turn(broker: &Live, session: &Arc<Session>, turning: &Turning) {
    while broker.runs() {
        for permissions in [permissions("publish Other/*/*"), Permissions::default()] {
            turning.next();
            broker.change(session, permissions);
            turning.next();
            rest();
        }
    }
}

/// Publishes while the right to is taken away and given back; how often it was allowed.
fn publish_with_changing_rights(broker: &Live, session: &Arc<Session>, turning: &Turning) -> usize {
    let (mut allowed, mut refused) = (0, 0);
    while broker.runs() {
        let before = turning.look();
        let is_allowed = broker.send(session, &event("Own/Item/New", ""));
        allowed += usize::from(is_allowed);
        refused += usize::from(!is_allowed);
        if turning.look() == before {
            assert!(!(before.0 == 0 && !is_allowed || before.0 == 2 && is_allowed), "{is_allowed} at {before:?}");
        }
        if allowed % 8 == 0 {
            rest();
        }
    }
    assert!(allowed > 0 && refused > 0, "{allowed} {refused}");
    allowed
}

/// Sends requests and waits for nothing; how many.
fn ask(broker: &Live, session: &Arc<Session>) -> usize {
    let mut asked = 0;
    while broker.runs() {
        let idempotent = asked % 2 == 0;
        let sent =
            broker.send(session, &event("Work/Item/Do", &format!(r#","id":"{asked}","idempotent":{idempotent}"#)));
        assert!(sent, "there is always a handler, and few requests are open");
        asked += 1;
        rest();
    }
    asked
}

fn answer(broker: &Live, session: &Arc<Session>, requests: &[Value]) {
    for request in requests.iter().filter(|it| it["channel"] == "Work") {
        // It may have been withdrawn.
        broker.send(session, &event("Work/Item/Done", &format!(r#","inReplyTo":{}"#, request["id"])));
    }
}

/// Handles, loses the right, and handles again. Without the right nothing is in its queue.
fn handle_with_changing_rights(broker: &Live, session: &Arc<Session>) {
    while broker.runs() {
        broker.subscribe(session, "Work/*/*", handler());
        rest();
        let taken = take(session);
        rest();
        broker.change(session, permissions("subscribe */*/*"));
        let left = take(session);
        assert!(left.iter().all(|it| it["channel"] == "Broker"), "{left:?}");
        answer(broker, session, &taken);
        broker.change(session, Permissions::default());
    }
}

#[test]
fn rights_change_while_many_threads_publish_and_request() {
    let broker = Live::new(&Config::default());
    let [subscriber, denied, turned, listener, asker, always, sometimes] =
        ["subscriber", "denied", "turned", "listener", "asker", "always", "sometimes"]
            .map(|source| broker.attach(source));
    broker.change(&denied, permissions("subscribe */*/*; deny subscribe Open/Secret/*"));
    broker.subscribe(&denied, "Open/*/*", Role::Subscriber);
    broker.subscribe(&subscriber, "Open/*/*", Role::Subscriber);
    broker.subscribe(&subscriber, "*/*/Item", Role::Subscriber);
    broker.subscribe(&listener, "Own/*/*", Role::Subscriber);
    broker.subscribe(&always, "Work/*/*", handler());
    let turning = Turning(AtomicU64::new(0));
    thread::scope(|scope| {
        let broker = &broker;
        let publishers: Vec<_> = (0..PUBLISHERS).map(|number| scope.spawn(move || publish(broker, number))).collect();
        let subscribed = scope.spawn(|| subscribe_with_changing_rights(broker, &subscriber));
        let parted = scope.spawn(|| subscribe_to_a_part_again_and_again(broker, &denied));
        scope.spawn(|| turn(broker, &turned, &turning));
        let allowed = scope.spawn(|| publish_with_changing_rights(broker, &turned, &turning));
        let asked = scope.spawn(|| ask(broker, &asker));
        scope.spawn(|| handle_with_changing_rights(broker, &sometimes));
        let always_answers = scope.spawn(|| {
            while broker.runs() {
                answer(broker, &always, &take(&always));
                rest();
            }
        });
        thread::sleep(FOR);
        broker.end();

        let mut followed = [(&subscriber, subscribed.join().unwrap()), (&denied, parted.join().unwrap())];
        let asked = asked.join().unwrap();
        always_answers.join().unwrap();
        let published: Vec<u64> = publishers.into_iter().map(|it| it.join().unwrap()).collect();
        for (session, last) in &mut followed {
            follow(&take(session), last);
            for (number, published) in (0..).zip(&published) {
                assert_eq!(
                    last[&("Open".to_owned(), format!("{number}"))],
                    *published,
                    "nothing that is allowed is lost"
                );
            }
        }
        let allowed = allowed.join().unwrap();
        assert_eq!(take(&listener).len(), allowed, "what was accepted, and nothing else");
        broker.router.detach(now(), &sometimes);
        answer(broker, &always, &take(&always));
        let mut answers = BTreeMap::<String, usize>::new();
        for answer in take(&asker) {
            *answers.entry(answer["inReplyTo"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        assert_eq!((answers.len(), answers.values().max()), (asked, Some(&1)), "one answer for each request");
    });
    for session in [subscriber, denied, turned, listener, asker, always] {
        broker.router.detach(now(), &session);
    }
    broker.expect_nothing_left();
}
