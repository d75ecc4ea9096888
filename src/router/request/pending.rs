//! [`Pending`]: one open request. [`Requests::apply`] is the only function that changes its state.
//!
//! Whatever follows from a change happens in the same step, under the request's lock: which handler has it, whose turn
//! it is, which deadlines are set. So a request is never given twice, never answered twice, and never left unanswered.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use smallvec::SmallVec;
use zeroize::Zeroizing;

use crate::router::ids::Serial;
use crate::router::index::Subscription;
use crate::router::request::deadlines::Requests;
use crate::router::request::door::Repeats;
use crate::router::request::gather::Gather;
use crate::router::request::turn::{Begin, TurnEnd};
use crate::router::session::Session;
use crate::router::sync::Mutex;
use crate::router::{RequestId, SubscriptionId};
use wire::{ErrorCode, TraceParent, Triple};

/// How many handlers an idempotent request is given to, one after the other.
const ATTEMPTS_MAX: u8 = 2;

/// One request, or one handler's part of a gather.
pub(in crate::router) struct Pending {
    /// The parts of a gather share one.
    pub(in crate::router) id: RequestId,
    pub(in crate::router) serial: Serial,
    pub(in crate::router) asker: Arc<Session>,
    /// The requester's own id, which it sees as `inReplyTo`.
    pub(in crate::router) asker_id: Option<Box<str>>,
    pub(in crate::router) triple: Triple<'static>,
    /// The trace that it belongs to.
    pub(in crate::router) trace: Option<Box<TraceParent>>,
    pub(in crate::router) user: Option<Box<str>>,
    /// The time limit, which each reply with `more` restarts.
    pub(in crate::router) timeout: Duration,
    pub(in crate::router) opened: Instant,
    /// How long replies with `more` can keep it open, in all.
    pub(in crate::router) more_max: Duration,
    /// Its triple is protected: its bytes are zeroised.
    pub(in crate::router) secret: bool,
    pub(in crate::router) idempotent: bool,
    pub(in crate::router) gather: Option<Arc<Gather>>,
    /// The null keys that a failure has before `Success`. Those of the adapter that served the triple when it was sent, which
    /// a reload may have switched off since.
    pub(in crate::router) failure_keys: &'static [&'static str],
    /// The fields of its payload that a failure repeats.
    pub(in crate::router) repeats: Option<Repeats>,
    progress: Mutex<Progress>,
}

struct Progress {
    state: State,
    deadline: Instant,
    attempts: u8,
    /// Handlers of other nodes that had gone when the request arrived.
    returned_by: Vec<SubscriptionId>,
    /// The id by which its handler knows it, if another node gave it to that one.
    known: Option<RequestId>,
    /// Kept if it may have to be sent later or once more.
    text: Option<Arc<KeptText>>,
}

/// Where a request is.
pub(in crate::router) enum State {
    /// No handler has it. The thread that is looking for one decides what comes next.
    Seeking,
    /// No handler has it. It waits for the turn of one of these ordered handlers.
    Waiting(Waits),
    /// This handler has it.
    Given(Arc<Subscription>),
    /// It has been answered, in one way or another.
    Ended,
}

/// The ordered handlers for whose turn a request waits.
pub(in crate::router) type Waits = SmallVec<[Arc<Subscription>; 1]>;

