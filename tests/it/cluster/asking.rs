//! What operators and sessions ask all nodes: why an application on another node does not get a message, and closing sessions.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use switchboard::auth::{Permission, Permissions, Users};
use switchboard::config::{AuthMode, Channel, Config, Scope};
use switchboard::router::explain::{About, Explanation, NoSender};
use switchboard::router::{Close, Closed, End, Ending, Session, Sessions};
use wire::command::{Role, State, Subscribe};
use wire::{CloseCode, DecodeLimits, decode};

use super::nodes::Nodes;
use super::routing::{handler, subscriber};
use crate::support::core::event;
use crate::support::rights::permissions;

const RINGING: &str = "Phone/Call/Ringing";
const DIAL: &str = "Phone/Call/Dial";

/// What an application may do for which nothing is configured: all general rights, no grant to handle.
fn ordinary() -> Permissions {
    Permissions { request: Permission::All, ..Permissions::default() }
}

/// Nodes on which `Queue` is shared, and alice's gadget on the first.
fn desk(count: usize) -> (Nodes, Arc<Session>) {
    let shared = Channel { scope: Scope::Shared, ..Channel::default() };
    let channels = HashMap::from([("Queue".to_owned(), shared)]);
    let nodes = Nodes::new(count, &Config { auth: AuthMode::Tokens, channels, ..Config::default() });
    let gadget = nodes.node(0).attach_as("gadget", Some("alice"), ordinary());
    nodes.settle();
    (nodes, gadget)
}

/// Asks on the first node about an envelope of this session; as an operator, unless the session asks itself.
fn ask(
    nodes: &Nodes,
    sender: &Arc<Session>,
    triple: &str,
    about: About<'_>,
    is_operator: bool,
) -> Receiver<Explanation> {
    let text = event(triple, "");
    let envelope = decode(&text, DecodeLimits::default()).unwrap();
    let (told, answer) = channel();
    let told = move |_, explanation| told.send(explanation).unwrap();
    let (router, now) = (&nodes.node(0).router, nodes.node(0).now);
    match is_operator {
        true => router.explain_everywhere(now, sender, &envelope, Some(&about), told),
        false => router.explain_everywhere_to_sender(now, sender, &envelope, Some(&about), told),
    }
    answer
}

/// What an operator is told about the applications of this source, as JSON, when all nodes have answered.
fn explain(nodes: &Nodes, sender: &Arc<Session>, triple: &str, source: &str) -> Value {
    let answer = ask(nodes, sender, triple, About { source, user: None }, true);
    nodes.settle();
    serde_json::to_value(answer.try_recv().expect("an answer")).unwrap()
}

/// The only row of the others, with what is said of it.
#[track_caller]
fn row(answer: &Value) -> &Value {
    let rows = answer["others"].as_array().unwrap();
    assert_eq!(rows.len(), 1, "{answer}");
    &rows[0]
}

/// Checks what an operator is told about B, on another node, in a situation that `prepare` makes: the reasons after `ELSEWHERE`.
#[track_caller]
fn check(triple: &str, prepare: impl FnOnce(&Nodes), also: &[&str], more: &[(&str, Value)]) {
    let (nodes, gadget) = desk(2);
    prepare(&nodes);
    nodes.settle();
    let answer = explain(&nodes, &gadget, triple, "screenpop");
    let row = row(&answer);
    assert_eq!((&row["reason"], &row["node"], &row["also"]), (&json!("ELSEWHERE"), &json!("node-1"), &json!(also)));
    assert!(row["session"].is_string() && answer.get("partial").is_none(), "{answer}");
    for (path, expected) in more {
        assert_eq!(row.pointer(path), Some(expected), "{path} of {row}");
    }
}

