//! What ends a session at once, and what leaves it away.

use std::time::Duration;

use serde_json::json;
use switchboard::config::{Config, Limits, Overflow};
use switchboard::connection::{Gone, Input};
use switchboard::router::Size;
use wire::{Close, CloseCode};

use crate::support::client::{Client, Desk};
use crate::support::core::event;

fn desk(limits: Limits) -> Desk {
    let mut config = Config { limits, ..Config::default() };
    config.channels.entry("Ticker".into()).or_default().overflow = Overflow::DropOldest;
    Desk::new(&config)
}

/// Whether a session is away after this.
fn is_away_after(limits: Limits, what: impl FnOnce(&mut Desk, &mut Client)) -> bool {
    let mut desk = desk(limits);
    let mut client = desk.begin("gadget");
    client.subscribe(&desk, "Phone/Call/*");
    what(&mut desk, &mut client);
    desk.core.router.expire(desk.now());
    let Size { sessions, away, resumable, .. } = desk.core.router.size();
    assert_eq!((sessions, resumable), (away, away), "a session without a connection is away, or has ended");
    away == 1
}

#[test]
fn the_end_of_the_connection_decides_what_becomes_of_the_session() {
    let away =
        |gone: Gone| is_away_after(Limits::default(), |desk, client| drop(client.handle(desk, Input::Gone(gone))));
    assert!(away(Gone::Lost));
    for (code, is_away) in
        [(None, false), (Some(1000), false), (Some(1001), true), (Some(4000), true), (Some(1006), true)]
    {
        assert_eq!(away(Gone::ByPeer(code)), is_away, "{code:?}");
    }
    for code in [CloseCode::Protocol, CloseCode::InvalidUtf8, CloseCode::TooLarge] {
        assert!(!away(Gone::Fault(Close::from(code))), "{code:?}");
    }
    assert!(!is_away_after(Limits::default(), |desk, client| {
        client.command(desk, "Application", "Unregister", &json!({}));
    }));
}

#[test]
fn the_brokers_own_close_decides_what_becomes_of_the_session() {
    // A drain, a peer that does not answer pings, and one that takes nothing.
    assert!(is_away_after(Limits::default(), |desk, client| {
        client.handle(desk, Input::Restart);
        assert_eq!(client.closed, Some(CloseCode::Restart));
    }));
    assert!(is_away_after(Limits::default(), |desk, client| {
        while client.closed.is_none() {
            desk.core.now = client.connection.deadline().unwrap();
            client.handle(desk, Input::Timeout);
        }
        assert_eq!(client.closed, Some(CloseCode::HeartbeatMissed));
    }));
    let slow = Limits { slow_consumer: Duration::from_secs(1), ..Limits::default() };
    assert!(is_away_after(slow, |desk, client| {
        client.handle(desk, Input::Blocked);
        desk.core.now += Duration::from_secs(1);
        client.handle(desk, Input::Timeout);
        assert_eq!(client.closed, Some(CloseCode::SlowConsumer));
    }));
    // Malformed messages, and an overflow.
    assert!(!is_away_after(Limits { malformed: 2, ..Limits::default() }, |desk, client| {
        client.say(desk, "x");
        client.say(desk, "x");
        assert_eq!(client.closed, Some(CloseCode::Policy));
    }));
    assert!(!is_away_after(Limits { outbound_messages: 2, ..Limits::default() }, |desk, client| {
        let phone = desk.core.attach("phone", Some("alice"));
        for _ in 0..3 {
            desk.core.send(&phone, &event("Phone/Call/Ring", "")).ok();
        }
        desk.core.router.detach(desk.now(), &phone);
        let end = client.connection.ended().unwrap();
        client.handle(desk, Input::Ended(end));
        assert_eq!(client.closed, Some(CloseCode::SlowConsumer));
    }));
}

#[test]
fn what_waits_when_the_broker_closes_is_sent_and_kept() {
    let desk = desk(Limits::default());
    let mut client = desk.begin("gadget");
    client.subscribe(&desk, "Phone/Call/*");
    let phone = desk.core.attach("phone", Some("alice"));
    for number in 1..=3 {
        desk.core.send(&phone, &event("Phone/Call/Ring", &format!(r#","data":{number}"#))).unwrap();
    }
    client.handle(&desk, Input::Restart);
    assert_eq!(client.closed, Some(CloseCode::Restart));
    // The client has received only the first of them when the connection ends.
    assert_eq!(client.take(&desk, usize::MAX).len(), 3);
    client.received -= 2;
    let data = client.resume(&desk);
    assert_eq!((&data["Resumed"], &data["Replayed"]), (&json!(true), &json!(2)), "{data}");
    assert_eq!(client.payloads(&desk), [json!(2), json!(3)]);
}

#[test]
fn a_session_that_is_not_resumable_ends_with_its_connection() {
    let desk = desk(Limits::default());
    let mut client = desk.begin("gadget");
    client.command(&desk, "Application", "Unregister", &json!({}));
    client.take(&desk, usize::MAX);
    assert_eq!(client.register(&desk, &json!(false)).get("Resumed"), None);
    client.lose(&desk);
    assert_eq!(desk.core.router.size(), Size::default());
}

#[test]
fn a_session_goes_on_with_its_rate_and_its_echo() {
    let desk = desk(Limits { rate: 10, burst: 2, ..Limits::default() });
    let mut client = desk.begin("gadget");
    client.subscribe(&desk, "Phone/Call/*");
    for _ in 0..3 {
        client.say(&desk, &event("Phone/Call/Ring", ""));
    }
    assert!(!client.connection.reads(), "it is over its rate");
    client.lose(&desk);
    assert_eq!(client.resume(&desk)["Received"], 4);
    client.say(&desk, &event("Phone/Call/Ring", ""));
    assert!(!client.connection.reads(), "it is still over its rate");
    assert!(client.take(&desk, usize::MAX).is_empty());
}
