//! [`Config`]: what the operator chose, complete and checked. After loading, nothing reads an environment variable or
//! meets an unset default. A room gets its own part, never the whole.
//!
//! [`Config::load`] (`layers`: file < environment < flags) reads by the one table of keys (`reference`), from which
//! names, defaults and docs/configuration.md come (`document`). `file` walks TOML, `syntax` explains what is not TOML,
//! `value` and `text` check what a key takes, `rules` what keys say to each other; everything wrong ends in [`Mistakes`],
//! all together.

mod layers;

mod reference;

mod document;
mod file;
mod mistake;
mod rules;
mod salesforce;
mod summary;
mod syntax;
mod text;
mod value;

pub use document::{Row, document, rows};
pub use layers::LoadOptions;
pub(crate) use mistake::nearest;
pub use mistake::{Mistake, Mistakes, Place};
pub use salesforce::{
    Asked, CallVariables, CreationBounds, EventTopic, Events, Fields, IntrospectionProof, JwtProof, Lack, Lookup, Mode,
    Proofs, ProvenUser, Proving, Salesforce, Start, UserKey, UserinfoProof, WritableObject, exact_record_id, record_id,
};
pub(crate) use value::Fault;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::auth::{Ends, Identity, Permission, Permissions, Principal, Proof, TokenTable, Users};
pub(crate) use text::{name as check_user, origin as canonical_origin, source as check_source};
use wire::Pattern;

/// Everything the operator chose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where to listen; port 0 asks the system for one.
    pub listen: Vec<SocketAddr>,
    /// Whether `listen` was written by the operator: then a failing listener is an error, else a warning on `[::1]`.
    pub listen_is_default: bool,
    /// Where the credential store, its key and the audit log live.
    pub data_dir: PathBuf,
    /// How sessions prove who they are.
    pub auth: AuthMode,
    /// `[auth.salesforce_jwt]` and its sisters: users whom Salesforce proves, beside the tokens of `[[applications]]`.
    pub proofs: Proofs,
    /// What browsers may connect.
    pub http: Http,
    /// `[[applications]]`
    pub applications: Vec<Application>,
    /// `[channels.NAME]`; a channel not named has [`Channel::default`].
    pub channels: HashMap<String, Channel>,
    /// `protected.patterns`
    pub protected: Vec<Pattern>,
    /// `[credentials]`
    pub credentials: Credentials,
    /// `[salesforce]`
    pub salesforce: Salesforce,
    /// `[requests]`
    pub requests: Requests,
    /// `[limits]`
    pub limits: Limits,
    /// What is allowed and yet hardly meant, in words for the operator.
    pub warnings: Vec<String>,
}

impl Config {
    /// Which identity each token of `[[applications]]` proves.
    #[must_use]
    pub fn token_table(&self) -> TokenTable {
        let mut table = TokenTable::default();
        for application in &self.applications {
            table.insert(application.token_sha256, application.source.clone(), application.identity());
        }
        table
    }
}

/// `auth.mode`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMode {
    /// No token asked; loopback only.
    Open,
    /// A token of `[[applications]]`.
    Tokens,
}

/// `[http]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Http {
    /// Origins beside loopback, as browsers write them (lower case, no default port): `https://crm.example.com`,
    /// `app://`, or `null`.
    pub allowed_origins: Vec<String>,
    /// Hosts beside `localhost` and IP addresses, as a `Host` header writes them (lower case, IPv6 in brackets), without
    /// a port.
    pub allowed_hosts: Vec<String>,
}

/// One of `[[applications]]`: a source, whose it is, and the hash of the token that proves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Application {
    /// The name it registers under.
    pub source: String,
    /// The agent; `None` for a service.
    pub user: Option<String>,
    /// SHA-256 of the token's text.
    pub token_sha256: [u8; 32],
    /// One session a user.
    pub exclusive: bool,
    /// May observe other users.
    pub observe: bool,
    /// Protected triples it may handle.
    pub handle: Vec<Pattern>,
    /// Protected triples it may request; `None` where the file says nothing: all for a user, none for a service.
    pub request: Option<Vec<Pattern>>,
}

impl Application {
    fn identity(&self) -> Identity {
        let patterns = |patterns: &[Pattern]| Permission::Patterns(Arc::from(patterns));
        let request = self.request.as_deref().map(patterns);
        let (principal, request) = match &self.user {
            Some(user) => (Principal::User(Arc::from(user.as_str())), request.unwrap_or(Permission::All)),
            // One stolen service token must not fetch every agent's password.
            None => (Principal::Service, request.unwrap_or_else(Permission::none)),
        };
        let observe = if self.observe { Users::All } else { Users::nobody() };
        let permissions = Permissions { observe, handle: patterns(&self.handle), request, ..Permissions::default() };
        let proof = Proof::Token(self.token_sha256);
        Identity { principal, exclusive: self.exclusive, permissions, proof, ends: Ends::Never }
    }
}

/// `[channels.NAME]`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Channel {
    /// Whose an envelope of this channel is.
    pub scope: Scope,
    /// Who may publish events, if the channel is shared.
    pub publish: Publish,
    /// What a full queue does.
    pub overflow: Overflow,
    /// Whether topic and subtopic are compared without regard to ASCII case.
    pub fold_case: bool,
}

/// `channels.NAME.scope`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Among the sessions of one user, and services.
    #[default]
    User,
    /// Among all.
    Shared,
}

/// `channels.NAME.publish`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Publish {
    /// Every session.
    #[default]
    All,
    /// Services and adapters.
    Services,
}

/// `channels.NAME.overflow`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// Close the receiver with 4413.
    #[default]
    Close,
    /// Lose the receiver's oldest events of such channels, counted and told.
    DropOldest,
}

