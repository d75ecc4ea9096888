//! Two connections and one session, in many of the orders in which their threads can take its locks.
//!
//! Connections, router and outboxes are the real ones. At each lock that they share, shuttle decides which thread goes on
//! (see `router/sync.rs`). It reports a lost wake-up as a deadlock.

use std::future::poll_fn;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use serde_json::{Value, json};
use shuttle::{future, thread};
use wire::command::{Role, Subscribe};
use wire::{CloseCode, DecodeLimits, decode};

use super::tests::{alice, start};
use super::{Connection, Effect, Gone, Input, Settings};
use crate::config::{Channel, Config, Limits, LogBounds};
use crate::router::{Ids, Outbox, OutboxLimits, Policy, Registration, Router, Session, Size, race};
use crate::websocket::Frame;

/// What is published to the session, of which [`KEPT`] are in a log when it subscribes.
const EVENTS: u64 = 6;
const KEPT: u64 = 3;

/// What the application sends: notes, and acknowledgements between them.
const MESSAGES: u64 = 6;

/// A router, and what its connections share.
struct Stage {
    router: Router,
    now: Instant,
    settings: Arc<Settings>,
    /// Receives the notes.
    notes: Arc<Session>,
    /// Publishes the events.
    phone: Arc<Session>,
    client: Mutex<Client>,
}

/// The application, as both of its connections know it.
struct Client {
    token: String,
    /// Which of its connections counts.
    connection: usize,
    /// How many messages of its session it has received.
    received: u64,
    /// The events that it has handled.
    events: Vec<u64>,
    /// What its second connection was told.
    resumed: Option<bool>,
}

impl Stage {
    /// A stage, and the first connection, which is subscribed to the events.
    fn new() -> (Arc<Self>, Connection) {
        let mut config = Config::default();
        let history = Some(LogBounds { size: 100, ttl: Duration::from_mins(10) });
        config.channels.insert("Phone".into(), Channel { history, ..Channel::default() });
        let now = start();
        let router = Router::new(now, SystemTime::UNIX_EPOCH, Policy::new(&config), Ids::seeded(1), Vec::new());
        let [notes, phone] = ["notes", "phone"].map(|source| attach(&router, now, source));
        let wanted = Subscribe::new("Notes/*/*".parse().unwrap(), Role::Subscriber);
        router.subscribe(now, &notes, &wanted, |_| None).unwrap();
        let settings = Arc::new(Settings::new(Limits { rate: 0, ..Limits::default() }));
        let (token, events) = (String::new(), Vec::new());
        let client = Mutex::new(Client { token, connection: 1, received: 0, events, resumed: None });
        let stage = Arc::new(Self { router, now, settings, notes, phone, client });
        (1..=KEPT).for_each(|number| stage.publish(number));
        let (mut connection, reply) = stage.register(&json!(true));
        reply["ResumeToken"].as_str().unwrap().clone_into(&mut stage.client.lock().token);
        let data = json!({"channel": "Phone", "recover": {"last": KEPT}});
        let subscribe = json!({"channel": "Broker", "topic": "Subscription", "subtopic": "Subscribe", "data": data});
        assert!(stage.say(&mut connection, &subscribe.to_string()).is_none());
        (stage, connection)
    }

    fn say(&self, connection: &mut Connection, text: &str) -> Option<Effect> {
        connection.handle(self.now, Input::Text(text), &self.router)
    }

    fn publish(&self, number: u64) {
        self.route(&self.phone, &json!({"channel": "Phone", "topic": "Call", "subtopic": "Ring", "data": number}));
    }

    fn route(&self, session: &Arc<Session>, message: &Value) {
        let text = message.to_string();
        let envelope = decode(&text, DecodeLimits::default()).unwrap();
        assert!(self.router.route(self.now, session, &envelope).is_ok());
    }

