//! [`Org::diagnose`]: follows a fetch step by step, and reports for each step that it works or what to change in Setup.
//! A step is skipped if an earlier one that it depends on failed.
//!
//! This file covers the way to a session and what every use of it needs. `credentials` and `records` check the org's
//! objects. Events and verifiers are checked by their own folders.

mod credentials;
mod records;

use serde::{Deserialize, Serialize};

use super::Org;
use super::client::Want;
use super::fault::Fault;
use super::oauth::Token;
use crate::config::Mode;

/// How far a clock may be off before there is a warning, in seconds: Salesforce allows three minutes.
const CLOCK_NOTABLE: i64 = 30;

/// How far it may be off before logins fail, in seconds: an assertion is valid for two minutes.
const CLOCK_WRONG: i64 = 110;

/// Where the integration user's permissions are in Setup.
const SET: &str = "Setup > Users > Permission Sets > the broker's set";

/// Where its permissions for an object are.
const OBJECT_SETTINGS: &str = "Setup > Users > Permission Sets > the broker's set > Object Settings";

/// The steps that need a session.
const BEHIND_LOGIN: [&str; 7] = ["api_version", "object", "fields", "keys", "mask", "limits", "lookup"];

/// The steps that concern the credentials.
const OF_CREDENTIALS: [&str; 4] = ["object", "fields", "keys", "mask"];

/// Whose credentials are looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose<'a> {
    /// Nobody's, because credentials are not in the org.
    Nobodys,
    /// Credentials are in the org, but no user was named.
    Unnamed,
    /// This user's.
    Of(&'a str),
}

/// The outcome of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It works.
    Passed,
    /// It works, but something should be changed.
    Warning,
    /// Something has to be changed.
    Failed,
    /// It was skipped.
    Skipped,
}

/// One step and its outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Its name: `network`, `tls`, `clock`, `login`, `api_version`, `object`, `fields`, `keys`, `mask`, `limits`,
    /// `lookup`; `records` and `events` once for each table of the configuration; `introspection`, `userinfo`.
    pub step: &'static str,
    /// Its outcome.
    pub outcome: Outcome,
    /// What was found, or what to do.
    pub detail: String,
}

/// The steps so far.
#[derive(Default)]
pub(super) struct Steps(Vec<Step>);

impl Steps {
    pub(super) fn add(&mut self, step: &'static str, outcome: Outcome, detail: impl Into<String>) {
        self.0.push(Step { step, outcome, detail: detail.into() });
    }

    fn failed(&mut self, step: &'static str, fault: &Fault) {
        // The same cause would fail the next steps too; one report is enough.
        let told = fault.operator();
        let before = self.0.iter().find(|it| it.detail == told).map(|it| format!("the same as {}", it.step));
        self.add(step, Outcome::Failed, before.unwrap_or_else(|| told.to_owned()));
    }

    fn skipped(&mut self, steps: &[&'static str], why: &str) {
        for step in steps {
            self.add(step, Outcome::Skipped, why);
        }
    }
}

/// An org's description of an object for this user. Missing properties are not errors.
#[derive(Deserialize)]
struct Description {
    createable: Option<bool>,
    updateable: Option<bool>,
    #[serde(default)]
    fields: Vec<Field>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Field {
    name: String,
    #[serde(default)]
    r#type: String,
    length: Option<u32>,
    filterable: Option<bool>,
    createable: Option<bool>,
    updateable: Option<bool>,
    external_id: Option<bool>,
    unique: Option<bool>,
    #[serde(default)]
    calculated: bool,
    #[serde(default)]
    auto_number: bool,
    relationship_name: Option<String>,
}

impl Description {
    fn read(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body).ok()
    }

    fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|it| it.name.eq_ignore_ascii_case(name))
    }
}

impl Field {
    /// Returns whether only Salesforce writes it, whatever the permissions.
    fn is_computed(&self) -> bool {
        self.calculated || self.auto_number
    }

    fn is_writable(&self, to_update: bool, to_create: bool) -> bool {
        !(to_update && self.updateable == Some(false) || to_create && self.createable == Some(false))
    }
}

/// The path of an object's description.
fn describe_path(version: &str, object: &str) -> String {
    format!("/services/data/v{version}/sobjects/{object}/describe")
}

/// `signs`: whether a login contains a time limit by this clock.
fn clock(ahead: Option<i64>, signs: bool) -> Step {
    let Some(ahead) = ahead else {
        return Step {
            step: "clock",
            outcome: Outcome::Skipped,
            detail: "the answer does not say the time".to_owned(),
        };
    };
    let side = if ahead < 0 { "behind" } else { "ahead of" };
    let told = format!("this computer's clock is {} s {side} Salesforce's", ahead.abs());
    let (outcome, detail) = match ahead.abs() {
        0..=CLOCK_NOTABLE => (Outcome::Passed, told),
        it if it <= CLOCK_WRONG || !signs => (Outcome::Warning, format!("{told}: let NTP set it")),
        _ => (Outcome::Failed, format!("{told}, too far for an assertion: let NTP set it")),
    };
    Step { step: "clock", outcome, detail }
}

impl Org {
    /// Tries every step of a fetch, and everything else that the configuration needs from the org. The steps contain no
    /// password.
    pub async fn diagnose(&self, whose: Whose<'_>) -> Vec<Step> {
        let mut steps = Steps::default();
        if self.connection(&mut steps).await {
            match self.client.session().await {
                Ok(token) => {
                    let who = token.user.as_deref().map_or_else(String::new, |user| format!(" as user {user}"));
                    steps.add("login", Outcome::Passed, format!("logged in{who}; requests go to {}", token.base));
                    self.with_session(&token, whose, &mut steps).await;
                }
                Err(fault) => {
                    steps.failed("login", &fault);
                    self.skip_all(&mut steps, "there is no session");
                }
            }
        }
        steps.0
    }

