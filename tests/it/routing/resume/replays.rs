//! Sessions that lose their connection in the middle of a replay of history.

use std::time::Duration;

use serde_json::{Value, json};
use switchboard::config::{Channel, Config, LogBounds};

use crate::support::client::Desk;
use crate::support::core::event;

const EVENTS: u64 = 1000;

/// The numbers of events, and whether each was replayed.
fn numbers(messages: &[Value]) -> Vec<(u64, bool)> {
    let events = messages.iter().filter(|message| message["channel"] == "Phone");
    events.map(|event| (event["offset"].as_u64().unwrap(), event["replayed"] == true)).collect()
}

#[test]
fn a_replay_goes_on_after_a_resume_and_the_session_is_not_read_before_its_end() {
    let mut config = Config::default();
    let history = Some(LogBounds { size: 2000, ttl: Duration::from_mins(10) });
    config.channels.insert("Phone".into(), Channel { history, ..Channel::default() });
    let desk = Desk::new(&config);
    let phone = desk.core.attach("phone", Some("alice"));
    let publish = || desk.core.send(&phone, &event("Phone/Call/Ring", "")).unwrap();
    (0..EVENTS).for_each(|_| drop(publish()));
    let mut client = desk.begin("gadget");
    let pattern = json!({"channel": "Phone", "topic": "Call", "subtopic": "*", "recover": {"last": EVENTS}});
    client.command(&desk, "Subscription", "Subscribe", &pattern);
    let mut received = client.take(&desk, 11);
    assert_eq!(received.remove(0)["data"]["Replayed"], EVENTS);
    assert!(!client.connection.reads());
    publish();
    client.lose(&desk);
    publish();
    // The last three were sent, and did not arrive.
    client.received -= 3;
    received.truncate(7);
    assert_eq!(client.resume(&desk)["Replayed"], 3);
    assert!(!client.connection.reads());
    publish();
    while numbers(&received).len() < usize::try_from(EVENTS).unwrap() + 3 {
        let more = client.take(&desk, 64);
        assert!(!more.is_empty(), "{} events", numbers(&received).len());
        received.extend(more);
    }
    let expected: Vec<_> = (1..=EVENTS + 3).map(|number| (number, number <= EVENTS)).collect();
    assert_eq!(numbers(&received), expected);
    assert!(client.take(&desk, 64).is_empty());
}
