//! [`Changes`]: what differs between two configurations, key by key, and which of it a running broker can take over.
//!
//! The table of keys has a way to put a value, and none to read it. So two configurations differ in a key if they still
//! differ when every other key of both has been given the same value.

use std::collections::BTreeSet;

use serde_json::json;

use super::admin::TOKENS;
use super::channel::CHANNEL_KEYS;
use super::document::rows;
use super::file::quoted;
use super::limits::SESSIONS_PER_USER;
use super::reference::{Key, keys};
use super::{Channel, Config, JwtIssuer, Limits, Proofs, Roles};

/// When a change of a key takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakesEffect {
    /// With a reload.
    Reload,
    /// With a restart: a reload that finds it is refused.
    Restart,
}

/// Keys, and tables with all keys in them, whose changes take effect with a reload.
const WITH_RELOAD: &[&str] = &[
    "admin",
    "applications",
    "applications_dir",
    "auth.jwt",
    "auth.session_max",
    "auth.salesforce_jwt",
    "auth.salesforce_introspection",
    "auth.salesforce_userinfo",
    "http",
    "channels.NAME.fold_case",
    "channels.NAME.publish",
    "channels.NAME.scope",
    "channels.NAME.overflow",
    "channels.NAME.history",
    "protected",
    "requests",
    "history",
    "limits",
    "recorder",
    "resume",
    "roles",
    "salesforce",
    "tls",
];

/// The same, with a restart. Of two entries that are about a key, the longer one counts.
const WITH_RESTART: &[&str] = &[
    "listen",
    "admin.listen",
    "data_dir",
    "auth.mode",
    // The file is opened at start.
    "channels.NAME.history.durable",
    "channels.NAME.retain",
    "cluster",
    "credentials",
    // As whom the broker logs in, and where: what the org was told before would be another one's.
    "salesforce.login_url",
    "salesforce.audience",
    "salesforce.client_id",
    "salesforce.username",
    "salesforce.private_key_file",
    "salesforce.client_secret_file",
    "tls.listen",
    "tls.client_listen",
];

/// Says when a change of a key takes effect; `None` if no entry is about it. Tables that can be repeated are written as in
/// the reference, `channels.NAME.scope`.
#[must_use]
pub fn takes_effect(key: &str) -> Option<TakesEffect> {
    let key = key.replace("[]", "");
    let about = |entry: &&&str| key.strip_prefix(**entry).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    let longest = |entries: &[&str]| entries.iter().filter(about).map(|entry| entry.len()).max();
    match (longest(WITH_RELOAD), longest(WITH_RESTART)) {
        (None, None) => None,
        (reload, restart) if reload > restart => Some(TakesEffect::Reload),
        _ => Some(TakesEffect::Restart),
    }
}

/// The keys that need a restart, as documents list them: `listen`, `credentials.*`.
pub(super) fn restart_keys() -> Vec<String> {
    let rows = rows();
    let entry = |entry: &&str| match rows.iter().any(|row| row.key == **entry) {
        true => format!("`{entry}`"),
        false => format!("`{entry}.*`"),
    };
    WITH_RESTART.iter().map(entry).collect()
}

/// The names of the keys that differ, without their values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Keys that take effect with a reload.
    pub reload: Vec<String>,
    /// Keys that need a restart.
    pub restart: Vec<String>,
}

impl Changes {
    /// Compares two configurations.
    #[must_use]
    pub fn between(old: &Config, new: &Config) -> Self {
        let mut changes = Self::default();
        single_keys(old, new).for_each(|key| changes.note(key, key.to_owned()));
        if old.applications != new.applications {
            changes.note("applications", "applications".to_owned());
        }
        for name in old.channels.keys().chain(new.channels.keys()).collect::<BTreeSet<_>>() {
            let [old, new] = [old, new].map(|it| it.channels.get(name).copied().unwrap_or_default());
            for key in CHANNEL_KEYS.iter().filter(|key| differs(CHANNEL_KEYS, key, &old, &new)) {
                changes.note(&format!("channels.NAME.{}", key.name), format!("channels.{}.{}", quoted(name), key.name));
            }
        }
        for table in issuers(old, new) {
            changes.note("auth.jwt", table);
        }
        for (key, differs) in other_tables(old, new) {
            if differs {
                changes.note(key, key.to_owned());
            }
        }
        changes
    }

    /// Returns whether nothing differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.reload.is_empty() && self.restart.is_empty()
    }

    /// Notes a key by its `name`. One that nothing is said about needs a restart.
    fn note(&mut self, key: &str, name: String) {
        match takes_effect(key) {
            Some(TakesEffect::Reload) => self.reload.push(name),
            Some(TakesEffect::Restart) | None => self.restart.push(name),
        }
    }
}

