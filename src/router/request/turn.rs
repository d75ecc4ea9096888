//! [`Turns`]: the turns of one session's ordered handlers, which know no ids. Their next envelope is the reply.
//!
//! Ordered subscriptions whose replies can be on the same triple share a *lane*, and a lane has one request at a time. If
//! a request ends without its reply, the reply is *owed*: it still has the turn until that reply has arrived and was
//! discarded, because a late reply must never be taken for the next requester's.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use smallvec::SmallVec;

use crate::router::RequestId;
use crate::router::ids::Serial;
use crate::router::index::Subscription;
use crate::router::request::deadlines::Requests;
use crate::router::request::lane::{self, Ordered};
use crate::router::request::pending::Pending;
use crate::router::sync::Mutex;
use wire::Triple;

/// The turns of one session.
#[derive(Default)]
pub(in crate::router) struct Turns {
    /// How many there are: nearly always none, and then nothing is locked.
    pub(super) count: AtomicUsize,
    /// Made for the first ordered subscription: most sessions have none.
    pub(super) state: Mutex<Option<Box<State>>>,
}

#[derive(Default)]
pub(super) struct State {
    /// The session's ordered subscriptions; those that have ended only while one of their requests is open.
    pub(super) members: BTreeMap<Serial, Member>,
    /// By the serial of a member.
    pub(super) lanes: BTreeMap<Serial, Lane>,
    pub(super) turns: HashMap<RequestId, Turn, foldhash::fast::RandomState>,
    /// The canonical triples on which a reply is expected, and to which request. Lanes share none.
    pub(super) expected: HashMap<Arc<Triple<'static>>, RequestId, foldhash::fast::RandomState>,
    /// The lanes that are free while requests wait for them.
    ready: BTreeSet<Serial>,
    /// The session has gone.
    pub(super) closed: bool,
}

pub(super) struct Member {
    pub(super) subscription: Arc<Subscription>,
    pub(super) lane: Serial,
    /// Unsubscribed. It may still answer what it was given.
    pub(super) left: bool,
}

#[derive(Default)]
pub(super) struct Lane {
    members: usize,
    /// The turns in progress. More than one only after lanes have become one.
    pub(super) turns: SmallVec<[RequestId; 1]>,
    /// The requests that wait, by their own serial and that of the subscription, oldest first.
    pub(super) waiting: BTreeMap<(Serial, Serial), Waiter>,
}

impl Lane {
    /// Whether a turn can begin.
    fn is_free(&self) -> bool {
        self.turns.is_empty()
    }
}

/// A request that waits, and the subscription that matches it.
pub(in crate::router) type Waiter = (Arc<Pending>, Arc<Subscription>);

pub(super) struct Turn {
    pub(super) serial: Serial,
    pub(super) subscription: Arc<Subscription>,
    /// The request's own triple, canonical.
    pub(super) triple: Arc<Triple<'static>>,
    /// `None`: the request has ended, and its reply is owed; or the old node of the session has it.
    pub(super) pending: Option<Arc<Pending>>,
    /// The time at which an owed reply has blocked others for too long.
    pub(super) blocked_until: Option<Instant>,
    pub(super) elsewhere: Elsewhere,
}

/// Whether the old node of a session that has moved has the request with a turn.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Elsewhere {
    /// It has not.
    No,
    Open,
    /// The request has ended there, and its reply is owed.
    Owed,
    /// It has requests that wait for the turn.
    Kept,
}

/// Whether a turn has begun.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::router) enum Begin {
    Begun,
    /// Another request has it.
    NotFree,
    /// The subscription has ended.
    Left,
}

/// How a request with a turn ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::router) enum TurnEnd {
    /// With its reply, or without having been sent.
    Over,
    /// Without its reply, which may still come.
    Owed,
}

