//! [`Proofs`]: how Salesforce proves users, besides static tokens. Each way is on if its table is present.

use std::path::PathBuf;
use std::time::Duration;

use wire::Pattern;

/// `[auth.salesforce_jwt]`, `[auth.salesforce_introspection]`, `[auth.salesforce_userinfo]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proofs {
    /// By a JWT that code of the org signs.
    pub jwt: Option<JwtProof>,
    /// By an access token that the org confirms to an app of its own.
    pub introspection: Option<IntrospectionProof>,
    /// By an access token that the org confirms to its bearer.
    pub userinfo: Option<UserinfoProof>,
    /// `auth.session_max`: how long a proof is valid; zero: as long as the session lives.
    pub session_max: Duration,
}

/// What a proved user may do. Every way has these keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proving {
    /// The org of the users, in 18 characters.
    pub org_id: Option<String>,
    /// What becomes the user of the session.
    pub user: ProvenUser,
    /// The sources that may be registered; empty: any except those of services.
    pub sources: Vec<String>,
    /// Protected triples that may be requested for the own user; `None`: all.
    pub request: Option<Vec<Pattern>>,
}

/// `user`: what becomes the user of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProvenUser {
    /// The record id, in 18 characters.
    #[default]
    UserId,
    /// The Salesforce user name.
    Username,
    /// The federation id.
    FederationId,
}

/// `[auth.salesforce_jwt]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtProof {
    /// Whom it proves.
    pub proving: Proving,
    /// Certificates or public keys in PEM. Any of them may have signed.
    pub certificate_file: Option<PathBuf>,
    /// `iss`; `None`: the org's id.
    pub issuer: Option<String>,
    /// `aud`
    pub audience: Option<String>,
    /// The largest difference between the clocks.
    pub clock_skew: Duration,
    /// The longest lifetime of a JWT.
    pub lifetime: Duration,
    /// The claim that contains the user name.
    pub username_claim: String,
    /// The claim that contains the federation id.
    pub federation_id_claim: String,
}

/// How the org is asked. Introspection and userinfo have these keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The org's My Domain; a [`BaseUrl`](crate::http::BaseUrl).
    pub host: Option<String>,
    /// The time limit of a whole exchange.
    pub timeout: Duration,
    /// How long an answer about a token is cached.
    pub cache: Duration,
    /// Certificates trusted beside the system's roots.
    pub ca_file: Option<PathBuf>,
    /// Whether a server on loopback may be used without TLS.
    pub insecure_http: bool,
}

/// `[auth.salesforce_introspection]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IntrospectionProof {
    /// Whom it proves.
    pub proving: Proving,
    /// How the org is asked.
    pub asked: Asked,
    /// The consumer key of the app that asks.
    pub client_id: Option<String>,
    /// Its consumer secret.
    pub client_secret_file: Option<PathBuf>,
    /// The apps whose tokens are accepted; empty: `client_id` only.
    pub allowed_clients: Vec<String>,
}

/// `[auth.salesforce_userinfo]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserinfoProof {
    /// Whom it proves.
    pub proving: Proving,
    /// How the org is asked.
    pub asked: Asked,
}

impl Default for Proofs {
    fn default() -> Self {
        Self { jwt: None, introspection: None, userinfo: None, session_max: Duration::from_hours(12) }
    }
}

impl Default for JwtProof {
    fn default() -> Self {
        Self {
            proving: Proving::default(),
            certificate_file: None,
            issuer: None,
            audience: None,
            clock_skew: Duration::from_mins(1),
            lifetime: Duration::from_mins(5),
            username_claim: "username".to_owned(),
            federation_id_claim: "federation_id".to_owned(),
        }
    }
}

impl Default for Asked {
    fn default() -> Self {
        Self {
            host: None,
            timeout: Duration::from_secs(5),
            cache: Duration::from_mins(5),
            ca_file: None,
            insecure_http: false,
        }
    }
}

impl Proofs {
    /// The names of the tables, in the order of the fields.
    pub const TABLES: [&str; 3] = ["auth.salesforce_jwt", "auth.salesforce_introspection", "auth.salesforce_userinfo"];

    /// Returns whether no way is on.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.each().is_empty()
    }

    /// The ways that are on: the name of the table, and whom it proves.
    #[must_use]
    pub fn each(&self) -> Vec<(&'static str, &Proving)> {
        let [jwt, introspection, userinfo] = Self::TABLES;
        [
            self.jwt.as_ref().map(|it| (jwt, &it.proving)),
            self.introspection.as_ref().map(|it| (introspection, &it.proving)),
            self.userinfo.as_ref().map(|it| (userinfo, &it.proving)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Turns on the way of a table and returns the table's name; `None` for any other table.
    pub(in crate::config) fn turn_on(&mut self, table: &str) -> Option<&'static str> {
        let [jwt, introspection, userinfo] = Self::TABLES;
        match table {
            _ if table == jwt => _ = self.jwt.get_or_insert_default(),
            _ if table == introspection => _ = self.introspection.get_or_insert_default(),
            _ if table == userinfo => _ = self.userinfo.get_or_insert_default(),
            _ => return None,
        }
        Self::TABLES.into_iter().find(|known| *known == table)
    }
}

impl ProvenUser {
    /// The value in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UserId => "user_id",
            Self::Username => "username",
            Self::FederationId => "federation_id",
        }
    }
}
