//! Checks the tables `[auth.salesforce_*]` against each other and against the other keys.

use std::collections::HashSet;
use std::time::Duration;

use super::UserKey;
use super::proof::{Asked, Proofs, ProvenUser};
use crate::config::mistake::Report;
use crate::config::rules::Places;
use crate::config::{AuthMode, Config, Store};
use crate::http::BaseUrl;

/// The longest time that an answer is cached.
const CACHE_MAX: Duration = Duration::from_mins(5);

/// The longest lifetime of a JWT, because it proves who a user is now.
const LIFETIME_MAX: Duration = Duration::from_hours(1);

/// The largest difference between clocks.
const CLOCK_SKEW_MAX: Duration = Duration::from_mins(5);

/// A rule: whether it is broken, the key within its table, and a message.
type Rule = (bool, &'static str, &'static str);

/// Checks the rules of every table that is on.
pub(super) fn check(config: &Config, places: &Places, report: &mut Report) {
    let Proofs { jwt, introspection, userinfo, session_max: _ } = &config.proofs;
    let [jwt_table, introspection_table, userinfo_table] = Proofs::TABLES;
    let mut broken: Vec<(&str, Rule)> = Vec::new();
    let mut add = |table, rules: Vec<Rule>| broken.extend(rules.into_iter().map(|rule| (table, rule)));
    if let Some(it) = jwt {
        add(
            jwt_table,
            vec![
                (
                    it.proving.org_id.is_none() && it.issuer.is_none(),
                    "org_id",
                    "is missing: the id of the org, which is the 'iss' of what its code signs",
                ),
                (
                    it.certificate_file.is_none(),
                    "certificate_file",
                    "is missing: the certificate from Setup > Security > Certificate and Key Management, in PEM",
                ),
                (it.audience.is_none(), "audience", "is missing: the 'aud' that the Apex class writes for this broker"),
                (it.lifetime > LIFETIME_MAX, "lifetime", "must be at most 1h"),
                (it.clock_skew > CLOCK_SKEW_MAX, "clock_skew", "must be at most 5m"),
            ],
        );
    }
    if let Some(it) = introspection {
        add(introspection_table, asked(&it.asked, it.proving.org_id.is_none(), it.proving.user));
        add(
            introspection_table,
            vec![
                (it.client_id.is_none(), "client_id", "is missing: the consumer key of the app that asks"),
                (it.client_secret_file.is_none(), "client_secret_file", "is missing: the file of its consumer secret"),
            ],
        );
    }
    if let Some(it) = userinfo {
        add(userinfo_table, asked(&it.asked, it.proving.org_id.is_none(), it.proving.user));
    }
    for (table, (_, key, message)) in broken.into_iter().filter(|(_, (broken, ..))| *broken) {
        let key = format!("{table}.{key}");
        if let Some(place) = places.of(&key).filter(|_| !report.has(&key)) {
            report.add(place, &*key, message);
        }
    }
    beside_others(config, places, report);
}

/// Returns the rules of a table that asks the org.
fn asked(asked: &Asked, org_is_missing: bool, user: ProvenUser) -> Vec<Rule> {
    let host = asked.host.as_deref().and_then(|host| BaseUrl::parse(host).ok());
    let (https, loopback) = host.map_or((true, true), |url| (url.https, url.is_loopback()));
    vec![
        (asked.host.is_none(), "host", "is missing: the org's My Domain, https://NAME.my.salesforce.com"),
        (
            !https && !asked.insecure_http,
            "host",
            "must begin with https://, or insecure_http be true (a stand-in on loopback)",
        ),
        (
            asked.insecure_http && !loopback,
            "insecure_http",
            "must be false unless host is on loopback: tokens would cross the network in the clear",
        ),
        (org_is_missing, "org_id", "is missing: the id of the org; a user of any other proves nothing here"),
        (
            user == ProvenUser::FederationId,
            "user",
            "must not be \"federation_id\": Salesforce does not tell it here; [auth.salesforce_jwt] does",
        ),
        (asked.cache > CACHE_MAX, "cache", "must be at most 5m"),
    ]
}

/// Checks the tables that are on against `auth.mode` and `[[applications]]`.
fn beside_others(config: &Config, places: &Places, report: &mut Report) {
    // Both lists can have thousands of entries.
    let services: HashSet<&str> =
        config.applications.iter().filter(|it| it.user.is_none()).map(|it| it.source.as_str()).collect();
    for (table, proving) in config.proofs.each() {
        if let (AuthMode::Open, Some(place)) = (config.auth, places.of(&format!("{table}."))) {
            let message = "cannot be used with auth.mode \"open\", which checks no token: set \"tokens\"";
            report.add(place, table, message);
        }
        let key = format!("{table}.sources");
        if let (true, true, Some(place)) = (proving.sources.is_empty(), places.written(&key).is_some(), places.of(&key))
        {
            report.add(place, &*key, "must name at least one; without the key, any name but a service's will do");
        }
        for (at, source) in proving.sources.iter().enumerate() {
            if let (true, Some(place)) = (services.contains(source.as_str()), places.of(&key)) {
                let message = "is the name of a service in [[applications]]: a user's application must not pose as it";
                report.add(place, format!("{key}[{at}]"), message);
            }
        }
    }
}

/// Warns about settings that are valid but probably a mistake.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let ways = config.proofs.each();
    let mut warnings = Vec::new();
    let Some((first, proving)) = ways.first() else { return warnings };
    if let Some((other, _)) = ways.iter().find(|(_, it)| it.user != proving.user) {
        warnings.push(format!("{first}.user and {other}.user differ: one person is two users to the broker"));
    }
    let key = config.salesforce.credentials.key;
    let same = |user| {
        matches!(
            (user, key),
            (ProvenUser::UserId, UserKey::UserId)
                | (ProvenUser::Username, UserKey::Username)
                | (ProvenUser::FederationId, UserKey::FederationId)
        )
    };
    if config.credentials.store == Store::Salesforce
        && let Some((table, proving)) = ways.iter().find(|(_, it)| !same(it.user))
    {
        let user = proving.user.as_str();
        warnings.push(format!(
            "{table}.user is \"{user}\", and salesforce.credentials.key something else: such users have no credentials"
        ));
    }
    let Proofs { introspection, userinfo, .. } = &config.proofs;
    if let (Some(introspection), Some(userinfo)) = (introspection, userinfo)
        && introspection.proving.org_id == userinfo.proving.org_id
    {
        warnings.push(
            "[auth.salesforce_userinfo] is never asked: [auth.salesforce_introspection] is on for the same org"
                .to_owned(),
        );
    }
    let asked = [introspection.as_ref().map(|it| &it.asked), userinfo.as_ref().map(|it| &it.asked)];
    if asked.into_iter().flatten().any(|it| it.timeout >= config.limits.registration) {
        warnings.push(
            "a timeout of [auth.salesforce_*] is not below limits.registration: applications are closed with 4401 where \
             Salesforce is slow"
                .to_owned(),
        );
    }
    warnings
}
