//! The stand-in org: judged by clients that were written elsewhere, and in raw HTTP where those cannot look.

mod clients;
#[cfg(feature = "simulator")]
mod command;
mod faults;
pub(crate) mod http;
mod keys;
mod login;
mod query;
mod rows;

use salesforce_stand_in::{Options, Org, Seed};
use serde_json::{Value, json};

use http::Answer;
use keys::Keys;

const ALICE: &str = "005000000000002AAA";
const QUERY: &str = "/services/data/v67.0/query";

/// The org of these tests: small pages, one user who may see everything and one who may not.
fn seed(keys: &Keys) -> Value {
    let mut seed: Value = serde_json::from_str(salesforce_stand_in::DEMO_SEED).unwrap();
    seed["organization"]["batch_size"] = json!(2);
    seed["clients"] = json!([
        { "client_id": "secret-client", "client_secret": "a secret", "run_as": "writer@example.com" },
        {
            "client_id": "jwt-client", "client_secret": "another", "certificate": keys.certificate(),
            "users": ["reader@example.com", "gone@example.com", "api-off@example.com"],
        },
        { "client_id": "refresh-only", "client_secret": "x", "run_as": "writer@example.com", "scope": "refresh_token" },
    ]);
    let users = seed["users"].as_array_mut().unwrap();
    users.extend([
        json!({ "username": "writer@example.com", "id": "005000000000004", "view_encrypted_data": true }),
        json!({ "username": "reader@example.com", "id": "005000000000005" }),
        json!({ "username": "gone@example.com", "id": "005000000000006", "active": false }),
        json!({ "username": "api-off@example.com", "id": "005000000000007", "api_enabled": false }),
    ]);
    let fields = seed["objects"][0]["fields"].as_array_mut().unwrap();
    let adfs = fields.iter_mut().find(|it| it["name"] == "ADFS_Username__c").unwrap();
    adfs["hidden_from"] = json!(["reader@example.com"]);
    seed["records"]["Account"] = ["B", "A", "D", "C", "E"].iter().map(|it| json!({ "Name": it })).collect();
    seed["records"]["Contact"] = json!([{ "LastName": "O'Neil \\ \"Söhne\"", "Phone": "1" }]);
    seed
}

/// An org that runs, and how to ask it.
struct Fixture {
    org: Org,
    keys: Keys,
}

impl Fixture {
    async fn start() -> Self {
        Self::with(false, |_| {}).await
    }

    /// With what a test needs otherwise.
    async fn with(tls: bool, change: impl FnOnce(&mut Value)) -> Self {
        let keys = Keys::make();
        let mut seed = seed(&keys);
        change(&mut seed);
        let seed = Seed::parse(&seed.to_string()).unwrap();
        let org = Org::start(Options { listen: "127.0.0.1:0".parse().unwrap(), tls, seed }).await.unwrap();
        Self { org, keys }
    }

    async fn ask(&self, method: &str, target: &str, headers: &str, body: &str) -> Answer {
        http::ask(&self.org.url(), method, target, headers, body).await
    }

    async fn form(&self, target: &str, body: &str) -> Answer {
        self.ask("POST", target, "content-type: application/x-www-form-urlencoded\r\n", body).await
    }

    /// The token of the user who may see everything.
    async fn writer(&self) -> String {
        let body = "grant_type=client_credentials&client_id=secret-client&client_secret=a+secret";
        self.form("/services/oauth2/token", body).await.json()["access_token"].as_str().unwrap().to_owned()
    }

    /// The token of the user from whom a field is hidden, and who sees masks.
    async fn reader(&self) -> String {
        let granted = self.assert_login(&login::claims(json!({}))).await.json();
        granted["access_token"].as_str().unwrap().to_owned()
    }

    async fn assert_login(&self, claims: &Value) -> Answer {
        let assertion = self.keys.assertion(&json!({ "alg": "RS256" }), claims);
        let grant = "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer";
        self.form("/services/oauth2/token", &format!("grant_type={grant}&assertion={assertion}")).await
    }

    async fn get(&self, token: &str, target: &str) -> Answer {
        self.ask("GET", target, &format!("authorization: Bearer {token}\r\n"), "").await
    }

    async fn send(&self, method: &str, token: &str, target: &str, body: &Value) -> Answer {
        let headers = format!("authorization: Bearer {token}\r\ncontent-type: application/json\r\n");
        self.ask(method, target, &headers, &body.to_string()).await
    }

    async fn query(&self, token: &str, soql: &str) -> Answer {
        self.get(token, &format!("{QUERY}?q={}", http::encoded(soql))).await
    }
}
