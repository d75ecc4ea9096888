//! The program sleeps until the router's deadline. It is woken if something of a session that is away is due earlier.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use serde_json::json;
use switchboard::config::{Config, Resume};

use crate::support::client::Desk;
use crate::support::core::event;

/// Counts how often a task is woken.
#[derive(Default)]
pub(super) struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Woken {
    pub(super) fn times(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

fn desk(resume: Resume) -> Desk {
    Desk::new(&Config { resume, ..Config::default() })
}

/// Whether the program was woken since the last call.
fn is_woken(desk: &Desk) -> bool {
    pin!(desk.core.router.earlier().notified()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

#[test]
fn the_program_is_woken_for_the_end_of_a_grace() {
    let desk = &mut desk(Resume::default());
    let mut client = desk.begin("gadget");
    assert_eq!(desk.core.router.deadline(), None);
    assert!(!is_woken(desk));
    client.lose(desk);
    assert!(is_woken(desk));
    let until = desk.now() + Duration::from_secs(30);
    assert_eq!(desk.core.router.deadline(), Some(until));
    desk.core.now = until;
    desk.core.router.expire(until);
    assert_eq!(desk.core.router.size().sessions, 0);
}

#[test]
fn the_program_is_woken_for_a_session_that_overflows_while_it_is_away() {
    let desk = &mut desk(Resume { messages: 2, ..Resume::default() });
    let mut client = desk.begin("gadget");
    client.subscribe(desk, "Phone/Call/*");
    client.lose(desk);
    let phone = desk.core.attach("phone", Some("alice"));
    desk.core.router.deadline();
    while is_woken(desk) {}
    for _ in 0..3 {
        desk.core.send(&phone, &event("Phone/Call/Ring", "")).unwrap();
    }
    assert!(is_woken(desk));
    assert!(desk.core.router.deadline().unwrap() <= desk.now());
    desk.core.router.expire(desk.now());
    assert_eq!(desk.core.router.size().away, 0);
}

#[test]
fn every_time_too_much_is_kept_there_is_a_sweep() {
    let total_bytes = 100 << 10;
    let desk = &mut desk(Resume { total_bytes, ..Resume::default() });
    let mut client = desk.begin("gadget");
    client.subscribe(desk, "Phone/Call/*");
    let phone = desk.core.attach("phone", Some("alice"));
    let data = "x".repeat(1000);
    for round in 0..3 {
        while is_woken(desk) {}
        for _ in 0..100 {
            desk.core.send(&phone, &event("Phone/Call/Ring", &format!(r#","data":"{data}""#))).unwrap();
        }
        assert_eq!(client.payloads(desk).len(), 100);
        assert!(is_woken(desk), "round {round}");
        assert!(desk.core.router.size().kept_bytes > total_bytes);
        desk.core.now = desk.core.router.deadline().unwrap();
        desk.core.router.expire(desk.now());
        assert!(desk.core.router.size().kept_bytes <= total_bytes / 10 * 9, "round {round}");
    }
    assert_eq!(client.resume(desk)["Resumed"], true);
    client.command(desk, "Application", "Unregister", &json!({}));
}

#[test]
fn a_publisher_that_waits_for_a_session_is_woken_when_the_session_takes() {
    let mut config = Config::default();
    config.limits.outbound_messages = 4;
    let desk = Desk::new(&config);
    let mut client = desk.begin("gadget");
    client.subscribe(&desk, "Phone/Call/*");
    let phone = desk.core.attach("phone", Some("alice"));
    for _ in 0..3 {
        desk.core.send(&phone, &event("Phone/Call/Ring", "")).unwrap();
    }
    let session = Arc::clone(client.connection.session().unwrap());
    let (reliefs, _) = session.outbox().begin_wait(desk.now());
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    assert!(session.outbox().poll_relieved_since(reliefs, &mut Context::from_waker(&waker)).is_pending());
    assert_eq!(client.payloads(&desk).len(), 3);
    assert_eq!(woken.times(), 1);
}
