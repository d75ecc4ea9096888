//! Connections on many threads take one session over from each other, while others publish to it and it publishes itself: what
//! arrives in both directions is complete and in order, and nothing is left in the end.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use parking_lot::Mutex;
use serde_json::{Value, json};
use switchboard::config::Config;
use switchboard::connection::{Connection, Gone, Input};
use switchboard::router::Size;

use crate::support::client::{Desk, alice};
use crate::support::core::event;

/// Messages in each direction.
const MESSAGES: usize = 4_000;

/// The one client, whose connections are on many threads.
struct Shared {
    token: String,
    /// Which of its connections counts.
    connection: usize,
    received: u64,
    /// The events that it has handled.
    events: Vec<Value>,
    /// How many messages it has sent, of those that it has to send.
    sent: usize,
}

/// The messages that the client sends: a subscription, then events.
fn message(number: usize) -> String {
    match number {
        0 => json!({"channel": "Broker", "topic": "Subscription", "subtopic": "Subscribe",
            "data": {"channel": "Phone", "topic": "Call", "subtopic": "Ring"}})
        .to_string(),
        number => event("Phone/Note/New", &format!(r#","data":{number}"#)),
    }
}

struct Stage<'a> {
    desk: &'a Desk,
    client: &'a Mutex<Shared>,
    takeovers: &'a AtomicUsize,
    is_over: &'a AtomicBool,
}

impl Stage<'_> {
    /// Takes the session over, uses it for a while, and does so again.
    fn use_session(&self, thread: usize) {
        let mut round = 0;
        while !self.is_over.load(Ordering::SeqCst) {
            round += 1;
            let Some((mut connection, number)) = self.take_over() else { continue };
            for step in 0..3 + (thread + round) % 20 {
                if !self.step(&mut connection, number, step) {
                    break;
                }
            }
            // Some connections are lost, others are still there when the next one arrives.
            if round % 3 == 0 {
                connection.handle(self.desk.now(), Input::Gone(Gone::Lost), &self.desk.core.router);
            }
        }
    }

    /// Resumes the session. Returns the connection, and its number as the client knows it.
    fn take_over(&self) -> Option<(Connection, usize)> {
        // The client as a whole waits for the reply, so only one of its connections registers at a time.
        let mut client = self.client.lock();
        if self.is_over.load(Ordering::SeqCst) {
            return None;
        }
        client.connection += 1;
        let resume = json!({"token": client.token, "received": client.received});
        let (connection, data) = register(self.desk, &resume);
        assert_eq!(data["Resumed"], true, "{data}");
        data["ResumeToken"].as_str().unwrap().clone_into(&mut client.token);
        // The broker has not taken in what follows.
        client.sent = usize::try_from(data["Received"].as_u64().unwrap()).unwrap();
        self.takeovers.fetch_add(1, Ordering::Relaxed);
        Some((connection, client.connection))
    }

    /// Sends or takes something on a connection. Returns whether the connection still counts.
    fn step(&self, connection: &mut Connection, number: usize, step: usize) -> bool {
        let (now, router) = (self.desk.now(), &self.desk.core.router);
        let next = {
            let mut client = self.client.lock();
            if client.connection != number {
                return false;
            }
            let next = client.sent;
            client.sent += usize::from(next < MESSAGES);
            next
        };
        // Meanwhile another connection may take over: then the broker does not take this one in.
        if next < MESSAGES && connection.handle(now, Input::Text(&message(next)), router).is_some() {
            return false;
        }
        let mut frames = Vec::new();
        connection.take(now, 1 + step % 7, router, &mut frames);
        let mut client = self.client.lock();
        if client.connection != number {
            // What this connection has taken is lost on its way.
            return false;
        }
        for frame in frames.iter().filter(|frame| !frame.is_empty()) {
            let message: Value = serde_json::from_str(frame.text()).unwrap();
            if message["subtopic"] == "Replaced" {
                return false;
            }
            client.received += 1;
            if message["channel"] == "Phone" {
                client.events.push(message["data"].clone());
            }
        }
        let is_complete = client.events.len() >= MESSAGES && client.sent >= MESSAGES;
        if is_complete {
            self.is_over.store(true, Ordering::SeqCst);
        }
        true
    }
}

/// Registers on a connection of its own. Returns `data` of the reply.
fn register(desk: &Desk, resume: &Value) -> (Connection, Value) {
    let (now, router) = (desk.now(), &desk.core.router);
    let register = json!({"channel": "Broker", "topic": "Application", "subtopic": "Register", "source": "gadget",
        "data": {"resume": resume}});
    let mut connection = desk.connect();
    connection.handle(now, Input::Text(&register.to_string()), router);
    assert!(connection.handle(now, Input::Verified(Ok(alice())), router).is_none());
    let mut frames = Vec::new();
    connection.take(now, 1, router, &mut frames);
    let reply: Value = serde_json::from_str(frames[0].text()).unwrap();
    (connection, reply["data"].clone())
}

#[test]
fn connections_that_take_one_session_over_from_each_other_lose_nothing_and_repeat_nothing() {
    let mut config = Config::default();
    (config.limits.rate, config.limits.outbound_messages) = (0, 100_000);
    let desk = &Desk::new(&config);
    let note_taker = desk.core.attach("notes", Some("alice"));
    desk.core.subscribe(&note_taker, "Phone/Note/New");
    let (mut first, data) = register(desk, &json!(true));
    first.handle(desk.now(), Input::Text(&message(0)), &desk.core.router);
    let token = data["ResumeToken"].as_str().unwrap().to_owned();
    let client = &Mutex::new(Shared { token, connection: 0, received: 0, events: Vec::new(), sent: 1 });
    let (takeovers, is_over) = (&AtomicUsize::new(0), &AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            let phone = desk.core.attach("phone", Some("alice"));
            for number in 0..MESSAGES {
                let text = event("Phone/Call/Ring", &format!(r#","data":{number}"#));
                assert_eq!(desk.core.send(&phone, &text).ok().and_then(|it| it.receipt).unwrap().receivers, 1);
                if number % 64 == 0 {
                    thread::yield_now();
                }
            }
            desk.core.router.detach(desk.now(), &phone);
        });
        for thread in 0..4 {
            let stage = Stage { desk, client, takeovers, is_over };
            scope.spawn(move || stage.use_session(thread));
        }
    });
    drop(first);
    let client = client.lock();
    let expected: Vec<Value> = (0..MESSAGES).map(Value::from).collect();
    assert_eq!(client.events.len(), expected.len());
    assert_eq!(client.events, expected);
    let notes: Vec<Value> = desk.core.take(&note_taker).into_iter().map(|mut note| note["data"].take()).collect();
    assert_eq!(notes, (1..MESSAGES).map(Value::from).collect::<Vec<_>>());
    assert!(takeovers.load(Ordering::Relaxed) > 100, "{takeovers:?}");
    desk.core.router.detach(desk.now(), &note_taker);
    let (mut last, data) = register(desk, &json!({"token": client.token, "received": client.received}));
    assert_eq!(data["Resumed"], true, "{data}");
    let unregister = r#"{"channel":"Broker","topic":"Application","subtopic":"Unregister"}"#;
    last.handle(desk.now(), Input::Text(unregister), &desk.core.router);
    assert_eq!(desk.core.router.size(), Size::default(), "nothing is left");
}