impl Turns {
    /// The number of turns in progress.
    pub(in crate::router) fn len(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// The number of requests that wait for a turn.
    pub(in crate::router) fn waiting(&self) -> usize {
        self.state.lock().iter().flat_map(|state| state.lanes.values()).map(|lane| lane.waiting.len()).sum()
    }

    /// Adds an ordered subscription.
    pub(in crate::router) fn join(&self, subscription: &Arc<Subscription>) {
        let mut guard = self.state.lock();
        let state = guard.get_or_insert_default();
        if !state.closed {
            let member = Member { subscription: Arc::clone(subscription), lane: subscription.serial, left: false };
            state.members.insert(subscription.serial, member);
            state.regroup();
        }
    }

    /// Ends an ordered subscription. It may still answer the request that it has; a reply that it owes is no longer
    /// expected. Returns the requests that waited for it. Other requests may have a turn now.
    #[must_use]
    pub(in crate::router) fn leave(&self, requests: &Requests, subscription: &Subscription) -> Vec<Waiter> {
        let mut guard = self.state.lock();
        let Some(state) = guard.as_deref_mut() else { return Vec::new() };
        let of = subscription.serial;
        let Some(member) = state.members.get_mut(&of) else { return Vec::new() };
        member.left = true;
        let lane = member.lane;
        let mut waiters = Vec::new();
        if let Some(lane) = state.lanes.get_mut(&lane) {
            waiters.extend(lane.waiting.extract_if(.., |(_, waits_for), _| *waits_for == of).map(|(_, waiter)| waiter));
        }
        if let Some(owed) = state.turn_of(of, lane).filter(|(_, turn)| turn.pending.is_none()).map(|(id, _)| id) {
            self.remove(state, requests, owed);
        }
        state.drop_if_idle(of);
        waiters
    }

    /// Ends all ordered subscriptions, because the session has gone. Returns the requests that waited for them.
    #[must_use]
    pub(in crate::router) fn close(&self, requests: &Requests) -> Vec<Waiter> {
        let mut guard = self.state.lock();
        let Some(state) = guard.as_deref_mut() else { return Vec::new() };
        state.turns.values().for_each(|turn| turn.stop_blocked(requests));
        self.count.store(0, Ordering::SeqCst);
        let closed = std::mem::replace(state, State { closed: true, ..State::default() });
        drop(guard);
        let mut waiters: Vec<_> = closed.lanes.into_values().flat_map(|lane| lane.waiting).collect();
        waiters.sort_by_key(|(key, _)| *key);
        waiters.into_iter().map(|(_, waiter)| waiter).collect()
    }

    /// Begins the turn of a request, if its lane is free.
    pub(in crate::router) fn begin(&self, pending: &Arc<Pending>, subscription: &Arc<Subscription>) -> Begin {
        let mut guard = self.state.lock();
        let Some(state) = guard.as_deref_mut() else { return Begin::Left };
        let Some((lane, ordered)) = state.lane_of(subscription) else { return Begin::Left };
        match state.lanes.get_mut(&lane) {
            Some(it) if it.is_free() => it.turns.push(pending.id),
            Some(_) => return Begin::NotFree,
            None => return Begin::Left,
        }
        let triple = ordered.canonical(&pending.triple);
        let turn = Turn {
            serial: pending.serial,
            subscription: Arc::clone(subscription),
            triple: Arc::clone(&triple),
            pending: Some(Arc::clone(pending)),
            blocked_until: None,
            elsewhere: Elsewhere::No,
        };
        for triple in ordered.replies.iter().cloned().chain([triple]) {
            let other = state.expected.insert(triple, pending.id);
            debug_assert!(
                other.is_none_or(|other| other == pending.id),
                "lanes expect replies on triples of their own"
            );
        }
        let before = state.turns.insert(pending.id, turn);
        debug_assert!(before.is_none(), "a session has a request once");
        self.count.fetch_add(1, Ordering::SeqCst);
        state.look_at(lane);
        Begin::Begun
    }

    /// Whether the turn of a request could begin now.
    pub(in crate::router) fn look(&self, subscription: &Subscription) -> Begin {
        let guard = self.state.lock();
        let lane = guard.as_deref().and_then(|state| state.lanes.get(&state.lane_of(subscription)?.0));
        match lane {
            Some(lane) if lane.is_free() => Begin::Begun,
            Some(_) => Begin::NotFree,
            None => Begin::Left,
        }
    }

    /// Lets a request wait for a turn. Returns whether it does: the subscription may have ended.
    pub(in crate::router) fn wait(
        &self,
        now: Instant,
        requests: &Requests,
        pending: &Arc<Pending>,
        subscription: &Arc<Subscription>,
    ) -> bool {
        let mut guard = self.state.lock();
        let Some(state) = guard.as_deref_mut() else { return false };
        let Some((lane, _)) = state.lane_of(subscription) else { return false };
        let waiter = (Arc::clone(pending), Arc::clone(subscription));
        state.lanes.entry(lane).or_default().waiting.insert((pending.serial, subscription.serial), waiter);
        state.look_at(lane);
        state.time_blocked(now, requests, lane);
        true
    }

    /// A request no longer waits for a turn.
    pub(in crate::router) fn forget(&self, request: Serial, subscription: &Subscription) {
        let mut guard = self.state.lock();
        let Some(state) = guard.as_deref_mut() else { return };
        let Some(lane) = state.members.get(&subscription.serial).map(|member| member.lane) else { return };
        if let Some(lane) = state.lanes.get_mut(&lane) {
            lane.waiting.remove(&(request, subscription.serial));
        }
        state.look_at(lane);
    }

    /// A request that has a turn has ended.
    pub(in crate::router) fn end(&self, now: Instant, requests: &Requests, id: RequestId, how: TurnEnd) {
        let mut guard = self.state.lock();
        let Some(state) = guard.as_deref_mut() else { return };
        let Some(turn) = state.turns.get_mut(&id) else {
            return debug_assert!(state.closed, "a request that an ordered handler has got has a turn");
        };
        let of = turn.subscription.serial;
        let left = state.members.get(&of).is_none_or(|member| member.left);
        if how == TurnEnd::Over || left {
            self.remove(state, requests, id);
            if left {
                state.drop_if_idle(of);
            }
            return;
        }
        turn.pending = None;
        if let Some(lane) = state.members.get(&of).map(|member| member.lane) {
            state.time_blocked(now, requests, lane);
        }
    }

    /// The reply to a request has arrived. Returns whether it was owed, so that its turn has ended now.
    pub(in crate::router) fn settle(&self, requests: &Requests, id: RequestId) -> bool {
        if self.len() == 0 {
            return false;
        }
        let mut guard = self.state.lock();
        let Some(state) = guard.as_deref_mut() else { return false };
        // The old node of the session says what becomes of the turns that it has.
        let is_owed = |turn: &Turn| turn.pending.is_none() && turn.elsewhere == Elsewhere::No;
        let owed = state.turns.get(&id).is_some_and(is_owed);
        if owed {
            self.remove(state, requests, id);
        }
        owed
    }

    /// The request to which an envelope on this canonical triple is the reply.
    pub(in crate::router) fn expects(&self, triple: &Triple<'_>) -> Option<RequestId> {
        if self.len() == 0 {
            return None;
        }
        let state = self.state.lock();
        let expected: &HashMap<Arc<Triple<'_>>, RequestId, _> = &state.as_ref()?.expected;
        expected.get(triple).copied()
    }

    /// The request with this turn, unless it has ended.
    pub(in crate::router) fn pending(&self, id: RequestId) -> Option<Arc<Pending>> {
        self.state.lock().as_ref()?.turns.get(&id)?.pending.clone()
    }

    /// The next request whose turn it is.
    pub(in crate::router) fn next(&self) -> Option<Waiter> {
        let guard = self.state.lock();
        let state = guard.as_ref()?;
        let lane = state.lanes.get(state.ready.first()?)?;
        lane.waiting.first_key_value().map(|(_, waiter)| waiter.clone())
    }

    /// Whether the reply to this request is owed.
    pub(in crate::router) fn owes(&self, id: RequestId) -> bool {
        let state = self.state.lock();
        state.as_ref().and_then(|state| state.turns.get(&id)).is_some_and(|turn| turn.pending.is_none())
    }

    pub(super) fn remove(&self, state: &mut State, requests: &Requests, id: RequestId) {
        let Some(turn) = state.turns.remove(&id) else { return };
        self.count.fetch_sub(1, Ordering::SeqCst);
        turn.stop_blocked(requests);
        let replies = turn.subscription.ordered.iter().flat_map(|ordered| ordered.replies.iter());
        for triple in replies.chain([&turn.triple]) {
            if state.expected.get(triple) == Some(&id) {
                state.expected.remove(triple);
            }
        }
        if let Some(lane) = state.members.get(&turn.subscription.serial).map(|member| member.lane) {
            if let Some(lane) = state.lanes.get_mut(&lane) {
                lane.turns.retain(|other| *other != id);
            }
            state.look_at(lane);
        }
    }
}

impl Turn {
    fn stop_blocked(&self, requests: &Requests) {
        if let Some(until) = self.blocked_until {
            requests.stop_blocked(until, self.serial);
        }
    }
}

impl State {
    /// The lane of a subscription that has not ended.
    fn lane_of<'s>(&self, subscription: &'s Subscription) -> Option<(Serial, &'s Ordered)> {
        let member = self.members.get(&subscription.serial).filter(|member| !member.left)?;
        Some((member.lane, subscription.ordered.as_ref()?))
    }

