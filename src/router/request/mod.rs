//! Rule 2: requests on their way to a handler. A request is given to the best one, waits for an ordered one's turn, or is
//! gathered from all.
//!
//! `pending` is the state of each request, `deadlines` its time, `candidates` who may have it, `turn` and `lane` whose turn
//! it is, `turn_elsewhere` turns of a session that has moved. `answer` is how it ends, `door` how handlers inside the process get it, `words` what requesters are told.

pub(in crate::router) mod answer;
pub(in crate::router) mod away;
pub(in crate::router) mod candidates;
pub(in crate::router) mod deadlines;
pub(in crate::router) mod door;
pub(in crate::router) mod gather;
pub(in crate::router) mod lane;
pub(in crate::router) mod pending;
pub(in crate::router) mod turn;
pub(in crate::router) mod turn_elsewhere;
pub(in crate::router) mod words;

use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::smallvec;

use crate::router::decide::Facts;
use crate::router::ids::Serial;
use crate::router::index::Subscription;
use crate::router::outbox::{Kind, OnFull, Pressure, PushError};
use crate::router::request::candidates::Candidates;
use crate::router::request::door::repeats;
use crate::router::request::gather::Gather;
use crate::router::request::pending::{Draft, Event, KeptText, Outcome, Pending, Waits};
use crate::router::resume::transit::Transit;
use crate::router::session::Session;
use crate::router::{Receipt, RequestId, Routed, Router, Scope};
use crate::telemetry::metrics::RequestOutcome;
use crate::websocket::Frame;
use wire::{DecodeLimits, Envelope, Field, Refusal, Splice, decode};

/// A request as its requester sent it, and what follows from it.
pub(in crate::router) struct Asking<'a> {
    asker: &'a Arc<Session>,
    envelope: &'a Envelope<'a>,
    user: Option<&'a str>,
    timeout: Duration,
    secret: bool,
    text: Option<Arc<KeptText>>,
}

/// What became of a request that was to be given to a handler.
pub(in crate::router) enum Giving {
    /// The handler has it.
    Given(Pressure),
    /// The handler has it and never answers, which completes the request.
    Delivered(Pressure),
    /// Another request has the handler's turn.
    NotInTurn,
    /// The handler has left.
    Left,
    /// The handler's queue did not take it.
    Bounced,
    /// A handler inside the process refused it.
    Refused(Refusal),
    /// The request has ended, or another thread has given it to a handler.
    Elsewhere,
}

impl<'a> Asking<'a> {
    /// A request that already exists, from its kept text.
    fn again(pending: &'a Pending, envelope: &'a Envelope<'a>, text: Arc<KeptText>) -> Self {
        let Pending { asker, user, timeout, secret, .. } = pending;
        Self { asker, envelope, user: user.as_deref(), timeout: *timeout, secret: *secret, text: Some(text) }
    }

    /// A request of another node's session.
    pub(in crate::router) fn of_peer(
        asker: &'a Arc<Session>,
        envelope: &'a Envelope<'a>,
        user: Option<&'a str>,
        timeout: Duration,
        secret: bool,
    ) -> Self {
        Self { asker, envelope, user, timeout, secret, text: None }
    }

    pub(in crate::router) fn asker(&self) -> &Arc<Session> {
        self.asker
    }

    /// The user whom it concerns.
    pub(in crate::router) fn user(&self) -> Option<&str> {
        self.user
    }

    /// As its requester sent it.
    pub(in crate::router) fn text(&self) -> &str {
        self.envelope.text()
    }

    /// The request as its handler sees it.
    pub(in crate::router) fn frame(&self, id: RequestId, remaining: Duration) -> Frame {
        let envelope = self.envelope;
        let mut splice = Splice::new(envelope).secret(self.secret).cut(Field::Id).cut(Field::User).cut(Field::Timeout);
        if envelope.source().is_none() {
            splice = splice.string("source", &self.asker.source);
        }
        if let Some(user) = self.user {
            splice = splice.string("user", user);
        }
        splice = splice.string("id", id.text().as_ref());
        if let Some(request_id) = envelope.id() {
            splice = splice.string("requestId", request_id);
        }
        let remaining = u64::try_from(remaining.as_millis()).unwrap_or(u64::MAX).max(1);
        splice.number("timeout", remaining).into()
    }
}

