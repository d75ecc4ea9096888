//! [`Desk`]: a router in which A is alice's gadget and asks why B did not get it.

use std::sync::Arc;
use std::time::Duration;

use switchboard::auth::{Permission, Permissions, Users};
use switchboard::config::{AuthMode, Channel, Config, LogBounds, Overflow, Scope};
use switchboard::router::explain::{About, Explanation};
use switchboard::router::{Ending, OutboxLimits, Session};
use wire::command::{Role, Subscribe};
use wire::{CloseCode, DecodeLimits, Envelope, decode};

use crate::support::core::{Core, WIDE, event};

/// A router with A in it.
pub(crate) struct Desk {
    pub(crate) core: Core,
    pub(crate) a: Arc<Session>,
}

/// What an application may do for which nothing is configured: all general rights, no grant to handle.
pub(crate) fn ordinary() -> Permissions {
    Permissions { request: Permission::All, ..Permissions::default() }
}

/// The same for a supervisor.
pub(crate) fn supervisor() -> Permissions {
    Permissions { observe: Users::All, ..ordinary() }
}

pub(crate) fn handler(answers: bool, ordered: bool) -> Role {
    Role::Handler { answers, ordered, replies: Vec::new() }
}

/// The channels of all situations: `Queue` is shared, `Ticker` drops its oldest events, `Log` has history.
pub(crate) fn config() -> Config {
    let mut config = Config { auth: AuthMode::Tokens, ..Config::default() };
    config.channels.insert("Queue".into(), Channel { scope: Scope::Shared, ..Channel::default() });
    config.channels.insert("Ticker".into(), Channel { overflow: Overflow::DropOldest, ..Channel::default() });
    let bounds = LogBounds { size: 10, ttl: Duration::from_mins(10) };
    config.channels.insert("Log".into(), Channel { history: Some(bounds), ..Channel::default() });
    config
}

impl Desk {
    pub(crate) fn new() -> Self {
        Self::with(ordinary())
    }

    /// A desk whose A has these permissions.
    pub(crate) fn with(permissions: Permissions) -> Self {
        let core = Core::new(&config());
        let a = core.attach_as("gadget", Some("alice"), permissions);
        Self { core, a }
    }

    /// An application of alice.
    pub(crate) fn alice(&self, source: &str) -> Arc<Session> {
        self.core.attach_as(source, Some("alice"), ordinary())
    }

    /// An application of alice with a narrow queue.
    pub(crate) fn narrow(&self, source: &str, messages: usize) -> Arc<Session> {
        self.core.attach_with(source, Some("alice"), OutboxLimits { messages, ..WIDE })
    }

    pub(crate) fn handle(&self, session: &Arc<Session>, pattern: &str) {
        self.handle_as(session, pattern, handler(true, false));
    }

    pub(crate) fn handle_as(&self, session: &Arc<Session>, pattern: &str, role: Role) {
        self.core.subscribe_as(session, &Subscribe::new(pattern.parse().unwrap(), role));
    }

    pub(crate) fn subscribe_with(&self, session: &Arc<Session>, pattern: &str, change: impl FnOnce(&mut Subscribe)) {
        let mut wanted = Subscribe::new(pattern.parse().unwrap(), Role::Subscriber);
        change(&mut wanted);
        self.core.subscribe_as(session, &wanted);
    }

    pub(crate) fn send(&self, session: &Arc<Session>, triple: &str, more: &str) {
        self.core.send(session, &event(triple, more)).unwrap_or_else(|denied| panic!("{}", denied.refusal));
    }

    /// A's session of this source ends, because the broker closes it.
    pub(crate) fn close(&self, session: &Arc<Session>, code: CloseCode) {
        self.core.router.leave(self.core.now, session, 0, Ending::Closed(code), None);
    }

    /// Time passes.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.core.now += time;
        self.core.router.expire(self.core.now);
    }

    /// What an operator is told of an envelope of A.
    pub(crate) fn explain(&self, triple: &str, more: &str, about: Option<About<'_>>) -> Explanation {
        self.explain_of(&self.a, triple, more, about)
    }

    /// The same of an envelope of another session.
    pub(crate) fn explain_of(
        &self,
        sender: &Arc<Session>,
        triple: &str,
        more: &str,
        about: Option<About<'_>>,
    ) -> Explanation {
        explained(triple, more, |envelope| self.core.router.explain(self.core.now, sender, envelope, about.as_ref()))
    }

    /// What a session is told of an envelope of its own.
    pub(crate) fn explain_to(
        &self,
        session: &Arc<Session>,
        triple: &str,
        more: &str,
        about: Option<About<'_>>,
    ) -> Explanation {
        let router = &self.core.router;
        explained(triple, more, |envelope| router.explain_to_sender(self.core.now, session, envelope, about.as_ref()))
    }
}

/// The answer about the envelope on a triple with further fields.
fn explained(triple: &str, more: &str, explain: impl FnOnce(&Envelope<'_>) -> Explanation) -> Explanation {
    let text = event(triple, more);
    explain(&decode(&text, DecodeLimits::default()).unwrap())
}
