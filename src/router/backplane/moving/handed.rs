//! Requests that a session was given before it moved: they follow it, so that its old node is not needed any more.
//!
//! The old node (O) lets the new one (N) hold what the session replies. When N has confirmed that (`Held`), everything replied
//! before has passed O. O then tells the requester's node (A), on the link of those answers, where the handler is (`Rebind`). A
//! expects the answers from N from then on, and tells N what it has to know of the request (`Handle`), which gives what it held.
//! Last, O forgets the request (`Rebound`). One that has ended meanwhile, or whose requester's node does not know the session
//! at N, stays with O: N gives back what it held (`Release`).
//!
//! If O is lost in between, A ends what it has not rebound; if N is, O ends it, and A what it has. A and N may be one node, and
//! so may A and O. The client knows the request by the id that O gave it, so its new node lists it by that id.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use wire::{DecodeLimits, Envelope, ErrorCode, Pattern, Refusal, Triple, command, decode, notice};
use zeroize::Zeroizing;

use super::State;
use super::message::{Handle, Key, Leg, Moving};
use crate::router::backplane::message::{Message, Part};
use crate::router::backplane::remote::Remote;
use crate::router::backplane::requests::{SLACK, given_to};
use crate::router::backplane::{Cluster, Peer};
use crate::router::index::{Listing, Subscription};
use crate::router::outbox::OnFull;
use crate::router::request::pending::{Draft, Event, Outcome, Pending, State as Progress};
use crate::router::request::words;
use crate::router::session::Session;
use crate::router::{RequestId, Router, SubscriptionId};

/// How long replies wait at most. It takes as long as some messages on the links, which are lost after 2 s of silence.
const HOLD_MAX: Duration = Duration::from_secs(10);

/// How many requests there are at most whose replies are held. Beyond it, requests stay where they are.
const HOLDS_MAX: usize = 1 << 16;

/// How many replies to one request are held at most.
const REPLIES_MAX: usize = 1024;

/// The bytes of all replies of one session that are held at most, unless there is only one.
const BYTES_MAX: usize = 1 << 22;

/// A request that is on its way to this node.
pub(super) struct Hold {
    session: Arc<Session>,
    from: Arc<Peer>,
    /// What the session has replied meanwhile.
    replies: Vec<Zeroizing<String>>,
    /// Their bytes.
    bytes: usize,
    until: Instant,
}

impl Hold {
    /// When it ends if nothing comes.
    pub(super) fn until(&self) -> Instant {
        self.until
    }
}

/// All requests of a leg.
fn of_leg(leg: Leg) -> RangeInclusive<Key> {
    (leg, 0)..=(leg, u64::MAX)
}

impl State {
    /// Holds a reply of a session to a request that is on its way here from the leg before. Returns whether it is held.
    ///
    /// # Errors
    /// `TOO_MANY_REQUESTS` if too much is held.
    pub(super) fn hold(&mut self, before: Leg, envelope: &Envelope<'_>) -> Result<bool, Refusal> {
        let id: Option<RequestId> = envelope.in_reply_to().and_then(|id| id.parse().ok());
        let Some(request) = id else { return Ok(false) };
        let (key, text) = ((before, request.number()), envelope.text());
        let Some(hold) = self.held.get(&key) else { return Ok(false) };
        let bytes: usize = self.held.range(of_leg(before)).map(|(_, hold)| hold.bytes).sum();
        if hold.replies.len() >= REPLIES_MAX || bytes > 0 && bytes + text.len() > BYTES_MAX {
            let words = "too many replies to requests that move to another node; send this one again";
            return Err(Refusal::new(ErrorCode::TooManyRequests, words));
        }
        if let Some(hold) = self.held.get_mut(&key) {
            hold.bytes += text.len();
            hold.replies.push(Zeroizing::new(text.to_owned()));
        }
        Ok(true)
    }

    /// Whether requests of a leg are on their way to the next one here.
    pub(super) fn is_held(&self, leg: Leg) -> bool {
        self.held.range(of_leg(leg)).next().is_some()
    }
}

