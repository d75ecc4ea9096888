//! [`Draft`]: `[auth.jwt.NAME]` while it is read, the rules between its keys, and the issuer that it makes.

use std::path::PathBuf;
use std::time::Duration;

use super::{JwtIssuer, KeysFrom};
use crate::auth::{Algorithm, ClaimPath, ClaimRules, JwtRules, Users};
use crate::config::Roles;

/// The largest difference between clocks.
const LEEWAY_MAX: Duration = Duration::from_mins(5);

/// `[auth.jwt.NAME]` while it is read: what is required may yet be absent.
#[derive(Clone)]
pub(crate) struct Draft {
    pub(super) issuer: Option<String>,
    pub(super) audience: Vec<String>,
    pub(super) algorithms: Vec<String>,
    pub(super) jwks_url: Option<String>,
    pub(super) jwks_file: Option<PathBuf>,
    pub(super) key_file: Option<PathBuf>,
    pub(super) secret_file: Option<PathBuf>,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) refresh: Duration,
    pub(super) leeway: Duration,
    pub(super) lifetime: Duration,
    pub(super) user: Option<String>,
    pub(super) users: Option<Vec<String>>,
    pub(super) require: Vec<(ClaimPath, serde_json::Value)>,
    pub(super) service: Option<String>,
    pub(super) source: Option<String>,
    pub(super) sources: Option<Vec<String>>,
    pub(super) roles: Option<String>,
    pub(super) role: Option<String>,
    pub(super) over_http: bool,
}

impl Default for Draft {
    fn default() -> Self {
        Self {
            issuer: None,
            audience: Vec::new(),
            algorithms: Vec::new(),
            jwks_url: None,
            jwks_file: None,
            key_file: None,
            secret_file: None,
            ca_file: None,
            refresh: Duration::from_mins(10),
            leeway: Duration::from_secs(30),
            lifetime: Duration::from_hours(24),
            user: None,
            users: None,
            require: Vec::new(),
            service: None,
            source: None,
            sources: None,
            roles: None,
            role: None,
            over_http: false,
        }
    }
}

impl Draft {
    /// The keys that are missing or do not go together, and why. `has`: whether a key is written.
    pub(crate) fn wrong(&self, has: &dyn Fn(&str) -> bool, roles: &Roles) -> Vec<(&'static str, &'static str)> {
        let sources =
            ["jwks_url", "jwks_file", "key_file", "secret_file"].into_iter().filter(|key| has(key)).collect::<Vec<_>>();
        let hs256 = self.algorithms.iter().any(|it| it == "HS256");
        [
            (!has("issuer"), "issuer", "is missing: the exact 'iss' of the tokens"),
            (self.audience.is_empty(), "audience", NO_AUDIENCE),
            (self.algorithms.is_empty(), "algorithms", NO_ALGORITHMS),
            (
                hs256 && self.algorithms.len() > 1,
                "algorithms",
                "must have HS256 alone: a public key must never serve as its secret",
            ),
            (hs256 && !has("secret_file"), "secret_file", "is missing: HS256 needs the secret that the issuer shares"),
            (
                !hs256 && has("secret_file") && !self.algorithms.is_empty(),
                "secret_file",
                "does not fit these algorithms: a shared secret is for HS256 alone",
            ),
            (sources.is_empty() && !hs256, "jwks_url", NO_KEYS),
            (has("ca_file") && !has("jwks_url"), "ca_file", WITHOUT_URL),
            (has("refresh") && !has("jwks_url"), "refresh", WITHOUT_URL),
            (sources.len() > 1, sources.last().copied().unwrap_or_default(), ONE_SOURCE),
            (self.leeway > LEEWAY_MAX, "leeway", "must be at most 5m"),
            (!has("user") && !has("service"), "user", "is missing: the claim of the user's name; or write 'service'"),
            (self.sources.as_ref().is_some_and(Vec::is_empty), "sources", "must name at least one"),
            (
                !has("source") && !has("sources"),
                "sources",
                "is missing: the sources that may be registered; or write 'source'",
            ),
            (!has("roles") && !has("role"), "role", "is missing: the role of this issuer's sessions; or write 'roles'"),
            (
                self.role.as_ref().is_some_and(|role| !roles.contains(role)),
                "role",
                "is not a role: there is no table [roles.NAME] of this name",
            ),
        ]
        .into_iter()
        .filter(|(wrong, ..)| *wrong)
        .map(|(_, key, message)| (key, message))
        .collect()
    }

    /// Returns whether `users` is written.
    pub(crate) fn names_users(&self) -> bool {
        self.users.is_some()
    }

    /// The issuer, if nothing is missing.
    pub(crate) fn finish(self, name: &str) -> Option<JwtIssuer> {
        let path = |text: Option<String>| text.as_deref().and_then(ClaimPath::parse);
        Some(JwtIssuer {
            name: name.to_owned(),
            rules: JwtRules {
                algorithms: self.algorithms.iter().filter_map(|name| name.parse::<Algorithm>().ok()).collect(),
                issuers: vec![self.issuer?],
                audience: self.audience,
                leeway: self.leeway,
                lifetime: self.lifetime,
            },
            claims: ClaimRules {
                user: path(self.user),
                users: match &self.users {
                    Some(users) => Users::of(users.iter().map(String::as_str)),
                    None => Users::All,
                },
                require: self.require,
                service: path(self.service),
                source: path(self.source),
                sources: self.sources,
                roles: path(self.roles),
                role: self.role,
            },
            keys: (self.jwks_url)
                .map(|url| KeysFrom::Url { url, ca_file: self.ca_file, refresh: self.refresh })
                .or(self.jwks_file.map(KeysFrom::Set))
                .or(self.key_file.map(KeysFrom::PublicKey))
                .or(self.secret_file.map(KeysFrom::Secret))?,
            over_http: self.over_http,
        })
    }
}

const NO_AUDIENCE: &str = "is missing: the names of this broker at the issuer, one of which 'aud' must have";

const NO_ALGORITHMS: &str = "is missing: the signatures that are accepted, such as [\"RS256\"]";

const NO_KEYS: &str = "is missing: an issuer needs a jwks_url, a jwks_file, a key_file, or HS256 and a secret_file";

const WITHOUT_URL: &str = "has no effect without jwks_url";

const ONE_SOURCE: &str = "is a second source of keys: an issuer has exactly one";