    /// Notes whether a lane is free while requests wait for it.
    pub(super) fn look_at(&mut self, lane: Serial) {
        let is_ready = self.lanes.get(&lane).is_some_and(|it| it.turns.is_empty() && !it.waiting.is_empty());
        if is_ready {
            self.ready.insert(lane);
        } else {
            self.ready.remove(&lane);
        }
    }

    /// Starts the time for which owed replies may block a lane, if requests wait for it.
    pub(super) fn time_blocked(&mut self, now: Instant, requests: &Requests, lane: Serial) {
        let Some(lane) = self.lanes.get(&lane).filter(|it| !it.waiting.is_empty()) else { return };
        for id in &lane.turns {
            let Some(turn) = self.turns.get_mut(id) else { continue };
            let is_owed = turn.pending.is_none() && matches!(turn.elsewhere, Elsewhere::No | Elsewhere::Owed);
            if is_owed && turn.blocked_until.is_none() {
                let until = requests.start_blocked(now, turn.serial, *id, &turn.subscription.session);
                turn.blocked_until = Some(until);
            }
        }
    }

    /// The turn of a member in its lane.
    fn turn_of(&self, of: Serial, lane: Serial) -> Option<(RequestId, &Turn)> {
        let ids = self.lanes.get(&lane)?.turns.iter();
        ids.filter_map(|id| Some((*id, self.turns.get(id)?))).find(|(_, turn)| turn.subscription.serial == of)
    }