#[test]
fn the_node_of_a_session_says_why_it_does_not_get_an_envelope() {
    let alices = |nodes: &Nodes, pattern: &str| drop(subscriber(nodes, 1, "screenpop", Some("alice"), pattern));
    check(
        RINGING,
        |nodes| alices(nodes, "Phone/*/*"),
        &[],
        &[("/receives/pattern", json!("Phone/*/*")), ("/receives/effect", json!("QUEUED")), ("/user", json!("alice"))],
    );
    check(RINGING, |nodes| alices(nodes, "Phone/call/*"), &["NO_MATCH"], &[("/nearest/differs", json!("CASE"))]);
    check(RINGING, |nodes| drop(subscriber(nodes, 1, "screenpop", Some("bob"), "*/*/*")), &["OTHER_USER"], &[]);
    check(
        "Queue/Agent/Ready",
        |nodes| drop(subscriber(nodes, 1, "screenpop", Some("bob"), "*/*/*")),
        &[],
        &[("/receives/state", json!("active"))],
    );
    check(
        RINGING,
        |nodes| {
            let narrow = Permissions { rights: permissions("subscribe Calls/*/*").rights, ..ordinary() };
            let b = nodes.node(1).attach_as("screenpop", Some("alice"), narrow);
            nodes.node(1).subscribe(&b, "*/*/*");
        },
        &["PERMISSION"],
        &[("/right", json!("subscribe"))],
    );
    // The sender's node decides: it knows the handler.
    check(
        DIAL,
        |nodes| {
            alices(nodes, "Phone/*/*");
            handler(nodes, 0, "phone", Some("alice"), DIAL);
        },
        &["IS_REQUEST"],
        &[("/handler/source", json!("phone"))],
    );
    check(
        DIAL,
        |nodes| {
            handler(nodes, 1, "screenpop", Some("alice"), DIAL);
            handler(nodes, 0, "phone", Some("alice"), DIAL);
        },
        &["NOT_CHOSEN"],
        &[("/why", json!("rank"))],
    );
    check(
        RINGING,
        |nodes| {
            let wanted = Subscribe::new("Phone/*/*".parse().unwrap(), Role::Subscriber);
            let wanted = Subscribe { group: Some("pops".to_owned()), ..wanted };
            for (node, source) in [(0, "other"), (1, "screenpop")] {
                let session = nodes.node(node).attach_as(source, Some("alice"), ordinary());
                nodes.node(node).subscribe_as(&session, &wanted);
            }
        },
        &["GROUP"],
        &[("/member/source", json!("other"))],
    );
    check(
        RINGING,
        |nodes| {
            let b = nodes.node(1).attach_as("screenpop", Some("alice"), ordinary());
            nodes.node(1).subscribe(&b, "Phone/*/*");
            nodes.node(1).unsubscribe_all(&b);
        },
        &["NO_MATCH"],
        &[("/ended/0/pattern", json!("Phone/*/*"))],
    );
}

#[test]
fn a_handler_elsewhere_that_is_chosen_receives_the_request() {
    let (nodes, gadget) = desk(2);
    let b = handler(&nodes, 1, "screenpop", Some("alice"), DIAL);
    let here = handler(&nodes, 0, "phone", Some("alice"), DIAL);
    nodes.node(0).router.set_state(nodes.node(0).now, &here, State::Asleep);
    let answer = explain(&nodes, &gadget, DIAL, "screenpop");
    let chosen = &answer["receives"][0];
    assert_eq!((&chosen["source"], &chosen["node"]), (&json!("screenpop"), &json!("node-1")), "{answer}");
    assert_eq!((&chosen["session"], &chosen["chosen"]), (&json!(b.id().to_string()), &json!("asleep")));
    assert_eq!(answer["others"], json!([]));
}

