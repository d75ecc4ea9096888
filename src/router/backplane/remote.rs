//! [`Remote`]: what makes a session the stand-in of a session of another node.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use wire::Refusal;

use super::message::{Id, Message, Part, Request, Sent};
use super::narrowing::everything_elsewhere;
use super::peer::Peer;
use crate::auth::{Identity, Principal};
use crate::router::Outbox;
use crate::router::index::Subscription;
use crate::router::request::Asking;
use crate::router::request::pending::Pending;
use crate::router::session::{Registration, Session};
use crate::router::sync::Mutex;
use crate::websocket::Frame;

/// The session of another node for which a session stands.
pub(in crate::router) struct Remote {
    peer: Arc<Peer>,
    /// The session's id, which names it on every node.
    session: Id,
    /// Since when it has had no connection.
    away_since: Mutex<Option<SystemTime>>,
    is_away: AtomicBool,
    /// How many requests it has that this node did not give it.
    load: AtomicU32,
    /// The request of which it is the requester, if that is what it is for.
    asks: Option<Part>,
}

impl Remote {
    /// The stand-in of a handler, or of a member of a group.
    pub(super) fn handler(peer: &Arc<Peer>, session: Id) -> Self {
        let (away_since, is_away) = (Mutex::default(), AtomicBool::new(false));
        Self { peer: Arc::clone(peer), session, away_since, is_away, load: AtomicU32::new(0), asks: None }
    }

    /// The stand-in of the requester of one request.
    pub(super) fn requester(peer: &Arc<Peer>, part: Part) -> Self {
        Self { asks: Some(part), ..Self::handler(peer, part.handler) }
    }

    pub(super) fn set_away(&self, since: Option<SystemTime>) {
        *self.away_since.lock() = since;
        self.is_away.store(since.is_some(), Ordering::Relaxed);
    }

    /// Since when it has had no connection, by the clock of its node.
    pub(in crate::router) fn away_since(&self) -> Option<SystemTime> {
        *self.away_since.lock()
    }

    pub(super) fn set_load(&self, requests: u32) {
        self.load.store(requests, Ordering::Relaxed);
    }

    /// How many requests it has that this node did not give it, as its node said last.
    pub(super) fn load(&self) -> usize {
        usize::try_from(self.load.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    }

    /// What registers a session here that has no queue of its own.
    pub(super) fn registration(source: &str, user: Option<&Arc<str>>) -> Registration {
        let principal = user.map_or(Principal::Service, |user| Principal::User(Arc::clone(user)));
        Registration {
            source: source.to_owned(),
            identity: Identity::unproved(principal, everything_elsewhere()),
            echo: false,
            address: None,
            outbox: Outbox::refusing(),
            will: None,
        }
    }

    /// Whether it stands for a session that its node has announced.
    pub(in crate::router) fn is_of_handler(&self) -> bool {
        self.asks.is_none()
    }

    pub(super) fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }

    pub(in crate::router) fn is_away(&self) -> bool {
        self.is_away.load(Ordering::Relaxed)
    }

    fn part(&self, pending: &Pending) -> Part {
        Part { request: pending.id.number(), handler: self.session }
    }

    /// Gives the handler a request. Returns `false` if there is no link any more.
    pub(in crate::router) fn request(
        &self,
        (request, handler): (u64, &Subscription),
        asking: &Asking<'_>,
        timeout: Duration,
    ) -> bool {
        let asker = asking.asker();
        self.say(&Message::Request(Request {
            part: Part { request, handler: self.session },
            subscription: handler.id.number(),
            sender: asker.number,
            source: &asker.source,
            asker_user: asker.user(),
            user: asking.user(),
            timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
            text: asking.text(),
        }))
    }

    /// Tells the handler that a request of its has ended without its answer. `late`: its time limit is over.
    pub(in crate::router) fn cancel(&self, pending: &Pending, late: bool) {
        self.say(&Message::Cancel { part: self.part(pending), late });
    }

    /// Gives a member of a group an event. Returns `false` if there is no link any more.
    pub(in crate::router) fn event(&self, member: &Subscription, event: &Sent<'_>) -> bool {
        let Some(group) = member.group.as_deref() else { return false };
        self.say(&Message::Grouped { subscription: member.id.number(), group, event: *event })
    }

    /// The request of which it is the requester.
    pub(super) fn asked(&self) -> Option<Part> {
        self.asks
    }

    /// Passes a reply of a session on to the requester.
    pub(in crate::router) fn answer(&self, by: &Session, more: bool, frame: &Frame) {
        let Some(part) = self.asks else { return };
        // The requester's node waits no longer.
        if !more && self.peer.forget_asked(part).is_none() {
            return;
        }
        self.say(&Message::Answer { part, sender: by.number, more, text: frame.text() });
    }

    /// Tells the requester's node that the request has failed.
    pub(in crate::router) fn fail(&self, refusal: &Refusal) {
        let Some(part) = self.asks else { return };
        if self.peer.forget_asked(part).is_none() {
            return;
        }
        self.say(&Message::Failed { part, code: refusal.code.as_str(), words: &refusal.message });
    }

    /// A handler that never answers has the request.
    pub(in crate::router) fn delivered(&self) {
        if let Some(part) = self.asks {
            self.peer.forget_asked(part);
        }
    }

    /// The handler that its node chose for the request has gone.
    pub(super) fn gone(&self) {
        if let Some(part) = self.asks {
            self.say(&Message::Gone(part));
        }
    }

    /// Whether it stands for a session of this peer.
    pub(super) fn is_at(&self, peer: &Arc<Peer>) -> bool {
        Arc::ptr_eq(&self.peer, peer)
    }

    /// The node of the session.
    pub(in crate::router) fn node(&self) -> &str {
        self.peer.node()
    }

    fn say(&self, message: &Message<'_>) -> bool {
        self.peer.send(message)
    }
}

impl Session {
    /// Returns what makes it the stand-in of a session of another node.
    pub(in crate::router) fn remote(&self) -> Option<&Remote> {
        self.remote.as_deref()
    }
}
