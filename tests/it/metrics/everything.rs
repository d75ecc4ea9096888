//! [`Everything`]: a broker that uses everything that has metrics, and [`Scrape`]: what it answers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use salesforce_stand_in::{DEMO_SEED, Options, Org, Seed};
use serde_json::json;

use crate::auth::key_server::KeyServer;
use crate::auth::signing::{RSA, Signer};
use crate::support::http::{Response, http};
use crate::support::tls::TlsFiles;
use crate::support::{Broker, DEADLINE, application, envelope, secret_file};

/// A broker with all kinds of listeners, an issuer of JWTs, an org, and a durable channel.
pub(super) struct Everything {
    broker: Broker,
    admin: SocketAddr,
    _org: Org,
    _keys: KeyServer,
    _files: TlsFiles,
}

impl Everything {
    pub(super) async fn start() -> Self {
        let (listen, seed) = ("127.0.0.1:0".parse().unwrap(), Seed::parse(DEMO_SEED).unwrap());
        let org = Org::start(Options { listen, tls: false, seed }).await.unwrap();
        let keys = KeyServer::with(&[Signer::rsa(RSA).jwk(json!({ "kid": "k" }))]).await;
        let files = TlsFiles::new();
        secret_file(files.path("secret"), "demo-secret");
        let toml = [
            "[admin]\nlisten = ['127.0.0.1:0']\n".to_owned(),
            application("softphone", Some("005000000000001AAA"), ""),
            format!(
                "[auth.jwt.corp]\nissuer = 'https://login.example.com/'\naudience = ['switchboard']\nuser = 'sub'\n\
                 sources = ['crm']\nrole = 'agent'\nalgorithms = ['RS256']\njwks_url = '{}'\n[roles.agent]\n\
                 publish = ['*/*/*']\nsubscribe = ['*/*/*']\nrequest = ['*/*/*']\nhandle = []\n",
                keys.url()
            ),
            files.table(&format!(
                "listen = ['127.0.0.1:0']\nclient_listen = ['127.0.0.1:0']\nclient_ca_file = '{}'",
                files.path("ca.pem").display()
            )),
            format!(
                "[credentials]\nstore = 'salesforce'\n[salesforce]\nlogin_url = '{}'\nclient_id = 'demo'\n\
                 client_secret_file = '{}'\ninstance_hosts = ['127.0.0.1']\ninsecure_http = true\n",
                org.url(),
                files.path("secret").display()
            ),
            "[channels.Queue]\nscope = 'shared'\nhistory = { size = 10, ttl = '1m', durable = true }\n".to_owned(),
        ];
        let broker = Broker::with_config(&toml.concat()).await;
        let admin = broker.admin().await;
        let everything = Self { broker, admin, _org: org, _keys: keys, _files: files };
        everything.use_all().await;
        everything
    }

    /// Calls the org, so that there is a token and the org has said how many calls are left; waits for the keys.
    async fn use_all(&self) {
        let mut softphone = self.broker.app_by_token("softphone").await;
        let mut fetch = envelope("Salesforce/User/FetchCredentials", json!({}));
        fetch["id"] = "f".into();
        softphone.send(fetch).await;
        softphone.next_answer("Salesforce/User/FetchCredentials", "f").await;
        let metric = "switchboard_jwks_fetched_timestamp_seconds";
        let mut often = tokio::time::interval(std::time::Duration::from_millis(20));
        tokio::time::timeout(DEADLINE, async {
            while !self.scrape().await.text.contains(&format!("\n{metric}{{")) {
                often.tick().await;
            }
        })
        .await
        .unwrap();
    }

    /// All metrics, in the text format.
    pub(super) async fn scrape(&self) -> Scrape {
        scrape(&self.broker, self.admin).await
    }
}

/// Asks for `/metrics` with the token of the data folder and these headers.
pub(super) async fn ask(broker: &Broker, admin: SocketAddr, headers: &str) -> Response {
    let token = std::fs::read_to_string(broker.data_dir().join("admin.token")).unwrap();
    let head = format!(
        "GET /metrics HTTP/1.1\r\nHost: {admin}\r\nAuthorization: Bearer {}\r\nConnection: close\r\n{headers}\r\n",
        token.trim()
    );
    http(admin, &head).await
}

/// All metrics of a broker, in the text format.
pub(super) async fn scrape(broker: &Broker, admin: SocketAddr) -> Scrape {
    let response = ask(broker, admin, "").await;
    assert_eq!(response.status, 200, "{}", response.body);
    Scrape { text: response.body }
}

/// The labels of each metric, and their values.
pub(super) type Labels = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// An answer in the text format.
pub(super) struct Scrape {
    text: String,
}

impl Scrape {
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The value of a sample, by its name and labels as they are written.
    #[track_caller]
    pub(super) fn value(&self, sample: &str) -> f64 {
        let line = self.text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{sample} is not in\n{}", self.text)).parse().unwrap()
    }

    /// The labels of each metric, and the values of each.
    pub(super) fn labels(&self) -> Labels {
        let mut labels = Labels::new();
        for line in self.text.lines().filter(|line| !line.starts_with('#')) {
            let (sample, _) = line.rsplit_once(' ').unwrap();
            let (name, pairs) = sample.split_once('{').unwrap_or((sample, ""));
            let of_metric = labels.entry(name.to_owned()).or_default();
            for pair in pairs.trim_end_matches('}').split("\",").filter(|it| !it.is_empty()) {
                let (label, value) = pair.split_once("=\"").unwrap();
                of_metric.entry(label.to_owned()).or_default().insert(value.trim_end_matches('"').to_owned());
            }
        }
        labels
    }
}
