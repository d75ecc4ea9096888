//! Credentials from an org: the key that logs in (`private_key`), what is asked and answered (`fetch`), what goes wrong on
//! the way (`faults`), whose requests that stops (`breakers`), logins that hang (`logins`), how much one user can ask
//! (`quota`), what a reload changes (`reload`, `reload_load`), and the command that finds it (`check`, `check_tables`). And what is written to an org, by a whole broker
//! before the stand-in org (`desk`): records that change (`updating`), that are made (`creating`), and variables that wait
//! for their call's event (`variables`).

mod audited;
mod breakers;
mod check;
mod check_tables;
mod events;
mod faults;
mod fetch;
pub(crate) mod live_org;
mod logins;
mod metadata;
mod private_key;
mod proof;
mod quota;
mod reload;
mod reload_load;
pub(crate) mod simulator;
mod stand_in;

mod creating;
mod desk;
mod updating;
mod variables;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;
use switchboard::adapter::{Given, Handler};
use switchboard::audit::{Audit, Rotation};
use switchboard::config::Salesforce;
use switchboard::credentials::FetchCredentials;
use switchboard::salesforce::{CurrentOrg, Org};
use wire::Triple;

use stand_in::{Answer, Seen, StandIn};

const ID: &str = "005000000000001AAA";

/// A password that no other text of these tests contains.
const SECRET: &str = "acq@123-never-shown";

/// The key of the tests; it opens nothing.
const KEY: &str = include_str!("key.pem");

/// [`KEY`] in a file that only its owner can read; a checkout gives no such mode.
fn key_file() -> String {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let mut file = tempfile::NamedTempFile::new_in(folder).unwrap();
    file.write_all(KEY.as_bytes()).unwrap();
    let path = folder.join("salesforce-key.pem");
    // By a rename: other tests may be reading it.
    file.persist(&path).unwrap();
    path.to_str().unwrap().to_owned()
}

fn config(url: &str) -> Salesforce {
    Salesforce {
        login_url: url.to_owned(),
        client_id: Some("3MVG9.test".to_owned()),
        username: Some("switchboard@example.com".to_owned()),
        private_key_file: Some(key_file().into()),
        instance_hosts: vec!["127.0.0.1".to_owned()],
        insecure_http: true,
        timeout: Duration::from_secs(5),
        calls_per_user: 0,
        ..Salesforce::default()
    }
}

fn org(stand_in: &StandIn) -> Org {
    Org::open(&config(&stand_in.url)).unwrap()
}

fn token(name: &str) -> Answer {
    Answer::Json(
        200,
        format!(
            r#"{{"access_token":"{name}","instance_url":"{{url}}","id":"{{url}}/id/00D/005000000000009AAA","token_type":"Bearer"}}"#
        ),
    )
}

fn row(fields: &str) -> String {
    format!(
        r#"{{"attributes":{{"type":"CTI_Login__c"}},"Id":"a00","User_Id__c":"{ID}","CTI_Username__c":"1245456",
        "CTI_Password__c":"{SECRET}","CTI_Extension__c":"05051","ADFS_Username__c":null,"Active__c":true{fields}}}"#
    )
}

fn rows(rows: &[String]) -> Answer {
    Answer::Json(200, format!(r#"{{"totalSize":{},"done":true,"records":[{}]}}"#, rows.len(), rows.join(",")))
}

fn error(status: u16, code: &str, message: &str) -> Answer {
    Answer::Json(status, format!(r#"[{{"message":"{message}","errorCode":"{code}"}}]"#))
}

/// Logs everybody in, and answers the rest by `script`.
fn behind_login(script: impl Fn(&Seen) -> Answer + Send + Sync) -> impl Fn(&Seen) -> Answer + Send + Sync {
    move |seen| if seen.is_login() { token("t1") } else { script(seen) }
}

/// What an agent gets: its password, or the code and the words.
async fn fetched(org: &Org, user: &str) -> String {
    match org.find(user).await {
        Ok(found) => found.password.expose_secret().to_owned(),
        Err(refusal) => refusal.to_string(),
    }
}

/// The handler on an org, as the router has it.
fn handler(org: Org, folder: &Path) -> FetchCredentials {
    FetchCredentials::new(
        Arc::new(CurrentOrg::from(Arc::new(org))),
        Arc::new(Audit::open(folder, Rotation::default()).unwrap()),
    )
}

async fn handled(handler: &FetchCredentials, user: Option<&str>) -> String {
    let given = Given {
        id: "rAAAAAAAB".parse().unwrap(),
        triple: Triple::new("Salesforce", "User", "FetchCredentials"),
        source: "softphone".into(),
        user: user.map(Box::from),
        session: uuid::Uuid::nil().into(),
        address: None,
        request_id: None,
        payload: None,
        timeout: Duration::from_secs(10),
        waited: Duration::ZERO,
    };
    match handler.handle(given).await {
        Ok(response) => {
            let mut text = Vec::new();
            response.data.write(&mut text).unwrap();
            String::from_utf8(text).unwrap()
        }
        Err(refusal) => refusal.to_string(),
    }
}