    /// Checks network, TLS and clock, and returns whether the login host is reachable.
    async fn connection(&self, steps: &mut Steps) -> bool {
        const NO_WAY: &str = "Salesforce cannot be reached";
        let url = &self.config.login_url;
        let ahead = match self.client.reach().await {
            Err(fault) => {
                if fault.operator().starts_with("TLS failed") {
                    steps.add("network", Outcome::Passed, format!("{url} was reached"));
                    steps.failed("tls", &fault);
                    steps.skipped(&["clock"], "there is no answer to compare with");
                } else {
                    steps.failed("network", &fault);
                    steps.skipped(&["tls", "clock"], "there is no connection");
                }
                steps.skipped(&["login"], NO_WAY);
                self.skip_all(steps, NO_WAY);
                return false;
            }
            Ok(ahead) => ahead,
        };
        steps.add("network", Outcome::Passed, format!("{url} answers"));
        if url.starts_with("https://") {
            steps.add("tls", Outcome::Passed, "the certificate is trusted");
        } else {
            steps.add("tls", Outcome::Skipped, "salesforce.insecure_http: a stand-in without TLS");
        }
        steps.0.push(clock(ahead, self.client.signs()));
        true
    }

    /// Skips the steps after the login.
    fn skip_all(&self, steps: &mut Steps, why: &str) {
        steps.skipped(&BEHIND_LOGIN, why);
        self.skip_tables(steps, why);
    }

    fn skip_tables(&self, steps: &mut Steps, why: &str) {
        for name in self.config.objects.keys() {
            steps.add("records", Outcome::Skipped, format!("{name}: {why}"));
        }
        for name in self.config.events.topics.keys() {
            steps.add("events", Outcome::Skipped, format!("{name}: {why}"));
        }
    }

    async fn with_session(&self, token: &Token, whose: Whose<'_>, steps: &mut Steps) {
        if !self.api_version(steps).await {
            const WHY: &str = "the org does not have salesforce.api_version";
            let [_, rest @ ..] = &BEHIND_LOGIN;
            steps.skipped(rest, WHY);
            return self.skip_tables(steps, WHY);
        }
        let stored = match (whose, self.config.credentials.mode) {
            (Whose::Nobodys, _) => Err("credentials.store is \"directory\": the org is not asked for credentials"),
            (_, Mode::Apex) => Err("an Apex resource decides what it reads"),
            (_, Mode::Query | Mode::ExternalId) => Ok(()),
        };
        match stored {
            Ok(()) => self.object(token, steps).await,
            Err(why) => steps.skipped(&OF_CREDENTIALS, why),
        }
        self.limits(steps).await;
        self.lookup(whose, steps).await;
        self.records(steps).await;
        self.topics(token, steps).await;
    }

    /// Returns whether the remaining steps can be tried.
    async fn api_version(&self, steps: &mut Steps) -> bool {
        #[derive(Deserialize)]
        struct Version {
            version: String,
        }
        let ours = &self.config.api_version;
        let versions: Vec<Version> = match self.client.get("/services/data/", Want::Json).await {
            Ok(reply) => serde_json::from_slice(&reply.body).unwrap_or_default(),
            Err(fault) => {
                steps.failed("api_version", &fault);
                return true;
            }
        };
        let newest = versions.last().map_or("unknown", |it| it.version.as_str());
        let has = versions.iter().any(|it| it.version == *ours);
        if has {
            steps.add("api_version", Outcome::Passed, format!("the org has {ours}; its newest is {newest}"));
        } else {
            let told = format!("the org does not have {ours}: set salesforce.api_version, at most to {newest}");
            steps.add("api_version", Outcome::Failed, told);
        }
        has
    }

    async fn limits(&self, steps: &mut Steps) {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Limits {
            daily_api_requests: Option<Limit>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Limit {
            max: u64,
            remaining: u64,
        }
        let path = format!("/services/data/v{}/limits", self.config.api_version);
        let limits = match self.client.get(&path, Want::Json).await {
            Ok(reply) => serde_json::from_slice::<Limits>(&reply.body).ok().and_then(|it| it.daily_api_requests),
            Err(fault) => return steps.failed("limits", &fault),
        };
        let limits = limits.map(|it| (it.max.saturating_sub(it.remaining), it.max));
        let Some((used, max)) = limits.or(self.client.snapshot().api_usage) else {
            return steps.add("limits", Outcome::Skipped, "the org does not say");
        };
        let told = format!("{used} of {max} API requests of 24 hours are used");
        if used.saturating_mul(5) >= max.saturating_mul(4) {
            let where_to = "Setup > Environments > System Overview shows who uses them";
            steps.add("limits", Outcome::Warning, format!("{told}; {where_to}"));
        } else {
            steps.add("limits", Outcome::Passed, told);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_judged_by_what_an_assertion_can_bear() {
        for (ahead, outcome) in [
            (None, Outcome::Skipped),
            (Some(0), Outcome::Passed),
            (Some(-30), Outcome::Passed),
            (Some(60), Outcome::Warning),
            (Some(-110), Outcome::Warning),
            (Some(-400), Outcome::Failed),
            (Some(i64::MAX), Outcome::Failed),
        ] {
            assert_eq!(clock(ahead, true).outcome, outcome, "{ahead:?}");
        }
        assert_eq!(clock(Some(-400), false).outcome, Outcome::Warning, "a secret is good at any time");
        assert!(clock(Some(-400), true).detail.starts_with("this computer's clock is 400 s behind Salesforce's"));
    }
}
