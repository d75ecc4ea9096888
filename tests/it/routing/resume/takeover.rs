//! A client that returns while its older connection is still open: that one does nothing more and is told so.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use serde_json::json;
use switchboard::auth::Open;
use switchboard::config::Config;
use switchboard::connection::{Connection, Effect, Gone, Input};
use switchboard::router::{End, Size};
use wire::CloseCode;

use super::waking::Woken;
use crate::support::client::{Client, Desk, alice};
use crate::support::core::event;

/// A client that has returned, and its older connection, which does not know of that yet.
fn returned(desk: &Desk) -> (Client, Connection) {
    let mut client = desk.begin("gadget");
    client.subscribe(desk, "Phone/Call/*");
    let older = std::mem::replace(&mut client.connection, desk.connect());
    assert_eq!(client.resume(desk)["Resumed"], true);
    (client, older)
}

#[test]
fn whatever_happens_to_a_replaced_connection_it_closes_and_does_nothing_more() {
    let ring = event("Phone/Note/New", "");
    let inputs = [
        Input::Text(&ring),
        Input::Timeout,
        Input::Drain(Duration::from_secs(1)),
        Input::MoveAfter(Duration::from_secs(1)),
        Input::Restart,
        Input::Committed,
        Input::Ended(End::Replaced),
    ];
    for (number, input) in inputs.into_iter().enumerate() {
        let desk = Desk::new(&Config::default());
        let notes = desk.core.attach("notes", Some("alice"));
        desk.core.subscribe(&notes, "Phone/Note/New");
        let (mut client, mut older) = returned(&desk);
        let router = &desk.core.router;
        let Some(Effect::Close(close)) = older.handle(desk.now(), input, router) else {
            panic!("input {number} has no effect")
        };
        assert_eq!(close.code(), CloseCode::Replaced, "input {number}");
        let mut frames = Vec::new();
        older.take(desk.now(), usize::MAX, router, &mut frames);
        assert!(frames.len() == 1 && frames[0].text().contains("Replaced"), "input {number}");
        assert!(client.take(&desk, usize::MAX).is_empty() && desk.core.take(&notes).is_empty(), "input {number}");
        client.lose(&desk);
        let data = client.resume(&desk);
        assert_eq!((&data["Resumed"], &data["Received"]), (&json!(true), &json!(1)), "input {number}");
    }
}

#[test]
fn the_end_of_a_replaced_connection_leaves_the_session_as_it_is() {
    for gone in [Gone::Lost, Gone::ByPeer(Some(1000))] {
        let desk = Desk::new(&Config::default());
        let (mut client, mut older) = returned(&desk);
        assert!(older.handle(desk.now(), Input::Gone(gone), &desk.core.router).is_none());
        let Size { sessions, away, .. } = desk.core.router.size();
        assert_eq!((sessions, away), (1, 0));
        client.command(&desk, "Connection", "Ping", &json!({}));
        assert_eq!((client.take(&desk, 2).len(), client.closed), (1, None));
    }
}

