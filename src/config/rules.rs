//! What no key can say alone: rules between keys, and warnings about what is allowed but hardly meant.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::mistake::{Place, Report};
use super::{Application, AuthMode, Channel, Config, Limits, Publish, Scope, salesforce};
use wire::Pattern;

/// Where each key that was written got its value.
#[derive(Default)]
pub(crate) struct Places(BTreeMap<&'static str, Place>);

impl Places {
    /// Notes that a key got its value here; the last layer counts.
    pub(crate) fn note(&mut self, key: &'static str, place: Place) {
        self.0.insert(key, place);
    }

    /// Where a key was written; else where its table begins, or the first key of it that was written.
    pub(crate) fn of(&self, key: &str) -> Option<&Place> {
        let table = key.rsplit_once('.').map_or(key, |(table, _)| table);
        let inside = |name: &str| name.strip_prefix(table).is_some_and(|rest| rest.starts_with('.'));
        self.0
            .get(key)
            .or_else(|| self.0.get(table))
            .or_else(|| self.0.iter().find(|(name, _)| inside(name)).map(|(_, place)| place))
    }

    /// Where this very key was written.
    pub(crate) fn written(&self, key: &str) -> Option<&Place> {
        self.0.get(key)
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
    if places.written("limits.sessions_per_user").is_none() {
        config.limits.sessions_per_user = Limits::sessions_per_user_by(config.auth);
    }
    salesforce::check(config, places, report);
    if report.is_empty() {
        config.warnings = warnings(config);
    }
}

fn listen(config: &Config, places: &Places, report: &mut Report) {
    let Some(place) = places.written("listen") else { return };
    if config.listen.is_empty() {
        report.add(place, "listen", "must name at least one address");
    }
    for (at, address) in config.listen.iter().enumerate() {
        if address.port() != 0 && config.listen.iter().take(at).any(|earlier| earlier == address) {
            report.add(place, "listen", format!("names {address} twice"));
        }
        if config.auth == AuthMode::Open && !is_loopback(address) {
            let message = format!(
                "auth.mode \"open\" refuses to listen beyond loopback, and {address} is: use \"tokens\", or 127.0.0.1"
            );
            report.add(place, "listen", message);
        }
    }
}

fn is_loopback(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut warn = |applies: bool, text: &str| {
        if applies {
            warnings.push(text.to_owned());
        }
    };
    let open = config.auth == AuthMode::Open;
    warn(
        !open && config.applications.is_empty() && config.proofs.is_empty(),
        "auth.mode is \"tokens\" and [[applications]] lists none: nobody can register",
    );
    warn(
        open && !config.applications.is_empty(),
        "auth.mode is \"open\": [[applications]] is not used, any local program is whom it says it is",
    );
    warn(
        !config.listen.iter().all(is_loopback),
        "listening beyond loopback without TLS: tokens and passwords cross the network in the clear",
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
        config.limits.rate > 0 && config.limits.burst < config.limits.rate,
        "limits.burst is below limits.rate: a session that sends a second's messages at once is slowed down",
    );
    warnings.extend(config.applications.iter().enumerate().flat_map(|(at, it)| without_effect(config, at, it)));
    warnings.extend(salesforce::warnings(config));
    warnings
}

/// Patterns of an application that change nothing: a grant is needed for protected triples, and for an agent's application
/// to handle triples of shared channels.
fn without_effect(config: &Config, at: usize, application: &Application) -> Vec<String> {
    let is_protected = |pattern: &Pattern| config.protected.iter().any(|it| it.overlaps_any_case(pattern));
    let is_shared = |pattern: &Pattern| {
        let named = |name: &str| pattern.channel.as_deref().is_none_or(|channel| channel == name);
        config.channels.iter().any(|(name, channel)| channel.scope == Scope::Shared && named(name))
    };
    let (own, needed) = match application.user {
        Some(_) => ("an agent's application", "protected triples and shared channels"),
        None => ("a service", "protected triples"),
    };
    let handle = application
        .handle
        .iter()
        .enumerate()
        .filter(|(_, pattern)| !is_protected(pattern) && (application.user.is_none() || !is_shared(pattern)));
    let handle = handle.map(|(number, _)| {
        format!("applications[{at}].handle[{number}] has no effect: {own} needs it for {needed} only")
    });
    let request = application.request.iter().flatten().enumerate().filter(|(_, pattern)| !is_protected(pattern));
    let request = request.map(|(number, _)| {
        format!("applications[{at}].request[{number}] has no effect: it is about protected triples only")
    });
    handle.chain(request).collect()
}
