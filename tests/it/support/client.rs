//! [`Client`]: an application that resumes, on connections without sockets. It counts as docs/protocol.md says.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Instant;

use serde_json::{Value, json};
use switchboard::auth::{Identity, Permissions, Principal};
use switchboard::config::Config;
use switchboard::connection::{Connection, Effect, Gone, Input, Settings};
use wire::CloseCode;

use super::core::Core;

/// A router, and what its connections share.
pub(crate) struct Desk {
    pub(crate) core: Core,
    settings: Arc<Settings>,
}

/// One application, and the connection that it has.
pub(crate) struct Client {
    pub(crate) connection: Connection,
    /// Who it is.
    identity: Identity,
    pub(crate) source: &'static str,
    pub(crate) token: String,
    /// How many messages of its session it has received.
    pub(crate) received: u64,
    /// What its connection was closed with.
    pub(crate) closed: Option<CloseCode>,
}

impl Desk {
    pub(crate) fn new(config: &Config) -> Self {
        Self { core: Core::new(config), settings: Arc::new(Settings::new(config.limits.clone())) }
    }

    /// The desk of a router.
    pub(crate) fn of(core: Core, config: &Config) -> Self {
        Self { core, settings: Arc::new(Settings::new(config.limits.clone())) }
    }

    pub(crate) fn now(&self) -> Instant {
        self.core.now
    }

    pub(crate) fn connect(&self) -> Connection {
        Connection::new(self.now(), IpAddr::V4(Ipv4Addr::LOCALHOST), Arc::clone(&self.settings), 1)
    }

    /// Registers a resumable session of alice.
    pub(crate) fn begin(&self, source: &'static str) -> Client {
        self.begin_with(source, &json!({"resume": true}))
    }

    /// The same with these options of Register.
    pub(crate) fn begin_with(&self, source: &'static str, options: &Value) -> Client {
        self.begin_as(alice(), source, options)
    }

    /// Registers a resumable session of a service.
    pub(crate) fn begin_service(&self, source: &'static str) -> Client {
        let service = Identity::unproved(Principal::Service, Permissions::all());
        self.begin_as(service, source, &json!({"resume": true}))
    }

    /// An application that has not registered.
    pub(crate) fn client(&self, identity: Identity, source: &'static str) -> Client {
        Client { connection: self.connect(), identity, source, token: String::new(), received: 0, closed: None }
    }

    /// Registers a resumable session of this principal.
    pub(crate) fn begin_as(&self, identity: Identity, source: &'static str, options: &Value) -> Client {
        let mut client = self.client(identity, source);
        let reply = client.register_with(self, options);
        assert_eq!(reply["Resumed"], false, "{reply}");
        client
    }
}

/// Alice, whom nothing proves.
pub(crate) fn alice() -> Identity {
    Identity::unproved(Principal::User("alice".into()), Permissions::all())
}

impl Client {
    /// Sends Register, and takes the reply. Returns its `data`.
    pub(crate) fn register(&mut self, desk: &Desk, resume: &Value) -> Value {
        self.register_with(desk, &json!({"resume": resume}))
    }

    fn register_with(&mut self, desk: &Desk, options: &Value) -> Value {
        self.ask_to_register(desk, options);
        self.registered(desk)
    }

    /// Sends Register, and is verified.
    pub(crate) fn ask_to_register(&mut self, desk: &Desk, options: &Value) {
        let register = json!({"channel": "Broker", "topic": "Application", "subtopic": "Register",
            "source": self.source, "data": options});
        let effect = self.handle(desk, Input::Text(&register.to_string()));
        assert!(matches!(effect, Some(Effect::Verify(_))), "{effect:?}");
        assert!(self.handle(desk, Input::Verified(Ok(self.identity.clone()))).is_none());
    }

    /// Takes the reply to Register.
    pub(crate) fn registered(&mut self, desk: &Desk) -> Value {
        let data = self.take(desk, 1).remove(0)["data"].clone();
        if let Some(token) = data["ResumeToken"].as_str() {
            token.clone_into(&mut self.token);
        }
        self.received -= 1;
        data
    }

