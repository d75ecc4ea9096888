//! Every decision on what a session may do. Identity is a value; permissions are a handle that can be swapped while the
//! session lives, so each decision reads them anew.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Instant;

use wire::command::{self, Subscribe};
use wire::{BROKER, Envelope, ErrorCode, Pattern, Refusal, Triple, notice};

use crate::router::decide::Facts;
use crate::router::index::Observes;
use crate::router::session::{Role, Session};
use crate::router::{Logged, Router, Scope};

/// The scope of an envelope, and with it the user that its receivers see.
///
/// # Errors
/// `FORBIDDEN` for another user's name from a user's session, `USER_REQUIRED` for a service that names no user on a
/// user-scoped channel.
pub(super) fn scope<'e>(
    sender: &'e Session,
    envelope: &'e Envelope<'_>,
    facts: &Facts<'_>,
) -> Result<Scope<'e>, Refusal> {
    match (sender.user(), envelope.user()) {
        (Some(own), Some(named)) if own != named => Err(Refusal::new(
            ErrorCode::Forbidden,
            "the field 'user' names another user than this session's; only services send for others",
        )),
        (Some(own), _) if facts.shared => Ok(Scope::Shared(Some(own))),
        (Some(own), _) => Ok(Scope::User(own)),
        (None, named) if facts.shared => Ok(Scope::Shared(named)),
        (None, Some(named)) => Ok(Scope::User(named)),
        (None, None) => Err(Refusal::new(
            ErrorCode::UserRequired,
            "the channel is user-scoped and this session is a service: name the user in the field 'user'",
        )),
    }
}

/// Whether a session may publish events on the channel.
///
/// # Errors
/// `FORBIDDEN`.
pub(super) fn check_publisher(sender: &Session, facts: &Facts<'_>) -> Result<(), Refusal> {
    if facts.services_only && sender.user().is_some() {
        return Err(Refusal::new(
            ErrorCode::Forbidden,
            "only services publish events on this channel (the key 'publish' of its table in [channels])",
        ));
    }
    Ok(())
}

pub(super) fn may_not_request() -> Refusal {
    Refusal::new(
        ErrorCode::Forbidden,
        "this application may not request this protected triple; the key 'request' in [[applications]] allows it",
    )
}

/// The users whose envelopes a subscription is for, where it names one.
///
/// # Errors
/// `FORBIDDEN` for a handler, and for another user's name without the permission `observe`.
pub(super) fn observes(session: &Session, wanted: &Subscribe) -> Result<Option<Observes>, Refusal> {
    let Some(user) = wanted.user.as_deref() else { return Ok(None) };
    if wanted.role != command::Role::Subscriber {
        return Err(Refusal::new(
            ErrorCode::Forbidden,
            "data.user is for subscribers: an observer receives events, never requests",
        ));
    }
    let observed = observed(session, user);
    match session.role {
        Role::User(_) if observed.is_some() && !session.may_observe() => Err(Refusal::new(
            ErrorCode::Forbidden,
            "data.user names another user; that needs 'observe = true' in [[applications]]",
        )),
        Role::User(_) | Role::Service | Role::Adapter => Ok(observed),
    }
}

/// The users that a session observes when it names this one. Its own user needs no observing.
pub(super) fn observed(session: &Session, user: &str) -> Option<Observes> {
    match &session.role {
        Role::User(own) if **own == *user => None,
        _ if user == "*" => Some(Observes::All),
        _ => Some(Observes::User(Box::from(user))),
    }
}

impl Session {
    /// Whether an envelope names its sender rightly. The field `source` may be absent.
    ///
    /// # Errors
    /// `SOURCE_MISMATCH`.
    pub fn check_source(&self, envelope: &Envelope<'_>) -> Result<(), Refusal> {
        if envelope.source().is_none_or(|source| source == &*self.source) {
            return Ok(());
        }
        let own = &self.source;
        let words = format!("the field 'source' differs from the registered name '{own}'; it may be left out");
        Err(Refusal::new(ErrorCode::SourceMismatch, words))
    }

    /// Whether it may subscribe to other users' events, and list their applications.
    pub(super) fn may_observe(&self) -> bool {
        !self.permissions().observe.is_nobody()
    }

    /// Whether it may send requests on a protected triple.
    pub(super) fn may_request(&self, triple: &Triple<'_>) -> bool {
        self.permissions().request.allows(triple)
    }
}

impl Router {
    /// Whether a session may get a request on a triple. `served_inside`: an adapter serves the triple.
    pub(super) fn may_handle(
        &self,
        session: &Session,
        triple: &Triple<'_>,
        facts: &Facts<'_>,
        served_inside: bool,
    ) -> bool {
        match session.role {
            Role::Adapter => true,
            // An adapter comes before all others on a protected triple.
            _ if facts.protected && served_inside => false,
            _ if self.policy.open => true,
            Role::Service if facts.protected => session.permissions().handle.allows(triple),
            Role::User(_) if facts.protected || facts.shared => session.permissions().handle.allows(triple),
            Role::Service | Role::User(_) => true,
        }
    }

