//! [`Org`]: the credentials of a user, read from a Salesforce org with one request for one row.

use std::sync::Arc;

use tokio::time::Instant;

use super::cache::Cache;
use super::client::{Call, Client, Want};
use super::fault::Fault;
use super::oauth::SetupError;
use super::response::{objects, records};
use super::stats::Snapshot;
use super::{row, soql};
use crate::config::{self, Lookup, Mode, UserKey, record_id};
use crate::credentials::Credentials;
use crate::http::{encode, segment};
use crate::telemetry::metrics::SalesforceCalls;
use wire::Refusal;

/// An org that holds credentials.
pub struct Org {
    pub(super) client: Client,
    pub(super) config: config::Salesforce,
    cache: Cache,
}

impl Org {
    /// Reads the key, the secret and the certificates. Sends nothing: a broker must start even if the org is down.
    ///
    /// # Errors
    /// A file cannot be used, or a key is missing.
    pub fn open(config: &config::Salesforce) -> Result<Self, SetupError> {
        Ok(Self::of(Client::new(config.clone())?, config))
    }

    /// The same org with other settings.
    pub(super) fn with(&self, config: &config::Salesforce) -> Result<Self, SetupError> {
        Ok(Self::of(self.client.with(config.clone())?, config))
    }

    fn of(client: Client, config: &config::Salesforce) -> Self {
        Self { client, cache: Cache::new(config.credentials.cache), config: config.clone() }
    }

    /// Counts its calls here.
    #[must_use]
    pub fn with_calls(mut self, calls: Arc<SalesforceCalls>) -> Self {
        self.client.count_in(calls);
        self
    }

    /// Looks up the credentials of a user. The refusal is for the agent; the log has the details for the operator.
    ///
    /// # Errors
    /// There are none, they are incomplete, or Salesforce cannot be reached.
    pub async fn find(&self, user: &str) -> Result<Credentials, Refusal> {
        self.look_up(user).await.map_err(|fault| {
            fault.log();
            fault.refusal()
        })
    }

    /// The name of the field that has a password.
    pub(super) fn password_field(&self) -> &str {
        self.config.credentials.fields.password.rsplit('.').next().unwrap_or_default()
    }

    /// The counts of requests and their outcomes.
    pub fn stats(&self) -> Snapshot {
        self.client.snapshot()
    }

    /// Notes that records of an object have changed in the org, or may have. `event` is the API name of the change event;
    /// `None`: any object's. Returns whether credentials were forgotten.
    pub(super) fn changed(&self, event: Option<&str>) -> bool {
        let concerns_credentials = event.is_none_or(|event| is_change_of(event, &self.config.credentials.object));
        if concerns_credentials {
            self.cache.clear();
        }
        concerns_credentials
    }

    pub(super) async fn look_up(&self, user: &str) -> Result<Credentials, Fault> {
        let lookup = &self.config.credentials;
        let Some((key, path)) = address(lookup, &self.config.api_version, user) else {
            return Err(unknown(lookup));
        };
        if let Some(credentials) = self.cache.find(Instant::now(), &key) {
            return Ok(credentials);
        }
        let read_at = self.cache.age();
        let want = match lookup.mode {
            Mode::Query => Want::Json,
            Mode::ExternalId => Want::Row,
            Mode::Apex => Want::Apex,
        };
        let reply = self.client.call(&Call { user: Some(user), ..Call::get(&path, want) }).await?;
        let rows = match (reply.status, lookup.mode) {
            (300, _) => return Err(row::several(lookup)),
            (404, _) => return Err(row::not_found(lookup)),
            (_, Mode::Query) => records(&reply.body),
            (_, Mode::ExternalId | Mode::Apex) => objects(&reply.body),
        };
        let rows = rows.ok_or_else(|| {
            Fault::rejected(
                "Salesforce answers something that the broker does not know; tell an administrator",
                "the answer is JSON, but not a record: does salesforce.login_url, or apex_path, belong to another server?",
            )
        })?;
        if rows.len() >= soql::ROWS_MAX && lookup.mode == Mode::Query {
            return Err(row::several(lookup));
        }
        let credentials = row::choose(&rows, lookup, &key)?;
        self.cache.keep(Instant::now(), read_at, key, &credentials);
        Ok(credentials)
    }
}

/// Returns the key to look for and the path to request; `None` if no row can have the key.
fn address(lookup: &Lookup, version: &str, user: &str) -> Option<(String, String)> {
    let key = match lookup.key {
        UserKey::UserId => record_id(user)?,
        UserKey::Username | UserKey::FederationId | UserKey::Email => user.to_owned(),
    };
    let path = match lookup.mode {
        Mode::Query => format!("/services/data/v{version}/query?q={}", encode(&soql::query(lookup, &key)?)),
        Mode::ExternalId => {
            let fields = soql::fields(lookup, &[]).join(",");
            let Lookup { object, key_field, .. } = lookup;
            format!("/services/data/v{version}/sobjects/{object}/{key_field}/{}?fields={fields}", segment(&key)?)
        }
        Mode::Apex => {
            let path = lookup.apex_path.as_deref().unwrap_or_default().replacen("{user}", &segment(&key)?, 1);
            format!("/services/apexrest{path}")
        }
    };
    Some((key, path))
}

