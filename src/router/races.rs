//! Races of requests and of presence. At each lock of the router, shuttle decides which thread goes on (see `sync`). It
//! reports a lost wake-up as a deadlock.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use serde_json::Value;
use shuttle::{future, thread};
use wire::command::{Role, Subscribe};
use wire::{DecodeLimits, decode};

use super::sync::{race, start};
use super::{Ids, Outbox, OutboxLimits, Policy, Registration, Router, Session};
use crate::auth::{Identity, Permissions, Principal};
use crate::config::Config;

struct Stage {
    router: Router,
    now: Instant,
}

impl Stage {
    fn new() -> Arc<Self> {
        let now = start();
        let policy = Policy::new(&Config::default());
        let router = Router::new(now, SystemTime::UNIX_EPOCH, policy, Ids::seeded(1), Vec::new());
        Arc::new(Self { router, now })
    }

    /// Registers a session of alice with a queue of this length.
    fn attach(&self, source: &str, messages: usize) -> Arc<Session> {
        let identity = Identity::unproved(Principal::User("alice".into()), Permissions::all());
        let outbox = Outbox::new(OutboxLimits { messages, bytes: 1 << 20, refuses: false });
        let source = source.to_owned();
        let registration = Registration { source, identity, echo: false, address: None, outbox, will: None };
        self.router.attach(self.now, registration).unwrap()
    }

    fn subscribe(&self, session: &Arc<Session>, pattern: &str, role: Role) {
        let wanted = Subscribe::new(pattern.parse().unwrap(), role);
        self.router.subscribe(self.now, session, &wanted, |_| None).unwrap();
    }

    /// Routes an envelope on the one triple that these tests have. Returns whether it was accepted.
    fn send(&self, session: &Arc<Session>, more: &str) -> bool {
        let text = format!(r#"{{"channel":"Phone","topic":"Call","subtopic":"Dial"{more}}}"#);
        let envelope = decode(&text, DecodeLimits::default()).unwrap();
        self.router.route(self.now, session, &envelope).is_ok()
    }

    /// Takes what waits for a session.
    fn take(&self, session: &Session) -> Vec<Value> {
        let mut frames = Vec::new();
        session.outbox().take(self.now, usize::MAX, &mut frames);
        session.release_presence(self.now);
        frames.iter().map(|frame| serde_json::from_str(frame.text()).unwrap()).collect()
    }
}

/// Waits until there is something to take.
fn wait(session: &Session) {
    future::block_on(poll_fn(|cx| session.outbox().poll_ready(cx)));
}

fn spawn(stage: &Arc<Stage>, run: impl FnOnce(&Stage) + Send + 'static) -> thread::JoinHandle<()> {
    let stage = Arc::clone(stage);
    thread::spawn(move || run(&stage))
}

fn handler(ordered: bool) -> Role {
    Role::Handler { answers: true, ordered, replies: Vec::new() }
}

#[test]
fn requests_for_an_ordered_handler_are_answered_each_in_its_turn() {
    race(|| {
        let stage = Stage::new();
        let handler_session = stage.attach("handler", 100);
        stage.subscribe(&handler_session, "Phone/Call/Dial", handler(true));
        let askers = [(); 2].map(|()| stage.attach("asker", 100));
        let mut threads: Vec<_> = askers
            .iter()
            .cloned()
            .zip(["a", "b"])
            .map(|(asker, id)| spawn(&stage, move |stage| assert!(stage.send(&asker, &format!(r#","id":"{id}""#)))))
            .collect();
        threads.push(spawn(&stage, move |stage| {
            for _ in 0..2 {
                wait(&handler_session);
                let requests = stage.take(&handler_session);
                assert_eq!(requests.len(), 1, "one at a time");
                assert!(stage.send(&handler_session, &format!(r#","data":{}"#, requests[0]["requestId"])));
            }
        }));
        for thread in threads {
            thread.join().unwrap();
        }
        for (asker, id) in askers.iter().zip(["a", "b"]) {
            let answers = stage.take(asker);
            assert_eq!((answers.len(), &answers[0]["inReplyTo"], &answers[0]["data"]), (1, &id.into(), &id.into()));
        }
        assert_eq!(stage.router.size().requests, 0);
    });
}

#[test]
fn nothing_follows_the_end_of_a_gather_that_is_cancelled() {
    race(|| {
        let stage = Stage::new();
        let handlers = [(); 2].map(|()| stage.attach("handler", 100));
        for session in &handlers {
            stage.subscribe(session, "Phone/Call/Dial", handler(false));
        }
        let asker = stage.attach("asker", 100);
        assert!(stage.send(&asker, r#","id":"g","gather":true"#));
        let mut threads: Vec<_> = handlers
            .into_iter()
            .map(|session| {
                spawn(&stage, move |stage| {
                    // The request may have been cancelled already.
                    let request = &stage.take(&session)[0]["id"];
                    stage.send(&session, &format!(r#","inReplyTo":{request},"data":1"#));
                })
            })
            .collect();
        let canceller = Arc::clone(&asker);
        threads.push(spawn(&stage, move |stage| drop(stage.router.cancel(stage.now, &canceller, "g"))));
        for thread in threads {
            thread.join().unwrap();
        }
        let messages = stage.take(&asker);
        let ends: Vec<usize> = (0..messages.len()).filter(|at| messages[*at]["more"] != true).collect();
        assert_eq!(ends, [messages.len() - 1], "{messages:?}");
        assert_eq!(stage.router.size().requests, 0);
    });
}

#[test]
fn presence_that_was_held_back_arrives_when_its_receiver_has_taken() {
    const JOINED: usize = 4;
    race(|| {
        let stage = Stage::new();
        let observer = stage.attach("observer", 2);
        stage.subscribe(&observer, "Broker/Application/Joined", Role::Subscriber);
        let threads = [
            spawn(&stage, |stage| drop([(); JOINED].map(|()| stage.attach("gadget", 100)))),
            spawn(&stage, move |stage| {
                let mut joined = 0;
                while joined < JOINED {
                    wait(&observer);
                    joined += stage.take(&observer).len();
                }
                assert_eq!(joined, JOINED);
            }),
        ];
        for thread in threads {
            thread.join().unwrap();
        }
    });
}
