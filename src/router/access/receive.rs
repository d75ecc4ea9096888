//! Which subscriptions a session may have, and what it may receive through them.
//!
//! A subscription is indexed with the pattern that was asked for. When it is made, and whenever the rights of its session
//! change, [`Router::is_checked`] says whether every envelope that matches the pattern is allowed. Only where that is not
//! so is each delivery checked, against the rights as they are then. The index cannot do this: patterns of rights ignore
//! ASCII case, and its keys do not.

use wire::{BROKER, ErrorCode, Pattern, Refusal, Triple};

use crate::auth::{Permissions, Right, Rights, Users};
use crate::router::access::send::forbidden;
use crate::router::index::{Observes, Subscription};
use crate::router::session::{Role, Session};
use crate::router::{Router, Scope};

/// A subscription that a session has or wants, with the permissions that decide about it.
#[derive(Clone, Copy)]
pub(in crate::router) struct Interest<'s> {
    pub(in crate::router) role: &'s Role,
    pub(in crate::router) permissions: &'s Permissions,
    pub(in crate::router) pattern: &'s Pattern,
    pub(in crate::router) is_handler: bool,
    pub(in crate::router) observes: Option<&'s Observes>,
}

impl<'s> Interest<'s> {
    /// What a subscription is, with these permissions.
    pub(in crate::router) fn of(subscription: &'s Subscription, permissions: &'s Permissions) -> Self {
        Self {
            role: &subscription.session.role,
            permissions,
            pattern: &subscription.pattern,
            is_handler: subscription.is_handler(),
            observes: subscription.observes.as_ref(),
        }
    }

    /// The right that it needs, if rights are restricted. The broker's own events need none.
    pub(in crate::router) fn right(&self) -> Option<&'s Right> {
        let rights = self.permissions.rights.as_deref()?;
        let is_broker = self.pattern.channel.as_deref() == Some(BROKER);
        (!is_broker).then(|| right_of(rights, self.is_handler))
    }

    /// Checks the general right, and the users that it names.
    ///
    /// # Errors
    /// `FORBIDDEN`.
    pub(in crate::router) fn check_right(&self) -> Result<(), Refusal> {
        self.check_observed()?;
        let Some(right) = self.right() else { return Ok(()) };
        match self.is_handler {
            true => right.check_whole(self.pattern).map_err(|why| forbidden("handle", self.pattern, &why)),
            false => right.check_some(self.pattern).map_err(|why| forbidden("subscribe", self.pattern, &why)),
        }
    }

    fn check_observed(&self) -> Result<(), Refusal> {
        let Some(observes) = self.observes else { return Ok(()) };
        let Permissions { observe, users, .. } = self.permissions;
        let words = match (self.role, observes) {
            (Role::Adapter, _) | (Role::Service, Observes::All) => return Ok(()),
            (Role::Service, Observes::User(user)) if users.contains(user) => return Ok(()),
            (Role::User(_), Observes::User(user)) if observe.contains(user) => return Ok(()),
            (Role::User(_), Observes::All) if !observe.is_nobody() => return Ok(()),
            (Role::Service, Observes::User(_)) => "data.user names a user that 'users' of this service does not list",
            (Role::User(_), _) if observe.is_nobody() => {
                "data.user names another user; that needs 'observe' in [[applications]] or in a role"
            }
            (Role::User(_), _) => "data.user names a user that 'observe' of this application does not list",
        };
        Err(Refusal::new(ErrorCode::Forbidden, words))
    }

    /// Whether the right allows only a part of the pattern.
    pub(in crate::router) fn is_cut(&self) -> bool {
        self.right().is_some_and(|right| right.check_whole(self.pattern).is_err())
    }

    /// Whether the right allows less of the pattern with other permissions.
    pub(in crate::router) fn loses_right(&self, after: &Self) -> bool {
        match (self.right(), after.right()) {
            (_, None) => false,
            (None, Some(_)) => after.is_cut(),
            // Subscriptions times patterns are compared while the session is locked, so the usual answer is found first.
            (Some(before), Some(after)) => before != after && before.loses(after, self.pattern),
        }
    }

    /// Whether it is for fewer users with other permissions.
    pub(in crate::router) fn loses_users(&self, after: &Self) -> bool {
        match (self.role, self.observes) {
            (Role::Adapter, _) | (Role::User(_), None) | (_, Some(Observes::User(_))) => false,
            (Role::Service, _) => !after.permissions.users.covers(&self.permissions.users),
            (Role::User(_), Some(Observes::All)) => !after.permissions.observe.covers(&self.permissions.observe),
        }
    }

    /// Whether it is for some users only.
    pub(in crate::router) fn is_for_some_users(&self) -> bool {
        let Permissions { observe, users, .. } = self.permissions;
        match (self.role, self.observes) {
            (Role::Adapter, _) | (Role::User(_), None) => false,
            (Role::Service, _) => *users != Users::All,
            (Role::User(_), Some(_)) => *observe != Users::All,
        }
    }
}

