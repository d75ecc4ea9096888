//! Races around requests, with real threads and exact counts: a request is given to one handler at a time, has exactly
//! one answer, and leaves nothing behind.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use switchboard::config::{Config, Requests};
use switchboard::router::{Session, Size};
use wire::command::Role;
use wire::{DecodeLimits, decode};

use super::threads::{Live, now, take};

const PATIENCE: Duration = Duration::from_secs(30);

/// A router with one user, whose requests have this time limit.
fn stage(timeout: Duration) -> Live {
    let mut config = Config { requests: Requests { timeout, ..Requests::default() }, ..Config::default() };
    config.limits.pending_requests = 1_000_000;
    config.limits.pending_bytes = 1 << 30;
    Live::new(&config)
}

impl Live {
    fn handler(&self, source: &str, answers: bool, ordered: bool) -> Arc<Session> {
        let session = self.attach(source);
        self.subscribe(&session, "Work/Job/Do", Role::Handler { answers, ordered, replies: Vec::new() });
        session
    }

    /// Sends an envelope on `Work/Job/Do`. Returns whether it was accepted.
    fn work(&self, session: &Arc<Session>, fields: &str) -> bool {
        self.send(session, &format!(r#"{{"channel":"Work","topic":"Job","subtopic":"Do"{fields}}}"#))
    }

    /// Ends what is due, until everything is over.
    fn expire(&self) {
        while self.runs() {
            self.router.expire(now());
            // Paces the loop: without a pause it would keep a core from the threads that race.
            thread::sleep(Duration::from_micros(100));
        }
    }

    /// Waits until no request is pending.
    fn settle(&self) {
        let until = now() + PATIENCE;
        while self.router.size().requests > 0 {
            assert!(now() < until, "requests are pending for ever: {:?}", self.router.size());
            // Paces the loop: `size` takes the locks that the racing threads need.
            thread::sleep(Duration::from_micros(200));
        }
    }

    /// Nothing is left, neither of sessions that are idle nor after they have gone.
    fn leaves_nothing(&self, sessions: &[&Arc<Session>]) {
        let size = self.router.size();
        assert_eq!((size.requests, size.asked, size.given, size.turns, size.waiting), (0, 0, 0, 0, 0), "{size:?}");
        for session in sessions {
            self.router.detach(now(), session);
        }
        assert_eq!(self.router.size(), Size::default());
        assert_eq!(self.router.deadline(), None);
    }
}

/// How many last answers each request has got.
fn answers(taken: &[Value]) -> BTreeMap<String, usize> {
    let mut answers = BTreeMap::new();
    for answer in taken.iter().filter(|it| it.get("more").is_none()) {
        if let Some(id) = answer["inReplyTo"].as_str() {
            *answers.entry(id.to_owned()).or_default() += 1;
        }
    }
    answers
}

/// Answers by id what it is given. Returns how often it got each request.
fn answer_all(stage: &Live, handler: &Arc<Session>, ordered: bool) -> BTreeMap<String, usize> {
    let mut given = BTreeMap::new();
    while stage.runs() {
        // In bursts, so that the turns of two handlers end at the same time.
        for request in take(handler).iter().filter(|it| it["channel"] == "Work") {
            *given.entry(request["requestId"].as_str().unwrap().to_owned()).or_default() += 1;
            let id = request["id"].as_str().unwrap();
            let reply = if ordered { String::new() } else { format!(r#","inReplyTo":"{id}""#) };
            stage.work(handler, &format!(r#"{reply},"data":1"#));
        }
        thread::yield_now();
    }
    given
}

#[test]
fn a_request_that_waits_for_two_ordered_handlers_is_given_to_one() {
    const ROUNDS: usize = 20;
    const EACH: usize = 400;
    let stage = stage(Duration::from_secs(20));
    let (one, two) = (stage.handler("one", true, true), stage.handler("two", true, true));
    let asker = stage.attach("asker");
    thread::scope(|scope| {
        let answering = [&one, &two].map(|handler| scope.spawn(|| answer_all(&stage, handler, true)));
        scope.spawn(|| stage.expire());
        let mut taken = Vec::new();
        for round in 0..ROUNDS {
            for at in 0..EACH {
                assert!(stage.work(&asker, &format!(r#","id":"{round}-{at}""#)));
            }
            stage.settle();
            taken.extend(take(&asker));
        }
        stage.end();
        let mut given: BTreeMap<String, usize> = BTreeMap::new();
        for part in answering.map(|it| it.join().unwrap()) {
            for (id, times) in part {
                *given.entry(id).or_default() += times;
            }
        }
        assert_eq!(given.len(), ROUNDS * EACH);
        assert!(given.values().all(|times| *times == 1), "a request was given twice");
        let answers = answers(&taken);
        assert_eq!((answers.len(), taken.len()), (ROUNDS * EACH, ROUNDS * EACH));
        assert!(taken.iter().all(|answer| answer["data"] == 1), "a request was not answered by its handler");
    });
    stage.leaves_nothing(&[&one, &two, &asker]);
}

#[test]
fn a_command_has_one_receipt_or_one_failure_whatever_its_time_limit() {
    const EACH: usize = 20_000;
    let stage = stage(Duration::from_secs(20));
    let lamps = stage.handler("lamps", false, false);
    let askers = [stage.attach("one"), stage.attach("two")];
    thread::scope(|scope| {
        scope.spawn(|| stage.expire());
        let asking = askers.each_ref().map(|asker| {
            let stage = &stage;
            scope.spawn(move || {
                // Without a Pending there is nothing to expire, and the sender alone is told.
                let receipts = (0..EACH).filter(|at| {
                    let text = format!(
                        r#"{{"channel":"Work","topic":"Job","subtopic":"Do","id":"{at}","timeout":1,"data":"{}"}}"#,
                        "x".repeat(200)
                    );
                    let envelope = decode(&text, DecodeLimits::default()).unwrap();
                    stage.router.route(now(), asker, &envelope).unwrap().receipt.is_some()
                });
                receipts.count()
            })
        });
        let receipts: usize = asking.into_iter().map(|it| it.join().unwrap()).sum();
        stage.end();
        assert_eq!(receipts, 2 * EACH);
    });
    assert!(askers.iter().all(|asker| take(asker).is_empty()), "a command had a second answer");
    assert_eq!(take(&lamps).len(), 2 * EACH);
    stage.leaves_nothing(&[&lamps, &askers[0], &askers[1]]);
}

#[test]
fn an_idempotent_request_is_given_to_one_living_handler_at_a_time() {
    let stage = stage(Duration::from_millis(200));
    let asker = stage.attach("asker");
    let steady = stage.handler("steady", true, false);
    let until = now() + Duration::from_secs(3);
    thread::scope(|scope| {
        scope.spawn(|| stage.expire());
        let steady = scope.spawn(|| answer_all(&stage, &steady, false));
        let dying: Vec<_> = (0..3)
            .map(|number| {
                let stage = &stage;
                scope.spawn(move || {
                    let mut given: BTreeMap<String, usize> = BTreeMap::new();
                    while stage.runs() {
                        let session = stage.handler(&format!("dying-{number}"), true, false);
                        // The life of a handler: long enough to be given requests, short enough to leave them open.
                        thread::sleep(Duration::from_micros(300));
                        stage.router.detach(now(), &session);
                        for request in take(&session).iter().filter(|it| it["channel"] == "Work") {
                            *given.entry(request["requestId"].as_str().unwrap().to_owned()).or_default() += 1;
                        }
                    }
                    given
                })
            })
            .collect();
        let mut asked = 0;
        while now() < until {
            // Refused only while no handler is there, which cannot be.
            assert!(stage.work(&asker, &format!(r#","id":"{asked}","idempotent":true"#)));
            asked += 1;
            if asked % 32 == 0 {
                // Paces the requests, so that handlers die among them and not after the last.
                thread::sleep(Duration::from_millis(1));
            }
        }
        stage.settle();
        stage.end();
        let mut given = steady.join().unwrap();
        for part in dying.into_iter().map(|it| it.join().unwrap()) {
            for (id, times) in part {
                *given.entry(id).or_default() += times;
            }
        }
        assert!(given.values().all(|times| *times <= 2), "a request was given three times");
        assert!(given.values().any(|times| *times == 2), "no handler died in time");
        let answers = answers(&take(&asker));
        assert_eq!(answers.len(), asked);
        assert!(answers.values().all(|times| *times == 1), "a request was answered twice");
    });
    stage.leaves_nothing(&[&asker, &steady]);
}

#[test]
fn an_answer_a_cancel_and_a_time_limit_leave_one_answer() {
    let stage = stage(Duration::from_secs(5));
    let asker = stage.attach("asker");
    let (plain, ordered) = (stage.handler("plain", true, false), stage.handler("ordered", true, true));
    let until = now() + Duration::from_secs(3);
    thread::scope(|scope| {
        let (stage, asker) = (&stage, &asker);
        scope.spawn(|| stage.expire());
        let answering = [(&plain, false), (&ordered, true)]
            .map(|(it, ordered)| scope.spawn(move || answer_all(stage, it, ordered)));
        let mut asked = 0;
        while now() < until {
            let more = if asked % 5 == 0 { r#","gather":true"# } else { "" };
            assert!(stage.work(asker, &format!(r#","id":"{asked}","timeout":{}{more}"#, 1 + asked % 3)));
            if asked % 3 == 0 {
                stage.router.cancel(now(), asker, &asked.to_string()).ok();
            }
            asked += 1;
            if asked % 16 == 0 {
                // Paces the requests, so that time limits of 1 to 3 ms pass among them.
                thread::sleep(Duration::from_millis(1));
            }
        }
        stage.settle();
        // What an ordered handler owes comes before it is idle.
        let patience = now() + PATIENCE;
        while stage.router.size().turns > 0 {
            assert!(now() < patience, "a turn never ends: {:?}", stage.router.size());
            thread::yield_now();
        }
        stage.end();
        for it in answering {
            drop(it.join().unwrap());
        }
        let answers = answers(&take(asker));
        assert_eq!(answers.len(), asked);
        assert!(answers.values().all(|times| *times == 1), "a request was answered twice");
    });
    stage.leaves_nothing(&[&asker, &plain, &ordered]);
}