/// What can happen to a request.
pub(in crate::router) enum Event<'a> {
    /// A handler is to have it. Its text, if it was kept: an earlier handler that did not take it after all may have let it go.
    Give(&'a Arc<Subscription>, Option<&'a Arc<KeptText>>),
    /// The handler's queue did not take it.
    Bounce(&'a Arc<Subscription>),
    /// The handler had gone when the request arrived at its node.
    Return(&'a Arc<Subscription>),
    /// The handler's session has moved, and has it where it is now. The id by which it knows it, if that is not the request's
    /// own. Of a request that another node had before: it is this one's now.
    Rebind(&'a Arc<Subscription>, Option<RequestId>),
    /// The handler's session has moved, and another node has the request now.
    HandOn,
    /// The queue of a handler that never answers took it.
    Deliver(&'a Arc<Subscription>),
    /// Every handler that could have it has another request's turn.
    Wait(&'a Waits, Arc<KeptText>),
    /// No handler can have it, and its requester is told this code.
    GiveUp(ErrorCode),
    /// An ordered handler has left, for whose turn it may wait.
    Leave(&'a Arc<Subscription>),
    /// The session that may have it has gone.
    HandlerGone(&'a Arc<Session>),
    /// The session that may have it is away, and another one may be able to take an idempotent request.
    HandlerAway(&'a Arc<Session>),
    /// A session replies. `pass_on` sends the reply to the requester.
    Reply { by: &'a Arc<Session>, more: bool, pass_on: &'a mut dyn FnMut() },
    /// Its time may be over.
    Expire,
    /// The requester has left or cancelled it.
    Withdraw,
}

/// What an event changed.
#[must_use = "the outcome says who has to act next"]
pub(in crate::router) enum Outcome {
    /// Nothing: the request has ended, or another session has it.
    Ignored,
    /// Nothing: the handler has left.
    HandlerLeft,
    /// Nothing: another request has the handler's turn.
    NotInTurn,
    /// The handler has it, with this time left.
    Given(Duration),
    /// No handler has it. The caller has to look for one.
    Seeking(Option<Arc<KeptText>>),
    /// It waits for an ordered handler's turn.
    Waiting,
    /// Further replies follow.
    Open,
    /// It has ended, and was in this state before. The caller has to tell the requester.
    Ended(State),
}

/// The text of a request that may have to be sent later. It counts towards its requester's `limits.pending_bytes` for as
/// long as it exists.
pub(in crate::router) struct KeptText {
    text: Zeroizing<String>,
    asker: Arc<Session>,
}

impl KeptText {
    /// Copies a text; `None` if its requester's limit does not allow it.
    pub(in crate::router) fn new(asker: &Arc<Session>, text: &str, bytes_max: usize) -> Option<Arc<Self>> {
        let fits = |kept: usize| kept.checked_add(text.len()).filter(|sum| *sum <= bytes_max);
        asker.pending_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).ok()?;
        Some(Arc::new(Self { text: Zeroizing::new(text.to_owned()), asker: Arc::clone(asker) }))
    }

    pub(in crate::router) fn as_str(&self) -> &str {
        &self.text
    }
}

impl Drop for KeptText {
    fn drop(&mut self) {
        self.asker.pending_bytes.fetch_sub(self.text.len(), Ordering::Relaxed);
    }
}

/// What a new request is made of.
pub(in crate::router) struct Draft<'a> {
    pub(in crate::router) id: RequestId,
    pub(in crate::router) serial: Serial,
    pub(in crate::router) asker: &'a Arc<Session>,
    pub(in crate::router) asker_id: Option<&'a str>,
    pub(in crate::router) triple: &'a Triple<'a>,
    pub(in crate::router) trace: Option<&'a TraceParent>,
    pub(in crate::router) user: Option<&'a str>,
    pub(in crate::router) timeout: Duration,
    pub(in crate::router) more_max: Duration,
    pub(in crate::router) secret: bool,
    pub(in crate::router) idempotent: bool,
    pub(in crate::router) gather: Option<Arc<Gather>>,
    pub(in crate::router) failure_keys: &'static [&'static str],
    pub(in crate::router) repeats: Option<Repeats>,
    pub(in crate::router) text: Option<Arc<KeptText>>,
}

impl Draft<'_> {
    fn into_pending(self, now: Instant) -> Pending {
        Pending {
            id: self.id,
            serial: self.serial,
            asker: Arc::clone(self.asker),
            asker_id: self.asker_id.map(Box::from),
            triple: self.triple.to_owned(),
            trace: self.trace.copied().map(Box::new),
            user: self.user.map(Box::from),
            timeout: self.timeout,
            opened: now,
            more_max: self.more_max.max(self.timeout),
            secret: self.secret,
            idempotent: self.idempotent,
            gather: self.gather,
            failure_keys: self.failure_keys,
            repeats: self.repeats,
            progress: Mutex::new(Progress {
                state: State::Seeking,
                deadline: now + self.timeout,
                attempts: 0,
                returned_by: Vec::new(),
                known: None,
                text: self.text,
            }),
        }
    }
}

impl Pending {
    /// Calls `look` with its state and the end of its time.
    pub(in crate::router) fn look<T>(&self, look: impl FnOnce(&State, Instant) -> T) -> T {
        let progress = self.progress.lock();
        look(&progress.state, progress.deadline)
    }

    /// The text, if it is kept.
    pub(in crate::router) fn text(&self) -> Option<Arc<KeptText>> {
        self.progress.lock().text.clone()
    }

    /// The handlers of other nodes that had gone when it arrived.
    pub(in crate::router) fn returned_by(&self) -> Vec<SubscriptionId> {
        self.progress.lock().returned_by.clone()
    }

    /// The id by which its handler knows it.
    pub(in crate::router) fn known_id(&self) -> RequestId {
        self.progress.lock().known.unwrap_or(self.id)
    }

    /// Whether it has not ended, and both its requester and its handler have a connection.
    pub(in crate::router) fn is_pending_here(&self) -> bool {
        let waits_for = match &self.progress.lock().state {
            State::Ended => return false,
            State::Given(handler) => Some(Arc::clone(&handler.session)),
            State::Seeking | State::Waiting(_) => None,
        };
        !self.asker.is_away() && waits_for.is_none_or(|handler| !handler.is_away())
    }

    /// Whether an idempotent request may be given to another handler.
    fn may_be_given_again(&self, progress: &Progress) -> bool {
        self.idempotent && self.gather.is_none() && progress.attempts < ATTEMPTS_MAX
    }
}

impl Requests {
    /// Opens a request, which seeks a handler; `None` if its requester has gone.
    pub(in crate::router) fn open(&self, now: Instant, draft: Draft<'_>) -> Option<Arc<Pending>> {
        let deadline = now + draft.timeout;
        let pending = Arc::new(draft.into_pending(now));
        pending.asker.ask(&pending).ok()?;
        self.schedule(&pending, deadline);
        Some(pending)
    }

    /// The transition function, for [`Router::advance`](crate::router::Router): changes the state of a request as an event
    /// demands, and says what the caller has to do.
    pub(in crate::router) fn apply(&self, now: Instant, pending: &Arc<Pending>, event: Event<'_>) -> Outcome {
        let mut guard = pending.progress.lock();
        let progress = &mut *guard;
        if let State::Ended = progress.state {
            return Outcome::Ignored;
        }
        match (event, &mut progress.state) {
            (Event::Give(handler, text), State::Seeking | State::Waiting(_)) => {
                self.give(now, pending, progress, (handler, text))
            }
            (Event::Bounce(handler), State::Given(given)) if Arc::ptr_eq(given, handler) => {
                progress.attempts -= 1;
                self.seek(now, pending, progress)
            }
            (Event::Return(handler), State::Given(given)) if Arc::ptr_eq(given, handler) => {
                self.take_back(now, pending, progress, handler.id)
            }
            (Event::Rebind(handler, known), _) => self.rebind(now, pending, progress, handler, known),
            (Event::Deliver(handler), State::Given(given)) if Arc::ptr_eq(given, handler) => {
                self.end(now, pending, progress, TurnEnd::Over)
            }
            (Event::Wait(handlers, text), State::Seeking) => self.wait(now, pending, progress, handlers, text),
            (Event::GiveUp(_), State::Seeking) | (Event::HandOn, State::Given(_)) => {
                self.end(now, pending, progress, TurnEnd::Over)
            }
            (Event::Leave(handler), State::Waiting(handlers)) => {
                handlers.retain(|other| !Arc::ptr_eq(other, handler));
                match handlers.is_empty() {
                    true => self.end(now, pending, progress, TurnEnd::Over),
                    false => Outcome::Waiting,
                }
            }
            (Event::HandlerGone(session), State::Given(given)) if Arc::ptr_eq(&given.session, session) => {
                match pending.may_be_given_again(progress) {
                    true => self.seek(now, pending, progress),
                    false => self.end(now, pending, progress, TurnEnd::Over),
                }
            }
            (Event::HandlerAway(session), State::Given(given)) if Arc::ptr_eq(&given.session, session) => {
                if !pending.may_be_given_again(progress) || !session.is_away() {
                    return Outcome::Ignored;
                }
                self.change(now, pending, progress, State::Seeking, TurnEnd::Owed);
                Outcome::Seeking(progress.text.clone())
            }
            (Event::Reply { by, more, pass_on }, State::Given(given)) if Arc::ptr_eq(&given.session, by) => {
                // Under the lock, so that nothing of this request follows its last answer.
                pass_on();
                if !more {
                    return self.end(now, pending, progress, TurnEnd::Over);
                }
                self.reschedule(pending, progress, (now + pending.timeout).min(pending.opened + pending.more_max));
                Outcome::Open
            }
            (Event::Expire, _) if progress.deadline <= now => self.end(now, pending, progress, TurnEnd::Owed),
            (Event::Withdraw, _) => self.end(now, pending, progress, TurnEnd::Owed),
            // The request is in another state, or another session has it.
            (
                Event::Give(..)
                | Event::Bounce(_)
                | Event::Return(_)
                | Event::HandOn
                | Event::Deliver(_)
                | Event::Wait(..)
                | Event::GiveUp(_)
                | Event::Leave(_)
                | Event::HandlerGone(_)
                | Event::HandlerAway(_)
                | Event::Reply { .. }
                | Event::Expire,
                _,
            ) => Outcome::Ignored,
        }
    }

    fn give(
        &self,
        now: Instant,
        pending: &Arc<Pending>,
        progress: &mut Progress,
        (handler, text): (&Arc<Subscription>, Option<&Arc<KeptText>>),
    ) -> Outcome {
        if handler.ordered.is_some() {
            match handler.session.turns.begin(pending, handler) {
                Begin::Begun => {}
                Begin::NotFree => return Outcome::NotInTurn,
                Begin::Left => return Outcome::HandlerLeft,
            }
        }
        progress.known = None;
        if handler.session.take(pending.id, pending).is_err() {
            if handler.ordered.is_some() {
                handler.session.turns.end(now, self, pending.id, TurnEnd::Over);
            }
            return Outcome::HandlerLeft;
        }
        self.change(now, pending, progress, State::Given(Arc::clone(handler)), TurnEnd::Over);
        progress.attempts += 1;
        // The node of a handler elsewhere may say that it has gone.
        let may_return = handler.session.remote().is_some();
        progress.text = if may_return || pending.may_be_given_again(progress) { text.cloned() } else { None };
        Outcome::Given(progress.deadline.saturating_duration_since(now))
    }

    /// The handler that has a request has moved, or the request has: nothing is sent.
    fn rebind(
        &self,
        now: Instant,
        pending: &Arc<Pending>,
        progress: &mut Progress,
        handler: &Arc<Subscription>,
        known: Option<RequestId>,
    ) -> Outcome {
        let may = match &progress.state {
            State::Seeking => true,
            State::Given(given) => given.id == handler.id && !Arc::ptr_eq(&given.session, &handler.session),
            State::Waiting(_) | State::Ended => false,
        };
        if !may {
            return Outcome::Ignored;
        }
        if handler.session.take(known.unwrap_or(pending.id), pending).is_err() {
            return Outcome::HandlerLeft;
        }
        self.change(now, pending, progress, State::Given(Arc::clone(handler)), TurnEnd::Over);
        progress.known = known;
        Outcome::Given(progress.deadline.saturating_duration_since(now))
    }

    fn wait(
        &self,
        now: Instant,
        pending: &Arc<Pending>,
        progress: &mut Progress,
        handlers: &Waits,
        text: Arc<KeptText>,
    ) -> Outcome {
        let waits = |it: &&Arc<Subscription>| it.session.turns.wait(now, self, pending, it);
        let waiting: Waits = handlers.iter().filter(waits).cloned().collect();
        if waiting.is_empty() {
            return Outcome::HandlerLeft;
        }
        progress.state = State::Waiting(waiting);
        progress.text = Some(text);
        Outcome::Waiting
    }

    /// Takes a request from a handler that had gone when it arrived. Each handler has a part of a gather of its own.
    fn take_back(
        &self,
        now: Instant,
        pending: &Arc<Pending>,
        progress: &mut Progress,
        handler: SubscriptionId,
    ) -> Outcome {
        progress.attempts -= 1;
        progress.returned_by.push(handler);
        match pending.gather {
            None => self.seek(now, pending, progress),
            Some(_) => self.end(now, pending, progress, TurnEnd::Over),
        }
    }

    /// Takes a request from the handler that has it, to look for another one.
    fn seek(&self, now: Instant, pending: &Arc<Pending>, progress: &mut Progress) -> Outcome {
        self.change(now, pending, progress, State::Seeking, TurnEnd::Over);
        Outcome::Seeking(progress.text.clone())
    }

    /// Ends a request, and forgets it.
    fn end(&self, now: Instant, pending: &Arc<Pending>, progress: &mut Progress, turn: TurnEnd) -> Outcome {
        let before = self.change(now, pending, progress, State::Ended, turn);
        progress.text = None;
        pending.asker.forget(pending.serial);
        self.unschedule(pending, progress.deadline);
        Outcome::Ended(before)
    }

    /// Puts a request into another state, and lets go of what it held in the one before, which is returned.
    fn change(
        &self,
        now: Instant,
        pending: &Arc<Pending>,
        progress: &mut Progress,
        next: State,
        turn: TurnEnd,
    ) -> State {
        let before = std::mem::replace(&mut progress.state, next);
        match &before {
            State::Given(handler) => {
                handler.session.release(progress.known.unwrap_or(pending.id));
                if handler.ordered.is_some() {
                    handler.session.turns.end(now, self, pending.id, turn);
                }
            }
            State::Waiting(handlers) => handlers.iter().for_each(|it| it.session.turns.forget(pending.serial, it)),
            State::Seeking | State::Ended => {}
        }
        before
    }

    fn reschedule(&self, pending: &Arc<Pending>, progress: &mut Progress, deadline: Instant) {
        self.unschedule(pending, std::mem::replace(&mut progress.deadline, deadline));
        self.schedule(pending, deadline);
    }
}
