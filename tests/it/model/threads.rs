//! [`Live`]: a router that several threads use in real time, until they are told to end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime};

use serde_json::Value;
use switchboard::auth::{Identity, Permissions, Principal};
use switchboard::config::Config;
use switchboard::router::{Ids, Outbox, Policy, Registration, Router, Session};
use wire::command::{Role, Subscribe};
use wire::{DecodeLimits, decode};

use crate::support::core::WIDE;

/// The router, and whether its threads are to end.
pub(super) struct Live {
    pub(super) router: Router,
    over: AtomicBool,
}

#[expect(clippy::disallowed_methods, reason = "real threads, real time")]
pub(super) fn now() -> Instant {
    Instant::now()
}

impl Live {
    pub(super) fn new(config: &Config) -> Self {
        let router = Router::new(now(), SystemTime::UNIX_EPOCH, Policy::new(config), Ids::seeded(1), Vec::new());
        Self { router, over: AtomicBool::new(false) }
    }

    /// Whether the threads go on.
    pub(super) fn runs(&self) -> bool {
        !self.over.load(Ordering::SeqCst)
    }

    /// Tells the threads to end.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    /// A session of alice, whose queue holds everything.
    pub(super) fn attach(&self, source: &str) -> Arc<Session> {
        let identity = Identity::unproved(Principal::User("alice".into()), Permissions::default());
        let outbox = Outbox::new(WIDE);
        let registration =
            Registration { source: source.into(), identity, echo: false, address: None, outbox, will: None };
        self.router.attach(now(), registration).unwrap()
    }

    pub(super) fn subscribe(&self, session: &Arc<Session>, pattern: &str, role: Role) {
        self.router.subscribe(now(), session, &Subscribe::new(pattern.parse().unwrap(), role), |_| None).unwrap();
    }

    /// Sends an envelope. Returns whether it was accepted.
    pub(super) fn send(&self, session: &Arc<Session>, text: &str) -> bool {
        self.router.route(now(), session, &decode(text, DecodeLimits::default()).unwrap()).is_ok()
    }
}

/// Everything that waits for a session.
pub(super) fn take(session: &Session) -> Vec<Value> {
    let mut frames = Vec::new();
    session.outbox().take(now(), usize::MAX, &mut frames);
    frames.iter().map(|frame| serde_json::from_str(frame.text()).unwrap()).collect()
}