/// The right that a handler needs, or another subscription.
fn right_of(rights: &Rights, is_handler: bool) -> &Right {
    if is_handler { &rights.handle } else { &rights.subscribe }
}

impl Session {
    /// Whether these permissions, which are its own, let it know of a user's envelopes and applications.
    pub(in crate::router) fn may_see(&self, permissions: &Permissions, user: &str) -> bool {
        match &self.role {
            Role::Adapter => true,
            Role::Service => permissions.users.contains(user),
            Role::User(own) => **own == *user || permissions.observe.contains(user),
        }
    }

    /// The same. An envelope without a user (`None`) concerns everybody.
    pub(in crate::router) fn may_know(&self, permissions: &Permissions, user: Option<&str>) -> bool {
        user.is_none_or(|user| self.may_see(permissions, user))
    }

    /// Whether these permissions, which are its own, let it receive envelopes of a scope, whatever their triple.
    pub(in crate::router) fn admits(&self, permissions: &Permissions, scope: Scope<'_>) -> bool {
        match scope {
            // On a shared channel, every session receives what any user sends.
            Scope::Shared(_) => true,
            Scope::User(user) => self.may_see(permissions, user),
        }
    }
}

impl Subscription {
    /// Whether its session may receive an event, or a retained value, now.
    pub(in crate::router) fn may_receive(&self, triple: &Triple<'_>, scope: Scope<'_>) -> bool {
        !self.is_checked() || self.is_allowed(triple, scope)
    }

    /// Whether it is for envelopes of this scope, whatever their triple.
    pub(in crate::router) fn is_for(&self, scope: Scope<'_>) -> bool {
        !self.is_checked() || self.session.admits(&self.session.permissions(), scope)
    }

    /// The check itself. Apart, because most subscriptions do without it.
    #[inline(never)]
    pub(in crate::router) fn is_allowed(&self, triple: &Triple<'_>, scope: Scope<'_>) -> bool {
        let permissions = self.session.permissions();
        let right = permissions.rights.as_deref().map(|rights| right_of(rights, self.is_handler()));
        !self.listing.has_ended()
            && right.is_none_or(|right| right.check(triple).is_ok())
            && self.session.admits(&permissions, scope)
    }
}

impl Router {
    /// Checks what permissions say of a subscription.
    ///
    /// # Errors
    /// `FORBIDDEN`.
    pub(in crate::router) fn check_interest(&self, interest: &Interest<'_>) -> Result<(), Refusal> {
        interest.check_right()?;
        if interest.is_handler { self.check_grants(interest) } else { Ok(()) }
    }

    /// Whether a subscription gets less than its pattern says.
    pub(in crate::router) fn is_narrowed(&self, interest: &Interest<'_>) -> bool {
        if interest.is_handler { self.lacks_grants(interest) } else { interest.is_cut() }
    }

    /// Whether a subscription gets less with other permissions, apart from grants: by the right, or by users, which do not
    /// matter on a shared channel.
    pub(in crate::router) fn loses(&self, before: &Interest<'_>, after: &Interest<'_>) -> bool {
        before.loses_right(after) || !self.is_on_shared(after) && before.loses_users(after)
    }

    /// Whether each delivery to a subscription has to be checked.
    pub(in crate::router) fn is_checked(&self, interest: &Interest<'_>) -> bool {
        self.is_narrowed(interest) || interest.is_for_some_users()
    }
}
