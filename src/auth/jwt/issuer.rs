//! [`Issuer`]: one table `[auth.jwt.NAME]`, ready to verify; [`Issuers`]: all of them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use super::{ClaimRules, Claims, Jwt, JwtRules, Keys, Roles, VerifyingKey};
use crate::auth::jwks::{FetchedKeys, Found, KeySet};
use crate::auth::{Algorithm, AuthError, Ends, Identity, Proof, Proved, Review};
use crate::telemetry::metrics::AuthOutcome;

/// An issuer of JWTs.
pub struct Issuer {
    /// The name of its table.
    pub name: Arc<str>,
    /// What its tokens have to be.
    pub rules: JwtRules,
    /// What their claims mean.
    pub claims: ClaimRules,
    /// The keys that sign them.
    pub keys: IssuerKeys,
    /// They are good for calls over HTTP.
    pub over_http: bool,
}

/// Where an issuer's keys are.
pub enum IssuerKeys {
    /// A few keys without names: a token's `kid` does not matter.
    Unnamed(Keys),
    /// A key set.
    Set(KeySet),
    /// A key set that is fetched.
    Fetched(Arc<FetchedKeys>),
}

impl Issuer {
    /// Returns the identity that a token proves; or what its refusal is counted as, and why it is refused.
    async fn verify(&self, jwt: &Jwt<'_>, source: &str, beside: &Issuers) -> Result<Identity, Refused> {
        let algorithm = self.rules.algorithm(jwt).map_err(|error| (AuthOutcome::Signature, error))?;
        let claims = match &self.keys {
            IssuerKeys::Unnamed(keys) => self.check_by(jwt, algorithm, &keys.fitting(algorithm)),
            IssuerKeys::Set(set) => self.check_by_set(jwt, algorithm, set),
            IssuerKeys::Fetched(keys) => {
                let id = jwt.key_id().map_err(|error| (AuthOutcome::Key, error))?;
                let set = keys.set_for(algorithm, id).await.map_err(|error| (AuthOutcome::Unavailable, error))?;
                self.check_by_set(jwt, algorithm, &set)
            }
        }?;
        self.identity(&claims, source, beside).map_err(|error| (AuthOutcome::Claims, error))
    }

    /// Returns the identity that verified claims prove.
    fn identity(&self, claims: &Claims, source: &str, beside: &Issuers) -> Result<Identity, AuthError> {
        let principal = self.claims.principal(claims, source)?;
        if beside.rows.services.contains(source) {
            return Err(AuthError::Forbidden(
                "the source is a service's, by its own row in [[applications]]: choose another name".into(),
            ));
        }
        let (permissions, unknown) = self.claims.permissions(claims, &principal, &beside.roles)?;
        for role in unknown {
            beside.log_unknown_role(&self.name, role);
        }
        Ok(Identity {
            permissions,
            principal,
            exclusive: beside.rows.exclusive.contains(source),
            proof: Proof::Issuer(Arc::clone(&self.name)),
            ends: Ends::At { expires: claims.expires(), leeway: self.rules.leeway },
        })
    }
}

/// What the refusal of a token is counted as, and why it is refused.
type Refused = (AuthOutcome, AuthError);

impl Issuer {
    fn check_by(&self, jwt: &Jwt<'_>, algorithm: Algorithm, keys: &[&VerifyingKey]) -> Result<Claims, Refused> {
        let checked = self.rules.check_with(now(), jwt, algorithm, keys);
        checked.map_err(|(outcome, why)| (outcome, AuthError::Unauthenticated(why.into())))
    }

    fn check_by_set(&self, jwt: &Jwt<'_>, algorithm: Algorithm, set: &KeySet) -> Result<Claims, Refused> {
        let why = match set.find(algorithm, jwt.key_id().map_err(|error| (AuthOutcome::Key, error))?) {
            Found::Keys(keys) => return self.check_by(jwt, algorithm, &keys),
            Found::UnknownId => "the issuer has no key of the id that the JWT names ('kid')",
            Found::Nothing(why) => why,
        };
        Err((AuthOutcome::Key, AuthError::Unauthenticated(why.into())))
    }
}