impl Router {
    /// Holds a reply to a request that is on its way to this node. Returns whether it is held.
    ///
    /// # Errors
    /// `TOO_MANY_REQUESTS` if too much is held.
    pub(in crate::router) fn hold_reply(&self, session: &Session, envelope: &Envelope<'_>) -> Result<bool, Refusal> {
        let Some(cluster) = &self.cluster else { return Ok(false) };
        if cluster.moves.holds.load(Ordering::Acquire) == 0 {
            return Ok(false);
        }
        let Some(before) = session.leg().before() else { return Ok(false) };
        cluster.moves.state.lock().hold(before, envelope)
    }

    /// How many requests have followed their sessions to this node, or were to. If it grows, a request that was not here may be.
    pub(in crate::router) fn handed_requests(&self) -> u64 {
        self.cluster.as_ref().map_or(0, |cluster| cluster.moves.handed.load(Ordering::Acquire))
    }

    /// Lets the requests follow that a session was given which has gone, if all nodes know where it is. Those of ordered
    /// handlers stay: their turns are told instead.
    pub(super) fn hand_requests_on(&self, leg: Leg) {
        let Some(cluster) = &self.cluster else { return };
        let gone = {
            let state = cluster.moves.state.lock();
            let gone = state.gone.get(&leg).filter(|gone| gone.follows_until.is_none());
            gone.map(|gone| (Arc::clone(&gone.session), Arc::clone(&gone.to)))
        };
        let Some((session, to)) = gone else { return };
        let given = session.holds.lock().given_in_order();
        for pending in given {
            let key = (leg, pending.known_id().number());
            let may_move = pending.look(|state, _| match state {
                Progress::Given(handler) => handler.ordered.is_none() && Arc::ptr_eq(&handler.session, &session),
                Progress::Seeking | Progress::Waiting(_) | Progress::Ended => false,
            });
            if may_move && self.begin_to_hand(key) {
                to.say(Moving::Hold { request: key });
            }
        }
    }

    /// Notes that a request is on its way to the next node. Returns `false` if it is already, or if replies to it are still
    /// held here: it goes on when they have been passed on.
    fn begin_to_hand(&self, (leg, number): Key) -> bool {
        let Some(cluster) = &self.cluster else { return false };
        let mut state = cluster.moves.state.lock();
        let holds_replies = leg.before().is_some_and(|before| state.held.contains_key(&(before, number)));
        !holds_replies && state.gone.get_mut(&leg).is_some_and(|gone| gone.handing.insert(number))
    }

    /// A request is at the next node, or stays here after all. Returns the next node.
    fn end_to_hand(&self, (leg, number): Key) -> Option<Arc<Peer>> {
        let mut state = self.cluster.as_ref()?.moves.state.lock();
        let gone = state.gone.get_mut(&leg)?;
        gone.handing.remove(&number);
        Some(Arc::clone(&gone.to))
    }

    /// The old node of a session wants a request to follow it.
    pub(super) fn hold_from(&self, now: Instant, peer: &Arc<Peer>, key: Key) {
        let (Some(cluster), Some(session)) = (&self.cluster, self.come_from(peer, key.0)) else { return };
        let until = now + HOLD_MAX;
        {
            let mut state = cluster.moves.state.lock();
            if state.held.len() >= HOLDS_MAX || state.held.contains_key(&key) {
                return;
            }
            let hold = Hold { session, from: Arc::clone(peer), replies: Vec::new(), bytes: 0, until };
            state.held.insert(key, hold);
            cluster.moves.holds.store(state.held.len(), Ordering::Release);
            // Under the lock, so that no reply goes back behind it.
            peer.say(Moving::Held { request: key });
        }
        self.requests.wake_before(until);
    }

    /// Everything that the session has sent back for a request has arrived here.
    pub(super) fn held_from(&self, now: Instant, peer: &Arc<Peer>, key: Key) {
        let request = key;
        let Some(session) = self.gone_to(peer, key.0) else { return };
        let goes = session.given(RequestId::from_number(key.1)).is_some_and(|pending| match pending.asker.remote() {
            Some(remote) => remote.asked().is_some_and(|part| {
                remote.peer().say(Moving::Rebind { request, part: part.request, node: peer.node() })
            }),
            None => {
                let is_done = self.rebind(now, (&session, &pending), peer.node(), key);
                if is_done {
                    self.end_to_hand(key);
                    self.tell_idle(now, key.0);
                }
                is_done
            }
        });
        if !goes {
            self.end_to_hand(key);
            peer.say(Moving::Release { request });
        }
    }

