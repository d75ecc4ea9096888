//! [`Config`]: what the operator chose, complete and checked. After loading, nothing reads an environment variable or
//! meets an unset default. A room gets its own part, never the whole.
//!
//! [`Config::load`] (`layers`: file < environment < flags) reads by the one table of keys (`reference`), from which
//! names, defaults and docs/configuration.md come (`document`). `file` walks TOML, `lines` knows
//! places in it, `admin` reads `[admin]`, `application` `[[applications]]`, `folder` the files of `applications_dir`,
//! `syntax` explains what is not TOML, `slot` puts values where they belong, `value` and `text` check them, `rules` compares
//! keys with each other, `settings` lists them. A large table has a file named for it (`channel`, `limits`, `jwt`);
//! everything wrong ends in [`Mistakes`], all together.

mod address;
mod admin;
mod application;
mod changes;
mod channel;
mod cluster;
mod layers;
mod limits;

mod recorder;
mod reference;

mod document;
mod file;
mod folder;
mod history;
mod jwt;
mod lines;
mod mistake;
mod network;
mod resume;
mod roles;
mod rules;
mod salesforce;
mod same_user;
mod settings;
mod slot;
mod summary;
mod syntax;
mod text;
mod tls;
mod value;

pub use address::ListenAddress;
pub use admin::{Admin, AdminToken, May};
pub use application::{Application, ProvedBy};
pub use changes::{Changes, TakesEffect, takes_effect};
pub use channel::{Channel, Overflow, Publish, Scope};
pub use cluster::{Cluster, kept_for};
pub use document::{Row, document, rows};
pub(crate) use file::quoted;
pub use history::{History, LogBounds};
pub use jwt::{JwtIssuer, KeysFrom};
pub use layers::LoadOptions;
pub use limits::Limits;
pub(crate) use mistake::nearest;
pub use mistake::{Mistake, Mistakes, Place};
pub use network::Network;
pub use recorder::Recorder;
pub use resume::Resume;
pub(crate) use roles::each_right;
pub use roles::{Roles, UnknownRole};
pub use salesforce::{
    Asked, CallVariables, CreationBounds, EventTopic, Events, Fields, IntrospectionProof, JwtProof, Lack, Lookup, Mode,
    Proofs, ProvenUser, Proving, Salesforce, Start, UserKey, UserinfoProof, WritableObject, exact_record_id, record_id,
};
pub use settings::{Setting, Settings};
pub use tls::{Tls, TlsVersion};
pub(crate) use value::Fault;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::auth::{RowSources, TokenTable};
pub(crate) use text::{name as check_user, origin as canonical_origin, source as check_source};
use wire::Pattern;

/// Everything the operator chose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where to listen.
    pub listen: Vec<ListenAddress>,
    /// Whether `listen` was not written, so that it is the default. Then a failing listener on `[::1]` is a warning;
    /// otherwise it is an error.
    pub listen_is_default: bool,
    /// Where the credential store, its key and the audit log live.
    pub data_dir: PathBuf,
    /// The folder of further files with `[[applications]]`.
    pub applications_dir: Option<PathBuf>,
    /// How sessions prove who they are.
    pub auth: AuthMode,
    /// `[auth.salesforce_jwt]` and its sisters: users whom Salesforce proves, beside the tokens of `[[applications]]`.
    pub proofs: Proofs,
    /// `[auth.jwt.NAME]`
    pub issuers: Vec<JwtIssuer>,
    /// What browsers may connect.
    pub http: Http,
    /// `[tls]`
    pub tls: Tls,
    /// `[admin]`
    pub admin: Admin,
    /// `[[applications]]` of the configuration file, then of the files of `applications_dir`.
    pub applications: Vec<Application>,
    /// `[roles.NAME]`
    pub roles: Roles,
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
    /// `[cluster]`
    pub cluster: Cluster,
    /// `[history]`
    pub history: History,
    /// `[limits]`
    pub limits: Limits,
    /// `[recorder]`
    pub recorder: Recorder,
    /// `[resume]`
    pub resume: Resume,
    /// Warnings about settings that are valid but probably a mistake.
    pub warnings: Vec<String>,
    /// The value of each key, and where it was set.
    pub settings: Settings,
}

impl Config {
    /// Which identity each token and each certificate of `[[applications]]` proves.
    #[must_use]
    pub fn token_table(&self) -> TokenTable {
        let mut table = TokenTable::default();
        for application in &self.applications {
            let (source, identity) = (application.source.clone(), application.identity());
            match &application.proved_by {
                ProvedBy::Token(hash) => {
                    if application.over_http {
                        table.allow_calls(*hash, source.clone());
                    }
                    table.insert(*hash, source, identity);
                }
                ProvedBy::Certificate(name) => table.insert_certificate(name.clone(), source, identity),
            }
        }
        table
    }

    /// The sources of `[[applications]]` that concern other proofs.
    #[must_use]
    pub fn row_sources(&self) -> RowSources {
        let sources = |wanted: fn(&Application) -> bool| {
            self.applications.iter().filter(|it| wanted(it)).map(|it| it.source.clone()).collect()
        };
        RowSources {
            services: sources(|it| it.user.is_none()),
            exclusive: sources(|it| it.user.is_some() && it.exclusive),
        }
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
    /// Whether `listen` may name addresses beyond loopback, where what is sent can be read on the way.
    pub insecure: bool,
    /// Proxies whose header names the address of the client.
    pub trusted_proxies: Vec<Network>,
    /// The header in which they do.
    pub forwarded_header: ForwardedHeader,
    /// `same_user`; `None`: as [`Config::is_for_same_user`] says.
    pub same_user: Option<bool>,
    /// `os_users`: names of operating-system users beside the broker's own.
    pub os_users: Vec<String>,
}

/// `http.forwarded_header`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239)
    Forwarded,
}

impl ForwardedHeader {
    /// Returns the name of the header, in lower case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::XForwardedFor => "x-forwarded-for",
            Self::Forwarded => "forwarded",
        }
    }
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

/// `protected.patterns` where the file says nothing: the vendor's own requests that carry passwords.
pub const PROTECTED: [&str; 4] =
    ["*/User/FetchCredentials", "*/Agent/SetUserInfo", "*/Connection/ReInit", "*/Agent/Login"];

impl Config {
    /// Whether a channel keeps something on disk. A cluster keeps it elsewhere.
    pub fn keeps_history(&self) -> bool {
        !self.cluster.is_on() && self.channels.values().any(|channel| channel.durable || channel.retain_durable)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)]
                .map(|host| SocketAddr::new(host, 7420).into())
                .into(),
            listen_is_default: true,
            data_dir: PathBuf::from("switchboard-data"),
            applications_dir: None,
            auth: AuthMode::Open,
            proofs: Proofs::default(),
            issuers: Vec::new(),
            http: Http::default(),
            tls: Tls::default(),
            admin: Admin::default(),
            applications: Vec::new(),
            roles: Roles::default(),
            channels: HashMap::new(),
            protected: PROTECTED.iter().filter_map(|pattern| pattern.parse().ok()).collect(),
            credentials: Credentials::default(),
            salesforce: Salesforce::default(),
            requests: Requests::default(),
            cluster: Cluster::default(),
            history: History::default(),
            limits: Limits::default(),
            recorder: Recorder::default(),
            resume: Resume::default(),
            warnings: Vec::new(),
            settings: Settings::default(),
        }
    }
}
