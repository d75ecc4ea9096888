//! Exclusive sources of several nodes, in one thread.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;

use futures_util::FutureExt;
use serde_json::json;
use switchboard::auth::{Identity, Permissions, Principal};
use switchboard::config::Config;
use switchboard::router::{
    End, Ending, LeaseHold, LeaseTicket, NotAttached, Outbox, Registered, Registration, Session, Wanted,
};
use wire::command::Resume;
use wire::{CloseCode, Refusal};

use super::nodes::Nodes;
use crate::support::core::WIDE;

fn principal() -> Principal {
    Principal::User("alice".into())
}

/// Attempts to register alice's exclusive softphone.
fn attempt(nodes: &Nodes, node: usize, lease: Option<LeaseHold>) -> Result<Registered, NotAttached> {
    let core = nodes.node(node);
    let identity = Identity { exclusive: true, ..Identity::unproved(principal(), Permissions::all()) };
    let registration = Registration {
        source: "softphone".into(),
        identity,
        echo: false,
        address: None,
        outbox: Outbox::new(WIDE),
        will: None,
    };
    let wanted = Wanted { resume: &Resume::Begin, echo: None, keeps_will: true, reloads: 0, lease, elsewhere: None };
    core.router.register(core.now, registration, &wanted).map(|registered| registered.expect("there is no reload"))
}

fn seek(nodes: &Nodes, node: usize) -> LeaseTicket {
    let core = nodes.node(node);
    core.router.seek_lease(core.now, &principal(), "softphone")
}

fn poll(ticket: &mut LeaseTicket) -> Poll<Result<LeaseHold, Refusal>> {
    ticket.poll(&mut Context::from_waker(Waker::noop()))
}

/// Registers alice's softphone as a connection does, with what follows of it delivered.
fn register(nodes: &Nodes, node: usize) -> Result<Registered, Refusal> {
    assert!(matches!(attempt(nodes, node, None), Err(NotAttached::Leaseless)), "it needs a lease");
    let mut ticket = seek(nodes, node);
    nodes.settle();
    let Poll::Ready(lease) = poll(&mut ticket) else { panic!("the claim is not answered") };
    let registered = attempt(nodes, node, Some(lease?));
    nodes.settle();
    registered.map_err(|refused| match refused {
        NotAttached::Refused(refusal) | NotAttached::Will(refusal) => refusal,
        NotAttached::Leaseless => panic!("it has a lease"),
    })
}

#[track_caller]
fn refused(nodes: &Nodes, node: usize, code: &str) -> Refusal {
    let refusal = register(nodes, node).err().expect("it is refused");
    assert_eq!(refusal.code.as_str(), code, "{}", refusal.message);
    refusal
}

fn end(nodes: &Nodes, node: usize, session: &Arc<Session>) {
    let core = nodes.node(node);
    core.router.detach(core.now, session);
    nodes.settle();
}

/// The connection of a session is lost.
fn lose_connection(nodes: &Nodes, node: usize, registered: &Registered) {
    let core = nodes.node(node);
    core.router.leave(core.now, &registered.session, registered.attachment, Ending::Lost, None);
    nodes.settle();
}

#[test]
fn one_node_has_an_exclusive_source_until_its_session_ends() {
    let nodes = Nodes::new(3, &Config::default());
    let first = register(&nodes, 0).unwrap();
    let refusal = refused(&nodes, 1, "SOURCE_IN_USE");
    assert!(refusal.message.contains("1970-01-01T00:00:00Z"), "it says since when: {}", refusal.message);
    refused(&nodes, 0, "SOURCE_IN_USE");
    end(&nodes, 0, &first.session);
    assert_eq!(nodes.storage.holder("alice", "softphone"), None);
    let second = register(&nodes, 1).unwrap();
    refused(&nodes, 0, "SOURCE_IN_USE");
    assert_eq!(nodes.storage.holder("alice", "softphone").as_deref(), Some("node-1"));
    end(&nodes, 1, &second.session);
}

#[test]
fn a_session_that_is_away_on_another_node_gives_its_source_up() {
    let nodes = Nodes::new(2, &Config::default());
    let crm = nodes.node(1).attach("crm", Some("alice"));
    nodes.node(1).subscribe(&crm, "Broker/Application/*");
    let first = register(&nodes, 0).unwrap();
    lose_connection(&nodes, 0, &first);
    nodes.take(1, &crm);
    let second = register(&nodes, 1).unwrap();
    let told: Vec<_> = nodes.take(1, &crm).iter().map(|it| it["subtopic"].clone()).collect();
    assert_eq!(told, [json!("Left"), json!("Joined")]);
    assert_eq!(nodes.node(0).router.size().sessions, 0);
    assert_eq!(nodes.storage.holder("alice", "softphone").as_deref(), Some("node-1"));
    // On its own node, too.
    lose_connection(&nodes, 1, &second);
    let third = register(&nodes, 1).unwrap();
    assert_eq!(nodes.storage.holder("alice", "softphone").as_deref(), Some("node-1"), "the lease was taken over");
    end(&nodes, 1, &third.session);
    assert_eq!(nodes.storage.holder("alice", "softphone"), None);
}

