//! [`Org::diagnose`]: goes the way of a fetch step by step, and says of each step that it is well or what to change in
//! Setup. A step whose ground is missing is not tried.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::client::Want;
use super::fault::Fault;
use super::oauth::Token;
use super::response::records;
use super::{Org, soql};
use crate::config::{Mode, UserKey};

/// How far a clock may be off before it is worth a word, in seconds: Salesforce allows three minutes.
const CLOCK_NOTABLE: i64 = 30;

/// How far it may be off before logins fail: an assertion is good for two minutes.
const CLOCK_WRONG: i64 = 110;

/// The integration user's permissions.
const SET: &str = "Setup > Users > Permission Sets > the broker's set";

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It is well.
    Passed,
    /// It works, and yet something should be changed.
    Warning,
    /// Something has to be changed.
    Failed,
    /// It was not tried.
    Skipped,
}

/// One step, as it came out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Which: `network`, `tls`, `clock`, `login`, `api_version`, `object`, `fields`, `mask`, `limits`, `lookup`.
    pub step: &'static str,
    /// What came of it.
    pub outcome: Outcome,
    /// What was found, or what to do.
    pub detail: String,
}

/// The steps so far.
#[derive(Default)]
struct Steps(Vec<Step>);

impl Steps {
    fn add(&mut self, step: &'static str, outcome: Outcome, detail: impl Into<String>) {
        self.0.push(Step { step, outcome, detail: detail.into() });
    }

    fn failed(&mut self, step: &'static str, fault: &Fault) {
        self.add(step, Outcome::Failed, fault.operator());
    }

    fn skipped(&mut self, steps: &[&'static str], why: &str) {
        for step in steps {
            self.add(step, Outcome::Skipped, why);
        }
    }
}

#[derive(Deserialize)]
struct Description {
    #[serde(default)]
    fields: Vec<Field>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Field {
    name: String,
    #[serde(default)]
    r#type: String,
    filterable: Option<bool>,
    relationship_name: Option<String>,
}

fn clock(ahead: Option<i64>) -> Step {
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
        it if it <= CLOCK_WRONG => (Outcome::Warning, format!("{told}: let NTP set it")),
        _ => (Outcome::Failed, format!("{told}, too far for an assertion: let NTP set it")),
    };
    Step { step: "clock", outcome, detail }
}

impl Org {
    /// Tries every step of a fetch, the last one for a user. No password is in what it says.
    pub async fn diagnose(&self, user: Option<&str>) -> Vec<Step> {
        let mut steps = Steps::default();
        if self.connection(&mut steps).await {
            match self.client.session().await {
                Ok(token) => {
                    let who = token.user.as_deref().map_or_else(String::new, |user| format!(" as user {user}"));
                    steps.add("login", Outcome::Passed, format!("logged in{who}; requests go to {}", token.base));
                    self.with_session(&token, user, &mut steps).await;
                }
                Err(fault) => {
                    steps.failed("login", &fault);
                    steps.skipped(
                        &["api_version", "object", "fields", "mask", "limits", "lookup"],
                        "there is no session",
                    );
                }
            }
        }
        steps.0
    }

