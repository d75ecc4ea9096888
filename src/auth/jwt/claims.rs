//! [`ClaimRules`]: what the claims of an issuer mean for a session: user or service, source.

use std::sync::Arc;

use serde_json::Value;
use wire::check_name;

use super::{ClaimPath, Claims, Jwt, Object};
use crate::auth::{AuthError, Permissions, Principal, Users};

/// The claims that an issuer's tokens must have, and what they mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimRules {
    /// Where the user's name is.
    pub user: Option<ClaimPath>,
    /// The users that the issuer may prove; for a service, the users that it serves.
    pub users: Users,
    /// Claims, and the values that they must equal.
    pub require: Vec<(ClaimPath, Value)>,
    /// Where `true` makes a service.
    pub service: Option<ClaimPath>,
    /// Where the source is named.
    pub source: Option<ClaimPath>,
    /// The sources that may be registered; `None`: `source` alone decides.
    pub sources: Option<Vec<String>>,
    /// Where the roles are named.
    pub roles: Option<ClaimPath>,
    /// The role of a token without that claim.
    pub role: Option<String>,
}

/// The source of a call over HTTP.
pub(in crate::auth) enum Named {
    Source(String),
    /// The token is good for several, of which this is one.
    OneOf(String),
}

/// Returns what a principal with these roles may do; fails with a name that is not a role's.
pub type Roles = Box<dyn Fn(&[&str], &Principal) -> Result<Permissions, String> + Send + Sync>;

impl ClaimRules {
    /// Returns the principal that the claims prove, for a session that registers as `source`.
    pub(super) fn principal(&self, claims: &Claims, source: &str) -> Result<Principal, AuthError> {
        let claims = &claims.0;
        if let Some((path, _)) = self.require.iter().find(|(path, value)| path.find(claims) != Some(value)) {
            return Err(unauthenticated(format!("the JWT's claim '{path}' is not what 'require' asks for")));
        }
        let is_service = self.service.as_ref().is_some_and(|path| path.find(claims) == Some(&Value::Bool(true)));
        let principal = if is_service { Principal::Service } else { self.user(claims)? };
        self.check_source(claims, source)?;
        Ok(principal)
    }

    /// Returns the source of a call over HTTP: the one that the token's claim names, which is not verified yet, or the one that
    /// the envelope names.
    pub(in crate::auth) fn source_of_call(&self, jwt: &Jwt<'_>, named: Option<&str>) -> Result<Named, AuthError> {
        if let Some(path) = &self.source {
            let claims = jwt.unverified_claims().map_err(|why| unauthenticated(why.to_owned()))?;
            let claimed = path.find(&claims).and_then(Value::as_str).map(str::to_owned);
            // A token without the claim is refused when it is verified.
            return Ok(Named::Source(claimed.unwrap_or_default()));
        }
        Ok(match (named, self.sources.as_deref()) {
            (Some(named), _) => Named::Source(named.to_owned()),
            (None, Some([only])) => Named::Source(only.clone()),
            (None, Some([first, ..])) => Named::OneOf(first.clone()),
            (None, Some([]) | None) => Named::Source(String::new()),
        })
    }

    /// Returns what the claims allow, and the names among them that are not a role's.
    pub(super) fn permissions<'c>(
        &'c self,
        claims: &'c Claims,
        principal: &Principal,
        roles: &Roles,
    ) -> Result<(Permissions, Vec<&'c str>), AuthError> {
        self.permissions_of(self.role_names(&claims.0)?, principal, roles)
    }

    /// The same for the names of roles, of which at least one has to be known. `None`: `role` decides.
    pub(super) fn permissions_of<'c>(
        &'c self,
        names: Option<Vec<&'c str>>,
        principal: &Principal,
        roles: &Roles,
    ) -> Result<(Permissions, Vec<&'c str>), AuthError> {
        let named = names.iter().flatten().map(|name| Box::from(*name)).collect();
        let (mut names, mut unknown) = match (names, self.role.as_deref()) {
            (Some(names), _) => (names, Vec::new()),
            (None, Some(role)) => (vec![role], Vec::new()),
            (None, None) => {
                return Err(forbidden("the JWT has no claim that names its roles, and this issuer no 'role'"));
            }
        };
        let mut permissions = loop {
            if names.is_empty() {
                return Err(forbidden("the JWT names no role of [roles.NAME]"));
            }
            match roles(&names, principal) {
                Ok(permissions) => break permissions,
                Err(name) => {
                    let before = names.len();
                    unknown.extend(names.extract_if(.., |it| **it == *name).next());
                    names.retain(|it| **it != *name);
                    if names.len() == before {
                        return Err(forbidden("the JWT names no role of [roles.NAME]"));
                    }
                }
            }
        };
        permissions.roles = named;
        if *principal == Principal::Service {
            permissions.users = self.users.clone();
        }
        Ok((permissions, unknown))
    }

    /// Returns whether the issuer may still prove this principal, which one of its tokens has proved, as this source.
    pub(super) fn admit(&self, principal: &Principal, source: &str) -> bool {
        principal.user().is_none_or(|user| self.users.contains(user)) && self.admits_source(source)
    }

    /// The names of roles in the claim, if there is one.
    fn role_names<'c>(&self, claims: &'c Object) -> Result<Option<Vec<&'c str>>, AuthError> {
        let Some(value) = self.roles.as_ref().and_then(|path| path.find(claims)) else { return Ok(None) };
        let names = match value {
            Value::String(name) => Some(vec![name.as_str()]),
            Value::Array(names) => names.iter().map(Value::as_str).collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
        };
        names.map(Some).ok_or_else(|| forbidden("the JWT's claim of roles is not a text or a list of texts"))
    }

    fn user(&self, claims: &Object) -> Result<Principal, AuthError> {
        let Some(path) = &self.user else {
            return Err(unauthenticated("the JWT is not of a service, and this issuer proves no users".to_owned()));
        };
        let user = path.find(claims).and_then(Value::as_str).filter(|user| check_name(user).is_ok());
        let user = user.ok_or_else(|| {
            unauthenticated(format!("the JWT's claim '{path}' is missing, or is not a text that can be a user name"))
        })?;
        if self.users.contains(user) {
            Ok(Principal::User(Arc::from(user)))
        } else {
            Err(forbidden("the user is not among the 'users' that this issuer may prove"))
        }
    }

    fn check_source(&self, claims: &Object, source: &str) -> Result<(), AuthError> {
        if let Some(path) = &self.source {
            let named = path.find(claims).and_then(Value::as_str).filter(|named| !named.is_empty());
            let named = named.ok_or_else(|| {
                unauthenticated(format!("the JWT's claim '{path}' is missing, or is not a text that names a source"))
            })?;
            if named != source {
                return Err(forbidden("the JWT is for another source than this one"));
            }
        }
        match self.admits_source(source) {
            true => Ok(()),
            false => Err(forbidden("the source is not among the 'sources' of this issuer")),
        }
    }

    fn admits_source(&self, source: &str) -> bool {
        self.sources.as_ref().is_none_or(|sources| sources.iter().any(|it| it == source))
    }
}

fn unauthenticated(why: String) -> AuthError {
    AuthError::Unauthenticated(why.into())
}

fn forbidden(why: &'static str) -> AuthError {
    AuthError::Forbidden(why.into())
}
