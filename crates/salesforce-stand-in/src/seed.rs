//! [`Seed`]: the initial content of an org, from a JSON file.
//!
//! seed.json is used without a file and is the format's example. Unknown keys, objects and fields are errors before the
//! org starts.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::apex::Resource;
use super::id;
use super::jwt;
use super::schema::{Object, Schema, standard};
use super::store::Store;

/// The seed without a file.
pub const DEMO: &str = include_str!("seed.json");

/// The initial content of an org.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seed {
    #[serde(default)]
    pub(super) organization: Organization,
    #[serde(default)]
    pub(super) clients: Vec<Client>,
    #[serde(default)]
    users: Vec<User>,
    #[serde(default)]
    objects: Vec<Object>,
    #[serde(default)]
    records: Map<String, Value>,
    #[serde(default)]
    pub(super) apex: Vec<Resource>,
    /// The folder of certificate files.
    #[serde(skip)]
    folder: PathBuf,
}

/// The org itself.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Organization {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) sandbox: bool,
    /// The accepted `aud` of assertions, besides the org's own address.
    pub(super) audiences: Vec<String>,
    pub(super) daily_api_requests: u64,
    /// The `aud` of the tokens that its Apex code signs.
    pub(super) gadget_audience: String,
    /// How long an unused token lasts.
    pub(super) session_seconds: u64,
    /// The rows in a page of a query, unless the caller requests fewer.
    pub(super) batch_size: usize,
}

/// An external client app.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Client {
    #[serde(rename = "client_id")]
    pub(super) id: String,
    #[serde(rename = "client_secret", default)]
    pub(super) secret: Option<String>,
    /// X.509, PEM.
    #[serde(default)]
    certificate: Option<String>,
    /// A file with the certificate.
    #[serde(default)]
    certificate_file: Option<PathBuf>,
    /// The user of client credentials; without it, that flow is off.
    #[serde(default)]
    pub(super) run_as: Option<String>,
    /// The pre-authorised users; without the key, every user is.
    #[serde(default)]
    pub(super) users: Option<Vec<String>>,
    #[serde(default = "api")]
    pub(super) scope: String,
    /// Whether it may introspect the tokens of other clients.
    #[serde(default)]
    pub(super) introspect_all: bool,
    #[serde(skip)]
    pub(super) certificate_der: Option<CertificateDer<'static>>,
}

/// A user of the org; also a row of the object User.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "permissions of a user, each on or off")]
pub(super) struct User {
    pub(super) username: String,
    #[serde(default)]
    pub(super) id: String,
    #[serde(default)]
    pub(super) first_name: Option<String>,
    #[serde(default)]
    pub(super) last_name: String,
    #[serde(default)]
    pub(super) email: String,
    #[serde(default)]
    pub(super) federation_id: Option<String>,
    #[serde(default)]
    extension: Option<String>,
    #[serde(default)]
    phone: Option<String>,
    #[serde(default = "yes")]
    pub(super) active: bool,
    #[serde(default = "yes")]
    pub(super) api_enabled: bool,
    #[serde(default)]
    pub(super) view_encrypted_data: bool,
    #[serde(default)]
    pub(super) integration: bool,
}

/// What is wrong with a seed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SeedError(String);

/// What a seed makes.
pub(super) struct Grown {
    pub(super) organization: Organization,
    pub(super) clients: Vec<Client>,
    pub(super) users: Vec<Arc<User>>,
    pub(super) schema: Arc<Schema>,
    pub(super) store: Store,
    pub(super) apex: Vec<Resource>,
}

impl Seed {
    /// The seed that is used without a file.
    pub fn demo() -> Result<Self, SeedError> {
        Self::parse(DEMO)
    }

    /// Reads a seed from JSON text; certificate files are looked for in the current folder.
    pub fn parse(text: &str) -> Result<Self, SeedError> {
        serde_json::from_str(text).map_err(|error| SeedError(error.to_string()))
    }

    /// Reads a seed file; certificate files are looked for beside it.
    pub fn read(file: &Path) -> Result<Self, SeedError> {
        let told = |error: &dyn fmt::Display| SeedError(format!("{}: {error}", file.display()));
        let text = std::fs::read_to_string(file).map_err(|error| told(&error))?;
        let mut seed = Self::parse(&text).map_err(|error| told(&error))?;
        seed.folder = file.parent().map(Path::to_owned).unwrap_or_default();
        Ok(seed)
    }

    /// Builds the org.
    pub(super) fn grow(&self, now: Duration) -> Result<Grown, SeedError> {
        let mut organization = self.organization.clone();
        organization.id = whole_id(&organization.id, "organization.id")?;
        let clients = self.clients.iter().map(|it| self.client(it)).collect::<Result<_, _>>()?;
        let schema = Schema { objects: self.objects() };
        let mut store = Store::default();
        let mut users = Vec::new();
        for (number, user) in (1..).zip(&self.users) {
            let mut user = user.clone();
            user.id = match user.id.as_str() {
                "" => id::made("005", number),
                given => whole_id(given, &user.username)?,
            };
            users.push(Arc::new(user));
        }
        let by = users.first().map(|it| it.id.clone()).unwrap_or_default();
        let mut planted = vec![("Organization", organization.row())];
        for user in &users {
            planted.push(("User", user.row()));
            planted.extend(user.permissions());
        }
        for (object, values) in planted {
            if let (Some(object), Value::Object(values)) = (schema.object(object), values) {
                store.insert(now, &by, object, values);
            }
        }
        for (name, rows) in &self.records {
            plant(now, &by, &schema, &mut store, (name, rows))?;
        }
        Ok(Grown { organization, clients, users, schema: Arc::new(schema), store, apex: self.apex.clone() })
    }