#[test]
fn who_has_left_another_node_and_who_is_nearly_meant_there_is_said() {
    let (nodes, gadget) = desk(3);
    let b = subscriber(&nodes, 1, "screenpop", Some("alice"), "*/*/*");
    let answer = explain(&nodes, &gadget, RINGING, "screnpop");
    assert_eq!(row(&answer)["nearest"]["name"], "screenpop", "{answer}");
    nodes.node(1).router.leave(nodes.node(1).now, &b, 0, Ending::Closed(CloseCode::Unauthenticated), None);
    nodes.settle();
    let answer = explain(&nodes, &gadget, RINGING, "screenpop");
    let row = row(&answer);
    assert_eq!(
        (&row["reason"], &row["left"]["code"], &row["user"]),
        (&json!("NOT_REGISTERED"), &json!(4401), &json!("alice"))
    );
}

#[test]
fn a_node_that_does_not_answer_within_a_quarter_of_a_second_makes_the_answer_partial() {
    let (nodes, gadget) = desk(3);
    subscriber(&nodes, 1, "screenpop", Some("alice"), "*/*/*");
    let about = About { source: "screenpop", user: None };
    let answer = ask(&nodes, &gadget, RINGING, about, true);
    let (router, now) = (&nodes.node(0).router, nodes.node(0).now);
    let until = router.deadline().expect("it waits until then");
    assert_eq!(until - now, Duration::from_millis(250));
    router.expire(now + Duration::from_millis(249));
    assert!(answer.try_recv().is_err(), "it waits");
    router.expire(until);
    let answer = serde_json::to_value(answer.try_recv().unwrap()).unwrap();
    assert_eq!((&answer["partial"], &row(&answer)["node"]), (&json!(true), &json!("node-1")), "{answer}");
    // The late answer comes to nothing, and a lost node does not make anybody wait.
    nodes.settle();
    let answer = ask(&nodes, &gadget, RINGING, about, true);
    nodes.lose(1);
    assert!(answer.try_recv().unwrap().partial);
    assert_eq!(router.deadline().filter(|at| *at <= now + Duration::from_millis(250)), None, "nothing waits any more");
    nodes.set_complete(0, false);
    assert_eq!(explain(&nodes, &gadget, RINGING, "screenpop")["partial"], true, "it may be on a node without a link");
}

#[test]
fn a_session_is_told_no_more_about_other_nodes_than_about_its_own() {
    let (nodes, gadget) = desk(2);
    let asked = |about: About<'_>| {
        let answer = ask(&nodes, &gadget, RINGING, about, false);
        nodes.settle();
        serde_json::to_value(answer.try_recv().unwrap()).unwrap()
    };
    // Bob's is as if it were not there, also by its name alone and after it has left.
    let bobs = subscriber(&nodes, 1, "wallboard", Some("bob"), "*/*/*");
    let absent = |answer: &Value| {
        let row = row(answer);
        assert_eq!((&row["reason"], row.get("node"), row.get("left")), (&json!("NOT_REGISTERED"), None, None), "{row}");
        assert_eq!((row.get("nearest"), &row["session"]), (None, &Value::Null), "{row}");
    };
    for (source, user) in [("wallboard", None), ("wallboard", Some("bob")), ("wallbord", None)] {
        absent(&asked(About { source, user }));
    }
    nodes.node(1).router.leave(nodes.node(1).now, &bobs, 0, Ending::Closed(CloseCode::Unauthenticated), None);
    nodes.settle();
    absent(&asked(About { source: "wallboard", user: None }));

    // Of its own user's, it is not told the permissions, nor what has ended.
    let narrow = Permissions { rights: permissions("subscribe Calls/*/*").rights, ..ordinary() };
    let b = nodes.node(1).attach_as("screenpop", Some("alice"), narrow);
    nodes.node(1).subscribe(&b, "*/Call/*");
    nodes.node(1).unsubscribe_all(&b);
    nodes.node(1).subscribe(&b, "*/*/*");
    nodes.settle();
    let answer = asked(About { source: "screenpop", user: None });
    let row = row(&answer);
    assert_eq!((&row["reason"], &row["also"]), (&json!("ELSEWHERE"), &json!(["PERMISSION"])), "{row}");
    assert_eq!([row.get("right"), row.get("decidedBy"), row.get("ended")], [None, None, None], "{row}");

    // One that observes bob alone is told about bob's, and by whose name it filters only if it may see that user.
    let watcher = Permissions { observe: Users::All, ..ordinary() };
    let spy = nodes.node(1).attach_as("spy", Some("alice"), watcher);
    let wanted = Subscribe::new("Phone/*/*".parse().unwrap(), Role::Subscriber);
    nodes.node(1).subscribe_as(&spy, &Subscribe { user: Some("carol".to_owned()), ..wanted });
    nodes.settle();
    let answer = asked(About { source: "spy", user: None });
    let filtered = &answer["others"][0];
    assert_eq!((&filtered["also"], filtered.get("named")), (&json!(["USER_FILTER"]), None), "{answer}");
    assert_eq!(explain(&nodes, &gadget, RINGING, "spy")["others"][0]["named"], "carol", "an operator is");

    // One that may neither publish nor request learns nothing, and asks nobody.
    let rights = permissions("publish Calls/*/*; request Calls/*/*").rights;
    let mute = nodes.node(0).attach_as("mute", Some("alice"), Permissions { rights, ..ordinary() });
    nodes.settle();
    let answer = ask(&nodes, &mute, RINGING, About { source: "screenpop", user: None }, false).try_recv().unwrap();
    assert!(answer.others.is_empty() && answer.receives.is_empty());
}

