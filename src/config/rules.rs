//! Rules between keys, and warnings about settings that are valid but probably a mistake.

use std::collections::{BTreeMap, HashSet};

use serde_json::Value;

use super::jwt::{self, ISSUERS};
use super::limits::SESSIONS_PER_USER;
use super::mistake::{Place, Report};
use super::{
    Application, AuthMode, Channel, Config, ForwardedHeader, Limits, ProvedBy, Publish, Scope, admin, cluster, resume,
    roles, salesforce, same_user, tls,
};
use wire::Pattern;

/// Where each key that was written got its value, and each application.
#[derive(Default)]
pub(crate) struct Places {
    keys: BTreeMap<&'static str, Place>,
    /// In the order of the applications: the number of each in its file, and its place if that is not the configuration
    /// file.
    applications: Vec<(usize, Option<Place>)>,
    /// The value of each key that was written, as settings show it, and where.
    values: BTreeMap<String, (Value, Place)>,
    /// The proofs of the applications so far, each with its source.
    known: HashSet<(ProvedBy, String)>,
}

impl Places {
    /// Notes that a key got its value here; the last layer counts.
    pub(crate) fn note(&mut self, key: &'static str, place: Place) {
        self.keys.insert(key, place);
    }

    /// Notes the value of a key; the last layer counts.
    pub(crate) fn set(&mut self, key: impl Into<String>, value: Value, place: Place) {
        self.values.insert(key.into(), (value, place));
    }

    /// The values of the keys that were written.
    pub(crate) fn values(&self) -> &BTreeMap<String, (Value, Place)> {
        &self.values
    }

    /// Notes an application, which is the one with this number in its file; `place` says which file, if it is not the
    /// configuration file.
    pub(crate) fn note_application(&mut self, number: usize, place: Option<Place>) {
        self.applications.push((number, place));
    }

    /// Records the proof of an application. Returns whether no earlier one has the same proof and source.
    pub(crate) fn note_proof(&mut self, proof: &ProvedBy, source: &str) -> bool {
        self.known.insert((proof.clone(), source.to_owned()))
    }

    /// How a warning names an application: `applications[3]`, after its file and line if it is in `applications_dir`.
    pub(super) fn application(&self, at: usize) -> String {
        match self.applications.get(at) {
            Some((number, Some(Place::File { path, at: Some((line, _)) }))) => {
                format!("{}:{line}: applications[{number}]", path.display())
            }
            Some((number, _)) => format!("applications[{number}]"),
            None => format!("applications[{at}]"),
        }
    }

    /// Where a key was written; else where its table begins, or the first key of it that was written.
    pub(crate) fn of(&self, key: &str) -> Option<&Place> {
        let table = key.rsplit_once('.').map_or(key, |(table, _)| table);
        let inside = |name: &str| name.strip_prefix(table).is_some_and(|rest| rest.starts_with('.'));
        self.keys
            .get(key)
            .or_else(|| self.keys.get(table))
            .or_else(|| self.keys.iter().find(|(name, _)| inside(name)).map(|(_, place)| place))
    }

    /// Where this very key was written.
    pub(crate) fn written(&self, key: &str) -> Option<&Place> {
        self.keys.get(key)
    }
}

/// Checks the rules between keys, of a configuration whose keys were all read.
pub(crate) fn check(config: &mut Config, places: &Places, report: &mut Report) {
    listen(config, places, report);
    match places.written("limits.registration_bytes") {
        Some(place) if config.limits.registration_bytes > config.limits.message_bytes => {
            let message = format!("must not be over limits.message_bytes, which is {}", config.limits.message_bytes);
            report.add(place, "limits.registration_bytes", message);
        }
        Some(_) => {}
        None => config.limits.registration_bytes = config.limits.registration_bytes.min(config.limits.message_bytes),
    }
    tls::check(config, places, report);
    admin::check(config, places, report);
    cluster::check(config, places, report);
    if places.written(SESSIONS_PER_USER).is_none() {
        config.limits.sessions_per_user = Limits::sessions_per_user_by(config.auth);
    }
    salesforce::check(config, places, report);
    if let (AuthMode::Open, Some(place)) = (config.auth, places.written(ISSUERS)) {
        let message = "cannot be used with auth.mode \"open\", which checks no token: set \"tokens\"";
        report.add(place, ISSUERS, message);
    }
    if report.is_empty() {
        config.warnings = warnings(config, places);
    }
}

