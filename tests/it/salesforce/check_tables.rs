//! `switchboard check --salesforce` on what else is configured: objects that are written, events, orgs that prove users.
//! The stand-in org answers as it answers the broker.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use crate::support::secret_file;
use salesforce_stand_in::{Broken, DEMO_SEED, Fault, Options, Org, Seed, Wrong};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

const READER: &str = "integration@example.com";

struct Checked {
    org: Org,
    folder: TempDir,
}

impl Checked {
    /// An org with objects to write, and one that may introspect.
    async fn start() -> Self {
        let mut seed: Value = serde_json::from_str(DEMO_SEED).unwrap();
        let key = |more: Value| {
            let mut key = json!({ "name": "Key__c", "length": 64, "unique": true, "external_id": true });
            key.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            key
        };
        seed["objects"].as_array_mut().unwrap().extend([
            json!({ "name": "Task", "fields": [key(json!({ "unique": false }))] }),
            json!({ "name": "Well__c", "fields": [{ "name": "A__c" }, key(json!({}))] }),
            json!({ "name": "Locked__c", "read_only_for": [READER], "fields": [{ "name": "A__c" }, key(json!({}))] }),
            json!({ "name": "Away__c", "hidden_from": [READER], "fields": [{ "name": "A__c" }] }),
            json!({ "name": "Fields__c", "fields": [
                { "name": "Fixed__c", "read_only_for": [READER] },
                { "name": "Hidden__c", "hidden_from": [READER] },
                { "name": "Secret__c", "type": "encryptedstring" },
                key(json!({ "unique": false, "external_id": false, "length": 40 })),
            ] }),
        ]);
        seed["clients"].as_array_mut().unwrap().push(json!({ "client_id": "asks", "client_secret": "asks-secret" }));
        let seed = Seed::parse(&seed.to_string()).unwrap();
        let org = Org::start(Options { listen: "127.0.0.1:0".parse().unwrap(), tls: false, seed }).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        secret_file(folder.path().join("demo"), "demo-secret");
        secret_file(folder.path().join("asks"), "asks-secret");
        Self { org, folder }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn salesforce(&self) -> String {
        format!(
            "[salesforce]\nlogin_url = '{}'\nclient_id = 'demo'\nclient_secret_file = '{}'\ninstance_hosts = ['127.0.0.1']\n\
             insecure_http = true\n",
            self.org.url(),
            self.file("demo").display()
        )
    }

    /// `[auth.salesforce_introspection]`, with the secret in this file, and `[auth.salesforce_userinfo]`.
    fn proofs(&self, host: &str, secret: &str) -> String {
        let asked = format!("org_id = '00D000000000001'\nhost = '{host}'\ninsecure_http = true\n");
        format!(
            "[auth.salesforce_introspection]\n{asked}client_id = 'asks'\nclient_secret_file = '{}'\n\
             [auth.salesforce_userinfo]\n{asked}",
            self.file(secret).display()
        )
    }

    /// Exit code, and the steps of these names: outcome and detail.
    async fn check(&self, config: &str, arguments: &[&str], names: &[&str]) -> (i32, Vec<(String, String)>) {
        let file = self.file("f.toml");
        fs::write(&file, config).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
        command.args(["check", "--salesforce", "--json", "--config"]).arg(&file).args(arguments);
        let output = command.stdin(Stdio::null()).output().await.unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let told: Value = serde_json::from_str(&text).unwrap();
        let steps = told["steps"].as_array().unwrap_or_else(|| panic!("{text}")).iter();
        let steps = steps.filter(|step| names.is_empty() || names.contains(&step["step"].as_str().unwrap()));
        let text = |step: &Value, key: &str| step[key].as_str().unwrap().to_owned();
        (output.status.code().unwrap(), steps.map(|step| (text(step, "outcome"), text(step, "detail"))).collect())
    }
}

type Expected<'a> = (&'a str, &'a [&'a str]);