#[test]
fn a_sender_on_another_node_is_named_with_its_node() {
    let (nodes, _) = desk(2);
    subscriber(&nodes, 1, "screenpop", Some("alice"), "*/*/*");
    let router = &nodes.node(0).router;
    assert_eq!(router.sender("screenpop", None).err(), Some(NoSender::Elsewhere("node-1".to_owned())));
    assert_eq!(
        router.sender("screenpop", Some("bob")).err(),
        Some(NoSender::NotRegistered(None)),
        "alice's is not bob's"
    );
}

fn close(which: Sessions) -> Close {
    Close { which, reason: "left the desk".to_owned(), reconnect: false }
}

fn order(nodes: &Nodes, close: &Close) -> Receiver<Closed> {
    let (told, answer) = channel();
    nodes.node(0).router.close_everywhere(nodes.node(0).now, close, move |closed| told.send(closed).unwrap());
    answer
}

/// Closes by the first node. Returns how many sessions that were, and which of these have ended.
fn closed(nodes: &Nodes, close: &Close, sessions: &[&Arc<Session>]) -> (u64, Vec<bool>) {
    let answer = order(nodes, close);
    nodes.settle();
    let closed = answer.try_recv().expect("an answer");
    assert!(closed.silent.is_empty(), "{closed:?}");
    (closed.sessions, sessions.iter().map(|session| session.outbox().ended().is_some()).collect())
}

#[test]
fn sessions_of_all_nodes_are_closed_that_have_all_of_what_is_given() {
    let (nodes, gadget) = desk(3);
    let phones = [0, 1, 2].map(|node| subscriber(&nodes, node, "phone", Some("alice"), "*/*/*"));
    let bobs = subscriber(&nodes, 1, "phone", Some("bob"), "*/*/*");
    let service = subscriber(&nodes, 2, "phone", None, "*/*/*");
    let all = [&phones[0], &phones[1], &phones[2], &bobs, &service, &gadget];
    let of = |source: &str, user: Option<&str>, id: Option<String>| {
        close(Sessions { source: Some(source.to_owned()), user: user.map(str::to_owned), id })
    };
    let by_id = Sessions { id: Some(service.id().to_string()), ..Sessions::default() };
    assert_eq!(closed(&nodes, &of("phone", Some("carol"), None), &all).0, 0);
    assert_eq!(closed(&nodes, &of("crm", None, Some(bobs.id().to_string())), &all).0, 0, "all has to fit");
    assert_eq!(closed(&nodes, &close(by_id), &all), (1, vec![false, false, false, false, true, false]));
    assert_eq!(
        closed(&nodes, &of("phone", Some("alice"), None), &all),
        (3, vec![true, true, true, false, true, false])
    );
    assert_eq!(phones[2].outbox().ended(), Some(End::Kicked));
    assert_eq!(phones[2].kicked_because().as_deref(), Some("left the desk"));
    let user = close(Sessions { user: Some("bob".to_owned()), ..Sessions::default() });
    assert_eq!(closed(&nodes, &Close { reconnect: true, ..user }, &all).0, 1);
    assert_eq!(bobs.outbox().taker(0).ended(), Some(End::SentAway));
}