    /// Whether a session may make this subscription.
    ///
    /// # Errors
    /// `RESERVED_CHANNEL`, `FORBIDDEN`.
    pub(super) fn check_subscription(&self, session: &Session, wanted: &Subscribe) -> Result<(), Refusal> {
        let pattern = &wanted.pattern;
        let is_handler = matches!(wanted.role, command::Role::Handler { .. });
        if pattern.channel.as_deref() == Some(BROKER) {
            let exists = ["Joined", "Left"].iter().any(|it| pattern.matches(&notice::triple("Application", it)));
            if is_handler || !exists {
                return Err(Refusal::new(
                    ErrorCode::ReservedChannel,
                    "the channel 'Broker' has two events to subscribe to, Application/Joined and Application/Left",
                ));
            }
        }
        if !is_handler {
            return Ok(());
        }
        if pattern.channel.is_none() {
            return Err(Refusal::new(
                ErrorCode::InvalidEnvelope,
                "a handler names its channel in data.channel; '*' is for subscribers",
            ));
        }
        if self.policy.is_all_protected(pattern) && !self.may_handle_protected(session, pattern) {
            return Err(Refusal::new(
                ErrorCode::Forbidden,
                "the pattern is protected, because passwords travel on it; the key 'handle' in [[applications]] allows \
                 an application to answer it, and in open mode any application may, unless an adapter serves it",
            ));
        }
        let is_shared = pattern.channel.as_deref().is_some_and(|channel| self.policy.is_shared(channel));
        if is_shared && !self.may_handle_shared(session, pattern) {
            return Err(Refusal::new(
                ErrorCode::Forbidden,
                "the channel is shared by all users; a user's application handles requests on it only where the key \
                 'handle' in [[applications]] names them",
            ));
        }
        Ok(())
    }

    fn may_handle_protected(&self, session: &Session, pattern: &Pattern) -> bool {
        match session.role {
            Role::Adapter => true,
            Role::Service | Role::User(_) if self.policy.open => {
                !self.declarations.iter().flat_map(|it| &it.serves).any(|served| served.covers_any_case(pattern))
            }
            Role::Service | Role::User(_) => session.permissions().handle.allows_any_of(pattern),
        }
    }

    /// Whether a subscription that a session may make gets less than its pattern says: a handler does not get requests on
    /// protected triples, and on triples of a shared channel, that it may not handle.
    pub fn is_narrowed(&self, session: &Session, wanted: &Subscribe) -> bool {
        let pattern = &wanted.pattern;
        let is_handler = matches!(wanted.role, command::Role::Handler { .. });
        let is_shared = pattern.channel.as_deref().is_some_and(|channel| self.policy.is_shared(channel));
        is_handler
            && (self.policy.protected_parts(pattern).any(|part| !self.may_handle_all_protected(session, &part))
                || is_shared && !self.may_handle_all_shared(session, pattern))
    }

    /// Whether a session may handle every triple of a pattern that is protected.
    fn may_handle_all_protected(&self, session: &Session, pattern: &Pattern) -> bool {
        match session.role {
            Role::Adapter => true,
            Role::Service | Role::User(_) if self.policy.open => {
                !self.declarations.iter().flat_map(|it| &it.serves).any(|served| served.overlaps_any_case(pattern))
            }
            Role::Service | Role::User(_) => session.permissions().handle.allows_all_of(pattern),
        }
    }

    /// Whether a session may handle every triple of a pattern for a shared channel.
    fn may_handle_all_shared(&self, session: &Session, pattern: &Pattern) -> bool {
        match session.role {
            Role::Adapter | Role::Service => true,
            Role::User(_) => self.policy.open || session.permissions().handle.allows_all_of(pattern),
        }
    }

    /// Logs that a session becomes a handler of protected triples, if it does.
    pub(super) fn note_protected_handler(&self, now: Instant, session: &Session, pattern: &Pattern) {
        let is_application = session.role != Role::Adapter;
        let may = |part: Pattern| self.may_handle_protected(session, &part);
        if is_application && self.policy.protected_parts(pattern).any(may) {
            let Some(omitted) = self.count_line(now, session, Logged::ProtectedHandler) else { return };
            tracing::info!(source = &*session.source, %pattern, omitted, "an application handles protected triples");
        }
    }

    /// Returns the number of lines of this kind that were left out, if one is to be logged now.
    pub(super) fn count_line(&self, now: Instant, session: &Session, logged: Logged) -> Option<u64> {
        let address = session.address.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
        self.log_limit.count_up_to(logged.lines_max(), now, logged, address)
    }

    fn may_handle_shared(&self, session: &Session, pattern: &Pattern) -> bool {
        match session.role {
            Role::Adapter | Role::Service => true,
            Role::User(_) => self.policy.open || session.permissions().handle.allows_any_of(pattern),
        }
    }
}