fn listen(config: &Config, places: &Places, report: &mut Report) {
    if let Some(place) = places.written("listen")
        && config.listen.is_empty()
        && !config.tls.listens()
    {
        report.add(place, "listen", "must name at least one address");
    }
    let plain = config.listen.iter().map(|address| ("listen", address.clone()));
    let all: Vec<_> = plain.chain(config.tls.addresses().map(|(key, address)| (key, address.into()))).collect();
    for (at, (key, address)) in all.iter().enumerate() {
        let Some(place) = places.written(key) else { continue };
        let earlier = all.iter().take(at).find(|(_, earlier)| earlier == address && address.is_exact());
        if let Some((earlier, _)) = earlier {
            let message = if earlier == key {
                format!("names {address} twice")
            } else {
                format!("names {address}, as {earlier} does")
            };
            report.add(place, *key, message);
        }
        if config.auth == AuthMode::Open && !address.is_loopback() {
            let message = format!(
                "auth.mode \"open\" refuses to listen beyond loopback, and {address} is: use \"tokens\", or 127.0.0.1"
            );
            report.add(place, *key, message);
        } else if *key == "listen" && !config.http.insecure && !address.is_loopback() {
            let message = format!(
                "{address} is beyond loopback, where tokens and passwords are sent in the clear: use tls.listen; or set \
                 http.insecure = true, for a pod's network or behind a proxy that ends TLS"
            );
            report.add(place, *key, message);
        }
    }
}

fn warnings(config: &Config, places: &Places) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut warn = |applies: bool, text: &str| {
        if applies {
            warnings.push(text.to_owned());
        }
    };
    let open = config.auth == AuthMode::Open;
    warn(
        !open && config.applications.is_empty() && config.proofs.is_empty() && config.issuers.is_empty(),
        "auth.mode is \"tokens\" and [[applications]] lists none: nobody can register",
    );
    warn(
        open && !config.applications.is_empty(),
        "auth.mode is \"open\": [[applications]] is not used, any local program can name any user",
    );
    warn(
        config.http.trusted_proxies.is_empty() && config.http.forwarded_header != ForwardedHeader::default(),
        "http.forwarded_header has no effect without http.trusted_proxies",
    );
    let limits_publishers = |channel: &Channel| channel.publish == Publish::Services && channel.scope == Scope::User;
    warn(
        config.channels.values().any(limits_publishers),
        "channels.NAME.publish is \"services\" on a channel that is not shared, where it has no effect",
    );
    warn(config.protected.is_empty(), "protected.patterns is empty: requests that carry passwords are not protected");
    warn(
        config.limits.outbound_bytes < config.limits.message_bytes,
        "limits.outbound_bytes is below limits.message_bytes: the largest messages can be delivered to nobody",
    );
    warn(
        config.limits.outbound_total_bytes < config.limits.outbound_bytes,
        "limits.outbound_total_bytes is below limits.outbound_bytes: a queue that is not full can end its session",
    );
    warn(
        config.limits.rate > 0 && config.limits.burst < config.limits.rate,
        "limits.burst is below limits.rate: a session that sends a second's messages at once is slowed down",
    );
    let applications = config.applications.iter().enumerate();
    warnings.extend(applications.flat_map(|(at, it)| without_effect(config, &|| places.application(at), it)));
    warnings.extend(roles::warnings(config, |at| places.application(at)));
    warnings.extend(tls::warnings(config));
    warnings.extend(admin::warnings(config));
    warnings.extend(jwt::warnings(&config.issuers));
    warnings.extend(same_user::warnings(config));
    warnings.extend(resume::warnings(config));
    warnings.extend(cluster::warnings(config));
    warnings.extend(salesforce::warnings(config));
    warnings
}

/// Patterns of an application that change nothing: a grant is needed for protected triples, and for an agent's application
/// to handle triples of shared channels.
fn without_effect(config: &Config, named: &dyn Fn() -> String, application: &Application) -> Vec<String> {
    let (own, needed) = match application.user {
        Some(_) => ("an agent's application", "protected triples and shared channels"),
        None => ("a service", "protected triples"),
    };
    let handle = application.handle.iter().enumerate().filter(|(_, pattern)| {
        !is_protected(config, pattern) && (application.user.is_none() || !is_shared(config, pattern))
    });
    let handle = handle
        .map(|(number, _)| format!("{}.handle[{number}] has no effect: {own} needs it for {needed} only", named()));
    let request =
        application.request.iter().flatten().enumerate().filter(|(_, pattern)| !is_protected(config, pattern));
    let request = request
        .map(|(number, _)| format!("{}.request[{number}] has no effect: it is about protected triples only", named()));
    handle.chain(request).collect()
}

/// Returns whether some triple of the pattern is protected.
pub(super) fn is_protected(config: &Config, pattern: &Pattern) -> bool {
    config.protected.iter().any(|it| it.overlaps_any_case(pattern))
}

/// Returns whether some triple of the pattern is on a shared channel.
pub(super) fn is_shared(config: &Config, pattern: &Pattern) -> bool {
    let named = |name: &str| pattern.channel.as_deref().is_none_or(|channel| channel == name);
    config.channels.iter().any(|(name, channel)| channel.scope == Scope::Shared && named(name))
}
