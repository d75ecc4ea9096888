//! What the benches of the router have in common: a broker's core without sockets, with sessions in one user's scope.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use switchboard::auth::{Identity, Permission, Permissions, Principal, Rights};
use switchboard::config::Config;
use switchboard::router::{Ids, Outbox, OutboxLimits, Policy, Registration, Router, Session};
use switchboard::telemetry::recorder::Recorder;
use switchboard::websocket::Frame;
use wire::command::{Recover, Role, Subscribe};
use wire::{DecodeLimits, Pattern, decode};

/// A router, and the time at which everything in it happens.
pub(crate) struct Broker {
    pub(crate) router: Router,
    pub(crate) now: Instant,
}

impl Broker {
    pub(crate) fn new() -> Self {
        Self::with(&Config::default())
    }

    /// A broker with this configuration.
    pub(crate) fn with(config: &Config) -> Self {
        let now = tokio::time::Instant::now().into_std();
        let policy = Policy::new(config);
        let router = Router::new(now, SystemTime::UNIX_EPOCH, policy, Ids::seeded(1), Vec::new());
        Self { router: router.with_recorder(recorder(now)), now }
    }

    /// A session of the user that all sessions here are of.
    pub(crate) fn attach(&self, source: &str) -> Arc<Session> {
        self.attach_as(source, None)
    }

    /// The same, with restricted rights.
    pub(crate) fn attach_as(&self, source: &str, rights: Option<Arc<Rights>>) -> Arc<Session> {
        self.router.attach(self.now, registration(source, rights)).unwrap()
    }

    /// Subscribes to a pattern written `channel/topic/subtopic`.
    pub(crate) fn subscribe(&self, member: &Arc<Session>, pattern: &str, role: Role) {
        let pattern: Pattern = pattern.parse().unwrap();
        let wanted = Subscribe::new(pattern, role);
        self.router.subscribe(self.now, member, &wanted, |_| None).unwrap();
    }

    /// Subscribes to a pattern on a channel with history, and takes the last events of its log. Returns how many.
    #[allow(dead_code, reason = "not every bench replays")]
    pub(crate) fn recover(&self, member: &Arc<Session>, pattern: &str, last: u64, batch: &mut Vec<Frame>) -> usize {
        let wanted = Subscribe {
            recover: Some(Recover::Last(last)),
            ..Subscribe::new(pattern.parse().unwrap(), Role::Subscriber)
        };
        self.router.subscribe(self.now, member, &wanted, |_| None).unwrap();
        let outbox = member.outbox();
        while !outbox.is_empty() {
            let taken = outbox.take(self.now, 256, batch);
            if let Some(mut replay) = taken.and_then(|taken| taken.replay)
                && !self.router.pull(&mut replay, 256, batch)
            {
                outbox.put_back(replay);
            }
        }
        batch.len()
    }

    /// Decodes a text and routes it.
    pub(crate) fn send(&self, sender: &Arc<Session>, text: &str) {
        let envelope = decode(text, DecodeLimits::client(128)).unwrap();
        self.router.route(self.now, sender, &envelope).unwrap();
    }
}

/// A flight recorder of the default size.
pub(crate) fn recorder(now: Instant) -> Arc<Recorder> {
    Arc::new(Recorder::new(now, SystemTime::UNIX_EPOCH, Config::default().recorder.bytes))
}

/// What registers a session of that user.
pub(crate) fn registration(source: &str, rights: Option<Arc<Rights>>) -> Registration {
    let identity = Identity::unproved(
        Principal::User("agent@example.com".into()),
        Permissions { request: Permission::All, rights, ..Permissions::default() },
    );
    let outbox = Outbox::new(OutboxLimits { messages: 1024, bytes: 8 << 20, refuses: false });
    Registration { source: source.to_owned(), identity, echo: false, address: None, outbox, will: None }
}

/// Takes the one frame that waits for a session. `batch` is reused, as a session's task does.
pub(crate) fn take(now: Instant, member: &Session, batch: &mut Vec<Frame>) -> Frame {
    member.outbox().take(now, usize::MAX, batch);
    let frame = batch.pop().unwrap();
    assert!(batch.is_empty(), "one message was sent");
    frame
}

/// An event's text with a payload of `bytes` bytes.
pub(crate) fn event(triple: [&str; 3], bytes: usize) -> String {
    let [channel, topic, subtopic] = triple;
    let payload = "x".repeat(bytes.saturating_sub(2));
    format!(
        r#"{{"channel":"{channel}","topic":"{topic}","subtopic":"{subtopic}","source":"softphone","data":"{payload}"}}"#
    )
}
