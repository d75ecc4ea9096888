//! The whole way: a login is written into an org by somebody else's client, and a gadget page fetches it through a broker
//! that asks that org.

use serde_json::json;
use tokio::process::Command;

use super::Chromium;
use super::gadget::fetch_credentials;
use crate::salesforce::live_org::{Fixture, demo};
use crate::support::programs::node_modules;

const CAROL: &str = "005000000000008AAA";
const PASSWORD: &str = "carols-own-password";

pub(super) async fn what_jsforce_writes_into_an_org_a_gadget_fetches(chromium: &Chromium) {
    let mut seed = demo();
    seed["users"].as_array_mut().unwrap().push(json!({ "username": "carol@example.com", "id": &CAROL[..15] }));
    let fixture = Fixture::with("", seed, &[]).await;
    let before = fetch_credentials(chromium, fixture.broker.address(), CAROL).await;
    assert!(before.login.contains("no CTI login is stored"), "{}", before.login);

    let record = json!({
        "User__c": CAROL, "User_Id__c": CAROL, "CTI_Username__c": "1245458", "CTI_Extension__c": "0053",
    });
    let mut client = Command::new("node");
    client
        .env("NODE_PATH", node_modules("jsforce").await.unwrap())
        .env("CLIENT_SECRET", "demo-secret")
        .env("PASSWORD", PASSWORD);
    client.args(["tests/node/cti_login.cjs", &fixture.org.url(), "demo", &record.to_string()]);
    let output = client.kill_on_drop(true).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let shown = fetch_credentials(chromium, fixture.broker.address(), CAROL).await;
    assert_eq!((shown.login.as_str(), shown.extension.as_str()), ("1245458", "0053"));
    assert!(!shown.everything.contains(PASSWORD), "{}", shown.everything);
}