    /// The handler of a request of this node's session has moved from this peer to another node.
    pub(super) fn rebind_from(&self, now: Instant, peer: &Arc<Peer>, key: Key, part: u64, node: &str) {
        let given = given_to(peer, Part { request: part, handler: key.0.session });
        let is_done = given.is_some_and(|(old, pending)| self.rebind(now, (&old, &pending), node, key));
        peer.say(Moving::Rebound { request: key, part, is_done });
    }

    /// Expects the answer to a request from another node, which may be this one. Returns `false` if nothing has changed.
    fn rebind(&self, now: Instant, (old, pending): (&Arc<Session>, &Arc<Pending>), node: &str, key: Key) -> bool {
        let Some(cluster) = &self.cluster else { return false };
        let is_here = self.resumes.is_own_node(node);
        let peer = cluster.peer(node);
        let session = match is_here {
            true => cluster.moves.state.lock().held.get(&key).map(|hold| Arc::clone(&hold.session)),
            false => peer.as_ref().and_then(|peer| self.stand_in_for(now, peer, key.0.session)),
        };
        let handler = pending.look(|state, _| match state {
            Progress::Given(it) if Arc::ptr_eq(&it.session, old) && it.ordered.is_none() => Some(Arc::clone(it)),
            Progress::Given(_) | Progress::Seeking | Progress::Waiting(_) | Progress::Ended => None,
        });
        let (Some(session), Some(handler)) = (session, handler) else { return false };
        let handler = Arc::new(handler.moved_to(&session));
        let known = (is_here && key.1 != pending.id.number()).then(|| RequestId::from_number(key.1));
        let Outcome::Given(_) = self.advance(now, pending, Event::Rebind(&handler, known)) else { return false };
        session.serve(self.ids.stamp());
        match peer {
            _ if is_here => self.let_go(now, key),
            // Without a link, the loss of the peer ends the request.
            Some(peer) => {
                peer.say(Moving::Handle(handle(pending, &handler, key)));
            }
            None => {}
        }
        true
    }

    /// The requester's node has answered.
    pub(super) fn rebound_from(&self, now: Instant, peer: &Arc<Peer>, key: Key, part: u64, is_done: bool) {
        let to = self.end_to_hand(key);
        if !is_done {
            if let Some(to) = to {
                to.say(Moving::Release { request: key });
            }
        } else if let Some(pending) = peer.forget_asked(Part { request: part, handler: key.0.session }) {
            // Only this node has no more to do with it: nobody is told, and nothing is recorded.
            drop(self.requests.apply(now, &pending, Event::HandOn));
            self.tell_idle(now, key.0);
        }
    }

    /// A request is here now, whose handler has it already.
    pub(super) fn handle_from(&self, now: Instant, peer: &Arc<Peer>, handle: &Handle<'_>) {
        let Some(cluster) = &self.cluster else { return };
        let key = handle.request;
        let part = Part { request: handle.part, handler: key.0.session };
        let session = cluster.moves.state.lock().held.get(&key).map(|hold| Arc::clone(&hold.session));
        let opened = session.as_ref().is_some_and(|session| self.open_handed(now, (peer, part), session, handle));
        if !opened {
            let Refusal { code, message, .. } = words::handler_gone(session.as_ref().map_or("", |it| it.source()));
            peer.send(&Message::Failed { part, code: code.as_str(), words: &message });
        }
        self.let_go(now, key);
    }

    /// Opens a request that the session has already. Returns `false` if that has ended.
    fn open_handed(
        &self,
        now: Instant,
        (peer, part): (&Arc<Peer>, Part),
        session: &Arc<Session>,
        handle: &Handle<'_>,
    ) -> bool {
        let (_, known) = handle.request;
        let remote = Remote::requester(peer, part);
        let user = handle.asker_user.map(Arc::from);
        let asker = Arc::new(self.stand_in(now, handle.source, user.as_ref(), remote));
        let [channel, topic, subtopic] = handle.triple;
        let serial = self.ids.serial();
        let limits = self.policy.limits();
        let draft = Draft {
            id: self.ids.request(serial),
            serial,
            asker: &asker,
            asker_id: handle.asker_id,
            triple: &Triple::new(channel, topic, subtopic),
            trace: None,
            user: handle.user,
            timeout: Duration::from_millis(handle.timeout_ms).min(limits.request_timeout) + SLACK,
            more_max: limits.more_max,
            secret: handle.secret,
            // The requester's node gives it to another handler.
            idempotent: false,
            gather: None,
            failure_keys: &[],
            repeats: None,
            text: None,
        };
        let Some(pending) = self.requests.open(now, draft) else { return false };
        // Before the session can answer it.
        peer.note_asked(part, &pending);
        let handler = Arc::new(self.handler_of(now, session, handle));
        match self.advance(now, &pending, Event::Rebind(&handler, Some(RequestId::from_number(known)))) {
            Outcome::Given(_) => true,
            _ => {
                peer.forget_asked(part);
                drop(self.requests.apply(now, &pending, Event::GiveUp(ErrorCode::HandlerGone)));
                false
            }
        }
    }

