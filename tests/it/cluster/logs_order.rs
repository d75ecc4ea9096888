//! What a session sends on channels with and without history, on several nodes in one thread: nothing overtakes what waits.

use std::task::{Context, Waker};

use serde_json::json;
use switchboard::router::{Ending, Outbox};
use wire::{DecodeLimits, decode};

use super::logs::{nodes, wanted};
use crate::support::core::{WIDE, event};

const PHONE: &str = "Phone/Call/Ringing";

/// Whether a session has left on the node that it was on, and on another, only after the last event that it has sent. That is
/// its will, or an event that it has sent before.
fn check_left(has_will: bool) {
    let nodes = nodes(3);
    let crm = nodes.node(0).attach("crm", Some("alice"));
    nodes.subscribe_logged(0, &crm, &wanted("Phone/*/*", None), || ()).unwrap();
    let near = nodes.node(1).attach("crm", Some("alice"));
    nodes.node(1).subscribe(&near, "*/*/*");
    for (node, session) in [(0, &crm), (1, &near)] {
        nodes.node(node).subscribe(session, "Broker/Application/Left");
    }
    let core = nodes.node(1);
    let phone = core.attach_with_will("phone", has_will.then(|| event(PHONE, r#","data":"last""#)));
    let other = nodes.node(2).attach("other", Some("alice"));
    nodes.settle();
    // Another node has appended an event, and node 0 does not have it yet.
    nodes.node(2).send(&other, &event(PHONE, r#","data":"first""#)).unwrap();
    let first = nodes.store_only(2).unwrap();
    if !has_will {
        nodes.node(1).send(&phone, &event(PHONE, r#","data":"last""#)).unwrap();
    }
    core.router.leave(core.now, &phone, 0, Ending::Lost, None);
    let left = |node: usize, session| nodes.take(node, session).iter().any(|it| it["subtopic"] == "Left");
    assert!(!left(1, &near), "what it has sent waits for the storage");
    nodes.settle();
    assert!(!left(0, &crm), "what it has sent waits for its predecessor");
    nodes.tell_stored(2, first);
    nodes.settle();
    let seen: Vec<_> = nodes.take(0, &crm).iter().map(|it| (it["data"].clone(), it["subtopic"].clone())).collect();
    assert_eq!((&seen[0].0, &seen[1].0, &seen[2].1), (&json!("first"), &json!("last"), &json!("Left")), "{seen:?}");
    assert_eq!(seen.len(), 3, "{seen:?}");
}

#[test]
fn a_session_has_left_after_its_last_event_on_every_node() {
    check_left(false);
}

#[test]
fn a_session_has_left_after_its_will_on_every_node() {
    check_left(true);
}

#[test]
fn a_session_whose_events_wait_on_a_link_that_is_lost_has_left() {
    let nodes = nodes(3);
    let crm = nodes.node(0).attach("crm", Some("alice"));
    nodes.subscribe_logged(0, &crm, &wanted("Phone/*/*", None), || ()).unwrap();
    nodes.node(0).subscribe(&crm, "Broker/Application/Left");
    let (phone, other) = (nodes.node(1).attach("phone", Some("alice")), nodes.node(2).attach("other", Some("alice")));
    nodes.settle();
    nodes.node(2).send(&other, &event(PHONE, "")).unwrap();
    let _first = nodes.store_only(2).unwrap();
    nodes.send(1, &phone, &event(PHONE, "")).unwrap();
    nodes.node(1).router.detach(nodes.node(1).now, &phone);
    nodes.settle();
    assert!(nodes.take(0, &crm).is_empty());
    nodes.lose(1);
    let left: Vec<_> = nodes.take(0, &crm).into_iter().filter(|it| it["subtopic"] == "Left").collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(left[0]["data"]["Source"], "phone");
}

#[test]
fn what_an_adapter_sends_waits_for_the_copies_of_its_event_for_all() {
    let nodes = nodes(2);
    let crm = nodes.node(0).attach("crm", Some("alice"));
    nodes.subscribe_logged(0, &crm, &wanted(PHONE, None), || ()).unwrap();
    let wallboard = nodes.node(0).attach("wallboard", None);
    nodes.node(0).subscribe(&wallboard, PHONE);
    let other = nodes.node(1).attach("other", Some("alice"));
    nodes.settle();
    nodes.node(1).send(&other, &event(PHONE, "")).unwrap();
    let first = nodes.store_only(1).unwrap();
    let core = nodes.node(0);
    let adapter = core.router.attach_adapter(core.now, Outbox::new(WIDE));
    let announce = |channel: &str| {
        let text = event(channel, r#","data":"all""#);
        core.router.announce(core.now, &adapter, &decode(&text, DecodeLimits::OWN).unwrap(), None).unwrap().ticket
    };
    let mut ticket = announce(PHONE).unwrap();
    nodes.settle();
    let mut is_pending = || ticket.poll(&mut Context::from_waker(Waker::noop())).is_pending();
    assert!(is_pending(), "alice's copy waits for the first event of her log");
    assert!(nodes.take(0, &crm).is_empty() && nodes.take(0, &wallboard).is_empty());
    assert!(announce("Other/Call/Ringing").is_some(), "the next event waits, too");
    nodes.tell_stored(1, first);
    nodes.settle();
    assert!(!is_pending());
    let offsets = super::logs::offsets(&nodes.take(0, &crm));
    assert_eq!(offsets, [1, 2]);
    assert_eq!(nodes.take(0, &wallboard).len(), 2, "each event once");
    assert!(announce("Other/Call/Ringing").is_none(), "nothing waits any more");
}
