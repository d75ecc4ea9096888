//! [`Core`]: a router without sockets, for tests of what needs threads, many values or a narrow queue.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use serde_json::Value;
use switchboard::auth::{Identity, Permissions, Principal};
use switchboard::config::Config;
use switchboard::router::{Denied, Ids, Outbox, OutboxLimits, Policy, Registration, Routed, Router, Session};
use switchboard::websocket::Frame;
use wire::command::{Role, Subscribe};
use wire::{DecodeLimits, decode};

/// A router, and the time at which everything in it happens.
pub(crate) struct Core {
    pub(crate) router: Router,
    pub(crate) now: Instant,
}

/// Limits that no test reaches.
pub(crate) const WIDE: OutboxLimits = OutboxLimits { messages: 10_000_000, bytes: usize::MAX / 4, refuses: false };

impl Core {
    #[expect(clippy::disallowed_methods, reason = "where the clock begins does not matter")]
    pub(crate) fn new(config: &Config) -> Self {
        let now = Instant::now();
        let router = Router::new(now, SystemTime::UNIX_EPOCH, Policy::new(config), Ids::seeded(1), Vec::new());
        Self { router, now }
    }

    /// Registers a session of a user, or of a service.
    pub(crate) fn attach(&self, source: &str, user: Option<&str>) -> Arc<Session> {
        self.attach_with(source, user, WIDE)
    }

    /// The same, with bounds for its queue.
    pub(crate) fn attach_with(&self, source: &str, user: Option<&str>, limits: OutboxLimits) -> Arc<Session> {
        self.register((source, user), Permissions::all(), limits)
    }

    /// Registers a session that has these permissions.
    pub(crate) fn attach_as(&self, source: &str, user: Option<&str>, permissions: Permissions) -> Arc<Session> {
        self.register((source, user), permissions, WIDE)
    }

    /// Registers a session with a queue of its own.
    pub(crate) fn attach_in(&self, source: &str, user: Option<&str>, outbox: Outbox) -> Arc<Session> {
        let principal = user.map_or(Principal::Service, |user| Principal::User(user.into()));
        let identity = Identity::unproved(principal, Permissions::all());
        let registration =
            Registration { source: source.into(), identity, echo: false, will: None, address: None, outbox };
        self.router.attach(self.now, registration).unwrap()
    }

    /// Registers a session of Alice with a will.
    pub(crate) fn attach_with_will(&self, source: &str, will: Option<String>) -> Arc<Session> {
        let identity = Identity::unproved(Principal::User("alice".into()), Permissions::all());
        let (will, outbox) = (will.map(Into::into), Outbox::new(WIDE));
        let registration = Registration { source: source.into(), identity, echo: false, will, address: None, outbox };
        self.router.attach(self.now, registration).unwrap()
    }

    fn register(
        &self,
        (source, user): (&str, Option<&str>),
        permissions: Permissions,
        limits: OutboxLimits,
    ) -> Arc<Session> {
        let principal = user.map_or(Principal::Service, |user| Principal::User(user.into()));
        let identity = Identity::unproved(principal, permissions);
        let registration = Registration {
            source: source.into(),
            identity,
            echo: false,
            address: None,
            outbox: Outbox::new(limits),
            will: None,
        };
        self.router.attach(self.now, registration).unwrap()
    }

    /// Subscribes to a pattern written `channel/topic/subtopic`.
    pub(crate) fn subscribe(&self, session: &Arc<Session>, pattern: &str) {
        self.subscribe_as(session, &Subscribe::new(pattern.parse().unwrap(), Role::Subscriber));
    }

    pub(crate) fn subscribe_as(&self, session: &Arc<Session>, wanted: &Subscribe) {
        self.router.subscribe(self.now, session, wanted, |_| None).unwrap();
    }

    /// Ends every subscription of a session.
    pub(crate) fn unsubscribe_all(&self, session: &Arc<Session>) {
        for listed in self.router.subscriptions(session) {
            self.router.unsubscribe(self.now, session, &listed.id.to_string()).unwrap();
        }
    }

    /// Routes a text.
    pub(crate) fn send(&self, session: &Arc<Session>, text: &str) -> Result<Routed, Denied> {
        let envelope = decode(text, DecodeLimits::default()).unwrap();
        self.router.route(self.now, session, &envelope)
    }

    /// Takes everything that waits for a session, as its connection does.
    pub(crate) fn take(&self, session: &Session) -> Vec<Value> {
        let mut frames = Vec::new();
        while !session.outbox().is_empty() {
            self.take_some(session, usize::MAX, &mut frames);
        }
        frames.iter().map(|frame| serde_json::from_str(frame.text()).unwrap()).collect()
    }

    /// Takes once from a session's outbox.
    pub(crate) fn take_some(&self, session: &Session, most: usize, frames: &mut Vec<Frame>) {
        let outbox = session.outbox();
        let taken = outbox.take(self.now, most, frames);
        if let Some(mut replay) = taken.and_then(|taken| taken.replay)
            && !self.router.pull(&mut replay, most, frames)
        {
            outbox.put_back(replay);
        }
        session.release_presence(self.now);
    }
}

/// The text of an event with further fields.
pub(crate) fn event(triple: &str, more: &str) -> String {
    let [channel, topic, subtopic] = triple.split('/').collect::<Vec<_>>().try_into().unwrap();
    format!(r#"{{"channel":"{channel}","topic":"{topic}","subtopic":"{subtopic}"{more}}}"#)
}
