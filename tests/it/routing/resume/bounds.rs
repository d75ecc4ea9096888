//! The bounds of what is kept for sessions that can resume.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use switchboard::config::{Config, Resume};
use switchboard::router::{End, Reason, Size};

use crate::support::client::{Client, Desk};
use crate::support::core::event;
use crate::support::rights::permissions;

fn desk(resume: Resume) -> Desk {
    Desk::new(&Config { resume, ..Config::default() })
}

/// Clients that have subscribed.
fn clients(desk: &Desk, count: usize) -> Vec<Client> {
    let begin = |_| {
        let mut client = desk.begin("gadget");
        client.subscribe(desk, "Phone/Call/*");
        client
    };
    (0..count).map(begin).collect()
}

/// Publishes events with these numbers and this number of bytes more.
fn publish(desk: &Desk, numbers: std::ops::Range<u64>, bytes: usize) {
    let phone = desk.core.attach("phone", Some("alice"));
    let fill = "x".repeat(bytes);
    for number in numbers {
        let more = format!(r#","data":{number},"fill":"{fill}""#);
        assert!(desk.core.send(&phone, &event("Phone/Call/Ring", &more)).is_ok());
    }
    desk.core.router.detach(desk.now(), &phone);
}

fn numbers(range: std::ops::Range<u64>) -> Vec<Value> {
    range.map(Value::from).collect()
}

#[test]
fn a_window_keeps_the_newest_messages_within_its_bounds() {
    let by_messages = Resume { messages: 4, ..Resume::default() };
    let by_bytes = Resume { bytes: 4 * 1100, ..Resume::default() };
    for (resume, kept) in [(by_messages, 4), (by_bytes, 4)] {
        let desk = desk(resume);
        let mut client = clients(&desk, 1).remove(0);
        publish(&desk, 0..10, 1000);
        // Dropping never harms a session that has its connection.
        assert_eq!(client.payloads(&desk), numbers(0..10));
        assert_eq!(desk.core.router.size().kept, kept);
        client.lose(&desk);
        client.received -= kept as u64;
        assert_eq!(client.resume(&desk)["Replayed"], kept);
        assert_eq!(client.payloads(&desk), numbers(10 - kept as u64..10));
        client.lose(&desk);
        client.received -= kept as u64 + 1;
        assert_eq!(client.resume(&desk)["ResumeReason"], "TOO_FAR");
    }
}

#[test]
fn a_resume_sends_again_what_a_resume_was_sending_again() {
    let desk = desk(Resume::default());
    let mut client = clients(&desk, 1).remove(0);
    publish(&desk, 0..6, 0);
    assert_eq!(client.take(&desk, 4).len(), 4);
    client.received -= 4;
    client.lose(&desk);
    publish(&desk, 6..8, 0);
    assert_eq!(client.resume(&desk)["Replayed"], 4);
    // The connection is lost again after two of the four.
    assert_eq!(client.take(&desk, 2).len(), 2);
    client.lose(&desk);
    publish(&desk, 8..9, 0);
    assert_eq!(client.resume(&desk)["Replayed"], 2);
    assert_eq!(client.take(&desk, 1)[0]["data"], 2);
    // Another connection takes over in the middle.
    assert_eq!(client.resume(&desk)["Replayed"], 1);
    publish(&desk, 9..10, 0);
    assert_eq!(client.payloads(&desk), numbers(3..10));
    let acknowledged = json!({"received": client.received});
    client.command(&desk, "Connection", "Acknowledge", &acknowledged);
    let Size { kept, kept_bytes, .. } = desk.core.router.size();
    assert_eq!((kept, kept_bytes), (0, 0));
}

#[test]
fn what_waited_while_a_session_was_away_does_not_count_against_its_queue() {
    let mut config = Config::default();
    config.limits.outbound_messages = 4;
    let desk = Desk::new(&config);
    let mut client = clients(&desk, 1).remove(0);
    client.lose(&desk);
    publish(&desk, 0..100, 0);
    client.resume(&desk);
    publish(&desk, 100..104, 0);
    assert_eq!(client.payloads(&desk), numbers(0..104));
    // From then on the bounds of the queue count.
    client.lose(&desk);
    client.resume(&desk);
    publish(&desk, 0..5, 0);
    assert_eq!(client.connection.ended(), Some(End::Overflowed));
}

#[test]
fn beyond_the_memory_of_all_sessions_the_largest_lose_their_oldest() {
    let total_bytes = 100 << 10;
    let desk = &mut desk(Resume { total_bytes, ..Resume::default() });
    let mut small = clients(desk, 1).remove(0);
    publish(desk, 0..10, 1000);
    assert_eq!(small.payloads(desk).len(), 10);
    small.lose(desk);
    small.received -= 10;
    let mut large = clients(desk, 1).remove(0);
    // The small session has these, too, but they wait for it.
    publish(desk, 10..100, 1000);
    assert_eq!(large.payloads(desk).len(), 90);
    assert!(desk.core.router.size().kept_bytes > total_bytes);
    let before = desk.core.router.size().kept_bytes;
    publish(desk, 100..101, 0);
    assert!(desk.core.router.size().kept_bytes >= before, "a publish gives nothing up");
    let sweep = desk.core.router.deadline().unwrap();
    assert!(sweep <= desk.now() + Duration::from_millis(100));
    desk.core.now = sweep;
    desk.core.router.expire(desk.now());
    let size = desk.core.router.size();
    assert!(size.kept_bytes <= total_bytes / 10 * 9, "{size:?}");
    // The session that was away overflowed, because it kept most, and only what waited for it was left.
    assert_eq!(small.resume(desk)["ResumeReason"], "OVERFLOWED");
    // The other one lost its oldest messages. It does not notice unless it has to resume from before them.
    large.lose(desk);
    assert_eq!(large.resume(desk)["Resumed"], true);
}

#[test]
fn too_much_is_noticed_although_sessions_take_on_credit() {
    let total_bytes = 1 << 20;
    let desk = desk(Resume { total_bytes, ..Resume::default() });
    let mut clients = clients(&desk, 20);
    let is_due = || desk.core.router.deadline().is_some_and(|at| at <= desk.now() + Duration::from_millis(100));
    // What an event uses at least: its bytes once, and an entry of each session.
    let least = 5000 + 20 * 48;
    for number in 0..=total_bytes as u64 / least {
        assert!(number * least > total_bytes as u64 / 2 || !is_due(), "after {number} events");
        publish(&desk, number..number + 1, 5000);
        for client in &mut clients {
            client.payloads(&desk);
        }
    }
    assert!(is_due());
    assert!(desk.core.router.size().kept_bytes > total_bytes);
}

#[test]
fn what_is_acknowledged_before_it_was_counted_is_not_counted_later() {
    let desk = desk(Resume::default());
    let mut client = clients(&desk, 1).remove(0);
    // Far more than a credit.
    for number in 0..1000 {
        publish(&desk, number..number + 1, 1000);
        client.payloads(&desk);
        let received = json!({"received": client.received});
        if number % 7 == 0 {
            client.command(&desk, "Connection", "Acknowledge", &received);
        }
    }
    let Size { kept, kept_bytes, .. } = desk.core.router.size();
    assert_eq!(kept, 5);
    assert!((5 * 1048..5 * 1400).contains(&kept_bytes), "{kept_bytes}");
    client.lose(&desk);
    client.received -= 5;
    assert_eq!(client.resume(&desk)["Replayed"], 5);
    assert_eq!(client.payloads(&desk), numbers(995..1000));
}

#[test]
fn a_queue_beyond_the_bounds_of_what_is_kept_overflows_when_its_session_goes_away() {
    let desk = desk(Resume { messages: 3, ..Resume::default() });
    let mut client = clients(&desk, 1).remove(0);
    publish(&desk, 0..5, 0);
    client.lose(&desk);
    assert_eq!(client.resume(&desk)["ResumeReason"], "OVERFLOWED");
}

#[test]
fn a_change_of_rights_leaves_what_was_sent_as_it_was() {
    let desk = desk(Resume::default());
    let mut client = clients(&desk, 1).remove(0);
    publish(&desk, 0..3, 0);
    assert_eq!(client.payloads(&desk).len(), 3);
    publish(&desk, 3..5, 0);
    let kept = || desk.core.router.size().kept;
    let before = kept();
    let session = Arc::clone(client.connection.session().unwrap());
    let less = permissions("subscribe Desk/*/*");
    desk.core.router.change_permissions(desk.now(), &session, less, Reason::Reloaded);
    assert_eq!((before, kept()), (4, 4));
    // What waited is no longer allowed. The client counts on from what it was sent.
    let messages = client.take(&desk, 8);
    assert_eq!((messages.len(), &messages[0]["subtopic"]), (1, &json!("Ended")));
    let received = client.received;
    client.command(&desk, "Connection", "Acknowledge", &json!({"received": received}));
    assert_eq!((client.take(&desk, 8).len(), kept()), (0, 0));
}

#[test]
fn a_frame_that_many_sessions_keep_counts_once() {
    let desk = desk(Resume::default());
    let mut clients = clients(&desk, 10);
    let before = desk.core.router.size();
    publish(&desk, 0..1, 100_000);
    for client in &mut clients {
        assert_eq!(client.payloads(&desk).len(), 1);
    }
    let after = desk.core.router.size();
    let (entries, bytes) = (after.kept - before.kept, after.kept_bytes - before.kept_bytes);
    assert_eq!(entries, 10);
    assert!((100_000 + 480..101_000 + 480).contains(&bytes), "{bytes}");
    for client in &mut clients {
        client.command(&desk, "Application", "Unregister", &json!({}));
    }
    assert_eq!(desk.core.router.size(), Size::default());
}

#[test]
fn the_session_that_was_away_for_longest_ends() {
    let desk = &mut desk(Resume { sessions: 2, ..Resume::default() });
    let mut clients = clients(desk, 4);
    for at in [1, 0, 3] {
        desk.core.now += Duration::from_secs(1);
        clients[at].lose(desk);
    }
    assert_eq!(desk.core.router.size().away, 2);
    assert_eq!(clients[1].resume(desk)["ResumeReason"], "UNKNOWN");
    assert_eq!(clients[0].resume(desk)["Resumed"], true);
    assert_eq!(clients[3].resume(desk)["Resumed"], true);
}

#[test]
fn an_away_session_gives_its_place_to_another_session_of_its_user() {
    let mut config = Config::default();
    config.limits.sessions_per_user = 3;
    let desk = &mut Desk::new(&config);
    let mut clients = clients(desk, 3);
    for at in [2, 1] {
        desk.core.now += Duration::from_secs(1);
        clients[at].lose(desk);
    }
    let late = desk.begin("late");
    assert_eq!(desk.core.router.size().away, 1);
    assert_eq!(clients[2].resume(desk)["Resumed"], false, "it was away for longest");
    let size = desk.core.router.size();
    assert_eq!((size.sessions, size.away), (3, 0), "the other one gave way to the new session of the third");
    assert!(late.connection.session().is_some());
}

#[test]
fn limits_that_a_reload_changes_hold_at_once() {
    let desk = desk(Resume::default());
    let mut clients = clients(&desk, 3);
    clients[0].lose(&desk);
    clients[1].lose(&desk);
    let config = Config { resume: Resume { sessions: 1, messages: 2, ..Resume::default() }, ..Config::default() };
    desk.core.router.replace_policy(desk.now(), &config);
    desk.core.router.review(desk.now(), &Keeps);
    assert_eq!(desk.core.router.size().away, 1);
    publish(&desk, 0..10, 0);
    assert_eq!(clients[2].payloads(&desk).len(), 10);
    clients[2].lose(&desk);
    clients[2].received -= 3;
    assert_eq!(clients[2].resume(&desk)["ResumeReason"], "TOO_FAR");
    let off = Config { resume: Resume { grace: Duration::ZERO, ..Resume::default() }, ..Config::default() };
    desk.core.router.replace_policy(desk.now(), &off);
    clients[2].lose(&desk);
    assert_eq!(desk.core.router.size(), Size::default(), "from now on a session ends with its connection");
}

/// Lets every session go on.
struct Keeps;

impl switchboard::auth::Verifier for Keeps {
    fn verify(&self, _claim: switchboard::auth::Claim) -> switchboard::auth::Verification<'_> {
        Box::pin(std::future::pending())
    }

    fn review(&self, _proved: &switchboard::auth::Proved<'_>) -> switchboard::auth::Review {
        switchboard::auth::Review::Same
    }
}