    fn client(&self, client: &Client) -> Result<Client, SeedError> {
        let told = |error: &dyn fmt::Display| SeedError(format!("certificate of {}: {error}", client.id));
        let pem = match (&client.certificate, &client.certificate_file) {
            (Some(pem), _) => Some(pem.clone()),
            (None, Some(file)) => Some(std::fs::read_to_string(self.folder.join(file)).map_err(|error| told(&error))?),
            (None, None) => None,
        };
        let mut client = client.clone();
        if let Some(pem) = pem {
            let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| told(&error))?;
            jwt::usable(&der).map_err(|error| told(&error))?;
            client.certificate_der = Some(der);
        }
        Ok(client)
    }

    /// The standard objects, and the seed's own; a standard object that the seed names gets its fields beside its own.
    fn objects(&self) -> Vec<Object> {
        let mut objects = standard();
        for (number, own) in self.objects.iter().enumerate() {
            match objects.iter_mut().find(|it| it.name.eq_ignore_ascii_case(&own.name)) {
                Some(standard) => {
                    standard.fields.retain(|it| own.field(&it.name).is_none());
                    standard.fields.extend(own.fields.iter().cloned());
                    standard.hidden_from.clone_from(&own.hidden_from);
                    standard.read_only_for.clone_from(&own.read_only_for);
                }
                None => {
                    let mut own = own.clone();
                    if own.prefix.is_empty() {
                        own.prefix = format!("a{number:02}");
                    }
                    objects.push(own);
                }
            }
        }
        objects.iter_mut().for_each(Object::complete);
        objects
    }
}

/// Adds the rows of one object.
fn plant(
    now: Duration,
    by: &str,
    schema: &Schema,
    store: &mut Store,
    (name, rows): (&str, &Value),
) -> Result<(), SeedError> {
    let object = schema.object(name).ok_or_else(|| SeedError(format!("records: there is no object {name}")))?;
    let rows = rows.as_array().ok_or_else(|| SeedError(format!("records.{name}: not an array")))?;
    for (at, row) in rows.iter().enumerate() {
        let row = row.as_object().ok_or_else(|| SeedError(format!("records.{name}[{at}]: not an object")))?;
        let mut values = Map::new();
        for (key, value) in row {
            let field = object.field(key);
            let field = field.ok_or_else(|| SeedError(format!("records.{name}[{at}]: there is no field {key}")))?;
            let value = match value.as_str().filter(|_| field.kind.is_id()) {
                Some(id) => json!(whole_id(id, key)?),
                None => value.clone(),
            };
            values.insert(field.name.clone(), value);
        }
        store.insert(now, by, object, values);
    }
    Ok(())
}

fn whole_id(id: &str, what: &str) -> Result<String, SeedError> {
    id::complete(id).ok_or_else(|| SeedError(format!("{what}: {id:?} is not an id of 15 or 18 characters")))
}

impl Default for Organization {
    fn default() -> Self {
        Self {
            id: "00D000000000001".to_owned(),
            name: "Stand-in".to_owned(),
            sandbox: false,
            audiences: vec!["https://login.salesforce.com".to_owned()],
            daily_api_requests: 15_000,
            gadget_audience: "switchboard".to_owned(),
            session_seconds: 7_200,
            batch_size: 2_000,
        }
    }
}

impl Organization {
    fn row(&self) -> Value {
        let kind = if self.sandbox { "Developer Edition" } else { "Enterprise Edition" };
        json!({ "Id": self.id, "Name": self.name, "IsSandbox": self.sandbox, "OrganizationType": kind })
    }
}

impl User {
    /// First and last name.
    pub(super) fn name(&self) -> String {
        let last = if self.last_name.is_empty() { &self.username } else { &self.last_name };
        self.first_name.as_ref().map_or_else(|| last.clone(), |first| format!("{first} {last}"))
    }

    fn row(&self) -> Value {
        json!({
            "Id": self.id,
            "Username": self.username,
            "FirstName": self.first_name,
            "LastName": self.last_name,
            "Name": self.name(),
            "Email": self.email,
            "FederationIdentifier": self.federation_id,
            "Extension": self.extension,
            "Phone": self.phone,
            "IsActive": self.active,
        })
    }

    /// The rows that show what the user may do.
    fn permissions(&self) -> [(&'static str, Value); 2] {
        let tail = self.id.get(3..15).unwrap_or_default();
        let (set, assignment) = (id::complete(&format!("0PS{tail}")), id::complete(&format!("0Pa{tail}")));
        let permissions = json!({
            "Id": set,
            "Name": format!("Permissions of {}", self.username),
            "PermissionsViewEncryptedData": self.view_encrypted_data,
            "PermissionsApiEnabled": self.api_enabled,
        });
        let assignment = json!({ "Id": assignment, "AssigneeId": self.id, "PermissionSetId": set });
        [("PermissionSet", permissions), ("PermissionSetAssignment", assignment)]
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Client").field("client_id", &self.id).finish_non_exhaustive()
    }
}

fn api() -> String {
    "api".to_owned()
}

fn yes() -> bool {
    true
}
