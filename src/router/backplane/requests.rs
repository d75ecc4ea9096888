//! Requests that cross a link. The requester's node chooses the handler, keeps the time, and makes sure of one answer; the
//! handler's node checks whether that handler may have it, and lets it wait for its turn.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::message::{Part, Request};
use super::peer::Peer;
use super::remote::Remote;
use crate::router::index::Subscription;
use crate::router::index::receivers::Receivers;
use crate::router::request::candidates::served_inside;
use crate::router::request::pending::{Event, Outcome, Pending, State};
use crate::router::request::{Asking, Giving, words};
use crate::router::session::Session;
use crate::router::{RequestId, Router, SubscriptionId};
use crate::websocket::Frame;
use wire::{DecodeLimits, ErrorCode, Field, Refusal, Splice, decode};

/// How much longer than its requester's node a handler's node keeps a request. It ends sooner when that node says so.
pub(super) const SLACK: Duration = Duration::from_secs(5);

impl Router {
    /// A request of a peer's session, for a handler of this node.
    pub(super) fn request_from(&self, now: Instant, peer: &Arc<Peer>, request: &Request<'_>) {
        let remote = Remote::requester(peer, request.part);
        let user = request.asker_user.map(Arc::from);
        let asker = Arc::new(self.stand_in(now, request.source, user.as_ref(), remote));
        if !self.take_request(now, peer, &asker, request)
            && let Some(remote) = asker.remote()
        {
            remote.gone();
        }
    }

    /// Gives a request of a peer's session to its handler. Returns `false` if that has gone, or may not have it.
    fn take_request(&self, now: Instant, peer: &Arc<Peer>, asker: &Arc<Session>, request: &Request<'_>) -> bool {
        let Ok(envelope) = decode(request.text, DecodeLimits::OWN) else { return false };
        let facts = self.policy.facts(envelope.triple());
        let scope = facts.scope_of(request.user);
        let matches = self.handlers_of(&facts, scope);
        let id = SubscriptionId::from_number(request.subscription);
        let mut handlers = matches.iter().flat_map(Receivers::iter);
        let is_it = |handler: &&Arc<Subscription>| handler.id == id && handler.session.remote().is_none();
        let Some(handler) = handlers.find(is_it).map(Arc::clone) else { return false };
        let served_inside = served_inside(&facts, &matches);
        let may = self.may_handle(&handler.session, envelope.triple(), scope, &facts, served_inside);
        if !may || !handler.is_for(scope) {
            return false;
        }
        let timeout = Duration::from_millis(request.timeout_ms).min(self.policy.limits().request_timeout);
        let asking = Asking::of_peer(asker, &envelope, request.user, timeout + SLACK, facts.protected);
        if handler.takes_commands() {
            let Ok(pressure) = self.command(now, &asking, &handler) else { return false };
            if let Some(remote) = asker.remote() {
                remote.delivered();
            }
            self.report_if_over(now, peer, request.sender, (&handler.session, pressure));
            return true;
        }
        let serial = self.ids.serial();
        let Ok(pending) = self.open(now, &asking, (self.ids.request(serial), serial), None) else { return false };
        peer.note_asked(request.part, &pending);
        let unplaced = match self
            .give(now, &pending, &asking, &handler, |left| asking.frame(pending.id, left.saturating_sub(SLACK)))
        {
            Giving::Given(pressure) | Giving::Delivered(pressure) => {
                self.report_if_over(now, peer, request.sender, (&handler.session, pressure));
                Ok(())
            }
            Giving::Elsewhere => Ok(()),
            Giving::NotInTurn => self.wait_for_turn(now, &pending, &asking, &handler),
            Giving::Left | Giving::Bounced | Giving::Refused(_) => Err(words::handler_gone(&handler.session.source)),
        };
        match unplaced.or_else(|refusal| self.give_up(now, &pending, refusal)) {
            Ok(()) => true,
            Err(_) => {
                peer.forget_asked(request.part);
                false
            }
        }
    }

    /// The handler to which this node gave a request has gone. Another one gets it.
    pub(super) fn gone_from(&self, now: Instant, peer: &Arc<Peer>, part: Part) {
        let Some((session, pending)) = given_to(peer, part) else { return };
        let Some(handler) = pending.look(|state, _| match state {
            State::Given(handler) => Some(Arc::clone(handler)),
            State::Seeking | State::Waiting(_) | State::Ended => None,
        }) else {
            return;
        };
        let unplaced = match self.advance(now, &pending, Event::Return(&handler)) {
            Outcome::Seeking(text) => self.place_again(now, &pending, text),
            Outcome::Ended(_) => Err(words::handler_gone(&session.source)),
            _ => return,
        };
        if let Err(refusal) = unplaced {
            self.tell_failure(now, &pending, &session.source, &refusal);
        }
    }

    /// A handler of a peer replies.
    pub(super) fn answer_from(
        &self,
        now: Instant,
        peer: &Arc<Peer>,
        (part, sender): (Part, u64),
        more: bool,
        text: &str,
    ) {
        let Some((session, pending)) = given_to(peer, part) else { return };
        let Ok(envelope) = decode(text, DecodeLimits::OWN) else { return };
        let frame = match pending.gather {
            None => Frame::join(&[text], pending.secret),
            Some(_) => Splice::new(&envelope).secret(pending.secret).cut(Field::More).flag("more").into(),
        };
        if let Some(routed) = self.answer_with(now, &session, &pending, more, frame) {
            self.report_pressed(now, peer, sender, &routed.pressed);
        }
    }

    /// A request has failed at its handler's node.
    pub(super) fn failure_from(&self, now: Instant, peer: &Arc<Peer>, part: Part, code: &str, words: &str) {
        let Some((session, pending)) = given_to(peer, part) else { return };
        let code = code.parse().unwrap_or(ErrorCode::Internal);
        if code == ErrorCode::HandlerGone {
            return self.handler_gone(now, &pending, &session);
        }
        if let Outcome::Ended(_) = self.advance(now, &pending, Event::Withdraw) {
            self.tell_failure(now, &pending, &session.source, &Refusal::new(code, words.to_owned()));
        }
    }

    /// A requester of a peer no longer waits. `late`: its time limit is over.
    pub(super) fn cancel_from(&self, now: Instant, peer: &Arc<Peer>, part: Part, late: bool) {
        let Some(pending) = peer.forget_asked(part) else { return };
        if late {
            self.expire_one(now, &pending, Event::Withdraw);
        } else {
            self.withdraw(now, &pending, "the requester no longer waits");
        }
    }
}

/// A request that this node gave to a handler of a peer.
pub(super) fn given_to(peer: &Peer, part: Part) -> Option<(Arc<Session>, Arc<Pending>)> {
    let request = RequestId::from_number(part.request);
    peer.stand_ins(part.handler).find_map(|session| session.given(request).map(|pending| (session, pending)))
}
