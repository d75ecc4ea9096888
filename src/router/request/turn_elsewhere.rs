//! Turns of a session that has moved, whose requests its old node has: the reply goes there, and nothing else has the turn
//! until that node says that it is free.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use smallvec::SmallVec;

use super::deadlines::Requests;
use super::turn::{Elsewhere, Turn, Turns};
use crate::router::ids::Serial;
use crate::router::{RequestId, SubscriptionId};
use wire::Triple;

/// A turn of an ordered handler.
pub(in crate::router) struct TurnFact {
    /// The request that has it; of a turn that is kept for requests that wait, that of the first of these.
    pub(in crate::router) request: RequestId,
    pub(in crate::router) subscription: SubscriptionId,
    /// The request's own triple, canonical. `None`: no reply is expected yet.
    pub(in crate::router) triple: Option<Arc<Triple<'static>>>,
    /// The request has ended, and its reply is owed.
    pub(in crate::router) is_owed: bool,
}

impl Turns {
    /// The turns in progress, and those that requests which wait will have.
    pub(in crate::router) fn facts(&self) -> Vec<TurnFact> {
        let guard = self.state.lock();
        let Some(state) = guard.as_deref() else { return Vec::new() };
        let mut facts = Vec::new();
        for lane in state.lanes.values() {
            let turns = lane.turns.iter().filter_map(|id| Some((*id, state.turns.get(id)?)));
            facts.extend(turns.map(|(request, turn)| TurnFact {
                request,
                subscription: turn.subscription.id,
                triple: Some(Arc::clone(&turn.triple)),
                is_owed: turn.pending.is_none(),
            }));
            if lane.turns.is_empty()
                && let Some((pending, subscription)) = lane.waiting.values().next()
            {
                let (request, subscription) = (pending.id, subscription.id);
                facts.push(TurnFact { request, subscription, triple: None, is_owed: false });
            }
        }
        facts
    }

    /// The old node of the session says which turns its requests have.
    pub(in crate::router) fn set_elsewhere(
        &self,
        now: Instant,
        requests: &Requests,
        facts: Vec<TurnFact>,
        mut serial: impl FnMut() -> Serial,
    ) {
        let mut guard = self.state.lock();
        let Some(state) = guard.as_deref_mut().filter(|state| !state.closed) else { return };
        let over: SmallVec<[RequestId; 1]> = {
            let is_over = |id: &RequestId| facts.iter().all(|fact| fact.request != *id);
            let elsewhere = state.turns.iter().filter(|(_, turn)| turn.elsewhere != Elsewhere::No);
            elsewhere.map(|(id, _)| *id).filter(is_over).collect()
        };
        for id in over {
            self.remove(state, requests, id);
        }
        for TurnFact { request, subscription, triple, is_owed } in facts {
            let elsewhere = if is_owed { Elsewhere::Owed } else { Elsewhere::Open };
            let expects = triple.is_some();
            match state.turns.get_mut(&request) {
                // It was kept for this request, which has it now.
                Some(turn) if turn.elsewhere == Elsewhere::Kept && expects => self.remove(state, requests, request),
                Some(turn) => {
                    if turn.elsewhere != Elsewhere::No && expects {
                        turn.elsewhere = elsewhere;
                    }
                    let of = turn.subscription.serial;
                    if let Some(lane) = state.members.get(&of).map(|member| member.lane) {
                        state.time_blocked(now, requests, lane);
                    }
                    continue;
                }
                None => {}
            }
            let member = state.members.values().find(|member| member.subscription.id == subscription && !member.left);
            let Some((subscription, lane)) = member.map(|it| (Arc::clone(&it.subscription), it.lane)) else { continue };
            let elsewhere = if expects { elsewhere } else { Elsewhere::Kept };
            let triple = triple.unwrap_or_else(|| Arc::new(Triple::new("", "", "").to_owned()));
            if let (true, Some(ordered)) = (expects, &subscription.ordered) {
                for triple in ordered.replies.iter().cloned().chain([Arc::clone(&triple)]) {
                    state.expected.insert(triple, request);
                }
            }
            let turn = Turn { serial: serial(), subscription, triple, pending: None, blocked_until: None, elsewhere };
            state.turns.insert(request, turn);
            self.count.fetch_add(1, Ordering::SeqCst);
            if let Some(lane) = state.lanes.get_mut(&lane) {
                lane.turns.push(request);
            }
            state.look_at(lane);
        }
    }

    /// Whether the session has had ordered handlers.
    pub(in crate::router) fn are_used(&self) -> bool {
        self.state.lock().is_some()
    }

    /// Whether the old node of the session has the request with this turn.
    pub(in crate::router) fn is_elsewhere(&self, id: RequestId) -> bool {
        let state = self.state.lock();
        let turn = state.as_ref().and_then(|state| state.turns.get(&id));
        turn.is_some_and(|turn| turn.elsewhere != Elsewhere::No)
    }

    /// Whether the session has such turns.
    pub(in crate::router) fn any_elsewhere(&self) -> bool {
        let state = self.state.lock();
        let mut turns = state.iter().flat_map(|state| state.turns.values());
        turns.any(|turn| turn.elsewhere != Elsewhere::No)
    }

    /// The reply to a request of the old node was sent there. None is expected any more, and the turn stays until that node
    /// says what becomes of it.
    pub(in crate::router) fn replied_elsewhere(&self, id: RequestId) {
        let mut guard = self.state.lock();
        if let Some(state) = guard.as_deref_mut()
            && state.turns.get(&id).is_some_and(|turn| turn.elsewhere != Elsewhere::No)
        {
            state.expected.retain(|_, request| *request != id);
        }
    }

    /// The old node of the session has forgotten it: what it expected is owed from now on, and discarded here. Turns that were
    /// kept are free.
    pub(in crate::router) fn forget_elsewhere(&self, requests: &Requests) {
        let mut guard = self.state.lock();
        let Some(state) = guard.as_deref_mut() else { return };
        let mut free = Vec::new();
        let expected: Vec<RequestId> = state.expected.values().copied().collect();
        #[expect(clippy::iter_over_hash_type, reason = "each is looked at alone")]
        for (id, turn) in &mut state.turns {
            match std::mem::replace(&mut turn.elsewhere, Elsewhere::No) {
                Elsewhere::No => {}
                Elsewhere::Open | Elsewhere::Owed if expected.contains(id) => {}
                Elsewhere::Open | Elsewhere::Owed | Elsewhere::Kept => free.push(*id),
            }
        }
        for id in free {
            self.remove(state, requests, id);
        }
    }
}
