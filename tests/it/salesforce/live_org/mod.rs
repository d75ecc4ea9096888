//! A broker that asks an org, both whole: the real binary, and the stand-in org over HTTP. What happens under load when
//! the org misbehaves (`misbehaving`), what a hostile user name comes to (`injection`), where a password stays
//! (`remains`).

mod fairness;
mod injection;
mod misbehaving;
mod remains;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use salesforce_stand_in::{DEMO_SEED, Options, Org, Seed};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Broker, Peer, secret_file};

const FETCH: &str = "Salesforce/User/FetchCredentials";

/// A user of the org, as the broker names its sessions, and the password of that user.
const ALICE: &str = "005000000000002AAA";
const ALICES: &str = "made-up-Alice";
const BOB: &str = "005000000000003AAA";
const BOBS: &str = "made-up-Bob";

/// An org, and a broker in open mode that asks it.
pub(crate) struct Fixture {
    pub(crate) org: Org,
    pub(crate) broker: Broker,
    _folder: TempDir,
}

impl Fixture {
    async fn start() -> Self {
        Self::with("", demo(), &[]).await
    }

    /// With more lines of `[salesforce]`, another seed, and more arguments of `serve`.
    pub(crate) async fn with(more: &str, seed: Value, arguments: &[&str]) -> Self {
        Self::beside(org_at("127.0.0.1:0".parse().unwrap(), &seed).await, more, arguments).await
    }

    /// With an org that runs already.
    async fn beside(org: Org, more: &str, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("secret");
        secret_file(&secret, "demo-secret\n");
        let authority = org.ca_pem().map_or_else(String::new, |pem| {
            let file = folder.path().join("ca.pem");
            // As a Windows editor saves it, with a byte order mark.
            fs::write(&file, format!("\u{feff}{pem}")).unwrap();
            format!("ca_file = '{}'", file.display())
        });
        let toml = configuration(&org.url(), &secret, &format!("{authority}\n{more}"));
        let broker = Broker::launch(Some(&toml), arguments).await;
        Self { org, broker, _folder: folder }
    }

    /// A gadget of this user.
    async fn gadget(&self, user: &str) -> Peer {
        self.broker.app_of("gadget", user).await
    }
}

fn configuration(url: &str, secret: &Path, more: &str) -> String {
    format!(
        "[auth]\nmode = 'open'\n[credentials]\nstore = 'salesforce'\n[salesforce]\nlogin_url = '{url}'\nclient_id = 'demo'\n\
         client_secret_file = '{}'\ninstance_hosts = ['127.0.0.1']\ninsecure_http = true\n{more}\n",
        secret.display()
    )
}

/// The demonstration's org.
pub(crate) fn demo() -> Value {
    serde_json::from_str(DEMO_SEED).unwrap()
}

async fn org_at(listen: SocketAddr, seed: &Value) -> Org {
    Org::start(Options { listen, tls: false, seed: Seed::parse(&seed.to_string()).unwrap() }).await.unwrap()
}

/// Asks for credentials, `times` times, without waiting for an answer.
async fn ask(gadget: &mut Peer, times: usize) {
    gadget.send_all((0..times).map(|at| crate::support::envelope(FETCH, json!({ "id": format!("f{at}") })))).await;
}

/// The next answers' passwords, or the codes of what failed.
async fn answers(gadget: &mut Peer, count: usize) -> Vec<String> {
    let mut answers = Vec::new();
    while answers.len() < count {
        let data = gadget.next_on(FETCH).await["data"].take();
        let told = if data["Success"] == true { &data["Password"] } else { &data["ErrorCode"] };
        answers.push(told.as_str().unwrap().to_owned());
    }
    answers
}

/// Asks once, and waits for the password, or the code of the failure.
async fn fetched(gadget: &mut Peer) -> String {
    ask(gadget, 1).await;
    answers(gadget, 1).await.remove(0)
}

#[tokio::test]
async fn the_try_it_names_a_user_that_the_org_may_have_and_stores_nothing() {
    let fixture = Fixture::start().await;
    let log = fixture.broker.log();
    let tried = format!("request Salesforce User FetchCredentials --source myapp --user {ALICE} ");
    assert!(log.contains(&tried) && !log.contains("credentials set"), "{log}");
}