/// Returns whether a change event is about records of an object: `CTI_Login__ChangeEvent` is about `CTI_Login__c`, and
/// `ContactChangeEvent` about `Contact`.
fn is_change_of(event: &str, object: &str) -> bool {
    let base = object.strip_suffix('c').filter(|base| base.ends_with("__")).unwrap_or(object);
    event.strip_suffix("ChangeEvent").is_some_and(|it| it.eq_ignore_ascii_case(base))
}

fn unknown(lookup: &Lookup) -> Fault {
    let wanted = match lookup.key {
        UserKey::UserId => "a Salesforce user id of 15 or 18 characters",
        UserKey::Username => "a Salesforce user name",
        UserKey::FederationId => "a federation id",
        UserKey::Email => "an e-mail address",
    };
    Fault::not_found(
        "no CTI login can be stored for this user in Salesforce under the name that this session has; tell an administrator",
        format!(
            "the session's user is not {wanted}, which salesforce.credentials.key says it is; Salesforce was not asked"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::Source;
    use crate::router::RecordCache;
    use crate::salesforce::CurrentOrg;

    fn path(mode: Mode, key: UserKey, user: &str) -> Option<String> {
        let mut lookup = Lookup { mode, key, apex_path: Some("/cti/{user}/login".to_owned()), ..Lookup::default() };
        lookup.fields.adfs_username = String::new();
        address(&lookup, "67.0", user).map(|(_, path)| path)
    }

    #[test]
    fn a_change_event_is_about_one_object() {
        for (event, object, is) in [
            ("CTI_Login__ChangeEvent", "CTI_Login__c", true),
            ("cti_login__ChangeEvent", "CTI_Login__c", true),
            ("ContactChangeEvent", "Contact", true),
            ("AbcChangeEvent", "Abc", true),
            ("OtherChangeEvent", "Contact", false),
            ("CTI_Login__c", "CTI_Login__c", false),
            ("CTI_Notice__e", "CTI_Notice__c", false),
        ] {
            assert_eq!(is_change_of(event, object), is, "{event} {object}");
        }
    }

    #[tokio::test]
    async fn credentials_are_forgotten_if_their_records_or_any_may_have_changed() {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("secret");
        std::fs::write(&secret, "s").unwrap();
        #[cfg(unix)]
        std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let mut config = config::Salesforce {
            login_url: "https://x.my.salesforce.com".to_owned(),
            client_id: Some("c".to_owned()),
            client_secret_file: Some(secret),
            ..config::Salesforce::default()
        };
        config.credentials.cache = std::time::Duration::from_mins(1);
        let current = Arc::new(CurrentOrg::open(&config).unwrap());
        let mut age = 0;
        let password = secrecy::SecretString::from("pw");
        let found = Credentials { username: "1".to_owned(), password, extension: "2".to_owned(), adfs_username: None };
        for (event, forgets) in
            [(Some("CTI_Login__ChangeEvent"), true), (None, true), (Some("ContactChangeEvent"), false)]
        {
            let org = current.get();
            org.cache.keep(Instant::now(), org.cache.age(), "a".to_owned(), &found);
            current.records_changed(event);
            assert_eq!(org.cache.find(Instant::now(), "a").is_none(), forgets, "{event:?}");
            age += u64::from(forgets);
            assert_eq!(current.age(), age, "{event:?}");
        }
        current.replace(current.prepare(&config).unwrap());
        assert_eq!(current.age(), age + 1, "other settings may find others");
    }

    #[test]
    fn a_user_stays_where_it_is_put_or_nothing_is_asked() {
        let id = Some(
            "/services/data/v67.0/sobjects/CTI_Login__c/User_Id__c/005000000000001AAA?fields=User_Id__c,\
                       CTI_Username__c,CTI_Password__c,CTI_Extension__c,Active__c",
        );
        assert_eq!(path(Mode::ExternalId, UserKey::UserId, "005000000000001").as_deref(), id);
        let query = path(Mode::Query, UserKey::Email, "o'neil\\@x").unwrap();
        assert!(query.ends_with("WHERE%20User_Id__c%20%3D%20%27o%5C%27neil%5C%5C%40x%27%20LIMIT%2050"), "{query}");
        assert_eq!(
            path(Mode::Apex, UserKey::Username, "../a?b#c").as_deref(),
            Some("/services/apexrest/cti/..%2Fa%3Fb%23c/login")
        );
        for user in ["alice@example.com", "005000000000001' OR Id != '", "005000000000001AAA "] {
            assert_eq!(path(Mode::Query, UserKey::UserId, user), None, "{user}");
        }
        assert_eq!(path(Mode::ExternalId, UserKey::Username, ".."), None);
        assert_eq!(path(Mode::Apex, UserKey::Username, "."), None);
    }
}