fn expect(steps: &[(String, String)], expected: &[Expected<'_>]) {
    assert_eq!(steps.len(), expected.len(), "{steps:#?}");
    for ((outcome, detail), (wanted, words)) in steps.iter().zip(expected) {
        assert!(
            outcome == wanted && words.iter().all(|it| detail.contains(it)),
            "{outcome} {detail}: {wanted} {words:?}"
        );
    }
}

#[tokio::test]
async fn records_that_may_not_be_written_are_told_by_object_and_field() {
    let stage = Checked::start().await;
    let tables = "[salesforce.objects.Away]\nobject = 'Away__c'\nupdate = true\nfields = { a = 'A__c' }\n\
                  [salesforce.objects.Fields]\nobject = 'Fields__c'\nupdate = true\ncreate = true\nexternal_id = 'Key__c'\n\
                  call_field = 'Secret__c'\nfields = { a = 'Fixed__c', b = 'Hidden__c', c = 'Id' }\n\
                  [salesforce.objects.Locked]\nobject = 'Locked__c'\nupdate = true\ncreate = true\nexternal_id = 'Key__c'\n\
                  fields = { a = 'A__c' }\n\
                  [salesforce.objects.Task]\nupdate = true\ncreate = true\nexternal_id = 'Key__c'\n\
                  fields = { a = 'Subject' }\n\
                  [salesforce.objects.Well]\nobject = 'Well__c'\ncreate = true\nexternal_id = 'Key__c'\n\
                  fields = { a = 'A__c' }\n\
                  [salesforce.variables]\nobject = 'Fields'\n";
    let config = format!("{}{tables}", stage.salesforce());
    let (code, steps) = stage.check(&config, &[], &["records"]).await;
    assert_eq!(code, 1);
    expect(
        &steps,
        &[
            ("failed", &["Away: the object Away__c does not exist", "Object Settings > Away__c: 'Read'"]),
            (
                "failed",
                &["Fields: Hidden__c: no such field", "Object Settings > Fields__c > Field Permissions: 'Read Access'"],
            ),
            ("failed", &["Fields: Fixed__c, Id may be read, but not written.", "'Edit Access'"]),
            ("failed", &["Fields: Secret__c cannot be searched", "salesforce.objects.Fields.call_field"]),
            (
                "failed",
                &["Fields: Key__c is not an External ID. Setup > Object Manager > Fields__c > Fields & Relationships"],
            ),
            ("failed", &["Fields: Key__c cannot hold 64 characters."]),
            ("warning", &["Fields: Key__c is not unique"]),
            (
                "failed",
                &["Locked: its records may not be written.", "Object Settings > Locked__c: 'Edit' and 'Create'"],
            ),
            ("passed", &["Task: records of Task may be changed and made, with Subject"]),
            ("passed", &["Well: records of Well__c may be made, with A__c"]),
        ],
    );
    // Nothing is written, and what is not kept in the org is not looked for there.
    assert!(stage.org.seen().iter().all(|it| it.method == "GET" || it.path.ends_with("/token")));
    let (_, steps) = stage.check(&config, &[], &["object", "fields", "mask", "lookup"]).await;
    let elsewhere: Expected<'_> = ("skipped", &["credentials.store is \"directory\""]);
    expect(&steps, &[elsewhere; 4]);
    let (_, steps) = stage.check(&config, &["--user", "005000000000002AAA"], &["object", "lookup"]).await;
    expect(&steps, &[("passed", &["CTI_Login__c"]), ("passed", &["1245456"])]);
}

#[tokio::test]
async fn a_topic_that_cannot_be_heard_is_told_and_so_is_a_field_it_has_not() {
    let stage = Checked::start().await;
    let events = |more: &str| {
        format!(
            "{}[salesforce.events]\nendpoint = '{}'\n[salesforce.events.topics.notice]\ntopic = '/event/CTI_Notice__e'\n{more}",
            stage.salesforce(),
            stage.org.url()
        )
    };
    let good = "user_field = 'User_Id__c'\nfields = ['message__c']\n\
                [salesforce.events.topics.changes]\ntopic = '/data/CTI_Login__ChangeEvent'\nuser_field = 'User_Id__c'\n";
    let (code, steps) = stage.check(&events(good), &[], &["events"]).await;
    assert_eq!(code, 0, "{steps:?}");
    expect(
        &steps,
        &[
            ("passed", &["changes: /data/CTI_Login__ChangeEvent can be subscribed to, for the user in User_Id__c"]),
            ("passed", &["notice: /event/CTI_Notice__e can be subscribed to"]),
        ],
    );
    let bad =
        "user_field = 'User_ID__c'\nfields = ['Text__c']\n[salesforce.events.topics.gone]\ntopic = '/event/Gone__e'\n";
    let (code, steps) = stage.check(&events(bad), &[], &["events"]).await;
    assert_eq!(code, 1);
    expect(
        &steps,
        &[
            ("failed", &["gone: /event/Gone__e: ", "Setup > Integrations > Platform Events", "'Read'"]),
            ("failed", &["notice: ", "has no field User_ID__c, Text__c", "It has", "User_Id__c"]),
        ],
    );
    stage.org.fault(Fault::new(Wrong::Events { error: Broken::Denied, after: 0 }));
    let (_, steps) = stage.check(&events(""), &[], &["events"]).await;
    expect(&steps, &[("failed", &["may not read it", "Object Settings: 'Read', for changes 'View All'"])]);

    let nowhere = events("").replace(&format!("endpoint = '{}'", stage.org.url()), "endpoint = 'http://127.0.0.1:1'");
    let (_, steps) = stage.check(&nowhere, &[], &["events"]).await;
    expect(&steps, &[("failed", &["notice: ", "firewall"])]);
    // Without a session, each table says so.
    let nobody = events("").replace("client_id = 'demo'", "client_id = 'nobody'");
    let (_, steps) = stage.check(&nobody, &[], &["events"]).await;
    expect(&steps, &[("skipped", &["notice: there is no session"])]);
    assert_eq!(stage.org.streams("/event/CTI_Notice__e"), 0);
}

#[tokio::test]
async fn an_org_that_proves_users_is_reached_and_takes_the_question() {
    let stage = Checked::start().await;
    let url = stage.org.url();
    // Alone, without an org to log in to.
    let (code, steps) = stage.check(&stage.proofs(&url, "asks"), &[], &[]).await;
    assert_eq!(code, 0, "{steps:?}");
    expect(
        &steps,
        &[
            ("passed", &["/services/oauth2/introspect: tells the app about its tokens"]),
            ("passed", &["/services/oauth2/userinfo: answers, and refuses a token that nobody was given"]),
        ],
    );
    let both = format!("{}{}", stage.salesforce(), stage.proofs(&url, "demo"));
    let (code, steps) = stage.check(&both, &[], &["login", "introspection", "userinfo"]).await;
    assert_eq!(code, 1);
    expect(
        &steps,
        &[
            ("passed", &["logged in"]),
            ("failed", &["the org refuses the app that asks", "Consumer Key and Secret", "client_secret_file"]),
            ("passed", &["userinfo"]),
        ],
    );
    let (code, steps) = stage.check(&stage.proofs("http://127.0.0.1:1", "asks"), &[], &[]).await;
    assert_eq!(code, 1);
    let unreachable: Expected<'_> = ("failed", &["firewall", "'host'"]);
    expect(&steps, &[unreachable; 2]);
}
