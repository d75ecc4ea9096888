//! [`Router`]: whose an envelope is and who gets it. The whole public face of the room.
//!
//! It takes `&self`, is synchronous and gets time as an argument: it never waits, opens no socket and looks at no clock.
//! A session attaches, subscribes, routes envelopes and detaches; whoever runs the broker calls [`Router::expire`] at
//! [`Router::deadline`]. Locks are taken in one order, request -> outbox, and no shard of a map is held over a push.
//! Start at [`Router::route`]: the rules of protocol.md's "Routing an envelope", the first that fits.

mod answer;
mod application;
mod event;
mod frames;
mod gather;
mod handler;
mod hint;
mod ids;
mod index;
mod ordered;
mod outbox;
mod pending;
mod policy;
mod presence;
mod receivers;
mod request;
mod retained;
mod subscribe;

pub use application::{Member, OWN_SOURCE, Registration};
pub use ids::{Ids, RequestId, SessionId, SubscriptionId};
pub use outbox::{Burst, Gone, Kind, Outbox, OutboxLimits};
pub use policy::{Limits, Policy};
pub use presence::Application;
pub use subscribe::Listed;

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::sync::Notify;

use crate::auth::{Identity, Permission, Principal};
use crate::websocket::Frame;
use application::Standing;
use hint::Served;
use index::Index;
use pending::Requests;
use presence::Presence;
use retained::Retained;
use wire::{Envelope, Pattern, Triple, notice};
use wire::{ErrorCode, Refusal};

/// Routes envelopes between the sessions of one broker.
pub struct Router {
    policy: Policy,
    ids: Ids,
    /// What time it was on the calendar at a moment of the monotonic clock.
    calendar: (Instant, SystemTime),
    events: Index,
    handlers: Index,
    served: Served,
    requests: Requests,
    retained: Retained,
    presence: Presence,
    declarations: Vec<Declaration>,
}

/// What an in-process adapter says of its triples.
pub struct Declaration {
    /// The triples.
    pub serves: Vec<Pattern>,
    /// The null keys that a failure of them bears before `Success`.
    pub failure_keys: &'static [&'static str],
    /// Hears of a request that was refused before it reached the adapter.
    pub refused: Box<dyn Fn(&Refused<'_>) + Send + Sync>,
}

/// A request to an adapter's triple that the broker refused.
pub struct Refused<'a> {
    /// What was asked.
    pub triple: &'a Triple<'a>,
    /// The registered source; before registration what the envelope says, unproved.
    pub source: &'a str,
    /// For which user.
    pub user: Option<&'a str>,
    /// The session, once it is registered.
    pub session: Option<SessionId>,
    /// Why.
    pub refusal: &'a Refusal,
}

/// What became of an envelope that was accepted.
#[derive(Default)]
pub struct Routed {
    /// What a sender that gave an `id` is told: for events, and commands that nobody answers.
    pub receipt: Option<Receipt>,
    /// Receivers whose queues are over half now: the sender should wait for them.
    pub pressed: Vec<Arc<Outbox>>,
}

/// The facts of `Broker/Message/Receipt`.
#[derive(Debug, PartialEq, Eq)]
pub struct Receipt {
    /// In how many outbound queues the message is.
    pub receivers: usize,
    /// A similar triple that a handler serves, where nobody received it.
    pub hint: Option<String>,
}

impl Routed {
    fn press(&mut self, member: &Member, pressed: bool) {
        if pressed {
            self.pressed.push(Arc::clone(member.outbox()));
        }
    }
}

/// An envelope that was not accepted.
#[derive(Debug)]
pub struct Denied {
    /// Why.
    pub refusal: Refusal,
    /// It is a request: the failure goes on the request's own triple.
    pub is_request: bool,
}

/// Whose an envelope is: a scope, decided by the channel's configuration.
#[derive(Clone, Copy)]
enum Whose<'a> {
    /// Of a user-scoped channel: one user's.
    User(&'a str),
    /// Of a shared channel: everybody's; sent by or for this user.
    Shared(Option<&'a str>),
}

impl<'a> Whose<'a> {
    fn user(self) -> Option<&'a str> {
        match self {
            Self::User(user) => Some(user),
            Self::Shared(user) => user,
        }
    }
}

impl Router {
    /// A router without sessions. `calendar`: what time it is now, for presence.
    #[must_use]
    pub fn new(now: Instant, calendar: SystemTime, policy: Policy, ids: Ids, declarations: Vec<Declaration>) -> Self {
        Self {
            policy,
            ids,
            calendar: (now, calendar),
            events: Index::default(),
            handlers: Index::default(),
            served: Served::default(),
            requests: Requests::new(now),
            retained: Retained::default(),
            presence: Presence::default(),
            declarations,
        }
    }

