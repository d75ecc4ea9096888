//! [`Asker`]: the person or session that gets the answer, and what it may have in it.

use std::sync::Arc;

use wire::{Pattern, Triple};

use crate::auth::Permissions;
use crate::router::access::send::may_know_handlers;
use crate::router::session::Session;

/// The one that gets the answer.
pub(super) enum Asker<'a> {
    /// An operator, who is told everything.
    Operator,
    /// A session, about itself as the sender. It is told about the sessions that `Application/List` shows it, and about
    /// nobody's permissions but its own.
    Session { session: &'a Arc<Session>, permissions: Arc<Permissions> },
}

impl<'a> Asker<'a> {
    pub(super) fn session(session: &'a Arc<Session>) -> Self {
        Self::Session { session, permissions: session.permissions() }
    }

    /// Whether the asker is told about the permissions of sessions on other nodes: none of them is its own.
    pub(super) fn is_operator(&self) -> bool {
        matches!(self, Self::Operator)
    }

    /// Whether the asker is told about other sessions on this triple. One that may neither publish nor request learns nothing
    /// about handlers and subscribers, as in the answer to the envelope itself.
    pub(super) fn may_know_others(&self, triple: &Triple<'_>) -> bool {
        match self {
            Self::Operator => true,
            Self::Session { permissions, .. } => {
                permissions.rights.as_deref().is_none_or(|rights| may_know_handlers(rights, triple))
            }
        }
    }

    /// Whether the asker is told about sessions of this user; `None`: of services and adapters.
    pub(super) fn may_know_user_of(&self, user: Option<&str>) -> bool {
        user.is_none_or(|user| self.may_know_user(user))
    }

    /// Whether the asker is told the name of a user.
    pub(super) fn may_know_user(&self, user: &str) -> bool {
        match self {
            Self::Operator => true,
            Self::Session { session, permissions } => session.may_see(permissions, user),
        }
    }

    /// Whether the asker is told about a session.
    pub(super) fn sees(&self, session: &Session) -> bool {
        self.may_know_user_of(session.user())
    }

    /// Whether the asker is told about the permissions of a session.
    pub(super) fn may_know_permissions_of(&self, other: &Session) -> bool {
        match self {
            Self::Operator => true,
            Self::Session { session, .. } => session.number == other.number,
        }
    }

    /// Whether the asker is told that somebody subscribes to a pattern: if one of its rights covers the pattern.
    pub(super) fn may_know_pattern(&self, pattern: &Pattern) -> bool {
        let Self::Session { permissions, .. } = self else { return true };
        let Some(rights) = permissions.rights.as_deref() else { return true };
        [&rights.publish, &rights.request, &rights.subscribe].iter().any(|right| right.check_whole(pattern).is_ok())
    }
}