#[test]
fn a_replaced_connection_takes_nothing_and_is_woken() {
    let desk = Desk::new(&Config::default());
    let mut client = desk.begin("gadget");
    client.subscribe(&desk, "Phone/Call/*");
    let mut older = std::mem::replace(&mut client.connection, desk.connect());
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let cx = &mut Context::from_waker(&waker);
    assert!(older.poll_ready(cx).is_pending() && older.poll_end(cx).is_pending());
    assert_eq!(client.resume(&desk)["Resumed"], true);
    assert_eq!(woken.times(), 2, "once for each that it waited for");
    assert!(older.poll_ready(cx).is_ready());
    assert_eq!(older.poll_end(cx), Poll::Ready(Some(End::Replaced)));

    let phone = desk.core.attach("phone", Some("alice"));
    desk.core.send(&phone, &event("Phone/Call/Ring", r#","data":1"#)).unwrap();
    let mut frames = Vec::new();
    older.take(desk.now(), usize::MAX, &desk.core.router, &mut frames);
    assert!(frames.is_empty());
    assert_eq!(client.payloads(&desk), [json!(1)]);
}

#[test]
fn an_open_connection_of_a_session_that_cannot_continue_is_woken_and_told() {
    let desk = Desk::new(&Config::default());
    let mut client = desk.begin("gadget");
    let mut older = std::mem::replace(&mut client.connection, desk.connect());
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    assert!(older.poll_ready(&mut Context::from_waker(&waker)).is_pending());
    // It has received one message more than was sent.
    client.received += 1;
    let data = client.resume(&desk);
    assert_eq!((&data["Resumed"], &data["ResumeReason"]), (&json!(false), &json!("AHEAD")));
    assert_eq!((woken.times(), older.ended()), (1, Some(End::Replaced)));
    let effect = older.handle(desk.now(), Input::Ended(End::Replaced), &desk.core.router);
    assert!(matches!(effect, Some(Effect::Close(close)) if close.code() == CloseCode::Replaced));
    client.command(&desk, "Application", "Unregister", &json!({}));
    assert_eq!(desk.core.router.size(), Size::default(), "both sessions have ended");
}

#[test]
fn a_register_of_a_registered_session_is_not_counted() {
    let desk = Desk::new(&Config::default());
    let mut client = desk.begin("gadget");
    client.subscribe(&desk, "Phone/Call/*");
    let again = json!({"channel": "Broker", "topic": "Application", "subtopic": "Register", "source": "gadget"});
    client.say(&desk, &again.to_string());
    assert_eq!(client.take(&desk, 1)[0]["data"]["ErrorCode"], "ALREADY_REGISTERED");
    client.received -= 1;
    client.lose(&desk);
    assert_eq!(client.resume(&desk)["Received"], 1);
}

#[test]
fn a_message_that_is_refused_is_counted() {
    let desk = Desk::new(&Config::default());
    let mut client = desk.begin("gadget");
    for text in ["not JSON", r#"{"channel":"Phone"}"#, &event("Broker/Application/Unknown", "")] {
        client.say(&desk, text);
    }
    // A binary message is not one of the session's text messages.
    client.handle(&desk, Input::Binary);
    assert_eq!(client.take(&desk, 8).len(), 4);
    client.lose(&desk);
    assert_eq!(client.resume(&desk)["Received"], 3);
}

#[test]
fn the_frame_with_a_resume_token_is_wiped() {
    let desk = Desk::new(&Config::default());
    let mut connection = desk.connect();
    let register = json!({"channel": "Broker", "topic": "Application", "subtopic": "Register", "source": "gadget",
        "data": {"resume": true}});
    connection.handle(desk.now(), Input::Text(&register.to_string()), &desk.core.router);
    connection.handle(desk.now(), Input::Verified(Ok(alice())), &desk.core.router);
    let mut frames = Vec::new();
    connection.take(desk.now(), 1, &desk.core.router, &mut frames);
    assert!(frames[0].text().contains("ResumeToken") && frames[0].is_secret());
}

#[test]
fn a_resume_with_an_identity_that_was_verified_before_a_reload_is_verified_again() {
    let desk = Desk::new(&Config::default());
    let client = desk.begin("gadget");
    let register = json!({"channel": "Broker", "topic": "Application", "subtopic": "Register", "source": "gadget",
        "data": {"resume": {"token": client.token, "received": client.received}}});
    let (now, router, mut next) = (desk.now(), &desk.core.router, desk.connect());
    assert!(matches!(next.handle(now, Input::Text(&register.to_string()), router), Some(Effect::Verify(_))));
    router.review(now, &Open);
    assert!(matches!(next.handle(now, Input::Verified(Ok(alice())), router), Some(Effect::Verify(_))));
    assert_eq!(client.connection.ended(), None, "the session still has its older connection");
    assert!(next.handle(now, Input::Verified(Ok(alice())), router).is_none());
    assert_eq!(client.connection.ended(), Some(End::Replaced));
}
