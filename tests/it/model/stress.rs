//! Many threads on one router, without a runtime: what the simulation cannot show, races. For two seconds publishers
//! publish, subscribers join and leave, requesters request, cancel and stop waiting, handlers answer, die and return; then
//! every request has had one answer, nobody has missed an event or got one twice, and nothing is left.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use switchboard::config::{Config, Requests};
use switchboard::router::{Session, Size};
use wire::command::Role;

use super::threads::{Live, now, take};

const FOR: Duration = Duration::from_secs(2);
const PUBLISHERS: usize = 3;
const ASKERS: usize = 3;

fn broker() -> Live {
    let requests = Requests { timeout: Duration::from_millis(300), ..Requests::default() };
    Live::new(&Config { requests, ..Config::default() })
}

fn handler(ordered: bool) -> Role {
    Role::Handler { answers: true, ordered, replies: Vec::new() }
}

/// Publishes numbered events; how many.
fn publish(broker: &Live, publisher: usize) -> u64 {
    let member = broker.attach(&format!("publisher-{publisher}"));
    let mut n = 0;
    while broker.runs() {
        n += 1;
        let text = format!(r#"{{"channel":"News","topic":"{publisher}","subtopic":"Item","data":{n}}}"#);
        assert!(broker.send(&member, &text));
        if n % 16 == 0 {
            thread::sleep(Duration::from_micros(200));
        }
    }
    broker.router.detach(now(), &member);
    n
}

/// Reads events; each publisher's come in order, without a gap where `whole`. The last number of each.
fn follow(taken: &[Value], last: &mut BTreeMap<String, u64>, whole: bool) {
    for event in taken.iter().filter(|event| event["channel"] == "News") {
        let (publisher, n) = (event["topic"].as_str().unwrap().to_owned(), event["data"].as_u64().unwrap());
        let before = last.insert(publisher, n).unwrap_or(0);
        assert!(if whole { n == before + 1 } else { n > before }, "{n} after {before}");
    }
}

/// Registers and unregisters. Once it has unregistered, nothing more arrives.
fn come_and_go(broker: &Live, number: u64) {
    let mut chance = StdRng::seed_from_u64(number);
    let mut last = BTreeMap::new();
    while broker.runs() {
        let member = broker.attach("visitor");
        for pattern in ["News/*/*", "News/1/*", "*/*/Item"].iter().take(chance.random_range(1..=3)) {
            broker.subscribe(&member, pattern, Role::Subscriber);
        }
        thread::sleep(Duration::from_micros(chance.random_range(0..300)));
        follow(&take(&member), &mut last, false);
        broker.router.detach(now(), &member);
        follow(&take(&member), &mut last, false);
        thread::sleep(Duration::from_micros(100));
        assert!(take(&member).is_empty(), "a message for a registration that has ended");
    }
}

/// Answers on one connection, in ever new registrations where `dies`. Now and then late, or with more.
fn answer(broker: &Live, number: u64, ordered: bool, dies: bool) {
    let mut chance = StdRng::seed_from_u64(number);
    while broker.runs() {
        let member = broker.attach(&format!("handler-{number}"));
        broker.subscribe(&member, "Work/*/*", handler(ordered));
        let until = now() + Duration::from_micros(if dies { chance.random_range(0..2_000) } else { u64::MAX >> 24 });
        while broker.runs() && now() < until {
            for request in take(&member).iter().filter(|it| it["channel"] == "Work") {
                let (topic, id) = (request["topic"].as_str().unwrap(), request["id"].as_str().unwrap());
                if chance.random_ratio(1, 10) {
                    thread::sleep(Duration::from_millis(3));
                }
                let more = chance.random_ratio(1, 5);
                for more in if more { &[true, false][..] } else { &[false] } {
                    let reply = if ordered { String::new() } else { format!(r#","inReplyTo":"{id}""#) };
                    broker.send(
                        &member,
                        &format!(r#"{{"channel":"Work","topic":"{topic}","subtopic":"Do","more":{more}{reply},"data":"{id}"}}"#),
                    );
                }
            }
            thread::yield_now();
        }
        broker.router.detach(now(), &member);
        take(&member);
    }
}

/// Asks, in every way that there is. The ids that it used.
fn ask(broker: &Live, member: &Arc<Session>, asker: usize) -> BTreeSet<String> {
    let (mut asked, mut chance) = (BTreeSet::new(), StdRng::seed_from_u64(asker as u64));
    while broker.runs() {
        let id = format!("{asker}-{}", asked.len());
        let options = match chance.random_range(0..6) {
            0 | 1 => r#","gather":true"#.to_owned(),
            2 => r#","idempotent":true"#.to_owned(),
            _ => format!(r#","timeout":{}"#, chance.random_range(1..20)),
        };
        let text = format!(r#"{{"channel":"Work","topic":"{asker}","subtopic":"Do","id":"{id}"{options}}}"#);
        if broker.send(member, &text) {
            asked.insert(id.clone());
            if chance.random_ratio(1, 3) {
                broker.router.cancel(now(), member, &id).ok();
            }
        }
        if asked.len() % 8 == 0 {
            thread::sleep(Duration::from_millis(1));
        }
    }
    asked
}

/// Every request had one last answer, and nothing after it.
fn each_was_answered_once(asked: &BTreeSet<String>, taken: &[Value]) {
    let mut ended = BTreeSet::new();
    for answer in taken.iter().filter(|answer| answer["channel"] == "Work") {
        let id = answer["inReplyTo"].as_str().unwrap();
        assert!(asked.contains(id), "an answer to {id}, which was refused");
        assert!(!ended.contains(id), "another answer to {id}: {answer}");
        if answer.get("more") != Some(&Value::Bool(true)) {
            ended.insert(id);
        }
    }
    let unanswered: Vec<_> = asked.iter().filter(|id| !ended.contains(id.as_str())).collect();
    assert!(unanswered.is_empty(), "{} of {} were never answered: {unanswered:?}", unanswered.len(), asked.len());
}

/// Ends what is due until `broker` is over and nothing is pending.
fn expire(broker: &Live) {
    let mut patience = now() + FOR + Duration::from_secs(20);
    while let Some(deadline) = broker.router.deadline().or_else(|| broker.runs().then(now)) {
        assert!(now() < patience, "something is due for ever: {deadline:?}, {:?}", broker.router.size());
        broker.router.expire(now());
        thread::sleep(Duration::from_micros(500));
        if broker.router.size().requests > 0 {
            patience = patience.max(now() + Duration::from_secs(5));
        }
    }
}

#[test]
fn many_threads_keep_the_promises() {
    let broker = broker();
    let reader = broker.attach("reader");
    broker.subscribe(&reader, "News/*/*", Role::Subscriber);
    let askers: Vec<_> = (0..ASKERS).map(|asker| broker.attach(&format!("asker-{asker}"))).collect();
    let mut last = BTreeMap::new();
    thread::scope(|scope| {
        let broker = &broker;
        let publishers: Vec<_> = (0..PUBLISHERS).map(|it| scope.spawn(move || publish(broker, it))).collect();
        let asking: Vec<_> =
            askers.iter().enumerate().map(|(at, it)| scope.spawn(move || ask(broker, it, at))).collect();
        for number in 0..2 {
            scope.spawn(move || come_and_go(broker, number));
            scope.spawn(move || answer(broker, number, false, number == 1));
            scope.spawn(move || answer(broker, 2 + number, true, number == 1));
        }
        let expiring = scope.spawn(|| expire(broker));
        let until = now() + FOR;
        while now() < until {
            follow(&take(&reader), &mut last, true);
            thread::sleep(Duration::from_millis(1));
        }
        broker.end();
        let published: Vec<u64> = publishers.into_iter().map(|it| it.join().unwrap()).collect();
        follow(&take(&reader), &mut last, true);
        assert_eq!(last.values().copied().collect::<Vec<_>>(), published, "the reader has missed an event");
        let asked: Vec<_> = asking.into_iter().map(|it| it.join().unwrap()).collect();
        expiring.join().unwrap();
        for (member, asked) in askers.iter().zip(&asked) {
            assert!(asked.len() > 10, "hardly anything was asked");
            each_was_answered_once(asked, &take(member));
            assert!(!broker.router.is_in_flight(member));
        }
    });
    askers.iter().chain([&reader]).for_each(|member| broker.router.detach(now(), member));
    let nothing = Size::default();
    assert_eq!(broker.router.size(), nothing);
}