    /// Network, TLS and clock; says whether there is a way to the login.
    async fn connection(&self, steps: &mut Steps) -> bool {
        const REST: [&str; 7] = ["login", "api_version", "object", "fields", "mask", "limits", "lookup"];
        let url = &self.config.login_url;
        let ahead = match self.client.reach().await {
            Err(fault) if fault.operator().starts_with("TLS failed") => {
                steps.add("network", Outcome::Passed, format!("{url} was reached"));
                steps.failed("tls", &fault);
                steps.skipped(&["clock"], "there is no answer to compare with");
                steps.skipped(&REST, "there is no way to Salesforce");
                return false;
            }
            Err(fault) => {
                steps.failed("network", &fault);
                steps.skipped(&["tls", "clock"], "there is no connection");
                steps.skipped(&REST, "there is no way to Salesforce");
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
        steps.0.push(clock(ahead));
        true
    }

    async fn with_session(&self, token: &Token, user: Option<&str>, steps: &mut Steps) {
        self.api_version(steps).await;
        if self.config.credentials.mode == Mode::Apex {
            steps.skipped(&["object", "fields", "mask"], "an Apex resource decides what it reads");
        } else {
            self.object(token, steps).await;
        }
        self.limits(steps).await;
        self.lookup(user, steps).await;
    }

    async fn api_version(&self, steps: &mut Steps) {
        #[derive(Deserialize)]
        struct Version {
            version: String,
        }
        let ours = &self.config.api_version;
        let versions: Vec<Version> = match self.client.get("/services/data/", Want::Json).await {
            Ok(reply) => serde_json::from_slice(&reply.body).unwrap_or_default(),
            Err(fault) => return steps.failed("api_version", &fault),
        };
        let newest = versions.last().map_or("unknown", |it| it.version.as_str());
        if versions.iter().any(|it| it.version == *ours) {
            steps.add("api_version", Outcome::Passed, format!("the org has {ours}; its newest is {newest}"));
        } else {
            let told = format!("the org does not have {ours}: set salesforce.api_version, at most to {newest}");
            steps.add("api_version", Outcome::Failed, told);
        }
    }

    /// Object, fields and mask, by what the org says to this user of the object.
    async fn object(&self, token: &Token, steps: &mut Steps) {
        let object = &self.config.credentials.object;
        let path = format!("/services/data/v{}/sobjects/{object}/describe", self.config.api_version);
        let description = match self.client.get(&path, Want::Row).await {
            Ok(reply) if reply.status == 200 => serde_json::from_slice::<Description>(&reply.body).ok(),
            Ok(_) => None,
            Err(fault) => {
                steps.failed("object", &fault);
                return steps.skipped(&["fields", "mask"], "the object was not described");
            }
        };
        let Some(Description { fields }) = description else {
            steps.add(
                "object",
                Outcome::Failed,
                format!("{object} does not exist, or may not be read. {SET} > Object Settings > the object: 'Read' and 'View All'"),
            );
            return steps.skipped(&["fields", "mask"], "the object was not described");
        };
        steps.add("object", Outcome::Passed, format!("{object} may be read"));
        self.fields(&fields, steps);
        self.mask(token, &fields, steps).await;
    }

    fn fields(&self, fields: &[Field], steps: &mut Steps) {
        let lookup = &self.config.credentials;
        // Of a field of another object, its relation is all that this description has.
        let seen: HashSet<String> = fields
            .iter()
            .flat_map(|it| [Some(it.name.as_str()), it.relationship_name.as_deref()])
            .flatten()
            .map(str::to_ascii_lowercase)
            .collect();
        let wanted = soql::fields(lookup, &[]);
        let own = |name: &str| name.split('.').next().unwrap_or(name).to_ascii_lowercase();
        let hidden: Vec<&str> = wanted.iter().copied().filter(|name| !seen.contains(&own(name))).collect();
        if !hidden.is_empty() {
            let told = format!(
                "{}: no such field, or field-level security hides it. {SET} > Object Settings > the object > Field \
                 Permissions: 'Read Access'",
                hidden.join(", ")
            );
            return steps.add("fields", Outcome::Failed, told);
        }
        let key = fields.iter().find(|it| it.name.eq_ignore_ascii_case(&lookup.key_field));
        match key {
            Some(Field { filterable: Some(false), name, .. }) => steps.add(
                "fields",
                Outcome::Failed,
                format!("{name} cannot be searched: make salesforce.credentials.key_field Text, 'External ID', not encrypted"),
            ),
            _ => steps.add("fields", Outcome::Passed, format!("{} may be read", wanted.join(", "))),
        }
    }

    async fn mask(&self, token: &Token, fields: &[Field], steps: &mut Steps) {
        let password = &self.config.credentials.fields.password;
        match fields.iter().find(|it| it.name.eq_ignore_ascii_case(password)) {
            None => return steps.add("mask", Outcome::Skipped, "no password field of the object itself is configured"),
            Some(field) if !field.r#type.eq_ignore_ascii_case("encryptedstring") => {
                let told =
                    format!("{password} is not of the type 'Text (Encrypted)': passwords are stored in the clear");
                return steps.add("mask", Outcome::Warning, told);
            }
            Some(_) => {}
        }
        let Some(user) = &token.user else {
            return steps.add("mask", Outcome::Skipped, "Salesforce does not say which user this is");
        };
        let query = format!(
            "SELECT Id FROM PermissionSetAssignment WHERE AssigneeId = '{user}' AND \
             PermissionSet.PermissionsViewEncryptedData = true LIMIT 1"
        );
        let path = format!("/services/data/v{}/query?q={}", self.config.api_version, soql::encode(&query));
        let found = match self.client.get(&path, Want::Json).await {
            Ok(reply) => records(&reply.body).map(|rows| !rows.is_empty()),
            Err(_) => None,
        };
        match found {
            Some(true) => steps.add("mask", Outcome::Passed, "the integration user has 'View Encrypted Data'"),
            Some(false) => steps.add(
                "mask",
                Outcome::Failed,
                format!("passwords come masked. {SET} > System Permissions: 'View Encrypted Data'"),
            ),
            None => steps.add("mask", Outcome::Skipped, "the org does not let this user ask; the lookup tells"),
        }
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

    async fn lookup(&self, user: Option<&str>, steps: &mut Steps) {
        let Some(user) = user else {
            let named = match self.config.credentials.key {
                UserKey::UserId => "a Salesforce user id",
                UserKey::Username => "a Salesforce user name",
                UserKey::FederationId => "a federation id",
                UserKey::Email => "an e-mail address",
            };
            return steps.add("lookup", Outcome::Skipped, format!("--user USER tries one, USER being {named}"));
        };
        match self.look_up(user).await {
            Ok(found) => steps.add(
                "lookup",
                Outcome::Passed,
                format!("found: username {}, extension {}, and a password", found.username, found.extension),
            ),
            Err(fault) => steps.failed("lookup", &fault),
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
            assert_eq!(clock(ahead).outcome, outcome, "{ahead:?}");
        }
        assert!(clock(Some(-400)).detail.starts_with("this computer's clock is 400 s behind Salesforce's"));
    }
}
