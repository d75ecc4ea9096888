//! [`Salesforce`]: the keys of `[salesforce]`, that is which org, as whom, and where its credentials are; and
//! [`Proofs`]: those of `[auth.salesforce_*]`.
//!
//! `keys`, `proof_keys`, `events`, `objects` and `creations` define the keys, `text` checks the values of single keys, `rules`
//! and `proof_rules` check keys against each other.

mod creations;
mod events;
mod keys;
mod objects;
mod proof;
mod proof_keys;
mod proof_rules;
mod record_id;
mod rules;
mod text;

pub use creations::CreationBounds;
pub use events::{EventTopic, Events, Start};
pub(super) use events::{TOPIC_KEYS, TOPICS};
pub use objects::{CallVariables, WritableObject};
pub(super) use objects::{OBJECT_KEYS, OBJECTS};
pub use proof::{Asked, IntrospectionProof, JwtProof, Proofs, ProvenUser, Proving, UserinfoProof};
pub use record_id::{exact_record_id, record_id};

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::Config;
use super::mistake::Report;
use super::reference::Key;
use super::rules::Places;
use crate::http::BaseUrl;

/// All keys except those of tables that can be repeated.
pub(super) fn all_keys() -> impl Iterator<Item = &'static Key<Config>> {
    let org = keys::SALESFORCE_KEYS
        .iter()
        .chain(creations::CREATION_KEYS)
        .chain(objects::VARIABLE_KEYS)
        .chain(events::EVENT_KEYS);
    org.chain(proof_keys::proof_keys())
}

/// Checks the rules between keys.
pub(super) fn check(config: &Config, places: &Places, report: &mut Report) {
    rules::check(config, places, report);
    proof_rules::check(config, places, report);
}

/// Warns about settings that are valid but probably a mistake.
pub(super) fn warnings(config: &Config) -> impl Iterator<Item = String> {
    let org = rules::warnings(config).into_iter().chain(events::warnings(config)).chain(objects::warnings(config));
    org.chain(proof_rules::warnings(config))
}

/// `[salesforce]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Salesforce {
    /// The server that issues tokens; a [`BaseUrl`].
    pub login_url: String,
    /// The `aud` of an assertion; `None`: `login_url`.
    pub audience: Option<String>,
    /// The version in paths: `67.0`.
    pub api_version: String,
    /// The consumer key of the app.
    pub client_id: Option<String>,
    /// The user that logs in with `private_key_file`.
    pub username: Option<String>,
    /// An RSA key in PEM, for JWT bearer.
    pub private_key_file: Option<PathBuf>,
    /// The consumer secret, for client credentials.
    pub client_secret_file: Option<PathBuf>,
    /// Certificates trusted beside the system's roots.
    pub ca_file: Option<PathBuf>,
    /// The hosts to which the token may be sent: `.x` is any host that ends in it, `x` is that host or address.
    pub instance_hosts: Vec<String>,
    /// Whether a server on loopback may be used without TLS.
    pub insecure_http: bool,
    /// The time limit of a whole exchange, including a new login and repetitions.
    pub timeout: Duration,
    /// The most concurrent calls.
    pub concurrency: usize,
    /// How many failed requests in a row open a breaker.
    pub breaker_failures: u32,
    /// How long a breaker stays open the first time.
    pub breaker_open: Duration,
    /// How many fetches and writes of one user reach the org in a minute; zero: no limit.
    pub calls_per_user: u32,
    /// `[salesforce.credentials]`
    pub credentials: Lookup,
    /// `[salesforce.events]`
    pub events: Events,
    /// `[salesforce.objects.NAME]`; without any, nothing is ever written.
    pub objects: BTreeMap<String, WritableObject>,
    /// `[salesforce.variables]`
    pub variables: CallVariables,
    /// `[salesforce.creations]`
    pub creations: CreationBounds,
}

/// `[salesforce.credentials]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// How a row is requested.
    pub mode: Mode,
    /// The path under `/services/apexrest` with `{user}` in it; only in the mode `apex`.
    pub apex_path: Option<String>,
    /// Whether passwords that look like a mask are handed out.
    pub allow_mask_like: bool,
    /// The API name of the object.
    pub object: String,
    /// What the user of a session is in Salesforce.
    pub key: UserKey,
    /// The field that contains the key.
    pub key_field: String,
    /// The checkbox that disables a row; empty: none.
    pub active_field: String,
    /// The fields of the values.
    pub fields: Fields,
    /// How long credentials are cached; zero: not at all.
    pub cache: Duration,
}

