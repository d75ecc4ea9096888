//! [`Conn`]: what the model knows of one connection.

use std::time::{Duration, Instant};

use switchboard::auth::{Identity, Principal};
use switchboard::router::SessionId;
use wire::Pattern;

use super::cast::Style;
use super::check::adapter_pattern;
use super::draft::Wanted;
use super::inbox::Inbox;
use super::model::{is_alike, matches, written};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    User,
    Service,
    Adapter,
}

/// One connection.
#[expect(clippy::struct_excessive_bools, reason = "what may be true of a connection: any of it with any")]
pub(super) struct Conn {
    pub(super) name: String,
    pub(super) source: String,
    pub(super) kind: Kind,
    pub(super) user: Option<String>,
    pub(super) style: Style,
    pub(super) observe: bool,
    pub(super) echo: bool,
    pub(super) may_handle: bool,
    pub(super) may_request: bool,
    /// `None`: not registered.
    pub(super) session: Option<SessionId>,
    /// How often it has registered.
    pub(super) registration: u32,
    pub(super) since: Instant,
    /// When its proof ends, if it does.
    pub(super) ends: Option<Instant>,
    /// It was told that its proof ends soon.
    pub(super) is_announced: bool,
    pub(super) asleep: bool,
    /// May have missed a time limit since it answered last.
    pub(super) suspect: bool,
    pub(super) subs: Vec<Sub>,
    /// The turns of an ordered handler, oldest first: what it got and has not answered with an envelope.
    pub(super) turns: Vec<Turn>,
    /// Its queue is over half, so presence events are held back.
    pub(super) over_half: bool,
    /// Its queue overflowed: nothing more comes, and what was in it is unknown.
    pub(super) lost: bool,
    pub(super) malformed: u32,
    pub(super) inbox: Inbox,
}

#[derive(Clone, Debug)]
pub(super) struct Sub {
    pub(super) wanted: Wanted,
    /// As the broker named it.
    pub(super) id: String,
}

#[derive(Clone, Debug)]
pub(super) struct Turn {
    pub(super) request: u64,
    /// As it was delivered.
    pub(super) id: String,
    /// Unsubscribed since.
    pub(super) left: bool,
    pub(super) since: Instant,
}

impl Conn {
    pub(super) fn new(name: &str, source: &str, now: Instant) -> Self {
        Self {
            name: name.to_owned(),
            source: source.to_owned(),
            kind: Kind::User,
            user: None,
            style: Style::Answers,
            observe: false,
            echo: false,
            may_handle: false,
            may_request: false,
            session: None,
            registration: 0,
            since: now,
            ends: None,
            is_announced: false,
            asleep: false,
            suspect: false,
            subs: Vec::new(),
            turns: Vec::new(),
            over_half: false,
            lost: false,
            malformed: 0,
            inbox: Inbox::default(),
        }
    }

    /// What a verifier has proved.
    pub(super) fn is_now(&mut self, source: String, identity: &Identity) {
        let everything = adapter_pattern();
        self.source = source;
        self.user = identity.principal.user().map(str::to_owned);
        self.kind = if identity.principal == Principal::Service { Kind::Service } else { Kind::User };
        self.observe = !identity.permissions.observe.is_nobody();
        self.may_handle = identity.permissions.handle.allows_any_of(&everything);
        self.may_request = identity.permissions.request.allows_any_of(&everything);
    }

    /// Whether one of its subscriptions shows it a user's own envelopes.
    pub(super) fn sees(&self, wanted: &Wanted, user: Option<&str>) -> bool {
        match (self.kind, self.watched(wanted)) {
            (_, Some("*")) | (Kind::Service | Kind::Adapter, None) => true,
            (_, Some(watched)) => user == Some(watched),
            (Kind::User, None) => user == self.user.as_deref(),
        }
    }

    /// Whether one of its subscriptions shows it what is sent in a shared channel, in the name of a user or of nobody. A
    /// service that names a user wants that user's only.
    pub(super) fn sees_shared(&self, wanted: &Wanted, user: Option<&str>) -> bool {
        match (self.kind, self.watched(wanted)) {
            (Kind::Service | Kind::Adapter, Some(watched)) => watched == "*" || user == Some(watched),
            (Kind::Service | Kind::Adapter, None) | (Kind::User, _) => true,
        }
    }

    /// Whose envelopes a subscription asks for, unless it is one's own.
    fn watched<'a>(&self, wanted: &'a Wanted) -> Option<&'a str> {
        wanted.user.as_deref().filter(|user| self.user.as_deref() != Some(*user))
    }

    /// Whether it is told whose an event is, or may be told.
    pub(super) fn may_see_user(&self) -> bool {
        self.kind != Kind::User || self.observe
    }

    /// Whether it is an ordered handler of something.
    pub(super) fn has_turns(&self) -> bool {
        self.subs.iter().any(|sub| sub.wanted.handler == Some(Style::Ordered))
    }

    /// The same pattern, role, group and user: the same subscription.
    pub(super) fn held(&self, wanted: &Wanted) -> Option<usize> {
        self.subs.iter().position(|Sub { wanted: held, .. }| {
            is_alike(&held.pattern, &wanted.pattern)
                && held.handler.is_some() == wanted.handler.is_some()
                && held.group == wanted.group
                && self.watched(held) == self.watched(wanted)
        })
    }

    /// Whether Unsubscribe by pattern ends a subscription. What it leaves out does not matter.
    pub(super) fn fits(&self, sub: &Sub, wanted: &Wanted) -> bool {
        let held = &sub.wanted;
        is_alike(&held.pattern, &wanted.pattern)
            && (wanted.handler.is_none() || held.handler.is_some())
            && (wanted.group.is_none() || held.group == wanted.group)
            && (wanted.user.is_none() || self.watched(held) == self.watched(wanted))
    }

    pub(super) fn handles(&self, triple: &[String; 3]) -> impl Iterator<Item = &Sub> {
        let is_its = |pattern: &Pattern| match self.kind {
            // In whatever case, its channel too.
            Kind::Adapter => pattern.to_string().eq_ignore_ascii_case(&written(triple)),
            Kind::User | Kind::Service => matches(pattern, triple),
        };
        self.subs.iter().filter(move |sub| sub.wanted.handler.is_some() && is_its(&sub.wanted.pattern))
    }

    /// Whether a reply that it owes may have blocked others for this long.
    pub(super) fn owes_for(&self, time: Duration, now: Instant) -> bool {
        self.turns.iter().any(|turn| now >= turn.since + time)
    }
}
