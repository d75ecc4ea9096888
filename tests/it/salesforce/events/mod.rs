//! Events from an org: a real broker subscribes to the stand-in org, and applications to the broker.

mod caches;
mod delivery;
mod faults;
mod nodes;
mod reload;
mod restart;

use std::fs;
use std::time::Duration;

use salesforce_stand_in::{Options, Org, Seed};
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Broker, Peer, application, secret_file, within};

const ALICE: &str = "005000000000002AAA";
const BOB: &str = "005000000000003AAA";

const NOTICES: &str = "/event/CTI_Notice__e";
const NOTICE: &str = "Salesforce/PlatformEvent/CTI_Notice__e";

/// A topic whose events are one user's.
const OWN: &str = "[salesforce.events.topics.notice]\ntopic = \"/event/CTI_Notice__e\"\nuser_field = \"User_Id__c\"\n";

/// A topic whose events are everybody's.
const SHARED: &str = "[salesforce.events.topics.notice]\ntopic = \"/event/CTI_Notice__e\"\n";

/// An org, and the secret that logs the broker in.
struct Stage {
    org: Org,
    folder: TempDir,
}

impl Stage {
    async fn start() -> Self {
        Self::with(false).await
    }

    async fn with(tls: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        secret_file(folder.path().join("secret"), "demo-secret");
        let listen = "127.0.0.1:0".parse().unwrap();
        let org = Org::start(Options { listen, tls, seed: Seed::demo().unwrap() }).await.unwrap();
        if let Some(pem) = org.ca_pem() {
            fs::write(folder.path().join("ca.pem"), pem).unwrap();
        }
        Self { org, folder }
    }

    /// The broker's configuration: two users with an application each, a service, and these topics.
    fn config(&self, topics: &str) -> String {
        let (url, folder) = (self.org.url(), self.folder.path().display());
        let more = match self.org.ca_pem() {
            Some(_) => format!("ca_file = \"{folder}/ca.pem\""),
            None => "insecure_http = true".to_owned(),
        };
        let applications = [
            application("alice-desk", Some(ALICE), ""),
            application("alice-crm", Some(ALICE), ""),
            application("bob-desk", Some(BOB), ""),
            application("cti", None, ""),
        ];
        format!(
            "{}\n[salesforce]\nlogin_url = \"{url}\"\nclient_id = \"demo\"\nclient_secret_file = \"{folder}/secret\"\n\
             instance_hosts = [\"127.0.0.1\"]\n{more}\n[salesforce.events]\nendpoint = \"{url}\"\nsettle = \"0s\"\n{topics}",
            applications.concat()
        )
    }

    /// A broker that listens.
    async fn broker(&self, topics: &str) -> Broker {
        let broker = Broker::with_config(&self.config(topics)).await;
        self.streams(NOTICES, 1).await;
        broker
    }

    /// Waits until this number of streams listen to a topic.
    async fn streams(&self, topic: &str, number: usize) {
        let mut often = tokio::time::interval(Duration::from_millis(5));
        within("streams", async {
            while self.org.streams(topic) != number {
                often.tick().await;
            }
        })
        .await;
    }

    /// How often a topic was subscribed to.
    fn subscriptions(&self) -> usize {
        self.org.seen().iter().filter(|seen| seen.path.ends_with("/Subscribe")).count()
    }

    /// Publishes a notice for a user.
    fn notice(&self, user: &str, message: &str) {
        self.publish(&json!({ "User_Id__c": user, "Message__c": message }));
    }

    fn publish(&self, record: &Value) {
        let record: Map<String, Value> = record.as_object().unwrap().clone();
        self.org.publish(NOTICES, &record).unwrap();
    }

    /// Changes a record as a client of the org does.
    async fn send(&self, method: &str, path: &str, body: &Value) {
        let form = "grant_type=client_credentials&client_id=demo&client_secret=demo-secret";
        let kind = "content-type: application/x-www-form-urlencoded\r\n";
        let granted = self.ask("POST", "/services/oauth2/token", kind, form).await;
        let token = granted["access_token"].as_str().unwrap();
        let headers = format!("authorization: Bearer {token}\r\ncontent-type: application/json\r\n");
        self.ask(method, &format!("/services/data/v67.0/sobjects/{path}"), &headers, &body.to_string()).await;
    }

    async fn ask(&self, method: &str, target: &str, headers: &str, body: &str) -> Value {
        let (url, length) = (self.org.url(), body.len());
        let host = url.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(host).await.unwrap();
        let head = format!("host: {host}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n");
        stream.write_all(format!("{method} {target} HTTP/1.1\r\n{head}{body}").as_bytes()).await.unwrap();
        let mut answer = String::new();
        within("an answer", stream.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 2"), "{answer}");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap_or_default()
    }
}

/// An application that subscribed.
async fn listener(broker: &Broker, source: &str, pattern: &str) -> Peer {
    let mut peer = broker.app_by_token(source).await;
    peer.subscribe(pattern).await;
    peer
}

/// The next notice's message.
async fn next_message(peer: &mut Peer) -> String {
    peer.next_on(NOTICE).await["data"]["Message__c"].as_str().unwrap().to_owned()
}
