//! Many threads on one router while the scope of a channel changes: publishers keep values, and subscribers subscribe anew. At
//! the end everything is of one scope.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::SystemTime;

use serde_json::Value;
use switchboard::auth::{Identity, Permissions, Principal};
use switchboard::config::{Channel, Config, Scope};
use switchboard::router::{Ids, Outbox, Policy, Registration, Router, Session};
use wire::command::{Role, Subscribe, SubscriptionFilter};
use wire::{DecodeLimits, decode};

use super::threads::now;
use crate::support::core::WIDE;

const CHANGES: usize = 100;

fn config(scope: Scope) -> Config {
    let mut config = Config::default();
    config.channels.insert("Queue".to_owned(), Channel { scope, ..Channel::default() });
    config
}

fn attach(router: &Router, user: &str) -> Arc<Session> {
    let identity = Identity::unproved(Principal::User(user.into()), Permissions::default());
    let outbox = Outbox::new(WIDE);
    let registration = Registration { source: user.into(), identity, echo: false, address: None, outbox, will: None };
    router.attach(now(), registration).unwrap()
}

fn pattern() -> Subscribe {
    Subscribe::new("Queue/*/*".parse().unwrap(), Role::Subscriber)
}

/// Publishes retained values on eight triples of its own until `over`.
fn publish(router: &Router, user: &str, published: &AtomicU64, over: &AtomicBool) {
    let session = attach(router, user);
    while !over.load(Ordering::SeqCst) {
        let number = published.fetch_add(1, Ordering::SeqCst);
        let subtopic = number % 8;
        let text =
            format!(r#"{{"channel":"Queue","topic":"{user}","subtopic":"S{subtopic}","retain":true,"data":{number}}}"#);
        let envelope = decode(&text, DecodeLimits::default()).unwrap();
        assert!(router.route(now(), &session, &envelope).is_ok());
    }
    router.detach(now(), &session);
}

/// Subscribes, takes what there is and unsubscribes, until `over`.
fn subscribe(router: &Router, over: &AtomicBool) {
    let session = attach(router, "carol");
    let filter = SubscriptionFilter { pattern: pattern().pattern, role: None, group: None, user: None };
    while !over.load(Ordering::SeqCst) {
        router.subscribe(now(), &session, &pattern(), |_| None).unwrap();
        kept(router, &session);
        // It may have ended already.
        router.unsubscribe_matching(now(), &session, &filter).ok();
    }
    router.detach(now(), &session);
}

/// Takes what waits for a session.
fn kept(router: &Router, session: &Session) -> Vec<Value> {
    let mut frames = Vec::new();
    while let Some(mut replay) = session.outbox().take(now(), usize::MAX, &mut frames).and_then(|taken| taken.replay) {
        while !router.pull(&mut replay, usize::MAX, &mut frames) {}
    }
    frames.iter().map(|frame| serde_json::from_str(frame.text()).unwrap()).collect()
}

#[test]
fn nothing_of_the_old_scope_is_left_while_many_threads_publish_and_subscribe() {
    let policy = Policy::new(&config(Scope::User));
    let router = Router::new(now(), SystemTime::UNIX_EPOCH, policy, Ids::seeded(1), Vec::new());
    let (over, published) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|threads| {
        let (router, published, over) = (&router, &published, &over);
        for user in ["alice", "bob"] {
            threads.spawn(move || publish(router, user, published, over));
        }
        for _ in 0..2 {
            threads.spawn(move || subscribe(router, over));
        }
        for change in 0..CHANGES {
            let before = published.load(Ordering::SeqCst);
            router.replace_policy(now(), &config(if change % 2 == 0 { Scope::Shared } else { Scope::User }));
            while published.load(Ordering::SeqCst) < before + 4 {
                thread::yield_now();
            }
        }
        over.store(true, Ordering::SeqCst);
    });
    let size = router.size();
    assert_eq!((size.sessions, size.subscribers, size.hints), (0, 0, 0));
    let mut found = 0;
    for user in ["alice", "bob", "carol"] {
        let session = attach(&router, user);
        router.subscribe(now(), &session, &pattern(), |_| None).unwrap();
        let values = kept(&router, &session);
        assert!(values.iter().all(|value| value["topic"] == user), "{user}: {values:?}");
        found += values.len();
        router.detach(now(), &session);
    }
    assert_eq!(router.size().retained_values, found, "every value is where its scope says");
    router.replace_policy(now(), &config(Scope::Shared));
    assert_eq!((router.size().retained_values, router.size().retained_bytes), (0, 0));
}