#[test]
fn a_connection_that_ends_before_it_registers_leaves_no_lease() {
    let nodes = Nodes::new(2, &Config::default());
    drop(seek(&nodes, 0));
    nodes.settle();
    assert_eq!(nodes.storage.holder("alice", "softphone"), None);
    let mut ticket = seek(&nodes, 0);
    nodes.settle();
    let lease = poll(&mut ticket);
    assert!(matches!(lease, Poll::Ready(Ok(_))));
    assert_eq!(nodes.storage.holder("alice", "softphone").as_deref(), Some("node-0"));
    drop(lease);
    register(&nodes, 1).unwrap();
}

#[test]
fn connections_of_one_node_that_register_at_once_share_a_claim_and_one_of_them_has_the_source() {
    let nodes = Nodes::new(1, &Config::default());
    let mut tickets: Vec<_> = (0..3).map(|_| seek(&nodes, 0)).collect();
    nodes.settle();
    let leases: Vec<_> = tickets.iter_mut().map(poll).collect();
    let attempts: Vec<_> = leases
        .into_iter()
        .map(|lease| match lease {
            Poll::Ready(Ok(lease)) => attempt(&nodes, 0, Some(lease)),
            _ => panic!("every one has the lease"),
        })
        .collect();
    assert_eq!(attempts.iter().filter(|it| it.is_ok()).count(), 1);
    assert_eq!(nodes.storage.holder("alice", "softphone").as_deref(), Some("node-0"));
}

#[test]
fn a_lease_that_is_lost_ends_its_session_with_4404() {
    let nodes = Nodes::new(2, &Config::default());
    let check = |is_away: bool| {
        let registered = register(&nodes, 0).unwrap();
        if is_away {
            lose_connection(&nodes, 0, &registered);
        }
        let (name, claim) = nodes.keeper(0).claim_of("alice", "softphone").unwrap();
        let core = nodes.node(0);
        core.router.lease_lost(core.now, &name, claim);
        let ended = registered.session.outbox().ended();
        assert!(matches!(ended, Some(End::Close(CloseCode::SourceInUse, _))), "{ended:?}");
        assert_eq!(core.router.size().sessions, usize::from(!is_away), "one that is away has no connection to end it");
        if !is_away {
            let ending = Ending::Closed(CloseCode::SourceInUse);
            core.router.leave(core.now, &registered.session, registered.attachment, ending, None);
        }
        nodes.settle();
        assert_eq!(nodes.storage.holder("alice", "softphone"), None);
    };
    check(false);
    check(true);
}

#[test]
fn a_lease_that_is_lost_before_its_session_is_listed_is_sought_again() {
    let nodes = Nodes::new(1, &Config::default());
    let mut ticket = seek(&nodes, 0);
    nodes.settle();
    let Poll::Ready(Ok(lease)) = poll(&mut ticket) else { panic!("it is taken") };
    let (name, claim) = nodes.keeper(0).claim_of("alice", "softphone").unwrap();
    let core = nodes.node(0);
    core.router.lease_lost(core.now, &name, claim);
    assert!(matches!(attempt(&nodes, 0, Some(lease)), Err(NotAttached::Leaseless)));
    register(&nodes, 0).unwrap();
}

#[test]
fn without_storage_or_a_holder_that_answers_a_source_cannot_be_had() {
    let nodes = Nodes::new(2, &Config::default());
    nodes.storage.set_away(true);
    refused(&nodes, 0, "UPSTREAM_UNAVAILABLE");
    nodes.storage.set_away(false);
    let first = register(&nodes, 0).unwrap();
    lose_connection(&nodes, 0, &first);
    // Its node is lost while it is asked.
    let mut ticket = seek(&nodes, 1);
    assert!(nodes.answer_one(1) && poll(&mut ticket).is_pending());
    nodes.lose(0);
    let Poll::Ready(Err(refusal)) = poll(&mut ticket) else { panic!("nobody is left to answer") };
    assert_eq!(refusal.code.as_str(), "SOURCE_IN_USE");
    refused(&nodes, 1, "SOURCE_IN_USE");
    nodes.find(0);
    register(&nodes, 1).unwrap();
}

