//! Checks the keys of `[salesforce]` against each other, and warns about settings that are valid but
//! probably a mistake.

use std::time::Duration;

use super::events::TOPICS;
use super::objects::{self, OBJECTS};
use crate::config::mistake::Report;
use crate::config::rules::Places;
use crate::config::{Config, Store};
use crate::http::BaseUrl;

/// The longest time that credentials are cached.
const CACHE_MAX: Duration = Duration::from_hours(1);

/// The longest time that the broker waits before it subscribes to events.
const SETTLE_MAX: Duration = Duration::from_mins(5);

pub(super) fn check(config: &Config, places: &Places, report: &mut Report) {
    let org = &config.salesforce;
    let login = BaseUrl::parse(&org.login_url).ok();
    let (https, loopback) = login.map_or((true, false), |url| (url.https, url.is_loopback()));
    let mut found = Report::default();
    let mut wrong = |applies: bool, key: &'static str, message: &str| {
        // A missing key has no place in the file. The key that needs it has.
        let asking = [
            (config.credentials.store == Store::Salesforce, "credentials.store"),
            (!org.objects.is_empty(), OBJECTS),
            (!org.events.topics.is_empty(), TOPICS),
        ];
        let asking = asking.into_iter().find(|(asks, _)| *asks).map_or("credentials.store", |(_, table)| table);
        let place = places.written(key).or_else(|| places.written(asking));
        // A value that cannot be read is one mistake: it is not missing too, nor does it conflict with others.
        let unread = report.has(key) || read_with(key).iter().any(|other| report.has(other));
        if let Some(place) = place.filter(|_| applies && !unread) {
            found.add(place, key, message);
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
    report.extend(found.into_mistakes());
    objects::check(config, places, report);
}

/// The keys without which a rule about a key cannot be judged.
fn read_with(key: &str) -> &'static [&'static str] {
    const LOGIN: [&str; 3] = ["salesforce.username", "salesforce.private_key_file", "salesforce.client_secret_file"];
    match key {
        "salesforce.insecure_http" => &["salesforce.login_url"],
        "salesforce.login_url" | "salesforce.events.endpoint" => &["salesforce.insecure_http"],
        "salesforce.private_key_file" | "salesforce.client_secret_file" => &LOGIN,
        "salesforce.username" => &["salesforce.private_key_file"],
        "salesforce.credentials.apex_path" | "salesforce.credentials.key_field" => &["salesforce.credentials.mode"],
        _ => &[],
    }
}

/// Returns the warnings.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut warn = |applies: bool, text: &str| {
        if applies {
            warnings.push(text.to_owned());
        }
    };
    let org = config.credentials.store == Store::Salesforce;
    let objects = !config.salesforce.objects.is_empty();
    warn(
        (org || objects) && config.salesforce.timeout >= config.requests.timeout,
        "salesforce.timeout is not below requests.timeout: requesters get REQUEST_TIMEOUT if Salesforce is slow",
    );
    warn(
        org && config.salesforce.credentials.allow_mask_like,
        "salesforce.credentials.allow_mask_like is true: agents get a mask for a password where 'View Encrypted Data' is missing",
    );
    warn(
        !org && !objects && config.salesforce.client_id.is_some() && config.salesforce.events.topics.is_empty(),
        "[salesforce] is not used for credentials: credentials.store is \"directory\"",
    );
    warnings
}