impl Config {
    /// Takes the values of the keys that need a restart from another configuration, the one in force, and of the keys without
    /// which those could not stay.
    pub fn keep_restart_keys(&mut self, old: &Self) {
        let mut needed = Vec::new();
        if self.admin.listen != old.admin.listen {
            // Else the admin listener, which stays beyond loopback, would no longer encrypt.
            (self.admin.tls, self.admin.insecure) = (old.admin.tls, old.admin.insecure);
            needed.extend(["admin.tls", "admin.insecure"]);
        }
        self.listen.clone_from(&old.listen);
        self.listen_is_default = old.listen_is_default;
        self.admin.listen.clone_from(&old.admin.listen);
        self.admin.listen_is_default = old.admin.listen_is_default;
        self.data_dir.clone_from(&old.data_dir);
        self.auth = old.auth;
        self.credentials = old.credentials.clone();
        self.keep_org(old);
        self.tls.listen.clone_from(&old.tls.listen);
        self.tls.client_listen.clone_from(&old.tls.client_listen);
        if self.uses_tls() && self.tls.certificate_file.is_none() {
            self.tls.certificate_file.clone_from(&old.tls.certificate_file);
            self.tls.key_file.clone_from(&old.tls.key_file);
            needed.extend(["tls.certificate_file", "tls.key_file"]);
        }
        if !self.tls.client_listen.is_empty() && self.tls.client_ca_file.is_none() {
            self.tls.client_ca_file.clone_from(&old.tls.client_ca_file);
            needed.push("tls.client_ca_file");
        }
        for name in old.channels.keys().chain(self.channels.keys()).cloned().collect::<BTreeSet<_>>() {
            let kept = old.channels.get(&name).copied().unwrap_or_default();
            let mut channel = self.channels.get(&name).copied().unwrap_or_default();
            (channel.durable, channel.retain_durable) = (kept.durable, kept.retain_durable);
            if channel.durable && channel.history.is_none() {
                channel.history = kept.history;
            }
            if channel != Channel::default() || self.channels.contains_key(&name) {
                self.channels.insert(name, channel);
            }
        }
        let is_kept =
            |key: &str| needed.contains(&key) || takes_effect(&in_reference(key)) == Some(TakesEffect::Restart);
        self.settings.keep(&old.settings, is_kept);
        // The default depends on `auth.mode`, which stays.
        if !self.settings.is_written(SESSIONS_PER_USER) {
            self.limits.sessions_per_user = Limits::sessions_per_user_by(self.auth);
            self.settings.set_default(SESSIONS_PER_USER, &json!(self.limits.sessions_per_user));
        }
    }
}

/// The key as the reference has it: `channels.NAME.retain` for `channels.Phone.retain`. Those of other tables need no name.
fn in_reference(key: &str) -> String {
    match key.strip_prefix("channels.").and_then(|rest| rest.rsplit_once('.')) {
        Some((_, last)) => format!("channels.NAME.{last}"),
        None => key.to_owned(),
    }
}

impl Config {
    /// Takes the keys of `[salesforce]` that need a restart from another configuration.
    fn keep_org(&mut self, old: &Self) {
        let (own, old) = (&mut self.salesforce, old.salesforce.clone());
        own.login_url = old.login_url;
        own.audience = old.audience;
        own.client_id = old.client_id;
        own.username = old.username;
        own.private_key_file = old.private_key_file;
        own.client_secret_file = old.client_secret_file;
    }
}

/// Named if two configurations differ in something that no key covers.
const REST: &str = "(a part of the configuration that no key names)";

/// The tables of issuers that differ.
fn issuers(old: &Config, new: &Config) -> BTreeSet<String> {
    let only_in = |one: &Config, other: &Config| -> Vec<String> {
        one.issuers.iter().filter(|issuer| !other.issuers.contains(issuer)).map(JwtIssuer::table).collect()
    };
    only_in(old, new).into_iter().chain(only_in(new, old)).collect()
}

/// Tables whose keys are not compared one by one.
fn other_tables(old: &Config, new: &Config) -> Vec<(&'static str, bool)> {
    let (own, others) = (old.proofs.each(), new.proofs.each());
    let has = |ways: &[(&'static str, _)], table: &str| ways.iter().any(|(name, _)| *name == table);
    let mut tables: Vec<_> =
        Proofs::TABLES.into_iter().map(|table| (table, has(&own, table) != has(&others, table))).collect();
    tables.push(("roles", old.roles != new.roles));
    tables.push((TOKENS, old.admin.tokens != new.admin.tokens));
    tables.push(("salesforce.objects", old.salesforce.objects != new.salesforce.objects));
    tables.push(("salesforce.events.topics", old.salesforce.events.topics != new.salesforce.events.topics));
    let [old, new] = [old, new].map(|config| {
        let mut rest = without_tables(config);
        keys().for_each(|key| key.slot.blank(&mut rest));
        rest
    });
    tables.push((REST, old != new));
    tables
}

/// The single keys that differ.
fn single_keys(old: &Config, new: &Config) -> impl Iterator<Item = &'static str> {
    let (old, new) = (without_tables(old), without_tables(new));
    let all: Vec<&'static Key<Config>> = if old == new { Vec::new() } else { keys().collect() };
    all.into_iter()
        .filter(move |key| {
            let [old, new] = [&old, &new].map(|config| {
                let mut only = config.clone();
                keys().filter(|other| other.name != key.name).for_each(|other| other.slot.blank(&mut only));
                only
            });
            old != new
        })
        .map(|key| key.name)
}

/// Whether two tables differ in this key.
fn differs<T: Clone + PartialEq>(keys: &'static [Key<T>], key: &Key<T>, old: &T, new: &T) -> bool {
    let [old, new] = [old, new].map(|table| {
        let mut only = table.clone();
        keys.iter().filter(|other| other.name != key.name).for_each(|other| other.slot.blank(&mut only));
        only
    });
    old != new
}

/// A configuration without the tables that can be repeated, and without what is not a choice of the operator.
fn without_tables(config: &Config) -> Config {
    let mut single = config.clone();
    single.applications = Vec::new();
    single.channels.clear();
    single.roles = Roles::default();
    single.issuers = Vec::new();
    single.salesforce.objects.clear();
    single.salesforce.events.topics.clear();
    single.warnings = Vec::new();
    single.listen_is_default = false;
    single.admin.tokens.clear();
    single.admin.listen_is_default = false;
    // A table that is on is compared apart, and its keys with those of a table with the defaults.
    for table in Proofs::TABLES {
        single.proofs.turn_on(table);
    }
    single
}