#[test]
fn a_node_that_does_not_close_its_sessions_within_two_seconds_is_named() {
    let (nodes, _) = desk(3);
    let phones = [0, 1, 2].map(|node| subscriber(&nodes, node, "phone", Some("alice"), "*/*/*"));
    let answer = order(&nodes, &close(Sessions { source: Some("phone".to_owned()), ..Sessions::default() }));
    // Only the first other node answers.
    assert!(nodes.deliver_one(1) && nodes.deliver_one(0));
    let (router, now) = (&nodes.node(0).router, nodes.node(0).now);
    router.expire(now + Duration::from_millis(1999));
    assert!(answer.try_recv().is_err());
    router.expire(now + Duration::from_secs(2));
    assert_eq!(answer.try_recv().unwrap(), Closed { sessions: 2, silent: vec!["node-2".to_owned()] });
    assert!(phones[2].outbox().ended().is_none());
    nodes.settle();
    assert!(phones[2].outbox().ended().is_some(), "the order arrives late");
}

#[test]
fn questions_of_many_threads_are_answered_once_each_whatever_happens_to_the_nodes() {
    const THREADS: u64 = 6;
    const ROUNDS: u64 = 200;
    let (nodes, gadget) = desk(3);
    subscriber(&nodes, 1, "screenpop", Some("alice"), "*/*/*");
    let (told, is_over) = (Arc::new(AtomicU64::new(0)), AtomicBool::new(false));
    let (nodes_ref, is_over_ref) = (&nodes, &is_over);
    let text = event(RINGING, "");
    let (envelope, about) =
        (decode(&text, DecodeLimits::default()).unwrap(), About { source: "screenpop", user: None });
    thread::scope(|scope| {
        for node in 0..3 {
            scope.spawn(move || {
                while !is_over_ref.load(Ordering::Acquire) {
                    if !nodes_ref.deliver_one(node) {
                        thread::yield_now();
                    }
                }
            });
        }
        let askers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (told, gadget, envelope) = (&told, &gadget, &envelope);
                scope.spawn(move || {
                    let (router, now) = (&nodes_ref.node(0).router, nodes_ref.node(0).now);
                    for round in 0..ROUNDS {
                        let counted = Arc::clone(told);
                        if round % 2 == 0 {
                            router.explain_everywhere(now, gadget, envelope, Some(&about), move |_, _| {
                                counted.fetch_add(1, Ordering::Relaxed);
                            });
                        } else {
                            let nobody = close(Sessions { source: Some("nobody".to_owned()), ..Sessions::default() });
                            router.close_everywhere(now, &nobody, move |_| {
                                counted.fetch_add(1, Ordering::Relaxed);
                            });
                        }
                        if (thread + round) % 7 == 0 {
                            router.expire(now + Duration::from_secs(3));
                        }
                    }
                })
            })
            .collect();
        let outcomes: Vec<_> = askers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        is_over.store(true, Ordering::Release);
        assert!(outcomes.iter().all(Result::is_ok));
    });
    nodes.node(0).router.expire(nodes.node(0).now + Duration::from_secs(3));
    assert_eq!(told.load(Ordering::Relaxed), THREADS * ROUNDS);
    nodes.settle();
    assert_eq!(told.load(Ordering::Relaxed), THREADS * ROUNDS, "a late answer is not told again");
}
