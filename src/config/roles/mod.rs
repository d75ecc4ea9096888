//! [`Roles`]: the tables `[roles.NAME]`, and what several of them allow together.
//!
//! `keys` has the keys. `draft` reads patterns and turns them into [`Rights`]; `row` does so for a row of `[[applications]]`.
//! `warnings` finds rights that contradict each other or change nothing.

mod draft;
mod keys;
mod row;
mod warnings;

pub(crate) use draft::RightsDraft;
pub(crate) use keys::{ROLE_KEYS, RoleDraft};
pub(crate) use row::RowRights;
pub(crate) use warnings::warnings;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::nearest;
use crate::auth::{Permission, Permissions, Principal, Right, Rights, Rules, Users};

/// All roles of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roles(BTreeMap<String, Role>);

impl Roles {
    /// Returns what a session may do that has all these roles: allowed patterns are joined, denied patterns add up, and
    /// so do the users that it observes. Roles that are named twice count once; without any role, nothing is allowed.
    ///
    /// A role without `protected_request` has the default for it: everything for a user, nothing for a service. A service
    /// observes nobody, since it receives the events of its users anyway. Its `users` are not a matter of roles.
    ///
    /// # Errors
    /// The first name that is not a role's.
    pub fn permissions(&self, names: &[&str], principal: &Principal) -> Result<Permissions, UnknownRole> {
        let mut roles = BTreeMap::new();
        for name in names {
            let (name, role) = self.0.get_key_value(*name).ok_or_else(|| self.unknown(name))?;
            roles.insert(name.as_str(), role);
        }
        let (observe, request) = match principal {
            Principal::User(_) => {
                let observe = roles.values().fold(Users::nobody(), |users, role| users.joined(&role.observe));
                (
                    observe,
                    joined(roles.values().map(|role| role.protected_request.as_ref().unwrap_or(&Permission::All))),
                )
            }
            Principal::Service => {
                let granted = roles.values().filter_map(|role| role.protected_request.as_ref());
                (Users::nobody(), joined(granted))
            }
        };
        let handle = joined(roles.values().map(|role| &role.protected_handle));
        Ok(Permissions { rights: Some(rights(&roles)), observe, handle, request, ..Permissions::default() })
    }

    /// Returns whether there is a role of this name.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The names of all roles, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Returns whether no role is configured.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn unknown(&self, name: &str) -> UnknownRole {
        UnknownRole { name: name.to_owned(), nearest: nearest(name, self.names()) }
    }

    /// Adds a role. Of two with the same name, the last one counts.
    pub(crate) fn insert(&mut self, name: &str, role: Role) {
        self.0.insert(name.to_owned(), role);
    }
}

/// A name that is not a role's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no table [roles.NAME] for the role '{name}'")]
pub struct UnknownRole {
    /// The name.
    pub name: String,
    /// The name of a role that was probably meant.
    pub nearest: Option<String>,
}

/// One table `[roles.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Role {
    /// The general rights. Applications that have only this role share them.
    rights: Arc<Rights>,
    /// `observe`
    observe: Users,
    /// `protected_request`; `None`: the default, which differs for users and services.
    protected_request: Option<Permission>,
    /// `protected_handle`
    protected_handle: Permission,
}

/// Returns the four rights with their keys.
pub(crate) fn each_right(rights: &Rights) -> [(&'static str, &Right); 4] {
    let Rights { publish, subscribe, request, handle } = rights;
    [("publish", publish), ("subscribe", subscribe), ("request", request), ("handle", handle)]
}

/// Joins the general rights of several roles.
fn rights(roles: &BTreeMap<&str, &Role>) -> Arc<Rights> {
    if let [role] = roles.values().collect::<Vec<_>>().as_slice() {
        return Arc::clone(&role.rights);
    }
    let from: Arc<str> = Arc::from(named(&roles.keys().copied().collect::<Vec<_>>()));
    let all = |pick: fn(&Rights) -> &Right| {
        let rules = |pick_rules: fn(&Right) -> &Rules| -> Rules {
            roles.values().flat_map(|role| &**pick_rules(pick(&role.rights))).cloned().collect()
        };
        Right { allow: rules(|it| &it.allow), deny: rules(|it| &it.deny), from: Arc::clone(&from) }
    };
    Arc::new(Rights {
        publish: all(|it| &it.publish),
        subscribe: all(|it| &it.subscribe),
        request: all(|it| &it.request),
        handle: all(|it| &it.handle),
    })
}

/// Names roles as a refusal does: `role 'a'`, `roles 'a', 'b' and 'c'`.
fn named(names: &[&str]) -> String {
    match names {
        [] => "any role".to_owned(),
        [name] => format!("role '{name}'"),
        [first @ .., last] => format!("roles '{}' and '{last}'", first.join("', '")),
    }
}

/// Joins grants on protected triples.
fn joined<'a>(grants: impl Iterator<Item = &'a Permission>) -> Permission {
    let mut patterns = Vec::new();
    for grant in grants {
        match grant {
            Permission::All => return Permission::All,
            Permission::Patterns(own) => patterns.extend_from_slice(own),
        }
    }
    Permission::Patterns(Arc::from(patterns))
}
