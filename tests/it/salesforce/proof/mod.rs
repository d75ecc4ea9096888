//! Users whom Salesforce proves: what is believed of a JWT (`signed`), each way against a stand-in org and a real broker
//! (`live`), a new configuration (`reload`), and an org that is down or lies (`down`).

mod down;
mod live;
mod reload;
mod signed;

use std::time::Duration;

use salesforce_stand_in::{Options, Org, Seed};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Broker, Peer, secret_file};

const ALICE: &str = "005000000000002AAA";
const ORG: &str = "00D000000000001EAA";
const FETCH: &str = "Salesforce/User/FetchCredentials";

/// A stand-in org with an app of the gadgets, one of somebody else, and the files that a broker needs.
struct Fixture {
    org: Org,
    folder: TempDir,
    http: reqwest::Client,
}

impl Fixture {
    async fn start() -> Self {
        Self::with(false, |_| {}).await
    }

    async fn with(tls: bool, change: impl FnOnce(&mut Value)) -> Self {
        let mut seed: Value = serde_json::from_str(salesforce_stand_in::DEMO_SEED).unwrap();
        let client = |id: &str, run_as: &str| json!({ "client_id": id, "client_secret": "s", "run_as": run_as });
        let clients = seed["clients"].as_array_mut().unwrap();
        clients.extend([client("gadgets", "alice@example.com"), client("others", "alice@example.com")]);
        clients.push(client("bobs", "bob@example.com"));
        clients.push(json!({ "client_id": "broker", "client_secret": "broker-secret", "introspect_all": true }));
        change(&mut seed);
        let seed = Seed::parse(&seed.to_string()).unwrap();
        let org = Org::start(Options { listen: "127.0.0.1:0".parse().unwrap(), tls, seed }).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| secret_file(folder.path().join(name), text);
        write("org.pem", org.certificate_pem());
        write("ca.pem", org.ca_pem().unwrap_or_default());
        write("broker-secret", "broker-secret\n");
        write("demo-secret", "demo-secret\n");
        rustls::crypto::ring::default_provider().install_default().ok();
        let roots = reqwest::Certificate::from_pem_bundle(org.ca_pem().unwrap_or_default().as_bytes()).unwrap();
        let http = reqwest::Client::builder().no_proxy().tls_certs_merge(roots).build().unwrap();
        Self { org, folder, http }
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// How the org is asked, for both tables that ask it.
    fn asked(&self) -> String {
        let trust = if self.org.ca_pem().is_some() {
            format!("ca_file = '{}'", self.file("ca.pem"))
        } else {
            "insecure_http = true".to_owned()
        };
        format!("org_id = '{ORG}'\nhost = '{}'\n{trust}\n", self.org.url())
    }

    fn jwt(&self, more: &str) -> String {
        let file = self.file("org.pem");
        format!(
            "[auth.salesforce_jwt]\norg_id = '{ORG}'\naudience = 'switchboard'\ncertificate_file = '{file}'\n{more}\n"
        )
    }

    fn userinfo(&self, more: &str) -> String {
        format!("[auth.salesforce_userinfo]\n{}{more}\n", self.asked())
    }

    fn introspection(&self, more: &str) -> String {
        let secret = self.file("broker-secret");
        format!(
            "[auth.salesforce_introspection]\n{}client_id = 'broker'\nclient_secret_file = '{secret}'\n{more}\n",
            self.asked()
        )
    }

    /// An access token of the user as whom this app runs.
    async fn access_token(&self, client: &str) -> String {
        let form = format!("grant_type=client_credentials&client_id={client}&client_secret=s");
        let request = self.http.post(format!("{}/services/oauth2/token", self.org.url())).body(form);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let answer = answer(request).await;
        answer["access_token"].as_str().unwrap_or_else(|| panic!("no token: {answer}")).to_owned()
    }

    /// What the org's Apex code signs for that user.
    async fn signed_token(&self, client: &str) -> String {
        let bearer = format!("Bearer {}", self.access_token(client).await);
        let address = format!("{}/services/apexrest/switchboard/token", self.org.url());
        let answer = answer(self.http.get(address).header("authorization", bearer)).await;
        answer.as_str().unwrap_or_else(|| panic!("no token: {answer}")).to_owned()
    }

    /// How often the org was asked about a token.
    fn questions(&self, path: &str) -> usize {
        self.org.seen().iter().filter(|seen| seen.path.ends_with(path)).count()
    }
}

async fn answer(request: reqwest::RequestBuilder) -> Value {
    serde_json::from_slice(&request.send().await.unwrap().bytes().await.unwrap()).unwrap()
}

/// Registers; gives the connection and what Register answered.
async fn register(broker: &Broker, source: &str, token: &str) -> (Peer, Value) {
    let mut peer = broker.raw(source).await;
    let reply = peer.register(source, json!({ "token": token })).await["data"].clone();
    (peer, reply)
}

/// Is refused; returns the code, the words and the code of the Close.
async fn refused(broker: &Broker, source: &str, token: &str) -> (String, String, u16) {
    let (mut peer, reply) = register(broker, source, token).await;
    assert_eq!(reply["Success"], false, "{reply}");
    let text = |key: &str| reply[key].as_str().unwrap().to_owned();
    assert!(!reply.to_string().contains(token), "a token is never quoted");
    (text("ErrorCode"), text("ErrorMessage"), peer.closed().await)
}

/// Time since 1970.
fn now() -> Duration {
    std::time::UNIX_EPOCH.elapsed().unwrap()
}