impl Router {
    /// Gives a request to one handler, or with `gather` to all.
    pub(in crate::router) fn request(
        &self,
        now: Instant,
        asker: &Arc<Session>,
        envelope: &Envelope<'_>,
        scope: Scope<'_>,
        candidates: Candidates,
        facts: &Facts<'_>,
    ) -> Result<Routed, Refusal> {
        let limits = self.policy.limits();
        let most = limits.pending_requests;
        let pending = asker.holds.lock().asked.len();
        if pending >= most {
            return Err(words::too_many_pending(most));
        }
        let timeout_max = limits.request_timeout;
        let timeout = envelope.timeout_ms().map_or(timeout_max, |ms| Duration::from_millis(ms).min(timeout_max));
        let mut asking = Asking { asker, envelope, user: scope.user(), timeout, secret: facts.protected, text: None };
        if envelope.gather() {
            if pending + candidates.len() > most {
                return Err(words::gather_too_wide(candidates.len(), most));
            }
            return self.gather(now, &mut asking, candidates);
        }
        // A handler elsewhere may have gone when the request arrives there.
        if envelope.idempotent() || candidates.any_elsewhere() {
            asking.text = Some(self.keep(&asking)?);
        }
        self.place(now, &asking, None, candidates)
    }

    /// Copies a request's text, because it may have to be sent later.
    ///
    /// # Errors
    /// `TOO_MANY_REQUESTS`.
    fn keep(&self, asking: &Asking<'_>) -> Result<Arc<KeptText>, Refusal> {
        let most = self.policy.limits().pending_bytes;
        KeptText::new(asking.asker, asking.envelope.text(), most).ok_or_else(|| words::too_many_bytes(most))
    }

    /// Opens a request. `id`: of all parts of a gather.
    ///
    /// # Errors
    /// `INTERNAL` if the requester has gone, which cannot happen while it sends.
    pub(in crate::router) fn open(
        &self,
        now: Instant,
        asking: &Asking<'_>,
        (id, serial): (RequestId, Serial),
        gather: Option<Arc<Gather>>,
    ) -> Result<Arc<Pending>, Refusal> {
        let envelope = asking.envelope;
        let declared = self.declared.load();
        let declaration = declared.of(envelope.triple());
        let draft = Draft {
            id,
            serial,
            asker: asking.asker,
            asker_id: envelope.id(),
            triple: envelope.triple(),
            trace: envelope.trace(),
            user: asking.user,
            timeout: asking.timeout,
            more_max: self.policy.limits().more_max,
            secret: asking.secret,
            // The requester's node gives it to another handler.
            idempotent: envelope.idempotent() && asking.asker.remote().is_none(),
            gather,
            failure_keys: declaration.map_or(&[], |it| it.failure_keys),
            repeats: declaration.and_then(|it| repeats(it.repeats, envelope)),
            text: asking.text.clone(),
        };
        self.requests.open(now, draft).ok_or_else(|| words::impossible("a session that has gone sends a request"))
    }

    /// Gives a request to the best candidate that takes it. If nobody is free, it waits for the turn of an ordered one.
    /// `pending`: the request, if it is open already.
    ///
    /// # Errors
    /// The refusal that the requester is to get; the request has ended.
    fn place(
        &self,
        now: Instant,
        asking: &Asking<'_>,
        pending: Option<&Arc<Pending>>,
        candidates: Candidates,
    ) -> Result<Routed, Refusal> {
        let opened;
        let mut occupied = Waits::new();
        let mut refused = None;
        let mut best_first = candidates.best_first().peekable();
        let pending = match pending {
            Some(pending) => pending,
            None => {
                // A command needs no state, because nobody answers it.
                while let Some(handler) = best_first.next_if(|handler| handler.takes_commands()) {
                    if let Ok(pressure) = self.command(now, asking, &handler) {
                        self.metrics.requests.count(RequestOutcome::Delivered);
                        return Ok(Routed::delivered(&handler.session, pressure));
                    }
                }
                if best_first.peek().is_none() {
                    return Err(words::no_handler(asking.envelope, asking.secret));
                }
                let serial = self.ids.serial();
                opened = self.open(now, asking, (self.ids.request(serial), serial), None)?;
                &opened
            }
        };
        for handler in best_first {
            match self.give(now, pending, asking, &handler, |left| asking.frame(pending.id, left)) {
                Giving::Given(pressure) => return Ok(Routed::given(&handler.session, pressure)),
                Giving::Delivered(pressure) => return Ok(Routed::delivered(&handler.session, pressure)),
                Giving::Elsewhere => return Ok(Routed::default()),
                Giving::NotInTurn => occupied.push(handler),
                Giving::Left | Giving::Bounced => {}
                Giving::Refused(refusal) => refused = Some(refusal),
            }
        }
        let unplaced = match occupied.is_empty() {
            true => Err(refused.unwrap_or_else(|| words::no_handler(asking.envelope, asking.secret))),
            false => self.wait(now, pending, asking, &occupied),
        };
        unplaced.or_else(|refusal| self.give_up(now, pending, refusal)).map(|()| Routed::default())
    }

