//! Every decision on what a session may do. Identity is a value; permissions are a handle that can be swapped while the
//! session lives, so each decision reads them anew.
//!
//! `send` has the general right that an envelope needs, `receive` that of a subscription, and what it may receive. Here are
//! scopes, and the grants for protected triples and shared channels.

pub(super) mod receive;
pub(super) mod send;

use std::net::{IpAddr, Ipv6Addr};
use std::time::Instant;

use wire::command::{self, Subscribe};
use wire::{BROKER, Envelope, ErrorCode, Pattern, Refusal, Triple, notice};

use crate::auth::{Permission, Permissions};
use crate::router::decide::Facts;
use crate::router::index::{Observes, Subscription};
use crate::router::policy::Earlier;
use crate::router::session::{Role, Session};
use crate::router::{Logged, Router, Scope};
use receive::Interest;

/// The scope of an envelope, and with it the user that its receivers see.
///
/// # Errors
/// `FORBIDDEN` for another user's name from a user's session, or for one that is not of the users of a service;
/// `USER_REQUIRED` for a service that names no user on a user-scoped channel.
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
        (None, Some(named)) if sender.is_restricted() && !sender.permissions().users.contains(named) => {
            Err(Refusal::new(
                ErrorCode::Forbidden,
                "the field 'user' names a user that 'users' of this service does not list",
            ))
        }
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
        "this application may not request this protected triple; the key 'request' in [[applications]], or \
         'protected_request' of a role, allows it",
    )
}

