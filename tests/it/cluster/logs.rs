//! Channels with history on several nodes, in one thread.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use switchboard::config::{Channel, Config, LogBounds, Scope};
use switchboard::router::{RecoverReason, Recovered, Session, Subscribed};
use switchboard::store::history::LogName;
use wire::command::{Recover, Role, Subscribe};

use super::nodes::Nodes;
use crate::support::core::event;

const PHONE: &str = "Phone/Call/Ringing";
const QUEUE: &str = "Queue/Call/Waiting";

/// A user-scoped channel and a shared one, with history.
pub(super) fn config() -> Config {
    let history = Some(LogBounds { size: 1000, ttl: Duration::from_mins(10) });
    let phone = Channel { history, durable: true, ..Channel::default() };
    let queue = Channel { scope: Scope::Shared, ..phone };
    let channels = HashMap::from([("Phone".to_owned(), phone), ("Queue".to_owned(), queue)]);
    Config { channels, ..Config::default() }
}

pub(super) fn nodes(count: usize) -> Nodes {
    Nodes::new(count, &config())
}

pub(super) fn wanted(pattern: &str, recover: Option<Recover>) -> Subscribe {
    Subscribe { recover, ..Subscribe::new(pattern.parse().unwrap(), Role::Subscriber) }
}

fn subscribe(
    nodes: &Nodes,
    node: usize,
    session: &Arc<Session>,
    pattern: &str,
    recover: Option<Recover>,
) -> Subscribed {
    let subscribed = nodes.subscribe_logged(node, session, &wanted(pattern, recover), || ());
    nodes.settle();
    subscribed.unwrap()
}

fn subscriber(nodes: &Nodes, node: usize, source: &str, user: Option<&str>, pattern: &str) -> Arc<Session> {
    let session = nodes.node(node).attach(source, user);
    if user.is_some() {
        subscribe(nodes, node, &session, pattern, None);
    } else {
        nodes.node(node).subscribe(&session, pattern);
        nodes.settle();
    }
    session
}

/// The offsets of what waits for a session.
pub(super) fn offsets(messages: &[Value]) -> Vec<u64> {
    messages.iter().filter_map(|message| message["offset"].as_u64()).collect()
}

#[expect(clippy::unnecessary_wraps, reason = "as a Subscribe has it")]
fn after(epoch: &str, offset: u64) -> Option<Recover> {
    Some(Recover::After { epoch: epoch.into(), offset })
}

fn alices() -> LogName {
    LogName { channel: "Phone".into(), user: Some("alice".into()) }
}