    /// Drops a member that has left and has no open request. Its lane may fall into several.
    fn drop_if_idle(&mut self, of: Serial) {
        let Some(lane) = self.members.get(&of).filter(|member| member.left).map(|member| member.lane) else { return };
        if self.turn_of(of, lane).is_some() {
            return;
        }
        self.members.remove(&of);
        if self.lanes.get(&lane).is_some_and(|lane| lane.members > 1) {
            self.regroup();
        } else {
            self.lanes.remove(&lane);
            self.ready.remove(&lane);
        }
    }

    /// Computes the lanes anew: which members take turns together.
    fn regroup(&mut self) {
        let waiting: Vec<_> = std::mem::take(&mut self.lanes).into_values().flat_map(|lane| lane.waiting).collect();
        self.ready.clear();
        let ordered = self.members.values().filter_map(|member| member.subscription.ordered.as_ref());
        let first_of = lane::connected(&ordered.collect::<Vec<_>>());
        let serials: Vec<Serial> = self.members.keys().copied().collect();
        for (member, first) in self.members.values_mut().zip(first_of) {
            member.lane = serials.get(first).copied().unwrap_or(member.subscription.serial);
            self.lanes.entry(member.lane).or_default().members += 1;
        }
        #[expect(clippy::iter_over_hash_type, reason = "a lane asks only whether it has turns")]
        for (id, turn) in &self.turns {
            if let Some(lane) = self.members.get(&turn.subscription.serial).and_then(|it| self.lanes.get_mut(&it.lane))
            {
                lane.turns.push(*id);
            }
        }
        for (key, waiter) in waiting {
            if let Some(lane) = self.members.get(&key.1).and_then(|it| self.lanes.get_mut(&it.lane)) {
                lane.waiting.insert(key, waiter);
            }
        }
        let lanes: Vec<Serial> = self.lanes.keys().copied().collect();
        for lane in lanes {
            self.look_at(lane);
        }
    }
}
