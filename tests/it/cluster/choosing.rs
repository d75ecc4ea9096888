//! How a node chooses sessions of other nodes: by their rights, and by how busy they are.

use std::sync::Arc;
use std::time::Duration;

use switchboard::auth::{Permissions, Right, Rights, Rule, Rules, Users};
use switchboard::router::{Reason, Session};
use wire::command::{Role, Subscribe};

use super::nodes::Nodes;
use super::routing::{HANDLER, handler, nodes, only};
use crate::support::core::event;

fn right(patterns: &[&str]) -> Right {
    let rule = |it: &&str| Rule { pattern: it.parse().unwrap(), from: "role 'agent'".into() };
    Right { allow: patterns.iter().map(rule).collect(), deny: Rules::default(), from: "role 'agent'".into() }
}

/// The permissions of a session that may subscribe to these patterns.
fn may_subscribe(patterns: &[&str]) -> Permissions {
    let all = || right(&["*/*/*"]);
    let rights = Rights { publish: all(), subscribe: right(patterns), request: all(), handle: all() };
    Permissions { rights: Some(Arc::new(rights)), ..Permissions::default() }
}

/// A service that is a member of a group.
fn member(nodes: &Nodes, node: usize, source: &str, permissions: Permissions) -> Arc<Session> {
    let session = nodes.node(node).attach_as(source, None, permissions);
    let wanted =
        Subscribe { group: Some("workers".to_owned()), ..Subscribe::new("*/*/*".parse().unwrap(), Role::Subscriber) };
    nodes.node(node).subscribe_as(&session, &wanted);
    nodes.settle();
    session
}

/// How many of four events on a triple each member gets: one here, two on another node.
fn shares(nodes: &Nodes, from: &Arc<Session>, triple: &str, members: &[Arc<Session>; 3]) -> [usize; 3] {
    let mut shares = [0; 3];
    for _ in 0..4 {
        nodes.send(0, from, &event(triple, "")).unwrap();
        // The member with the shortest queue is chosen, so none waits.
        for (share, (node, member)) in shares.iter_mut().zip([0, 1, 1].into_iter().zip(members)) {
            *share += nodes.take(node, member).len();
        }
    }
    shares
}

#[test]
fn a_member_of_a_group_elsewhere_is_chosen_only_for_what_its_rights_allow() {
    let nodes = nodes(2);
    let phone = nodes.node(0).attach("phone", Some("alice"));
    let members = [
        member(&nodes, 0, "here", may_subscribe(&["Desk/*/*"])),
        member(&nodes, 1, "calls", may_subscribe(&["calls/*/*"])),
        member(&nodes, 1, "mail", may_subscribe(&["Mail/*/*", "Desk/*/*"])),
    ];
    assert_eq!(shares(&nodes, &phone, "Calls/Call/Ringing", &members), [0, 4, 0]);
    assert_eq!(shares(&nodes, &phone, "Desk/Lamp/On", &members), [2, 0, 2], "they take turns");
    assert_eq!(shares(&nodes, &phone, "Other/a/b", &members), [0, 0, 0]);
    // Rights that change are announced, and those of a node that is found again.
    let (router, now) = (&nodes.node(1).router, nodes.node(1).now);
    router.change_permissions(now, &members[1], may_subscribe(&["Desk/*/*"]), Reason::Reloaded);
    router.change_permissions(now, &members[2], Permissions::default(), Reason::Reloaded);
    nodes.settle();
    nodes.take(1, &members[1]);
    assert_eq!(shares(&nodes, &phone, "Calls/Call/Ringing", &members), [0, 0, 4]);
    nodes.lose(1);
    nodes.find(1);
    assert_eq!(shares(&nodes, &phone, "Calls/Call/Ringing", &members), [0, 0, 4]);
}

