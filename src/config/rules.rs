//! What no key can say alone: rules between keys, and warnings about what is allowed but hardly meant.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::mistake::{Place, Report};
use super::salesforce_events::{self, TOPICS};
use super::salesforce_objects::{self, OBJECTS};
use super::{AuthMode, BaseUrl, Channel, Config, Publish, Scope, Store, proof_rules};

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

    /// Whether a key was written.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }
}

/// Checks the rules between keys, of a configuration whose keys were all read.
pub(crate) fn check(config: &mut Config, places: &Places, report: &mut Report) {
    listen(config, places, report);
    match places.0.get("limits.registration_bytes") {
        Some(place) if config.limits.registration_bytes > config.limits.message_bytes => {
            let message = format!("must not be over limits.message_bytes, which is {}", config.limits.message_bytes);
            report.add(place, "limits.registration_bytes", message);
        }
        Some(_) => {}
        None => config.limits.registration_bytes = config.limits.registration_bytes.min(config.limits.message_bytes),
    }
    salesforce(config, places, report);
    proof_rules::check(config, places, report);
    if report.is_empty() {
        config.warnings = warnings(config);
    }
}

fn listen(config: &Config, places: &Places, report: &mut Report) {
    let Some(place) = places.0.get("listen") else { return };
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

/// The longest that an answer of the org may be given again.
const CACHE_MAX: Duration = Duration::from_hours(1);

/// The longest that the broker may wait before it listens to an org's events.
const SETTLE_MAX: Duration = Duration::from_mins(5);

fn salesforce(config: &Config, places: &Places, report: &mut Report) {
    let org = &config.salesforce;
    let login = BaseUrl::parse(&org.login_url).ok();
    let (https, loopback) = login.map_or((true, false), |url| (url.https, url.is_loopback()));
    let mut wrong = |applies: bool, key: &'static str, message: &str| {
        // A key that is missing has no place: what asks for it has.
        let asking = [
            (config.credentials.store == Store::Salesforce, "credentials.store"),
            (!org.objects.is_empty(), OBJECTS),
            (!org.events.topics.is_empty(), TOPICS),
        ];
        let asking = asking.into_iter().find(|(asks, _)| *asks).map_or("credentials.store", |(_, table)| table);
        let place = places.0.get(key).or_else(|| places.0.get(asking));
        if let Some(place) = place.filter(|_| applies) {
            report.add(place, key, message);
        }
    };
    wrong(
        org.insecure_http && !loopback,
        "salesforce.insecure_http",
        "must be false unless salesforce.login_url is on loopback: tokens and passwords would cross the network in the clear",
    );
    wrong(
        !https && !org.insecure_http,
        "salesforce.login_url",
        "must begin with https://, or salesforce.insecure_http be true (a stand-in on loopback)",
    );
    wrong(org.credentials.cache > CACHE_MAX, "salesforce.credentials.cache", "must be at most 1h");
    let beside = !org.events.topics.is_empty() || !org.objects.is_empty();
    for (key, message) in org.lacks() {
        let asked = beside && !key.starts_with("salesforce.credentials.");
        wrong(config.credentials.store == Store::Salesforce || asked, key, message);
    }
    let endpoint = BaseUrl::parse(&org.events.endpoint).ok();
    wrong(
        endpoint.is_some_and(|url| !(url.https || org.insecure_http && url.is_loopback())),
        "salesforce.events.endpoint",
        "must begin with https://, or be a stand-in on loopback, and salesforce.insecure_http true",
    );
    wrong(org.events.settle > SETTLE_MAX, "salesforce.events.settle", "must be at most 5m");
    salesforce_objects::check(config, places, report);
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
    let org = config.credentials.store == Store::Salesforce;
    let objects = !config.salesforce.objects.is_empty();
    warn(
        (org || objects) && config.salesforce.timeout >= config.request_timeout,
        "salesforce.timeout is not below requests.timeout: requesters hear REQUEST_TIMEOUT where Salesforce is slow",
    );
    warn(
        org && config.salesforce.credentials.allow_mask_like,
        "salesforce.credentials.allow_mask_like is true: agents get a mask for a password where 'View Encrypted Data' is missing",
    );
    warn(
        !org && !objects && config.salesforce.client_id.is_some() && config.salesforce.events.topics.is_empty(),
        "[salesforce] is not used for credentials: credentials.store is \"directory\"",
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
    warnings.extend(salesforce_events::warnings(config));
    warnings.extend(salesforce_objects::warnings(config));
    warnings.extend(proof_rules::warnings(config));
    warnings
}