    /// The subscription by which a session was given a request. It may have ended since.
    fn handler_of(&self, now: Instant, session: &Arc<Session>, handle: &Handle<'_>) -> Subscription {
        Subscription {
            id: SubscriptionId::from_number(handle.subscription),
            serial: self.ids.serial(),
            since: self.date(now),
            session: Arc::clone(session),
            pattern: {
                let [channel, topic, subtopic] = handle.triple.map(|part| Some(Box::from(part)));
                Pattern { channel, topic, subtopic }
            },
            role: command::Role::Handler { answers: true, ordered: false, replies: Vec::new() },
            group: None,
            observes: None,
            checked: true.into(),
            ordered: None,
            listing: Listing::default(),
        }
    }

    /// A request stays at its old node.
    pub(super) fn release_from(&self, now: Instant, peer: &Arc<Peer>, key: Key) {
        let Some(cluster) = &self.cluster else { return };
        let is_of = cluster.moves.state.lock().held.get(&key).is_some_and(|hold| Arc::ptr_eq(&hold.from, peer));
        if is_of {
            self.let_go(now, key);
        }
    }

    /// Ends what has waited for too long.
    pub(super) fn expire_held(&self, now: Instant) {
        let Some(cluster) = &self.cluster else { return };
        let due: Vec<Key> = {
            let state = cluster.moves.state.lock();
            state.held.iter().filter(|(_, hold)| hold.until <= now).map(|(key, _)| *key).collect()
        };
        for key in due {
            self.let_go(now, key);
        }
    }

    /// Passes on what was held, to the request if it is here, else to the old node.
    fn let_go(&self, now: Instant, key: Key) {
        let Some(cluster) = &self.cluster else { return };
        let Some(session) = cluster.moves.state.lock().held.get(&key).map(|hold| Arc::clone(&hold.session)) else {
            return;
        };
        while let Some(replies) = cluster.take_held(key) {
            for reply in replies {
                let Ok(envelope) = decode(&reply, DecodeLimits::OWN) else { continue };
                if let Err(refusal) = self.reply_at_once(now, &session, &envelope, true) {
                    // A session that has ended receives nothing more.
                    session.push(now, notice::error(envelope.id(), &refusal).into(), OnFull::Close).ok();
                }
            }
        }
        // Its session may have gone on meanwhile.
        self.hand_requests_on(session.leg());
        self.tell_idle(now, session.leg());
    }
}

impl Cluster {
    /// Takes the replies that are held for a request. Nothing is held any more if there are none.
    fn take_held(&self, key: Key) -> Option<Vec<Zeroizing<String>>> {
        let mut state = self.moves.state.lock();
        let hold = state.held.get_mut(&key)?;
        if !hold.replies.is_empty() {
            hold.bytes = 0;
            return Some(std::mem::take(&mut hold.replies));
        }
        state.held.remove(&key);
        self.moves.holds.store(state.held.len(), Ordering::Release);
        self.moves.handed.fetch_add(1, Ordering::AcqRel);
        None
    }
}

/// What the node of a handler that has a request already has to know of it.
fn handle<'a>(pending: &'a Pending, handler: &Subscription, key: Key) -> Handle<'a> {
    let triple = &pending.triple;
    Handle {
        request: key,
        part: pending.id.number(),
        subscription: handler.id.number(),
        source: &pending.asker.source,
        asker_user: pending.asker.user(),
        asker_id: pending.asker_id.as_deref(),
        user: pending.user.as_deref(),
        triple: [&triple.channel, &triple.topic, &triple.subtopic],
        timeout_ms: u64::try_from(pending.timeout.as_millis()).unwrap_or(u64::MAX),
        secret: pending.secret,
    }
}