    /// Scopes, folding, protection and limits.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Makes a session known.
    ///
    /// # Errors
    /// `FORBIDDEN` for the broker's own source, `SOURCE_IN_USE`.
    pub fn attach(&self, now: Instant, registration: Registration) -> Result<Arc<Member>, Refusal> {
        if registration.source == OWN_SOURCE {
            return Err(Refusal::new(
                ErrorCode::Forbidden,
                "the source 'switchboard' is reserved for adapters in the broker; choose another name",
            ));
        }
        let exclusive = registration.identity.exclusive;
        let standing = Standing::of(&registration.identity.principal);
        let member = self.member(now, standing, registration);
        self.presence.join(&member, exclusive)?;
        self.tell_presence(now, &member, "Joined");
        Ok(member)
    }

    /// Makes an in-process adapter known; it is no application, so presence does not list it.
    pub fn attach_adapter(&self, now: Instant, outbox: Arc<Outbox>) -> Arc<Member> {
        let identity = Identity {
            principal: Principal::Service,
            observe: false,
            exclusive: false,
            handle: Permission::All,
            request: Permission::none(),
            lasts: None,
        };
        let registration = Registration { source: OWN_SOURCE.to_owned(), identity, echo: false, outbox };
        self.member(now, Standing::Adapter, registration)
    }

    fn member(&self, now: Instant, standing: Standing, registration: Registration) -> Arc<Member> {
        let (then, calendar) = self.calendar;
        let since = calendar + now.saturating_duration_since(then);
        Arc::new(Member::new(self.ids.session(), self.ids.stamp(), standing, since, registration))
    }

    /// Ends a session's registration: its subscriptions go, what it asked is withdrawn, what it was given fails.
    pub fn detach(&self, now: Instant, member: &Arc<Member>) {
        let holds = {
            let mut holds = member.holds.lock();
            let taken = std::mem::take(&mut *holds);
            // `given` stays to be taken out one by one, so that nothing is counted twice.
            holds.given.clone_from(&taken.given);
            holds.asked.clone_from(&taken.asked);
            holds.gone = true;
            taken
        };
        // From here on nothing is pushed to it; what was pushed before is in `holds`.
        member.outbox().end_registration();
        for subscription in &holds.subscriptions {
            self.unlist(now, subscription);
        }
        for request in holds.given {
            self.handler_gone(now, request, member);
        }
        for request in holds.asked {
            if let Some(pending) = self.requests.find(request) {
                if let Some(gather) = &pending.gather {
                    gather.cancel();
                }
                self.withdraw(now, &pending);
            }
        }
        if member.standing != Standing::Adapter {
            self.presence.leave(member);
            self.tell_presence(now, member, "Left");
        }
    }

    /// Routes an envelope of a registered session: the first rule that fits.
    ///
    /// # Errors
    /// [`Denied`]; nothing was delivered then.
    pub fn route(&self, now: Instant, sender: &Arc<Member>, envelope: &Envelope<'_>) -> Result<Routed, Denied> {
        let protected = self.policy.is_protected(envelope.triple());
        let deny = |refusal, is_request| self.deny(sender, envelope, refusal, is_request);
        if let Err(refusal) = sender.check_source(envelope).and_then(|()| request::check_once(envelope)) {
            let is_request = envelope.in_reply_to().is_none() && self.looks_like_request(sender, envelope);
            return Err(deny(refusal, is_request));
        }
        if envelope.in_reply_to().is_some() {
            return self.reply(now, sender, envelope).map_err(|refusal| deny(refusal, false));
        }
        if let Some(routed) = self.answer_in_turn(now, sender, envelope) {
            return Ok(routed);
        }
        let whose =
            self.whose(sender, envelope).map_err(|refusal| deny(refusal, self.looks_like_request(sender, envelope)))?;
        let candidates = self.candidates(sender, envelope, whose);
        if protected && !sender.request.allows(envelope.triple()) {
            return Err(deny(may_not_request(), true));
        }
        if envelope.asks() || (!candidates.is_empty() && !candidates.sender_handles) {
            if envelope.retain() {
                return Err(deny(request::not_retained(), true));
            }
            let nobody = candidates.is_empty() && (protected || !envelope.gather());
            if nobody {
                return Err(deny(request::no_handler(envelope), true));
            }
            return self.request(now, sender, envelope, whose, candidates).map_err(|refusal| deny(refusal, true));
        }
        if protected {
            return Err(deny(request::no_handler(envelope), true));
        }
        self.publish(now, sender, envelope, whose).map_err(|refusal| deny(refusal, false))
    }

