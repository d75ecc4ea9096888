//! Sessions that lose their connection while an event of a durable channel waits for the disk.

use std::iter::from_fn;
use std::task::{Context, Waker};
use std::time::Duration;

use serde_json::{Value, json};
use switchboard::config::{Channel, Config, LogBounds};
use switchboard::connection::Input;
use switchboard::router::CommitQueue;

use crate::support::client::{Client, Desk, alice};
use crate::support::core::event;

fn desk() -> (Desk, CommitQueue) {
    let mut config = Config::default();
    config.limits.rate = 0;
    let history = Some(LogBounds { size: 10, ttl: Duration::from_mins(10) });
    config.channels.insert("Phone".into(), Channel { history, durable: true, ..Channel::default() });
    let mut desk = Desk::new(&config);
    let (router, queue) = desk.core.router.with_commits();
    desk.core.router = router;
    (desk, queue)
}

fn commit(desk: &Desk, queue: &CommitQueue, is_on_disk: bool) {
    let events = from_fn(|| queue.receive(Duration::ZERO).ok()).collect();
    desk.core.router.finish(desk.now(), desk.core.router.plan(desk.now(), events), is_on_disk);
}

/// When the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    BeforeTheCommit,
    AfterTheCommit,
    /// The client returns before the commit, while its older connection is still open.
    Replaced,
}

