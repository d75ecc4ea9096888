//! [`Desk`]: a broker, and the stand-in org that it writes to.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use salesforce_stand_in::{DEMO_SEED, Options, Org, Seed};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::salesforce::simulator::http;
use crate::support::{Broker, Peer, envelope, secret_file, within};

pub(super) const UPDATE: &str = "Salesforce/Call/UpdateObject";
pub(super) const CREATE: &str = "Salesforce/Call/CreateObject";
pub(super) const SAVE: &str = "Salesforce/Call/SaveCustomVariables";
pub(super) const REMOVE: &str = "Salesforce/Call/RemoveCustomVariables";

/// A case of the org.
pub(super) const CASE: &str = "500000000000001AAA";

/// What may be written, where a test says nothing else.
pub(super) const OBJECTS: &str = r#"
[salesforce.objects.Task]
update = true
create = true
fields = { subject = "Subject", disposition = "CallDisposition", duration = "CallDurationInSeconds", who = "WhoId", kind = "Kind__c" }
display_field = "Subject"
external_id = "Switchboard_Request_Id__c"
call_field = "CallObject"

[salesforce.objects.Case]
update = true
fields = { variable1 = "Subject", variable2 = "Status", urgent = "Urgent__c", score = "Score__c" }
"#;

pub(super) struct Desk {
    pub(super) org: Org,
    pub(super) broker: Broker,
    folder: TempDir,
}

fn seed(change: impl FnOnce(&mut Value)) -> Seed {
    let mut seed: Value = serde_json::from_str(DEMO_SEED).unwrap();
    seed["objects"].as_array_mut().unwrap().extend([
        json!({ "name": "Task", "fields": [
            { "name": "Switchboard_Request_Id__c", "length": 64, "unique": true, "case_sensitive": true, "external_id": true },
            { "name": "Kind__c", "length": 10, "unique": true },
        ] }),
        json!({ "name": "Case", "fields": [
            { "name": "Urgent__c", "type": "boolean" },
            { "name": "Score__c", "type": "double" },
        ] }),
    ]);
    seed["records"]["Case"] = json!([{ "Id": CASE, "Subject": "old", "Status": "New" }]);
    change(&mut seed);
    Seed::parse(&seed.to_string()).unwrap()
}

impl Desk {
    /// With what may be written, in open mode.
    pub(super) async fn start(objects: &str) -> Self {
        Self::with(objects, |_| {}).await
    }

    /// With another org too.
    pub(super) async fn with(objects: &str, change: impl FnOnce(&mut Value)) -> Self {
        let listen = "127.0.0.1:0".parse().unwrap();
        let org = Org::start(Options { listen, tls: false, seed: seed(change) }).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        secret_file(folder.path().join("secret"), "demo-secret");
        let broker = Broker::open_with(&file(&org, &folder, objects)).await;
        Self { org, broker, folder }
    }

    /// Where tokens prove who an application is.
    pub(super) async fn with_tokens(objects: &str) -> Self {
        let Self { org, broker, folder } = Self::start(OBJECTS).await;
        drop(broker);
        let broker = Broker::with_config(&file(&org, &folder, objects)).await;
        Self { org, broker, folder }
    }

    /// Another broker before the same org, in place of this one.
    pub(super) async fn restart(self, objects: &str) -> Self {
        let Self { org, broker, folder } = self;
        drop(broker);
        let broker = Broker::open_with(&file(&org, &folder, objects)).await;
        Self { org, broker, folder }
    }

    /// Writes another configuration file, for a reload.
    pub(super) fn configure(&self, objects: &str) {
        self.broker.configure(&format!("{}\n[auth]\nmode = \"open\"\n", file(&self.org, &self.folder, objects)));
    }

    /// The file with the secret that logs the broker in.
    pub(super) fn secret(&self) -> PathBuf {
        self.folder.path().join("secret")
    }