    /// Whose an envelope is.
    fn whose<'a>(&self, sender: &'a Member, envelope: &'a Envelope<'_>) -> Result<Whose<'a>, Refusal> {
        let shared = self.policy.is_shared(&envelope.triple().channel);
        match (sender.user(), envelope.user()) {
            (Some(own), Some(named)) if own != named => Err(Refusal::new(
                ErrorCode::Forbidden,
                "the field 'user' names another user than this session's; only services speak for others",
            )),
            (Some(own), _) if shared => Ok(Whose::Shared(Some(own))),
            (Some(own), _) => Ok(Whose::User(own)),
            (None, named) if shared => Ok(Whose::Shared(named)),
            (None, Some(named)) => Ok(Whose::User(named)),
            (None, None) => Err(Refusal::new(
                ErrorCode::UserRequired,
                "the channel is user-scoped and this session is a service's: say for whom in the field 'user'",
            )),
        }
    }

    /// Whether an envelope that names a wrong user, or none, would have been a request.
    fn looks_like_request(&self, sender: &Arc<Member>, envelope: &Envelope<'_>) -> bool {
        let own = match sender.user() {
            user if self.policy.is_shared(&envelope.triple().channel) => Whose::Shared(user),
            // A service that names nobody: whose handlers it meant is not known, so no user's.
            user => Whose::User(user.unwrap_or_default()),
        };
        envelope.asks() || self.policy.is_protected(envelope.triple()) || {
            let candidates = self.candidates(sender, envelope, own);
            !candidates.is_empty() && !candidates.sender_handles
        }
    }

    fn deny(&self, sender: &Member, envelope: &Envelope<'_>, refusal: Refusal, is_request: bool) -> Denied {
        if is_request {
            self.tell_refused(&Refused {
                triple: envelope.triple(),
                source: &sender.source,
                user: sender.user().or(envelope.user()),
                session: Some(sender.id),
                refusal: &refusal,
            });
        }
        Denied { refusal, is_request }
    }

    /// Tells the adapter that serves a triple of a request that was refused before it came there.
    pub fn tell_refused(&self, refused: &Refused<'_>) {
        if let Some(declaration) = self.declaration(refused.triple) {
            (declaration.refused)(refused);
        }
    }

    /// A request's failure, on its own triple, with the keys that an adapter declared for it.
    pub fn failure(&self, triple: &Triple<'_>, in_reply_to: Option<&str>, refusal: &Refusal) -> Frame {
        let keys = self.declaration(triple).map_or(&[][..], |declaration| declaration.failure_keys);
        notice::failure(triple, in_reply_to, keys, refusal).into()
    }

    fn declaration(&self, triple: &Triple<'_>) -> Option<&Declaration> {
        self.declarations.iter().find(|it| it.serves.iter().any(|pattern| pattern.matches(triple)))
    }

    /// The session that asked a pending request.
    pub fn asker(&self, request: RequestId) -> Option<SessionId> {
        self.requests.find(request).map(|pending| pending.asker.id)
    }

    /// Whether a session asked, or was given, something that is not answered yet.
    pub fn is_in_flight(&self, member: &Member) -> bool {
        let holds = member.holds.lock();
        !holds.asked.is_empty() || !holds.given.is_empty()
    }

    /// When [`Router::expire`] wants to be called next; whoever asks means to call it then.
    pub fn deadline(&self) -> Option<Instant> {
        self.requests.deadline()
    }

    /// Told whenever the next deadline has become earlier.
    pub fn earlier(&self) -> &Notify {
        self.requests.earlier()
    }

    /// What the router holds, for the operator.
    pub fn size(&self) -> Size {
        let (retained_values, retained_bytes) = self.retained.size();
        Size { sessions: self.presence.sessions(), requests: self.requests.len(), retained_values, retained_bytes }
    }
}

/// What a router holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Registered sessions.
    pub sessions: usize,
    /// Pending requests.
    pub requests: usize,
    /// Retained values.
    pub retained_values: usize,
    /// Their bytes.
    pub retained_bytes: usize,
}

fn may_not_request() -> Refusal {
    Refusal::new(
        ErrorCode::Forbidden,
        "this application may not request this protected triple; the key 'request' in [[applications]] allows it",
    )
}