/// The users whose envelopes a subscription is for, where it names one.
///
/// # Errors
/// `FORBIDDEN` for a handler.
pub(super) fn observes(session: &Session, wanted: &Subscribe) -> Result<Option<Observes>, Refusal> {
    match wanted.user.as_deref() {
        None => Ok(None),
        Some(user) if wanted.role == command::Role::Subscriber => Ok(observed(session, user)),
        Some(_) => Err(Refusal::new(
            ErrorCode::Forbidden,
            "data.user is for subscribers: an observer receives events, never requests",
        )),
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

/// Checks what everybody has to keep to in a subscription.
///
/// # Errors
/// `RESERVED_CHANNEL`, `INVALID_ENVELOPE`.
pub(super) fn check_pattern(wanted: &Subscribe) -> Result<(), Refusal> {
    let pattern = &wanted.pattern;
    let is_handler = matches!(wanted.role, command::Role::Handler { .. });
    if pattern.channel.as_deref() == Some(BROKER) {
        let is_gap = pattern.topic.as_deref() == Some("Cluster") && pattern.subtopic.as_deref() == Some("Gap");
        let exists = is_gap || ["Joined", "Left"].iter().any(|it| pattern.matches(&notice::triple("Application", it)));
        if is_handler || !exists {
            return Err(Refusal::new(
                ErrorCode::ReservedChannel,
                "the channel 'Broker' has three events to subscribe to: Application/Joined, Application/Left and Cluster/Gap",
            ));
        }
    }
    if is_handler && pattern.channel.is_none() {
        return Err(Refusal::new(
            ErrorCode::InvalidEnvelope,
            "a handler names its channel in data.channel; '*' is for subscribers",
        ));
    }
    Ok(())
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

    /// Whether it may send requests on a protected triple.
    pub(super) fn may_request(&self, triple: &Triple<'_>) -> bool {
        self.permissions().request.allows(triple)
    }
}

impl Router {
    /// Whether a handler may still be given a request, now that its queue is locked.
    pub(super) fn may_take(&self, handler: &Subscription, triple: &Triple<'_>, user: Option<&str>) -> bool {
        if !handler.is_checked() {
            return true;
        }
        let facts = self.policy.facts(triple);
        let scope = facts.scope_of(user);
        handler.is_allowed(triple, scope) && self.may_handle(&handler.session, triple, scope, &facts, false)
    }

    /// Whether a session may get a request of a scope on a triple. `served_inside`: an adapter serves the triple.
    pub(super) fn may_handle(
        &self,
        session: &Session,
        triple: &Triple<'_>,
        scope: Scope<'_>,
        facts: &Facts<'_>,
        served_inside: bool,
    ) -> bool {
        match &session.role {
            Role::Adapter => true,
            // Even on a shared channel no agent's password request goes to another agent's application.
            Role::User(own) if facts.protected && scope.user() != Some(&**own) => false,
            // An adapter comes before all others on a protected triple.
            _ if facts.protected && served_inside => false,
            _ if self.policy.open => true,
            Role::Service if facts.protected => session.permissions().handle.allows(triple),
            Role::User(_) if facts.protected || facts.shared => session.permissions().handle.allows(triple),
            Role::Service | Role::User(_) => true,
        }
    }

    /// Checks the grants that a handler needs for a pattern that is protected, or for a shared channel.
    ///
    /// # Errors
    /// `FORBIDDEN`.
    fn check_grants(&self, interest: &Interest<'_>) -> Result<(), Refusal> {
        if self.policy.is_all_protected(interest.pattern) && !self.may_handle_protected(interest, interest.pattern) {
            return Err(Refusal::new(
                ErrorCode::Forbidden,
                "the pattern is protected, because passwords travel on it; the key 'handle' in [[applications]], or \
                 'protected_handle' of a role, allows an application to answer it, and in open mode any application may, \
                 unless an adapter serves it",
            ));
        }
        if self.is_on_shared(interest) && !self.may_handle_shared(interest, Permission::allows_any_of) {
            return Err(Refusal::new(
                ErrorCode::Forbidden,
                "the channel is shared by all users; a user's application handles requests on it only where the key \
                 'handle' in [[applications]], or 'protected_handle' of a role, names them",
            ));
        }
        Ok(())
    }

    /// Whether a handler lacks the grant for some of its pattern: it does not get requests on those protected triples, or
    /// triples of a shared channel.
    fn lacks_grants(&self, interest: &Interest<'_>) -> bool {
        self.policy.protected_parts(interest.pattern).any(|part| !self.may_handle_all_protected(interest, &part))
            || self.is_on_shared(interest) && !self.may_handle_shared(interest, Permission::allows_all_of)
    }

    /// Whether new permissions take a grant for some of a handler's pattern away.
    pub(super) fn loses_grants(&self, interest: &Interest<'_>, before: &Permissions) -> bool {
        let loses = |part: &Pattern| before.handle.loses(&interest.permissions.handle, part);
        let is_user = matches!(interest.role, Role::User(_));
        self.needs_grants(interest)
            && (self.policy.protected_parts(interest.pattern).any(|part| loses(&part))
                || is_user && self.is_on_shared(interest) && loses(interest.pattern))
    }

    /// Whether triples of a handler's pattern have become protected.
    pub(super) fn is_newly_protected(&self, interest: &Interest<'_>, earlier: &Earlier) -> bool {
        self.policy.newly_protected(earlier, interest.pattern).next().is_some()
    }

    /// Whether a handler lacks the grant for triples of its pattern that have become protected.
    pub(super) fn loses_protected(&self, interest: &Interest<'_>, earlier: &Earlier) -> bool {
        let loses = |part: Pattern| !self.may_handle_all_protected(interest, &part);
        self.policy.newly_protected(earlier, interest.pattern).any(loses)
    }

    /// Whether a handler may handle protected triples of its pattern that it was not granted before, or that were not
    /// protected.
    pub(super) fn gains_protected(
        &self,
        interest: &Interest<'_>,
        before: &Permissions,
        earlier: Option<&Earlier>,
    ) -> bool {
        let gains = |part: Pattern| interest.permissions.handle.loses(&before.handle, &part);
        let keeps = |part: Pattern| self.may_handle_protected(interest, &part);
        let keeps_some = |earlier| self.policy.newly_protected(earlier, interest.pattern).any(keeps);
        interest.is_handler
            && self.needs_grants(interest)
            && (self.policy.protected_parts(interest.pattern).any(gains) || earlier.is_some_and(keeps_some))
    }

    fn needs_grants(&self, interest: &Interest<'_>) -> bool {
        *interest.role != Role::Adapter && !self.policy.open
    }

    fn is_on_shared(&self, interest: &Interest<'_>) -> bool {
        interest.pattern.channel.as_deref().is_some_and(|channel| self.policy.is_shared(channel))
    }

    fn may_handle_protected(&self, interest: &Interest<'_>, part: &Pattern) -> bool {
        match interest.role {
            Role::Adapter => true,
            Role::Service | Role::User(_) if self.policy.open => {
                !self.declared.load().any_served(|served| served.covers_any_case(part))
            }
            Role::Service | Role::User(_) => interest.permissions.handle.allows_any_of(part),
        }
    }

    /// Whether a session may handle every triple of a pattern that is protected.
    fn may_handle_all_protected(&self, interest: &Interest<'_>, part: &Pattern) -> bool {
        match interest.role {
            Role::Adapter => true,
            Role::Service | Role::User(_) if self.policy.open => {
                !self.declared.load().any_served(|served| served.overlaps_any_case(part))
            }
            Role::Service | Role::User(_) => interest.permissions.handle.allows_all_of(part),
        }
    }

    /// Whether a session may handle triples of its pattern, which is for a shared channel: any of them, or all.
    fn may_handle_shared(&self, interest: &Interest<'_>, allows: fn(&Permission, &Pattern) -> bool) -> bool {
        match interest.role {
            Role::Adapter | Role::Service => true,
            Role::User(_) => self.policy.open || allows(&interest.permissions.handle, interest.pattern),
        }
    }

    /// Logs that a session becomes a handler of protected triples, if it does.
    pub(super) fn note_protected_handler(&self, now: Instant, session: &Session, pattern: &Pattern) {
        let is_application = session.role != Role::Adapter;
        let permissions = session.permissions();
        let interest =
            Interest { role: &session.role, permissions: &permissions, pattern, is_handler: true, observes: None };
        let may = |part: Pattern| self.may_handle_protected(&interest, &part);
        if is_application && self.policy.protected_parts(pattern).any(may) {
            let Some(omitted) = self.count_line(now, session, Logged::ProtectedHandler) else { return };
            tracing::info!(source = &*session.source, %pattern, omitted, "an application handles protected triples");
        }
    }

    /// Returns the number of lines of this kind that were left out, if one is to be logged now.
    pub(super) fn count_line(&self, now: Instant, session: &Session, logged: Logged) -> Option<u64> {
        let address = session.address().unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
        self.log_limit.count_up_to(logged.lines_max(), now, logged, address)
    }
}