#[test]
fn a_session_that_returns_while_another_node_wants_its_source_keeps_it() {
    let nodes = Nodes::new(2, &Config::default());
    let first = register(&nodes, 0).unwrap();
    lose_connection(&nodes, 0, &first);
    let mut ticket = seek(&nodes, 1);
    assert!(nodes.answer_one(1) && poll(&mut ticket).is_pending());
    // It returns before the question arrives.
    let switchboard::router::Resumption::Begun { ticket: token, .. } = &first.resumption else {
        panic!("it is resumable")
    };
    let resume = Resume::Continue { token: token.token.to_string().into(), received: 0 };
    let core = nodes.node(0);
    let registration = Registration {
        source: "softphone".into(),
        identity: Identity { exclusive: true, ..Identity::unproved(principal(), Permissions::all()) },
        echo: false,
        address: None,
        outbox: Outbox::new(WIDE),
        will: None,
    };
    let wanted = Wanted { resume: &resume, echo: None, keeps_will: true, reloads: 0, lease: None, elsewhere: None };
    let back = core.router.register(core.now, registration, &wanted).unwrap().unwrap();
    assert!(Arc::ptr_eq(&back.session, &first.session), "it needs no other lease");
    nodes.settle();
    let Poll::Ready(Err(refusal)) = poll(&mut ticket) else { panic!("it is answered") };
    assert_eq!(refusal.code.as_str(), "SOURCE_IN_USE");
    assert_eq!(back.session.outbox().ended(), None);
}

#[test]
fn a_lease_goes_over_to_another_node_while_its_session_lives() {
    let nodes = Nodes::new(2, &Config::default());
    let first = register(&nodes, 0).unwrap();
    nodes.node(0).router.let_lease_go(&first.session);
    let mut ticket = seek(&nodes, 1);
    nodes.settle();
    let Poll::Ready(Ok(lease)) = poll(&mut ticket) else { panic!("it is free") };
    assert_eq!(nodes.storage.holder("alice", "softphone").as_deref(), Some("node-1"));
    end(&nodes, 0, &first.session);
    assert_eq!(
        nodes.storage.holder("alice", "softphone").as_deref(),
        Some("node-1"),
        "it is no longer node-0's to release"
    );
    drop(lease);
}

#[test]
fn of_two_nodes_that_claim_a_lease_at_once_each_way_one_gets_it() {
    // The order in which claims, questions and answers happen is another one each time.
    for order in 0..64_u32 {
        let nodes = Nodes::new(2, &Config::default());
        let away = register(&nodes, 0).unwrap();
        lose_connection(&nodes, 0, &away);
        let mut tickets = [seek(&nodes, 0), seek(&nodes, 1)];
        for step in 0..6 {
            match (order >> step) & 1 {
                0 => drop(nodes.answer_one(0) || nodes.deliver_one(0)),
                _ => drop(nodes.answer_one(1) || nodes.deliver_one(1)),
            }
        }
        nodes.settle();
        let had = tickets.iter_mut().enumerate().filter_map(|(node, ticket)| match poll(ticket) {
            Poll::Ready(Ok(lease)) => attempt(&nodes, node, Some(lease)).ok(),
            Poll::Ready(Err(_)) => None,
            Poll::Pending => panic!("order {order}: it is not answered"),
        });
        assert_eq!(had.filter(|it| it.session.outbox().ended().is_none()).count(), 1, "order {order}");
    }
}

#[test]
fn many_threads_never_have_an_exclusive_source_twice() {
    const NODES: usize = 3;
    const THREADS: usize = 6;
    const ROUNDS: usize = 200;
    let nodes = Nodes::new(NODES, &Config::default());
    let owners = AtomicUsize::new(0);
    let had = AtomicUsize::new(0);
    let run = |thread: usize| {
        for round in 0..ROUNDS {
            let node = (thread + round) % NODES;
            let mut ticket = seek(&nodes, node);
            let lease = loop {
                nodes.settle();
                if let Some(lease) = poll_fn(|cx| ticket.poll(cx)).now_or_never() {
                    break lease;
                }
                thread::yield_now();
            };
            let Ok(Ok(registered)) = lease.map(|lease| attempt(&nodes, node, Some(lease))) else { continue };
            assert_eq!(owners.fetch_add(1, Ordering::SeqCst), 0, "another session has it");
            assert_eq!(registered.session.outbox().ended(), None);
            had.fetch_add(1, Ordering::SeqCst);
            thread::yield_now();
            owners.fetch_sub(1, Ordering::SeqCst);
            if round % 3 == 0 {
                lose_connection(&nodes, node, &registered);
            } else {
                end(&nodes, node, &registered.session);
            }
        }
    };
    thread::scope(|scope| (0..THREADS).for_each(|thread| drop(scope.spawn(move || run(thread)))));
    nodes.settle();
    assert!(had.load(Ordering::SeqCst) >= ROUNDS / 10, "hardly any had it: {had:?}");
    let left: usize = (0..NODES).map(|node| nodes.node(node).router.size().sessions).sum();
    assert_eq!(usize::from(nodes.storage.holder("alice", "softphone").is_some()), left);
    // The last one may be away: it gives way.
    let last = register(&nodes, 0).unwrap();
    end(&nodes, 0, &last.session);
    assert_eq!(nodes.storage.holder("alice", "softphone"), None);
}