/// Sources of `[[applications]]` that concern other proofs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowSources {
    /// Sources of services. No other proof is good for them.
    pub services: HashSet<String>,
    /// Sources that a user may have once.
    pub exclusive: HashSet<String>,
}

/// How many unknown roles are remembered, so that each is logged once.
const UNKNOWN_ROLES_MAX: usize = 1000;

/// All issuers, by the `iss` of their tokens.
pub struct Issuers {
    by_issuer: HashMap<String, Arc<Issuer>>,
    rows: RowSources,
    roles: Roles,
    /// Unknown roles that were logged.
    unknown_roles: Mutex<HashSet<String>>,
}

impl Issuers {
    /// The issuers, beside the rows of `[[applications]]`.
    #[must_use]
    pub fn new(issuers: impl IntoIterator<Item = Issuer>, rows: RowSources, roles: Roles) -> Self {
        let mut by_issuer = HashMap::new();
        for issuer in issuers.into_iter().map(Arc::new) {
            by_issuer.extend(issuer.rules.issuers.iter().map(|name| (name.clone(), Arc::clone(&issuer))));
        }
        Self { by_issuer, rows, roles, unknown_roles: Mutex::default() }
    }

    /// Logs a role of a token that the configuration does not have. The role counts for nothing.
    fn log_unknown_role(&self, issuer: &str, role: &str) {
        let mut logged = self.unknown_roles.lock();
        if logged.len() < UNKNOWN_ROLES_MAX && logged.insert(format!("{issuer}/{role}")) {
            let role: String = role.escape_debug().take(wire::NAME_BYTES_MAX).collect();
            tracing::warn!(issuer, role, "a JWT names a role that the configuration does not have; it is ignored");
        }
    }

    /// Returns whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_issuer.is_empty()
    }

    /// Returns the issuer that a token names, with the token; else why there is none.
    pub(in crate::auth) fn find<'t>(&self, token: &'t str) -> Result<(&Issuer, Jwt<'t>), &'static str> {
        const UNKNOWN: &str = "the token is not known: its hash is not a token_sha256 of [[applications]], and it is not a \
                               JWT whose 'iss' is the issuer of a table [auth.jwt.NAME]";
        if token.split('.').count() != 3 {
            return Err(UNKNOWN);
        }
        let jwt = Jwt::read(token)?;
        self.by_issuer.get(&jwt.issuer()?).map(|issuer| (&**issuer, jwt)).ok_or(UNKNOWN)
    }

    /// Judges a session that a token of the issuer of this table has proved.
    pub(in crate::auth) fn review(&self, name: &str, proved: &Proved<'_>) -> Review {
        let issuer = self.by_issuer.values().find(|issuer| *issuer.name == *name);
        let is_admitted = |issuer: &&Arc<Issuer>| {
            issuer.claims.admit(proved.principal, proved.source) && !self.rows.services.contains(proved.source)
        };
        let Some(issuer) = issuer.filter(is_admitted) else { return Review::End };
        let names: Vec<&str> = proved.permissions.roles.iter().map(|name| &**name).collect();
        // A token that has the claim names at least one.
        let names = (!names.is_empty()).then_some(names);
        let permissions = issuer.claims.permissions_of(names, proved.principal, &self.roles);
        permissions.map_or(Review::End, |(permissions, _)| Review::Keep(permissions))
    }

    /// Returns the identity that a token of this issuer proves, for a session that registers as `source`.
    pub(in crate::auth) async fn verify(
        &self,
        (issuer, jwt): (&Issuer, Jwt<'_>),
        source: &str,
    ) -> Result<Identity, (AuthOutcome, AuthError)> {
        issuer.verify(&jwt, source, self).await
    }
}

/// The time since 1970.
fn now() -> Duration {
    #[expect(clippy::disallowed_methods, reason = "a token says by the calendar how long it is valid")]
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