    /// Registers the application on a connection of its own. Returns `data` of the reply.
    fn register(&self, resume: &Value) -> (Connection, Value) {
        let will = json!({"channel": "Notes", "topic": "Will", "subtopic": "New"});
        let register = json!({"channel": "Broker", "topic": "Application", "subtopic": "Register", "source": "gadget",
            "data": {"resume": resume, "will": will}});
        let mut connection = Connection::new(self.now, Ipv4Addr::LOCALHOST.into(), Arc::clone(&self.settings), 1);
        assert!(matches!(self.say(&mut connection, &register.to_string()), Some(Effect::Verify(_))));
        assert!(connection.handle(self.now, Input::Verified(Ok(alice())), &self.router).is_none());
        let mut frames = Vec::new();
        connection.take(self.now, 1, &self.router, &mut frames);
        let reply: Value = serde_json::from_str(frames[0].text()).unwrap();
        (connection, reply["data"].clone())
    }

    /// The application's message with this number.
    fn message(&self, number: u64) -> String {
        match number % 2 {
            1 => json!({"channel": "Notes", "topic": "Note", "subtopic": "New", "data": number}),
            _ => {
                let received = self.client.lock().received;
                json!({"channel": "Broker", "topic": "Connection", "subtopic": "Acknowledge",
                    "data": {"received": received}})
            }
        }
        .to_string()
    }

    /// How many notes have been routed.
    fn notes_routed(&self) -> u64 {
        self.notes.outbox().depth().messages as u64
    }

    /// Takes what there is on a connection with this number. Returns whether that connection still counts.
    fn take(&self, connection: &mut Connection, number: usize) -> bool {
        let mut frames = Vec::new();
        connection.take(self.now, 2, &self.router, &mut frames);
        let mut client = self.client.lock();
        if client.connection != number {
            // What this connection has taken is lost on its way.
            return false;
        }
        for frame in frames {
            let message: Value = serde_json::from_str(frame.text()).unwrap();
            client.received += 1;
            if message["channel"] == "Phone" {
                client.events.push(message["data"].as_u64().unwrap());
            }
        }
        true
    }

