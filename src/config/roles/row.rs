//! [`RowRights`]: the keys of a row of `[[applications]]` about rights, and the [`Permissions`] that follow from them.

use std::sync::Arc;

use super::{RightsDraft, Roles, UnknownRole};
use crate::auth::{Permission, Permissions, Principal, Users};
use wire::Pattern;

/// Where the rights of a row's own patterns are configured, as refusals name it.
pub(super) const OWN: &str = "this application's 'permissions'";

/// The keys of a row that are about rights; `None` if a key was not written.
#[derive(Default)]
pub(crate) struct RowRights {
    pub(crate) role: Option<String>,
    pub(crate) permissions: Option<RightsDraft>,
    pub(crate) observe: Option<Users>,
    pub(crate) users: Option<Users>,
    pub(crate) handle: Option<Vec<Pattern>>,
    pub(crate) request: Option<Vec<Pattern>>,
}

impl RowRights {
    /// Returns what an application of this row may do. A key of the row replaces that of its role; denied patterns add up.
    /// With neither a role nor `permissions`, it has every general right.
    ///
    /// # Errors
    /// The role does not exist.
    pub(crate) fn permissions(&self, principal: &Principal, roles: &Roles) -> Result<Permissions, UnknownRole> {
        let patterns = |patterns: &Vec<Pattern>| Permission::Patterns(Arc::from(patterns.as_slice()));
        let mut permissions = match &self.role {
            Some(role) => roles.permissions(&[role], principal)?,
            None => without_role(principal),
        };
        if let Some(own) = &self.permissions {
            permissions.rights = Some(Arc::new(own.rights(permissions.rights.as_deref(), &Arc::from(OWN))));
        }
        if let Some(observe) = &self.observe {
            permissions.observe = observe.clone();
        }
        if let Some(users) = &self.users {
            permissions.users = users.clone();
        }
        if let Some(handle) = &self.handle {
            permissions.handle = patterns(handle);
        }
        if let Some(request) = &self.request {
            permissions.request = patterns(request);
        }
        Ok(permissions)
    }

    /// Returns the lists that `permissions` must have and has not: without a role, all four.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        match (&self.role, &self.permissions) {
            (None, Some(own)) => own.missing(),
            (Some(_), _) | (None, None) => Vec::new(),
        }
    }
}

/// The permissions of a row without `role` and `permissions`.
fn without_role(principal: &Principal) -> Permissions {
    let request = match principal {
        Principal::User(_) => Permission::All,
        // One stolen service token must not fetch every agent's password.
        Principal::Service => Permission::none(),
    };
    Permissions { request, ..Permissions::default() }
}