/// The client sends an event, and a message that may not overtake it, and loses its connection. It receives the answer of
/// the event, and sends the other message again.
fn check(ends: Ends, is_on_disk: bool) {
    let (desk, queue) = desk();
    let mut client = desk.begin("gadget");
    client.say(&desk, &event("Phone/Call/Ring", r#","id":"a""#));
    client.command(&desk, "Connection", "Ping", &json!({}));
    assert!(client.take(&desk, 8).is_empty(), "{ends:?}");
    let reply = match ends {
        Ends::BeforeTheCommit => {
            client.lose(&desk);
            commit(&desk, &queue, is_on_disk);
            client.resume(&desk)
        }
        Ends::AfterTheCommit => {
            commit(&desk, &queue, is_on_disk);
            client.lose(&desk);
            client.resume(&desk)
        }
        Ends::Replaced => {
            let reply = client.resume(&desk);
            commit(&desk, &queue, is_on_disk);
            client.poll_commits(&desk);
            reply
        }
    };
    assert_eq!((&reply["Resumed"], &reply["Received"]), (&true.into(), &1.into()), "{ends:?}: {reply}");
    let messages = client.take(&desk, 8);
    let told: Vec<(&Value, &Value)> = messages.iter().map(|it| (&it["subtopic"], &it["inReplyTo"])).collect();
    let expected = if is_on_disk { "Receipt" } else { "Error" };
    assert_eq!(told, [(&json!(expected), &json!("a"))], "{ends:?}");
    client.command(&desk, "Connection", "Ping", &json!({}));
    assert_eq!(client.take(&desk, 8).len(), 1);
}

#[test]
fn a_session_that_resumes_receives_the_outcome_of_an_event_that_waited_for_the_disk() {
    for is_on_disk in [true, false] {
        check(Ends::BeforeTheCommit, is_on_disk);
        check(Ends::AfterTheCommit, is_on_disk);
    }
    check(Ends::Replaced, true);
}

/// What the client sends after its resume, while an event of its earlier connection waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Follows {
    AnEventOnAnotherChannel,
    ACommand,
    /// It may share the commit.
    ADurableEvent,
}

fn nothing_overtakes(follows: Follows, is_replaced: bool) {
    let (desk, queue) = desk();
    let (mut client, mut crm) = (desk.begin("gadget"), desk.begin("crm"));
    crm.subscribe(&desk, "*/*/*");
    client.say(&desk, &event("Phone/Call/Ring", r#","id":"a","data":1"#));
    if !is_replaced {
        client.lose(&desk);
    }
    let reply = client.resume(&desk);
    assert_eq!(reply["Received"], 1, "{reply}");
    match follows {
        Follows::AnEventOnAnotherChannel => client.say(&desk, &event("Other/Call/Ring", r#","id":"b","data":2"#)),
        Follows::ADurableEvent => client.say(&desk, &event("Phone/Call/Ring", r#","id":"b","data":2"#)),
        Follows::ACommand => client.command(&desk, "Connection", "Ping", &json!({})),
    }
    assert!(client.take(&desk, 8).is_empty() && crm.take(&desk, 8).is_empty(), "{follows:?}");
    let mut commits = 0;
    while client.poll_commits(&desk) || commits == 0 {
        commit(&desk, &queue, true);
        commits += 1;
    }
    let told: Vec<Value> = client.take(&desk, 8).into_iter().map(|mut it| it["subtopic"].take()).collect();
    let expected = if follows == Follows::ACommand { ["Receipt", "Ping"] } else { ["Receipt", "Receipt"] };
    assert_eq!(told, expected, "{follows:?}");
    let expected = if follows == Follows::ACommand { vec![json!(1)] } else { vec![json!(1), json!(2)] };
    assert_eq!(crm.payloads(&desk), expected, "{follows:?}");
    // Nothing is held any more.
    client.say(&desk, &event("Other/Call/Ring", r#","data":3"#));
    assert_eq!(crm.payloads(&desk), [3]);
}

#[test]
fn nothing_that_a_resumed_session_sends_overtakes_an_event_that_waits_for_the_disk() {
    for follows in [Follows::AnEventOnAnotherChannel, Follows::ACommand, Follows::ADurableEvent] {
        nothing_overtakes(follows, false);
        nothing_overtakes(follows, true);
    }
}

/// Lets the events that wait be committed, the oldest `count` of them first, and tells the connection of these.
fn commit_some(desk: &Desk, queue: &CommitQueue, client: &mut Client, count: usize) {
    let events = from_fn(|| queue.receive(Duration::ZERO).ok()).take(count).collect();
    desk.core.router.finish(desk.now(), desk.core.router.plan(desk.now(), events), true);
    assert!(client.connection.poll_commits(&mut Context::from_waker(Waker::noop())).is_ready());
    assert!(client.handle(desk, Input::Committed).is_none());
}

#[test]
fn a_message_that_may_not_overtake_waits_until_the_last_event_is_on_disk_and_is_wiped() {
    let (desk, queue) = desk();
    let mut client = desk.begin("gadget");
    for id in ["a", "b"] {
        client.say(&desk, &event("Phone/Call/Ring", &format!(r#","id":"{id}""#)));
    }
    assert!(client.connection.reads(), "further events may join");
    client.connection.take_secret_read();
    client.command(&desk, "Connection", "Ping", &json!({}));
    assert!(!client.connection.reads() && client.connection.take_secret_read());
    let told = |client: &mut Client| -> Vec<Value> {
        client.take(&desk, 8).into_iter().map(|mut message| message["subtopic"].take()).collect()
    };
    commit_some(&desk, &queue, &mut client, 1);
    assert_eq!(told(&mut client), ["Receipt"]);
    commit_some(&desk, &queue, &mut client, 1);
    assert_eq!(told(&mut client), ["Receipt", "Ping"]);
    assert!(client.connection.reads());
}

#[test]
fn at_most_64_events_of_a_session_wait_for_the_disk() {
    let (desk, queue) = desk();
    let mut client = desk.begin("gadget");
    let read = (0..100).take_while(|_| {
        client.say(&desk, &event("Phone/Call/Ring", ""));
        client.connection.reads()
    });
    assert_eq!(read.count(), 63);
    commit_some(&desk, &queue, &mut client, 1);
    assert!(client.connection.reads());
}

#[test]
fn the_will_and_left_of_a_session_that_cannot_continue_precede_the_reply_though_the_will_waits_for_the_disk() {
    for is_on_disk in [true, false] {
        let (desk, queue) = desk();
        let will = json!({"channel": "Phone", "topic": "Call", "subtopic": "Over"});
        let mut client = desk.begin_with("gadget", &json!({"resume": true, "will": will}));
        let mut crm = desk.begin("crm");
        crm.subscribe(&desk, "Phone/*/*");
        crm.subscribe(&desk, "Broker/Application/Left");
        client.lose(&desk);
        let resume = json!({"token": client.token, "received": 99});
        let register = json!({"channel": "Broker", "topic": "Application", "subtopic": "Register", "source": "gadget",
            "data": {"resume": resume}});
        client.connection = desk.connect();
        client.say(&desk, &register.to_string());
        assert!(client.handle(&desk, Input::Verified(Ok(alice()))).is_none());
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(client.take(&desk, 9).is_empty() && client.connection.poll_ready(cx).is_pending());
        assert!(!client.connection.reads(), "what the client sends belongs to the session that has not begun for it");
        assert!(!client.poll_commits(&desk) && crm.take(&desk, 9).is_empty());
        commit(&desk, &queue, is_on_disk);
        let told: Vec<Value> = crm.take(&desk, 9).into_iter().map(|mut it| it["subtopic"].take()).collect();
        assert_eq!(told, if is_on_disk { vec!["Over", "Left"] } else { vec!["Left"] });
        assert!(client.poll_commits(&desk) && client.connection.reads());
        client.command(&desk, "Connection", "Ping", &json!({}));
        let messages = client.take(&desk, 9);
        assert_eq!(messages[0]["data"]["ResumeReason"], "AHEAD", "{messages:?}");
        assert_eq!(messages[1]["subtopic"], "Ping");
    }
}
