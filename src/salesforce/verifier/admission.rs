//! [`Admission`]: the identity of a proved user: allowed names, user, permissions.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::Proven;
use crate::auth::{AuthError, Ends, Identity, Permission, Permissions, Principal, Proof, Proved, Review, RowSources};
use crate::config::{Config, ProvenUser, Proving};
use wire::check_name;

/// The rules of one table for its users.
pub(super) struct Admission {
    table: &'static str,
    user: ProvenUser,
    /// The allowed sources; empty: any.
    sources: HashSet<String>,
    /// Sources of `[[applications]]` that concern its users.
    rows: RowSources,
    request: Permission,
    ends: Ends,
}

impl Admission {
    /// The rules of a table, beside those of `[[applications]]`.
    pub(super) fn new(config: &Config, table: &'static str, proving: &Proving) -> Self {
        Self {
            table,
            user: proving.user,
            sources: proving.sources.iter().cloned().collect(),
            rows: config.row_sources(),
            request: match &proving.request {
                Some(patterns) => Permission::Patterns(Arc::from(patterns.as_slice())),
                None => Permission::All,
            },
            ends: match config.proofs.session_max {
                Duration::ZERO => Ends::Never,
                session_max => Ends::After(session_max),
            },
        }
    }

    /// Returns the identity of a proved user that wants to register under a name.
    pub(super) fn admit(&self, source: &str, proven: &Proven) -> Result<Identity, AuthError> {
        let table = self.table;
        self.check_source(source)?;
        let user = match self.user {
            ProvenUser::UserId => Some(&proven.user_id),
            ProvenUser::Username => proven.username.as_ref(),
            ProvenUser::FederationId => proven.federation_id.as_ref(),
        };
        let user = user.filter(|user| check_name(user).is_ok()).ok_or_else(|| {
            let wanted = self.user.as_str();
            let why = format!(
                "Salesforce proves the user, and says no {wanted} that would do as a name, as {table}.user wants"
            );
            AuthError::Unauthenticated(why.into())
        })?;
        Ok(Identity {
            principal: Principal::User(Arc::from(user.as_str())),
            exclusive: self.rows.exclusive.contains(source),
            permissions: self.permissions(),
            proof: Proof::Salesforce(self.table),
            ends: self.ends,
        })
    }

    /// Judges a live session. `None`: another table proved it.
    pub(super) fn review(&self, proved: &Proved<'_>) -> Option<Review> {
        let is_own = matches!(proved.proof, Proof::Salesforce(table) if *table == self.table);
        is_own.then(|| match self.check_source(proved.source) {
            Ok(()) => Review::Keep(self.permissions()),
            Err(_) => Review::End,
        })
    }

    fn permissions(&self) -> Permissions {
        Permissions { request: self.request.clone(), ..Permissions::default() }
    }

    /// Checks that a proved user's application may register under this name.
    fn check_source(&self, source: &str) -> Result<(), AuthError> {
        if self.rows.services.contains(source) {
            return Err(AuthError::Forbidden(
                "the source is a service's, by its own token in [[applications]]: choose another name".into(),
            ));
        }
        if !self.sources.is_empty() && !self.sources.contains(source) {
            let table = self.table;
            return Err(AuthError::Forbidden(format!("the source is not among those of {table}.sources").into()));
        }
        Ok(())
    }
}