/// `[credentials]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// `store`
    pub store: Store,
    /// `key_file`; `None`: `data_dir/credentials.key`, or the environment variable `SWITCHBOARD_CREDENTIALS_KEY`.
    pub key_file: Option<PathBuf>,
    /// `audit_required`: whether a fetch without an audit record is refused.
    pub audit_required: bool,
}

impl Default for Credentials {
    fn default() -> Self {
        Self { store: Store::default(), key_file: None, audit_required: true }
    }
}

/// `credentials.store`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Store {
    /// The encrypted file in `data_dir`.
    #[default]
    Directory,
    /// A Salesforce org.
    Salesforce,
}

/// `[requests]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requests {
    /// `timeout`: the default and the upper bound.
    pub timeout: Duration,
    /// `only`: patterns of triples that are requests even if there is no handler.
    pub only: Vec<Pattern>,
    /// `more_max`: how long replies with `more` can keep one request open.
    pub more_max: Duration,
    /// `blocked`: how long a late reply can block an ordered handler.
    pub blocked: Duration,
    /// `adapter_in_flight`: requests of one asker on which an adapter works at once.
    pub adapter_in_flight: usize,
    /// `adapter_waiting`: requests of one asker that wait for an adapter.
    pub adapter_waiting: usize,
}

impl Default for Requests {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(10),
            only: Vec::new(),
            more_max: Duration::from_mins(10),
            blocked: Duration::from_mins(1),
            adapter_in_flight: 4,
            adapter_waiting: 64,
        }
    }
}

/// `[limits]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A message's size, in bytes.
    pub message_bytes: usize,
    /// A message's size before registration, in bytes.
    pub registration_bytes: usize,
    /// Subscriptions a session.
    pub subscriptions: usize,
    /// Requests a session may have pending.
    pub pending_requests: usize,
    /// Bytes of the texts that the broker keeps for a session's pending requests.
    pub pending_bytes: usize,
    /// Messages an outbound queue holds.
    pub outbound_messages: usize,
    /// Bytes an outbound queue holds.
    pub outbound_bytes: usize,
    /// How long a receiver may take nothing while it has something to take.
    pub slow_consumer: Duration,
    /// Sessions of a user; 0: no limit. Services have none.
    pub sessions_per_user: usize,
    /// Sessions of a source, of all users together; 0: no limit.
    pub sessions_per_source: usize,
    /// Messages a second a session; 0: no limit.
    pub rate: u32,
    /// Messages at once beyond the rate.
    pub burst: u32,
    /// Bytes received a second a session; 0: no limit.
    pub rate_bytes: u32,
    /// How long a connection may stay unregistered.
    pub registration: Duration,
    /// Time between two pings.
    pub heartbeat: Duration,
    /// Pings that may go unanswered before the session is dead.
    pub missed_pings: u32,
    /// Connections in all.
    pub connections: usize,
    /// Connections an address; 0: no limit.
    pub connections_per_address: usize,
    /// Connections that have not registered, counted from accept.
    pub unregistered: usize,
    /// How deep JSON may nest.
    pub json_depth: usize,
    /// Malformed messages in a row that close the session.
    pub malformed: u32,
    /// Failed registrations a minute an address.
    pub failed_registrations: u32,
    /// Retained values of a user or service.
    pub retained_values: usize,
    /// Bytes of the retained values of a user or service.
    pub retained_bytes: usize,
    /// Bytes of all retained values.
    pub retained_total_bytes: usize,
    /// How long requests in flight may take to finish when the broker drains.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: 1 << 20,
            registration_bytes: 16 << 10,
            subscriptions: 1000,
            pending_requests: 1000,
            pending_bytes: 8 << 20,
            outbound_messages: 1024,
            outbound_bytes: 8 << 20,
            slow_consumer: Duration::from_secs(5),
            sessions_per_user: Self::sessions_per_user_by(AuthMode::Open),
            sessions_per_source: 0,
            rate: 1000,
            burst: 2000,
            rate_bytes: 0,
            registration: Duration::from_secs(10),
            heartbeat: Duration::from_secs(25),
            missed_pings: 2,
            connections: 10_000,
            connections_per_address: 0,
            unregistered: 1000,
            json_depth: 128,
            malformed: 10,
            failed_registrations: 10,
            retained_values: 10_000,
            retained_bytes: 64 << 20,
            retained_total_bytes: 256 << 20,
            drain: Duration::from_secs(30),
        }
    }
}

impl Limits {
    /// Returns the default of `sessions_per_user`. Without proof a session is whom it says it is, so nothing is limited.
    #[must_use]
    pub fn sessions_per_user_by(auth: AuthMode) -> usize {
        match auth {
            AuthMode::Open => 0,
            AuthMode::Tokens => 100,
        }
    }
}

/// `protected.patterns` where the file says nothing: the vendor's own requests that carry passwords.
pub const PROTECTED: [&str; 4] =
    ["*/User/FetchCredentials", "*/Agent/SetUserInfo", "*/Connection/ReInit", "*/Agent/Login"];

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 7420)), SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 7420))],
            listen_is_default: true,
            data_dir: PathBuf::from("switchboard-data"),
            auth: AuthMode::Open,
            proofs: Proofs::default(),
            http: Http::default(),
            applications: Vec::new(),
            channels: HashMap::new(),
            protected: PROTECTED.iter().filter_map(|pattern| pattern.parse().ok()).collect(),
            credentials: Credentials::default(),
            salesforce: Salesforce::default(),
            requests: Requests::default(),
            limits: Limits::default(),
            warnings: Vec::new(),
        }
    }
}