    /// Lets a request wait, within its time limit, for the turn of an ordered handler.
    ///
    /// # Errors
    /// The refusal that the requester is to get; the request still seeks a handler.
    fn wait(&self, now: Instant, pending: &Arc<Pending>, asking: &Asking<'_>, occupied: &Waits) -> Result<(), Refusal> {
        let text = match &asking.text {
            Some(text) => Arc::clone(text),
            None => self.keep(asking)?,
        };
        match self.advance(now, pending, Event::Wait(occupied, text)) {
            Outcome::HandlerLeft => {
                let source = occupied.first().map_or("", |handler| &handler.session.source);
                return Err(words::handler_gone(source));
            }
            // The turn may have become free between the attempt and the wait.
            Outcome::Waiting => occupied.iter().for_each(|handler| self.serve_turns(now, &handler.session)),
            _ => {}
        }
        Ok(())
    }

    /// Gives the requests that wait for a session's ordered handlers to those whose turn it is.
    pub(in crate::router) fn serve_turns(&self, now: Instant, session: &Arc<Session>) {
        while let Some((pending, handler)) = session.turns.next() {
            // Without a text it has ended meanwhile, and no longer waits.
            let Some(text) = pending.text() else { continue };
            let given = decode(text.as_str(), DecodeLimits::OWN).map(|envelope| {
                let asking = Asking::again(&pending, &envelope, Arc::clone(&text));
                self.give(now, &pending, &asking, &handler, |left| asking.frame(pending.id, left))
            });
            let unplaced = match given {
                Ok(Giving::Bounced | Giving::Refused(_)) => self.place_again(now, &pending, Some(text)),
                // The thread that ends its subscription tells the requesters that waited, and serves the others.
                Ok(Giving::Left) => return,
                Ok(Giving::Given(_) | Giving::Delivered(_)) => {
                    self.count_later(&pending, 1);
                    Ok(())
                }
                Ok(Giving::NotInTurn | Giving::Elsewhere) => Ok(()),
                Err(_) => {
                    self.withdraw(now, &pending, "the broker failed");
                    Err(words::impossible("a kept text is not an envelope"))
                }
            };
            if let Err(refusal) = unplaced {
                self.tell_failure(now, &pending, &handler.session.source, &refusal);
            }
        }
    }

    /// Gives a request to a handler. `frame` makes what the handler gets, with the time that is left.
    pub(in crate::router) fn give(
        &self,
        now: Instant,
        pending: &Arc<Pending>,
        asking: &Asking<'_>,
        handler: &Arc<Subscription>,
        frame: impl FnOnce(Duration) -> Frame,
    ) -> Giving {
        let session = &handler.session;
        let remaining = match self.advance(now, pending, Event::Give(handler, asking.text.as_ref())) {
            Outcome::Given(remaining) => {
                // Its new node has to expect the reply before the request is there.
                self.tell_turns(session);
                remaining
            }
            Outcome::HandlerLeft => return Giving::Left,
            Outcome::NotInTurn => return Giving::NotInTurn,
            _ => return Giving::Elsewhere,
        };
        let pushed = match (session.door(), session.remote()) {
            (_, Some(remote)) => {
                let is_given = remote.request((pending.id.number(), handler), asking, remaining);
                if is_given { Ok(Pressure::Relieved) } else { Err(Giving::Bounced) }
            }
            (Some(door), None) => {
                let offered = self.given(pending, asking.envelope, remaining).and_then(|given| door.offer(given));
                offered.map(|()| Pressure::Relieved).map_err(Giving::Refused)
            }
            (None, None) => self.push_request(now, asking, handler, frame(remaining)).map_err(|_| Giving::Bounced),
        };
        match pushed {
            Ok(pressure) => {
                session.serve(self.ids.stamp());
                if !handler.takes_commands() {
                    return Giving::Given(pressure);
                }
                match self.advance(now, pending, Event::Deliver(handler)) {
                    Outcome::Ended(_) => {
                        self.metrics.requests.count(RequestOutcome::Delivered);
                        Giving::Delivered(pressure)
                    }
                    _ => Giving::Elsewhere,
                }
            }
            Err(why) => match self.advance(now, pending, Event::Bounce(handler)) {
                Outcome::Seeking(_) => why,
                _ => Giving::Elsewhere,
            },
        }
    }

