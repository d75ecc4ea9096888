//! [`Proofs`]: the ways in which Salesforce proves a user, each on when its table is written, beside static tokens.

use std::path::PathBuf;
use std::time::Duration;

use wire::Pattern;

/// `[auth.salesforce_jwt]`, `[auth.salesforce_introspection]`, `[auth.salesforce_userinfo]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proofs {
    /// A JWT that the org's own code signs.
    pub jwt: Option<JwtProof>,
    /// An access token, about which the org tells its own app.
    pub introspection: Option<IntrospectionProof>,
    /// An access token, about which the org tells whoever has it.
    pub userinfo: Option<UserinfoProof>,
    /// `auth.session_max`: how long a proof holds; zero: as long as the session lives.
    pub session_max: Duration,
}

/// Who such a user is to the broker, and what it may do; every way has this.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proving {
    /// The org whose users they are, in 18 characters.
    pub org_id: Option<String>,
    /// What becomes the session's user.
    pub user: ProvenUser,
    /// The names that it may register under; empty: any but a service's.
    pub sources: Vec<String>,
    /// Protected triples it may request for its own user; `None`: all.
    pub request: Option<Vec<Pattern>>,
}

/// `user`: what a session's user is.
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
    /// Who it proves.
    pub proving: Proving,
    /// Certificates or public keys in PEM, any of which may have signed.
    pub certificate_file: Option<PathBuf>,
    /// `iss`; `None`: the org's id.
    pub issuer: Option<String>,
    /// `aud`
    pub audience: Option<String>,
    /// How far the clocks may differ.
    pub clock_skew: Duration,
    /// How long a JWT may be good for at most.
    pub lifetime: Duration,
    /// The claim that has the user name.
    pub username_claim: String,
    /// The claim that has the federation id.
    pub federation_id_claim: String,
}

/// How the org is asked; introspection and userinfo have this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The org's My Domain; a [`BaseUrl`](crate::http::BaseUrl).
    pub host: Option<String>,
    /// The whole exchange.
    pub timeout: Duration,
    /// How long an answer serves again for the same token.
    pub cache: Duration,
    /// Certificates trusted beside the system's roots.
    pub ca_file: Option<PathBuf>,
    /// Speak without TLS to a stand-in on loopback.
    pub insecure_http: bool,
}

/// `[auth.salesforce_introspection]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IntrospectionProof {
    /// Who it proves.
    pub proving: Proving,
    /// How the org is asked.
    pub asked: Asked,
    /// The consumer key of the app that asks.
    pub client_id: Option<String>,
    /// Its consumer secret.
    pub client_secret_file: Option<PathBuf>,
    /// The apps whose tokens count; empty: `client_id` alone.
    pub allowed_clients: Vec<String>,
}

/// `[auth.salesforce_userinfo]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserinfoProof {
    /// Who it proves.
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
    /// The tables, in the order of the fields.
    pub const TABLES: [&str; 3] = ["auth.salesforce_jwt", "auth.salesforce_introspection", "auth.salesforce_userinfo"];

    /// Whether no way is on.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.each().is_empty()
    }

    /// The ways that are on: the table, and whom it proves.
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

    /// Turns a way on by its table; gives the table's name, unless it is another's.
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
    /// The word of the key.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UserId => "user_id",
            Self::Username => "username",
            Self::FederationId => "federation_id",
        }
    }
}