    /// Returns on another connection. Returns `data` of the reply.
    pub(crate) fn resume(&mut self, desk: &Desk) -> Value {
        self.return_to(desk);
        self.returned(desk)
    }

    /// Begins to return on another connection, perhaps of another node.
    pub(crate) fn return_to(&mut self, desk: &Desk) {
        let resume = json!({"token": self.token, "received": self.received});
        (self.connection, self.closed) = (desk.connect(), None);
        self.ask_to_register(desk, &json!({"resume": resume}));
    }

    /// Lets a Register that waits for its session go on. Returns whether it could.
    pub(crate) fn poll_fetch(&mut self, desk: &Desk) -> bool {
        let is_ready = self.connection.poll_fetch(&mut Context::from_waker(Waker::noop())).is_ready();
        if is_ready {
            assert!(self.handle(desk, Input::Fetched).is_none());
        }
        is_ready
    }

    /// Takes the reply to the Register with which it has returned. Returns its `data`.
    pub(crate) fn returned(&mut self, desk: &Desk) -> Value {
        let data = self.registered(desk);
        if data["Resumed"] == false {
            self.received = 0;
        }
        data
    }

    /// Its connection is lost.
    pub(crate) fn lose(&mut self, desk: &Desk) {
        self.handle(desk, Input::Gone(Gone::Lost));
    }

    /// Sends one message.
    pub(crate) fn say(&mut self, desk: &Desk, text: &str) {
        self.handle(desk, Input::Text(text));
    }

    /// Sends a command.
    pub(crate) fn command(&mut self, desk: &Desk, topic: &str, subtopic: &str, data: &Value) {
        self.say(desk, &json!({"channel": "Broker", "topic": topic, "subtopic": subtopic, "data": data}).to_string());
    }

    /// Subscribes, and takes the reply.
    pub(crate) fn subscribe(&mut self, desk: &Desk, pattern: &str) {
        let [channel, topic, subtopic]: [&str; 3] = pattern.split('/').collect::<Vec<_>>().try_into().unwrap();
        let data = json!({"channel": channel, "topic": topic, "subtopic": subtopic});
        self.command(desk, "Subscription", "Subscribe", &data);
        assert_eq!(self.take(desk, 1)[0]["data"]["Success"], true);
    }

    /// Gives its connection an input.
    pub(crate) fn handle(&mut self, desk: &Desk, input: Input<'_>) -> Option<Effect> {
        let effect = self.connection.handle(desk.now(), input, &desk.core.router);
        if let Some(Effect::Close(close)) = &effect {
            self.closed = Some(close.code());
        }
        effect
    }

    /// Lets its connection go on with what is on disk. Returns whether anything was.
    pub(crate) fn poll_commits(&mut self, desk: &Desk) -> bool {
        let is_ready = self.connection.poll_commits(&mut Context::from_waker(Waker::noop())).is_ready();
        if is_ready {
            self.handle(desk, Input::Committed);
        }
        is_ready
    }

    /// Takes up to `most` messages.
    pub(crate) fn take(&mut self, desk: &Desk, most: usize) -> Vec<Value> {
        let mut frames = Vec::new();
        self.connection.take(desk.now(), most, &desk.core.router, &mut frames);
        let messages: Vec<Value> = frames
            .iter()
            .filter(|frame| !frame.is_empty())
            .map(|frame| serde_json::from_str(frame.text()).unwrap())
            .collect();
        self.received += messages.len() as u64;
        messages
    }

    /// Takes everything. Returns the payloads of events.
    pub(crate) fn payloads(&mut self, desk: &Desk) -> Vec<Value> {
        let messages = self.take(desk, usize::MAX);
        messages.into_iter().filter(|it| it["channel"] != "Broker").map(|mut it| it["data"].take()).collect()
    }
}