    /// Pushes a request to its handler, unless the handler's rights have changed and do not allow it.
    fn push_request(
        &self,
        now: Instant,
        asking: &Asking<'_>,
        handler: &Subscription,
        frame: Frame,
    ) -> Result<Pressure, PushError> {
        let may = || self.may_take(handler, asking.envelope.triple(), asking.user);
        let content = (frame, OnFull::Close, Kind::Request);
        // The requests that wait for its turns stay here, also when others go to its new node.
        if handler.ordered.is_some() && handler.session.transit().is_some_and(Transit::has_gone) {
            return if may() { handler.session.outbox().push_as(now, content) } else { Err(PushError::Forbidden) };
        }
        handler.session.push_from(now, (asking.asker().node().as_deref(), None), content, may)
    }

    /// Sends a command to a handler that never answers: delivery completes it.
    pub(in crate::router) fn command(
        &self,
        now: Instant,
        asking: &Asking<'_>,
        handler: &Arc<Subscription>,
    ) -> Result<Pressure, PushError> {
        let id = self.ids.request(self.ids.serial());
        let pressure = match handler.session.remote() {
            Some(remote) if remote.request((id.number(), handler), asking, asking.timeout) => Pressure::Relieved,
            Some(_) => return Err(PushError::Closed),
            None => self.push_request(now, asking, handler, asking.frame(id, asking.timeout))?,
        };
        handler.session.serve(self.ids.stamp());
        Ok(pressure)
    }

    /// Gives a request to every handler. All get the same frame, so a gather costs about as much as an event.
    fn gather(&self, now: Instant, asking: &mut Asking<'_>, candidates: Candidates) -> Result<Routed, Refusal> {
        let everyone = candidates.everyone();
        let expected = everyone.iter().filter(|handler| !handler.takes_commands()).count();
        let (envelope, id) = (asking.envelope, self.ids.request(self.ids.serial()));
        let gather = Arc::new(Gather::new(asking.asker, envelope.id(), envelope.triple(), expected));
        let mut routed = Routed::default();
        let mut frame = None;
        for handler in everyone {
            let session = &handler.session;
            if handler.takes_commands() {
                if let Ok(pressure) = self.command(now, asking, &handler) {
                    self.metrics.requests.count(RequestOutcome::Delivered);
                    routed.note_delivery(session, pressure);
                }
                continue;
            }
            let pending = self.open(now, asking, (id, self.ids.serial()), Some(Arc::clone(&gather)))?;
            let shared = |left| frame.get_or_insert_with(|| asking.frame(id, left)).clone();
            let unplaced = match self.give(now, &pending, asking, &handler, shared) {
                Giving::Given(pressure) | Giving::Delivered(pressure) => {
                    routed.note_delivery(session, pressure);
                    Ok(())
                }
                Giving::Elsewhere => Ok(()),
                Giving::Left | Giving::Bounced => Err(words::handler_gone(&session.source)),
                Giving::Refused(refusal) => Err(refusal),
                Giving::NotInTurn => self.wait_for_part(now, &pending, asking, &handler),
            };
            if let Err(refusal) = unplaced.or_else(|refusal| self.give_up(now, &pending, refusal)) {
                self.metrics.requests.count(RequestOutcome::of(refusal.code));
                gather.failed(now, &session.source, refusal.code);
            }
        }
        if expected == 0 {
            gather.end_if_complete(now);
        }
        Ok(routed)
    }

    /// Counts deliveries of a request that has waited, or was given to another handler.
    fn count_later(&self, pending: &Pending, deliveries: usize) {
        self.metrics.traffic.delivered(self.policy.place(&pending.triple.channel), deliveries);
    }

    /// Lets a request of another node's session wait for an ordered handler.
    pub(in crate::router) fn wait_for_turn(
        &self,
        now: Instant,
        pending: &Arc<Pending>,
        asking: &Asking<'_>,
        handler: &Arc<Subscription>,
    ) -> Result<(), Refusal> {
        self.wait(now, pending, asking, &smallvec![Arc::clone(handler)])
    }

    /// Lets a gather's part wait for an ordered handler. All parts that wait share one text.
    fn wait_for_part(
        &self,
        now: Instant,
        pending: &Arc<Pending>,
        asking: &mut Asking<'_>,
        handler: &Arc<Subscription>,
    ) -> Result<(), Refusal> {
        if asking.text.is_none() {
            asking.text = Some(self.keep(asking)?);
        }
        self.wait(now, pending, asking, &smallvec![Arc::clone(handler)])
    }
}

impl Routed {
    /// A handler has the request.
    fn given(handler: &Arc<Session>, pressure: Pressure) -> Self {
        let mut routed = Self::default();
        routed.note_delivery(handler, pressure);
        routed
    }

    /// A handler that never answers has the command.
    fn delivered(handler: &Arc<Session>, pressure: Pressure) -> Self {
        Self {
            receipt: Some(Receipt { receivers: 1, hint: None, kept: None, nodes: None }),
            ..Self::given(handler, pressure)
        }
    }
}