    /// Uses the first connection: sends, takes, and is told when the other one replaces it. If `is_lost`, it ends without a
    /// Close frame after some steps.
    fn use_first(&self, mut connection: Connection, is_lost: bool) {
        let steps = if is_lost { 3 } else { usize::MAX };
        let mut next = 1;
        for _ in 0..steps {
            if connection.reads() && next <= MESSAGES {
                let text = self.message(next);
                next += 1;
                if let Some(effect) = self.say(&mut connection, &text) {
                    return self.check_replaced(&mut connection, Some(effect));
                }
            } else {
                wait(&connection);
            }
            if let Some(end) = connection.ended() {
                let effect = connection.handle(self.now, Input::Ended(end), &self.router);
                return self.check_replaced(&mut connection, effect);
            }
            self.take(&mut connection, 1);
            if connection.poll_pause(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_ready() {
                connection.handle(self.now, Input::Relieved, &self.router);
            }
        }
        connection.handle(self.now, Input::Gone(Gone::Lost), &self.router);
    }

    /// The connection was replaced: it says so, and closes.
    fn check_replaced(&self, connection: &mut Connection, effect: Option<Effect>) {
        let Some(Effect::Close(close)) = effect else { panic!("{effect:?}") };
        assert_eq!(close.code(), CloseCode::Replaced);
        let mut frames = Vec::new();
        connection.take(self.now, usize::MAX, &self.router, &mut frames);
        let texts: Vec<&str> = frames.iter().map(Frame::text).collect();
        assert!(texts.len() == 1 && texts[0].contains("Replaced"), "{texts:?}");
    }

    /// Takes the session over, and uses it until everything has arrived.
    fn use_second(&self) {
        let resume = {
            let mut client = self.client.lock();
            client.connection = 2;
            json!({"token": client.token, "received": client.received})
        };
        let (mut connection, reply) = self.register(&resume);
        let is_resumed = reply["Resumed"].as_bool().unwrap();
        self.client.lock().resumed = Some(is_resumed);
        if !is_resumed {
            assert_eq!(reply["ResumeReason"], "UNKNOWN", "{reply}");
            connection.handle(self.now, Input::Gone(Gone::ByPeer(Some(1000))), &self.router);
            return;
        }
        // The subscription was the first message.
        let taken_in = reply["Received"].as_u64().unwrap() - 1;
        for number in taken_in + 1..=MESSAGES {
            assert_eq!(self.notes_routed(), number / 2, "of {taken_in} messages that were taken in");
            assert!(self.say(&mut connection, &self.message(number)).is_none());
        }
        while self.client.lock().events.len() < usize::try_from(EVENTS).unwrap() {
            wait(&connection);
            assert_eq!(connection.ended(), None);
            assert!(self.take(&mut connection, 2));
        }
        let mut unregister = json!({"channel": "Broker", "topic": "Application", "subtopic": "Unregister"});
        unregister["source"] = "gadget".into();
        assert!(self.say(&mut connection, &unregister.to_string()).is_none());
        connection.handle(self.now, Input::Gone(Gone::ByPeer(Some(1000))), &self.router);
    }

    /// What waits for the session that receives notes.
    fn notes(&self) -> Vec<Value> {
        let mut frames = Vec::new();
        self.notes.outbox().take(self.now, usize::MAX, &mut frames);
        frames.iter().map(|frame| serde_json::from_str(frame.text()).unwrap()).collect()
    }

    /// Ends the sessions that take no part in the race, and checks that nothing is left.
    fn check_nothing_is_left(&self) {
        for session in [&self.notes, &self.phone] {
            self.router.detach(self.now, session);
        }
        let size = self.router.size();
        let logs =
            Size { logs: size.logs, log_entries: size.log_entries, log_bytes: size.log_bytes, ..Size::default() };
        assert_eq!(size, logs);
    }
}

/// Waits until there is something to take, or the outbox has ended for this connection.
fn wait(connection: &Connection) {
    future::block_on(poll_fn(|cx| connection.poll_ready(cx)));
}

fn attach(router: &Router, now: Instant, source: &str) -> Arc<Session> {
    let outbox = Outbox::new(OutboxLimits { messages: 1000, bytes: 1 << 20, refuses: false });
    let source = source.to_owned();
    let registration = Registration { source, identity: alice(), echo: false, address: None, outbox, will: None };
    router.attach(now, registration).unwrap()
}

/// Two connections and a publisher. What arrives in both directions is complete and in order.
fn check_takeover(is_lost: bool) {
    race(move || {
        let (stage, first) = Stage::new();
        let threads = [
            spawn(&stage, move |stage| stage.use_first(first, is_lost)),
            spawn(&stage, Stage::use_second),
            spawn(&stage, |stage| (KEPT + 1..=EVENTS).for_each(|number| stage.publish(number))),
        ];
        for thread in threads {
            thread.join().unwrap();
        }
        let client = stage.client.lock();
        assert_eq!((client.resumed, &client.events), (Some(true), &(1..=EVENTS).collect()));
        drop(client);
        let notes: Vec<u64> = stage.notes().iter().map(|note| note["data"].as_u64().unwrap()).collect();
        assert_eq!(notes, (1..=MESSAGES).step_by(2).collect::<Vec<_>>());
        stage.check_nothing_is_left();
    });
}

fn spawn(stage: &Arc<Stage>, run: impl FnOnce(&Stage) + Send + 'static) -> thread::JoinHandle<()> {
    let stage = Arc::clone(stage);
    thread::spawn(move || run(&stage))
}

#[test]
fn a_takeover_loses_nothing_and_repeats_nothing_in_any_order() {
    check_takeover(false);
}

#[test]
fn a_connection_that_is_lost_during_a_takeover_does_not_take_the_session_with_it() {
    check_takeover(true);
}

#[test]
fn a_session_whose_grace_ends_resumes_or_ends_with_its_will() {
    race(|| {
        let (stage, mut first) = Stage::new();
        stage.take(&mut first, 1);
        first.handle(stage.now, Input::Gone(Gone::Lost), &stage.router);
        let grace = Duration::from_secs(30);
        let threads = [
            spawn(&stage, Stage::use_second),
            spawn(&stage, move |stage| stage.router.expire(stage.now + grace)),
            spawn(&stage, |stage| (KEPT + 1..=EVENTS).for_each(|number| stage.publish(number))),
        ];
        for thread in threads {
            thread.join().unwrap();
        }
        let wills = stage.notes().iter().filter(|note| note["topic"] == "Will").count();
        let client = stage.client.lock();
        match client.resumed.unwrap() {
            true => assert_eq!((wills, &client.events), (0, &(1..=EVENTS).collect())),
            false => assert_eq!(wills, 1),
        }
        drop(client);
        stage.check_nothing_is_left();
    });
}