    /// The rows of a query.
    pub(super) async fn rows(&self, soql: &str) -> Vec<Value> {
        let token = {
            let body = "grant_type=client_credentials&client_id=demo&client_secret=demo-secret";
            let headers = "content-type: application/x-www-form-urlencoded\r\n";
            let answer = http::ask(&self.org.url(), "POST", "/services/oauth2/token", headers, body).await;
            answer.json()["access_token"].as_str().unwrap().to_owned()
        };
        let path = format!("/services/data/v67.0/query?q={}", http::encoded(soql));
        let headers = format!("authorization: Bearer {token}\r\n");
        let answer = http::ask(&self.org.url(), "GET", &path, &headers, "").await;
        let mut rows = answer.json()["records"].as_array().unwrap_or_else(|| panic!("{answer:?}")).clone();
        for row in &mut rows {
            row.as_object_mut().unwrap().remove("attributes");
        }
        rows
    }

    /// The rows, as soon as they are like this.
    pub(super) async fn rows_become(&self, soql: &str, expected: Value) {
        let mut last = Value::Null;
        let mut often = tokio::time::interval(Duration::from_millis(30));
        let look = async {
            while last != expected {
                often.tick().await;
                last = Value::from(self.rows(soql).await);
            }
        };
        let became = tokio::time::timeout(Duration::from_secs(15), look).await;
        assert!(became.is_ok(), "{soql}: {last}, not {expected}");
    }

    /// How often the org was asked in this way, of this path's end.
    pub(super) fn asked(&self, method: &str, path: &str) -> usize {
        self.org.seen().iter().filter(|seen| seen.method == method && seen.path.contains(path)).count()
    }

    /// Waits until the org was called this often in this way.
    pub(super) async fn seen(&self, method: &str, path: &str, count: usize) {
        let mut often = tokio::time::interval(Duration::from_millis(5));
        within("calls of the org", async {
            while self.asked(method, path) < count {
                often.tick().await;
            }
        })
        .await;
    }

    /// Asks and gives the answer.
    pub(super) async fn ask(&self, peer: &mut Peer, triple: &str, id: &str, data: Value) -> Value {
        peer.send(envelope(triple, json!({ "id": id, "data": data }))).await;
        within("an answer", peer.next_answer(triple, id)).await
    }
}

fn file(org: &Org, folder: &TempDir, objects: &str) -> String {
    let mut file = String::new();
    write!(
        file,
        "[salesforce]\nlogin_url = '{}'\nclient_id = 'demo'\nclient_secret_file = '{}'\ninstance_hosts = ['127.0.0.1']\n\
         insecure_http = true\ntimeout = '2s'\n{objects}",
        org.url(),
        folder.path().join("secret").display()
    )
    .unwrap();
    file
}

/// What an update of the case asks.
pub(super) fn update(params: impl Into<Value>) -> Value {
    json!({ "callId": "12345", "Name": "Case", "OId": "SF2", "sfid": CASE, "params": params.into() })
}

/// What a creation of a task asks.
pub(super) fn create(params: impl Into<Value>) -> Value {
    json!({ "callId": "12345", "Name": "Task", "OId": "SF1", "params": params.into() })
}

/// A failure: its null keys, then the three; gives code and words.
#[track_caller]
pub(super) fn failure(answer: &Value, keys: &[&str]) -> (String, String) {
    let data = answer["data"].as_object().unwrap();
    let found: Vec<&str> = data.keys().map(String::as_str).collect();
    assert_eq!(found, [keys, &["Success", "ErrorMessage", "ErrorCode"]].concat(), "{answer}");
    // What names the call and the record is repeated; nothing else is told.
    let repeated = ["callId", "callid", "Name", "OId", "sfid"];
    assert!(keys.iter().all(|key| repeated.contains(key) || data[*key].is_null()), "{answer}");
    assert_eq!(data["Success"], false, "{answer}");
    (data["ErrorCode"].as_str().unwrap().to_owned(), data["ErrorMessage"].as_str().unwrap().to_owned())
}

/// The fields of an object of a seed.
pub(super) fn fields<'s>(seed: &'s mut Value, object: &str) -> &'s mut Vec<Value> {
    let objects = seed["objects"].as_array_mut().unwrap();
    let object = objects.iter_mut().find(|it| it["name"] == object).unwrap();
    object["fields"].as_array_mut().unwrap()
}
