//! Checks the credentials in the org: object, fields and mask, from the description of the object for this user; rows
//! without a key; and one user's row.

use std::collections::HashSet;

use serde::Deserialize;

use super::{Description, Field, Outcome, SET, Steps, Whose, describe_path};
use crate::config::{Lookup, Mode, UserKey};
use crate::http::encode;
use crate::salesforce::client::Want;
use crate::salesforce::fault::Fault;
use crate::salesforce::oauth::Token;
use crate::salesforce::response::records;
use crate::salesforce::{Org, soql};

impl Org {
    /// Checks object, fields, keys and mask.
    pub(super) async fn object(&self, token: &Token, steps: &mut Steps) {
        let object = &self.config.credentials.object;
        let path = describe_path(&self.config.api_version, object);
        let description = match self.client.get(&path, Want::Description).await {
            Ok(reply) if reply.status == 200 => Description::read(&reply.body),
            Ok(_) => None,
            Err(fault) => {
                steps.failed("object", &fault);
                return steps.skipped(&["fields", "keys", "mask"], "the object was not described");
            }
        };
        let Some(Description { fields, .. }) = description else {
            steps.add(
                "object",
                Outcome::Failed,
                format!("{object} does not exist, or may not be read. {SET} > Object Settings > the object: 'Read' and 'View All'"),
            );
            return steps.skipped(&["fields", "keys", "mask"], "the object was not described");
        };
        steps.add("object", Outcome::Passed, format!("{object} may be read"));
        self.fields(&fields, steps);
        if steps.0.last().is_some_and(|step| step.outcome == Outcome::Passed) {
            self.keys(steps).await;
        } else {
            steps.skipped(&["keys"], "the fields cannot be used");
        }
        self.mask(token, &fields, steps).await;
    }

    fn fields(&self, fields: &[Field], steps: &mut Steps) {
        let lookup = &self.config.credentials;
        // The description has only the relation to another object, not that object's fields.
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
            Some(Field { external_id: Some(false), name, .. }) if lookup.mode == Mode::ExternalId => steps.add(
                "fields",
                Outcome::Failed,
                format!(
                    "{name} is not an External ID, as the mode \"external_id\" needs. Setup > Object Manager > the object > Fields & \
                     Relationships > {name} > Edit: 'External ID', 'Unique'; or set salesforce.credentials.mode to \"query\""
                ),
            ),
            _ => steps.add("fields", Outcome::Passed, format!("{} may be read", wanted.join(", "))),
        }
    }

    /// Counts the rows whose key field is empty: no user's credentials are found in them.
    async fn keys(&self, steps: &mut Steps) {
        let Lookup { object, key_field, .. } = &self.config.credentials;
        let empty = self.count_rows(&format!("{object} WHERE {key_field} = null")).await;
        let all = self.count_rows(object).await;
        let (empty, all) = match (empty, all) {
            (Ok(Some(empty)), Ok(Some(all))) => (empty, all),
            (Err(fault), _) | (_, Err(fault)) => return steps.failed("keys", &fault),
            (Ok(None), _) | (_, Ok(None)) => return steps.add("keys", Outcome::Skipped, "the org does not say"),
        };
        if empty == 0 {
            return steps.add("keys", Outcome::Passed, format!("each of the {all} rows has {key_field}"));
        }
        let outcome = if empty < all { Outcome::Warning } else { Outcome::Failed };
        let usual = Lookup::default();
        let advice = if (object, key_field) == (&usual.object, &usual.key_field) {
            "Is the flow that sets it switched on? Setup > Process Automation > Flows > CTI Login Fill User Id > Activate; \
             then save those rows again (Data Loader: any update)"
        } else {
            "Set it in those rows, for example with the Data Loader"
        };
        let told = format!(
            "{key_field} is empty in {empty} of {all} rows of {object}, in which no user's login is found. {advice}"
        );
        steps.add("keys", outcome, told);
    }

    /// Returns the number of rows; `None` if the answer does not say.
    async fn count_rows(&self, of: &str) -> Result<Option<u64>, Fault> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Counted {
            total_size: u64,
        }
        let query = encode(&format!("SELECT COUNT() FROM {of}"));
        let path = format!("/services/data/v{}/query?q={query}", self.config.api_version);
        let reply = self.client.get(&path, Want::Json).await?;
        Ok(serde_json::from_slice::<Counted>(&reply.body).ok().map(|it| it.total_size))
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
        let path = format!("/services/data/v{}/query?q={}", self.config.api_version, encode(&query));
        let found = match self.client.get(&path, Want::Json).await {
            Ok(reply) => records(&reply.body).map(|rows| !rows.is_empty()),
            Err(_) => None,
        };
        match found {
            Some(true) => steps.add("mask", Outcome::Passed, "the integration user has 'View Encrypted Data'"),
            Some(false) => steps.add(
                "mask",
                Outcome::Failed,
                format!("passwords are masked. {SET} > System Permissions: 'View Encrypted Data'"),
            ),
            None => {
                steps.add("mask", Outcome::Skipped, "the org does not let this user ask; the step 'lookup' shows it");
            }
        }
    }

    pub(super) async fn lookup(&self, whose: Whose<'_>, steps: &mut Steps) {
        if let Whose::Nobodys = whose {
            return steps.add(
                "lookup",
                Outcome::Skipped,
                "credentials.store is \"directory\"; --user USER tries one anyway",
            );
        }
        let Whose::Of(user) = whose else {
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