#[test]
fn a_log_has_the_same_offsets_on_every_node() {
    for (triple, user) in [(PHONE, Some("alice")), (QUEUE, Some("alice")), (QUEUE, None)] {
        let nodes = nodes(3);
        let subscribers: Vec<_> = (0..3).map(|node| subscriber(&nodes, node, "crm", Some("alice"), triple)).collect();
        let senders: Vec<_> = (0..2).map(|node| nodes.node(node).attach("cti", user)).collect();
        for round in 0..20 {
            let node = usize::from(round % 3 == 0);
            nodes.send(node, &senders[node], &event(triple, &format!(r#","data":{round}"#))).unwrap();
        }
        let seen: Vec<Vec<Value>> = (0..3).map(|node| nodes.take(node, &subscribers[node])).collect();
        assert_eq!(offsets(&seen[0]), (1..=20).collect::<Vec<_>>(), "{triple}");
        assert_eq!((&seen[0], &seen[0]), (&seen[1], &seen[2]), "{triple}");
        assert!(seen[0].iter().zip(0..).all(|(event, round)| event["data"] == round), "{triple}");
    }
}

#[test]
fn an_event_is_delivered_only_when_it_is_kept() {
    let nodes = nodes(2);
    let crm = subscriber(&nodes, 0, "crm", Some("alice"), PHONE);
    let phone = nodes.node(0).attach("phone", Some("alice"));
    let mut ticket = nodes.node(0).send(&phone, &event(PHONE, r#","id":"e""#)).unwrap().ticket.unwrap();
    assert!(nodes.take(0, &crm).is_empty());
    let mut outcome = || ticket.poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
    assert!(outcome().is_pending());
    let stored = nodes.store_only(0).unwrap();
    assert!(nodes.take(0, &crm).is_empty(), "its node does not know yet");
    nodes.tell_stored(0, stored);
    assert_eq!(offsets(&nodes.take(0, &crm)), [1]);
    assert!(outcome().is_ready());
}

#[test]
fn what_cannot_be_kept_is_refused_and_delivered_to_nobody() {
    let nodes = nodes(2);
    let crm = subscriber(&nodes, 1, "crm", Some("alice"), "Phone/*/*");
    let other = nodes.node(1).attach("crm", Some("alice"));
    let phone = nodes.node(0).attach("phone", Some("alice"));
    nodes.logs.set_away(true);
    nodes.send(0, &phone, &event(PHONE, r#","id":"e""#)).unwrap();
    let told = nodes.take(0, &phone);
    assert_eq!(told[0]["data"]["ErrorCode"], "STORAGE_UNAVAILABLE", "{told:?}");
    assert!(nodes.take(1, &crm).is_empty());
    let refused = nodes.subscribe_logged(1, &other, &wanted(PHONE, None), || ());
    assert_eq!(refused.unwrap_err(), "STORAGE_UNAVAILABLE");
    nodes.node(1).subscribe(&other, "Other/*/*");
    nodes.send(0, &phone, &event("Other/Call/Ringing", "")).unwrap();
    assert_eq!(nodes.take(1, &other).len(), 1, "other channels go on");
    nodes.logs.set_away(false);
    nodes.send(0, &phone, &event(PHONE, r#","id":"f""#)).unwrap();
    assert_eq!(offsets(&nodes.take(1, &crm)), [1], "a refused event takes no offset");
}

#[test]
fn a_session_recovers_on_another_node() {
    let nodes = nodes(2);
    let crm = nodes.node(0).attach("crm", Some("alice"));
    let epoch = subscribe(&nodes, 0, &crm, PHONE, None).position.unwrap().epoch;
    let phone = nodes.node(0).attach("phone", Some("alice"));
    let send = |count: usize| (0..count).for_each(|_| nodes.send(0, &phone, &event(PHONE, "")).unwrap());
    send(10);
    assert_eq!(offsets(&nodes.take(0, &crm)), (1..=10).collect::<Vec<_>>());
    let again = |recover, expected: &[u64], recovered| {
        let crm = nodes.node(1).attach("crm", Some("alice"));
        let subscribed = subscribe(&nodes, 1, &crm, PHONE, recover);
        assert_eq!(subscribed.recovered, Some(recovered));
        assert_eq!(&subscribed.position.unwrap().epoch, &epoch);
        send(1);
        let mut seen = offsets(&take_replay(&nodes, 1, &crm));
        let live = seen.pop();
        assert_eq!(seen, expected);
        nodes.node(1).router.detach(nodes.node(1).now, &crm);
        live.unwrap()
    };
    assert_eq!(again(after(&epoch, 7), &[8, 9, 10], Recovered::Replayed(3)), 11);
    assert_eq!(again(after(&epoch, 0), &(1..=11).collect::<Vec<_>>(), Recovered::Replayed(11)), 12);
    assert_eq!(again(Some(Recover::Last(2)), &[11, 12], Recovered::Replayed(2)), 13);
    assert_eq!(again(after(&epoch, 14), &[], Recovered::Lost(RecoverReason::Ahead)), 14);
    assert_eq!(again(after("other", 3), &[], Recovered::Lost(RecoverReason::Epoch)), 15);
    nodes.logs.trim(&alices(), 5);
    assert_eq!(again(after(&epoch, 4), &[], Recovered::Lost(RecoverReason::TooOld)), 16);
    assert_eq!(again(after(&epoch, 5), &(6..=16).collect::<Vec<_>>(), Recovered::Replayed(11)), 17);
}

/// Takes what waits for a session, and reads what its replay needs.
pub(super) fn take_replay(nodes: &Nodes, node: usize, session: &Session) -> Vec<Value> {
    let mut all = Vec::new();
    let mut frames = Vec::new();
    while !session.outbox().is_empty() {
        nodes.node(node).take_some(session, usize::MAX, &mut frames);
        nodes.read_one(node);
        all.extend(frames.drain(..).map(|frame| serde_json::from_str::<Value>(frame.text()).unwrap()));
    }
    all
}

#[test]
fn an_event_with_once_is_delivered_once_in_the_whole_cluster() {
    let nodes = nodes(3);
    let crm = subscriber(&nodes, 2, "crm", Some("alice"), PHONE);
    let (one, two) = (nodes.node(0).attach("cti", Some("alice")), nodes.node(1).attach("cti", Some("alice")));
    let text = event(PHONE, r#","id":"e","once":true"#);
    nodes.send(0, &one, &text).unwrap();
    nodes.send(1, &two, &text).unwrap();
    let (first, second) = (nodes.take(0, &one).remove(0), nodes.take(1, &two).remove(0));
    assert_eq!((&first["data"]["Offset"], &first["data"]["Nodes"]), (&json!(1), &json!(1)), "{first}");
    let of = |key: &str| (second["data"][key].clone(), first["data"][key].clone());
    let ((offset, first_offset), (epoch, first_epoch)) = (of("Offset"), of("Epoch"));
    assert_eq!((offset, epoch), (first_offset, first_epoch));
    assert_eq!((&second["data"]["Duplicate"], &second["data"]["Receivers"]), (&json!(true), &json!(0)));
    assert_eq!(offsets(&nodes.take(2, &crm)), [1]);
}

#[test]
fn what_is_appended_before_other_nodes_know_of_a_subscription_is_not_missed() {
    let nodes = nodes(2);
    let phone = nodes.node(1).attach("phone", Some("alice"));
    let crm = nodes.node(0).attach("crm", Some("alice"));
    let subscribed = nodes.subscribe_logged(0, &crm, &wanted(PHONE, None), || ()).unwrap();
    assert_eq!(subscribed.position.unwrap().offset, 0);
    // Node 1 does not know of it.
    nodes.node(1).send(&phone, &event(PHONE, "")).unwrap();
    assert!(nodes.store_one(1));
    nodes.settle();
    assert_eq!(offsets(&nodes.take(0, &crm)), [1]);
}

#[test]
fn what_a_lost_node_has_appended_and_not_sent_is_read() {
    let nodes = nodes(2);
    let crm = subscriber(&nodes, 0, "crm", Some("alice"), PHONE);
    let phone = nodes.node(1).attach("phone", Some("alice"));
    nodes.node(1).send(&phone, &event(PHONE, "")).unwrap();
    let stored = nodes.store_only(1).unwrap();
    nodes.lose(1);
    nodes.tell_stored(1, stored);
    nodes.settle();
    assert_eq!(offsets(&nodes.take(0, &crm)), [1]);
}

#[test]
fn an_event_waits_for_its_predecessor_and_holds_its_link() {
    let nodes = nodes(3);
    let crm = subscriber(&nodes, 0, "crm", Some("alice"), "*/*/*");
    subscribe(&nodes, 0, &crm, PHONE, None);
    let (one, two) = (nodes.node(1).attach("phone", Some("alice")), nodes.node(2).attach("cti", Some("alice")));
    nodes.node(1).send(&one, &event(PHONE, "")).unwrap();
    let first = nodes.store_only(1).unwrap();
    nodes.send(2, &two, &event(PHONE, "")).unwrap();
    nodes.send(2, &two, &event("Other/Call/Ended", "")).unwrap();
    assert!(nodes.take(0, &crm).is_empty(), "neither overtakes the first event of the log");
    nodes.tell_stored(1, first);
    nodes.settle();
    let all: Vec<_> = nodes.take(0, &crm).iter().map(|it| it["offset"].as_u64()).collect();
    assert_eq!(all, [Some(1), Some(2), None]);

    nodes.node(1).send(&one, &event(PHONE, "")).unwrap();
    let third = nodes.store_only(1).unwrap();
    nodes.send(2, &two, &event(PHONE, "")).unwrap();
    nodes.read_gaps(0);
    nodes.settle();
    assert_eq!(offsets(&nodes.take(0, &crm)), [3, 4], "what is missing is read in the end");
    nodes.tell_stored(1, third);
    nodes.settle();
    assert!(nodes.take(0, &crm).is_empty());
}

#[test]
fn a_will_and_a_group_have_the_places_of_their_log() {
    let nodes = nodes(2);
    let crm = subscriber(&nodes, 1, "crm", Some("alice"), PHONE);
    let member = nodes.node(1).attach("worker", None);
    let grouped = Subscribe { group: Some("g".into()), ..wanted("Phone/*/*", None) };
    nodes.node(1).subscribe_as(&member, &grouped);
    nodes.settle();
    let phone = nodes.node(0).attach("phone", Some("alice"));
    nodes.send(0, &phone, &event(PHONE, "")).unwrap();
    assert_eq!((offsets(&nodes.take(1, &crm)), offsets(&nodes.take(1, &member))), (vec![1], vec![1]));
}

#[test]
fn an_event_whose_channel_gets_a_log_while_it_waits_is_refused_and_delivered_to_nobody() {
    let nodes = nodes(2);
    let pattern = "Sales/Call/Ringing";
    let [crm, other] = [0, 1].map(|node| subscriber(&nodes, node, "crm", Some("alice"), "Sales/*/*"));
    let phone = nodes.node(0).attach("phone", Some("alice"));
    nodes.node(0).send(&phone, &event(pattern, r#","id":"e","retain":true"#)).unwrap();
    // Its value is on its way into the storage.
    let put = nodes.begin_put(0).unwrap();
    let mut config = config();
    config.channels.insert("Sales".to_owned(), config.channels["Phone"]);
    config.cluster.name = "test".to_owned();
    for node in 0..2 {
        let core = nodes.node(node);
        core.router.replace_policy(core.now, &config);
    }
    nodes.end_put(0, put);
    nodes.settle();
    let told = nodes.take(0, &phone);
    assert_eq!(told[0]["data"]["ErrorCode"], "STORAGE_UNAVAILABLE", "{told:?}");
    assert!(nodes.take(0, &crm).is_empty() && nodes.take(1, &other).is_empty());
    nodes.send(1, &nodes.node(1).attach("phone", Some("alice")), &event(pattern, "")).unwrap();
    assert_eq!([offsets(&nodes.take(0, &crm)), offsets(&nodes.take(1, &other))], [[1], [1]]);
}