/// `salesforce.credentials.fields`; a field with an empty name is not requested and answered `""`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    /// `Username`
    pub username: String,
    /// `Password`
    pub password: String,
    /// `Extension`
    pub extension: String,
    /// `ADFSUsername`
    pub adfs_username: String,
}

/// `salesforce.credentials.mode`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// One SOQL query.
    #[default]
    Query,
    /// One record by an external id.
    ExternalId,
    /// An Apex REST resource of the org.
    Apex,
}

/// `salesforce.credentials.key`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UserKey {
    /// A record id, of 15 or 18 characters.
    #[default]
    UserId,
    /// A Salesforce user name.
    Username,
    /// A federation id.
    FederationId,
    /// An e-mail address.
    Email,
}

impl Default for Salesforce {
    fn default() -> Self {
        Self {
            login_url: "https://login.salesforce.com".to_owned(),
            audience: None,
            api_version: "67.0".to_owned(),
            client_id: None,
            username: None,
            private_key_file: None,
            client_secret_file: None,
            ca_file: None,
            instance_hosts: vec![".salesforce.com".to_owned()],
            insecure_http: false,
            timeout: Duration::from_secs(8),
            concurrency: 8,
            breaker_failures: 5,
            breaker_open: Duration::from_secs(5),
            calls_per_user: 120,
            credentials: Lookup::default(),
            events: Events::default(),
            objects: BTreeMap::new(),
            variables: CallVariables::default(),
            creations: CreationBounds::default(),
        }
    }
}

impl Default for Lookup {
    fn default() -> Self {
        Self {
            mode: Mode::Query,
            apex_path: None,
            allow_mask_like: false,
            object: "CTI_Login__c".to_owned(),
            key: UserKey::UserId,
            key_field: "User_Id__c".to_owned(),
            active_field: "Active__c".to_owned(),
            fields: Fields {
                username: "CTI_Username__c".to_owned(),
                password: "CTI_Password__c".to_owned(),
                extension: "CTI_Extension__c".to_owned(),
                adfs_username: "ADFS_Username__c".to_owned(),
            },
            cache: Duration::ZERO,
        }
    }
}

/// A key that is missing or conflicts with another, and a message.
pub type Lack = (&'static str, &'static str);

impl Salesforce {
    /// Returns whether calls of the org are made in the same way. What is written and which events are published may differ.
    #[must_use]
    pub fn calls_like(&self, other: &Self) -> bool {
        let calls = |it: &Self| Self {
            objects: BTreeMap::new(),
            variables: CallVariables::default(),
            creations: CreationBounds::default(),
            events: Events { endpoint: it.events.endpoint.clone(), ..Events::default() },
            ..it.clone()
        };
        calls(self) == calls(other)
    }

    /// Returns the missing and the conflicting keys, for a broker that uses the org.
    #[must_use]
    pub fn lacks(&self) -> Vec<Lack> {
        let jwt = self.username.is_some() || self.private_key_file.is_some();
        let secret = self.client_secret_file.is_some();
        let shared_host = ["login.salesforce.com", "test.salesforce.com"]
            .iter()
            .any(|host| BaseUrl::parse(&self.login_url).is_ok_and(|url| url.host == *host));
        let lookup = &self.credentials;
        [
            (
                self.client_id.is_none(),
                "salesforce.client_id",
                "is missing: the consumer key of the external client app",
            ),
            (
                !jwt && !secret,
                "salesforce.private_key_file",
                "is missing: log in with username and private_key_file, or with client_secret_file",
            ),
            (jwt && secret, "salesforce.client_secret_file", "cannot be combined with username or private_key_file"),
            (
                jwt && self.username.is_none(),
                "salesforce.username",
                "is missing: the integration user that private_key_file logs in",
            ),
            (
                jwt && self.private_key_file.is_none(),
                "salesforce.private_key_file",
                "is missing: the key that logs username in",
            ),
            (
                secret && shared_host,
                "salesforce.login_url",
                "must be the org's My Domain (https://NAME.my.salesforce.com): client credentials work nowhere else",
            ),
            (
                lookup.mode == Mode::Apex && lookup.apex_path.is_none(),
                "salesforce.credentials.apex_path",
                "is missing: the mode \"apex\" needs a path such as \"/cti/{user}\"",
            ),
            (
                lookup.mode == Mode::ExternalId && lookup.key_field.contains('.'),
                "salesforce.credentials.key_field",
                "must be a field of the object itself in the mode \"external_id\"",
            ),
        ]
        .into_iter()
        .filter(|(lacks, _, _)| *lacks)
        .map(|(_, key, message)| (key, message))
        .collect()
    }
}