#[test]
fn a_member_elsewhere_that_may_not_receive_an_event_is_not_even_sent_it() {
    let nodes = nodes(2);
    let phone = nodes.node(0).attach("phone", Some("alice"));
    let users = Permissions { users: Users::of(["bob"]), ..Permissions::default() };
    let limited = member(&nodes, 1, "limited", users);
    nodes.node(0).send(&phone, &event("Calls/Call/Ringing", "")).unwrap();
    assert!(!nodes.deliver_one(1), "nothing is under way: the service does not serve this user");
    let bob = nodes.node(0).attach("phone", Some("bob"));
    nodes.send(0, &bob, &event("Calls/Call/Ringing", "")).unwrap();
    assert_eq!(only(&nodes, 1, &limited)["user"], "bob");
}

#[test]
fn the_least_busy_handler_of_other_nodes_is_chosen() {
    let nodes = nodes(3);
    let asker = |node: usize| nodes.node(node).attach("crm", Some("alice"));
    let (here, there) = (asker(0), asker(1));
    let first = handler(&nodes, 1, "first", Some("alice"), "Calls/Call/Dial");
    let second = handler(&nodes, 2, "second", Some("alice"), "Calls/Call/Dial");
    let announce = || {
        (0..3).for_each(|node| nodes.node(node).router.announce_loads());
        nodes.settle();
    };
    let taken = |count: [usize; 2], why: &str| {
        assert_eq!([nodes.take(1, &first).len(), nodes.take(2, &second).len()], count, "{why}");
    };
    let dial = event("Calls/Call/Dial", r#","id":"r","timeout":60000"#);
    // The first one gets two requests of its own node, of which this one knows nothing.
    for _ in 0..2 {
        nodes.send(1, &there, &dial).unwrap();
    }
    taken([2, 0], "it is on the node that asks");
    announce();
    for _ in 0..2 {
        nodes.send(0, &here, &dial).unwrap();
    }
    taken([0, 2], "the other one has two requests");
    // Both have two. What this node gave out itself counts once, also after it was announced.
    announce();
    announce();
    for _ in 0..4 {
        nodes.send(0, &here, &dial).unwrap();
    }
    taken([2, 2], "they take turns");
    announce();
    // A node that begins a new link is told, too.
    nodes.lose(0);
    nodes.find(0);
    announce();
    nodes.send(0, &here, &dial).unwrap();
    taken([2, 5], "only the first one has requests still; six were cancelled");
}

#[test]
fn a_handler_that_misses_a_time_limit_is_late_on_every_node() {
    let nodes = nodes(3);
    let crm = nodes.node(0).attach("crm", Some("alice"));
    let other = nodes.node(2).attach("crm", Some("alice"));
    let phone = handler(&nodes, 1, "phone", Some("alice"), "Calls/Call/Dial");
    nodes.send(0, &crm, &event("Calls/Call/Dial", r#","id":"late","timeout":100"#)).unwrap();
    let request = nodes.take(1, &phone).remove(0);
    nodes.node(0).router.expire(nodes.node(0).now + Duration::from_millis(100));
    nodes.settle();
    // On a node that has asked nothing, another handler comes first from now on.
    let pattern = "Calls/Call/Dial".parse().unwrap();
    let spare = nodes.node(1).attach("spare", Some("alice"));
    nodes.node(1).subscribe_as(&spare, &Subscribe::new(pattern, HANDLER));
    nodes.settle();
    nodes.take(1, &phone);
    for _ in 0..2 {
        nodes.send(2, &other, &event("Calls/Call/Dial", r#","id":"r""#)).unwrap();
    }
    assert_eq!((nodes.take(1, &phone).len(), nodes.take(1, &spare).len()), (0, 2));
    // Its answer is too late, but it shows that it is there.
    let id = request["id"].as_str().unwrap();
    let reply = event("Calls/Call/Dial", &format!(r#","inReplyTo":"{id}""#));
    assert_eq!(nodes.send(1, &phone, &reply), Err("NO_SUCH_REQUEST"));
    nodes.send(2, &other, &event("Calls/Call/Dial", r#","id":"s""#)).unwrap();
    assert_eq!((nodes.take(1, &phone).len(), nodes.take(1, &spare).len()), (1, 0), "it has nothing else to do");
}
