//! What operators ask one node, and all nodes do: `switchboard explain` and `switchboard close` on real NATS servers.

use std::process::{Output, Stdio};

use serde_json::{Value, json};
use tokio::process::Command;

use super::servers::Servers;
use crate::admin::{Answer, TOKENS, call_with};
use crate::support::{Broker, Peer, secret_file, within};

/// Two nodes with admin listeners, on one NATS server.
struct Site {
    one: Broker,
    two: Broker,
    _servers: Servers,
}

impl Site {
    async fn start() -> Option<Self> {
        let servers = Servers::start(1).await?;
        let [(one, _), (two, _)] = servers.administered(TOKENS).await;
        for name in ["reader", "actor"] {
            secret_file(one.data_dir().join(name), name);
        }
        Some(Self { one, two, _servers: servers })
    }

    /// Calls the first node with a token.
    async fn call(&self, token: &str, path: &str, body: &Value) -> Answer {
        let bearer = format!("Bearer {token}");
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
        call_with(self.one.admin().await, "POST", path, &headers, Some(&body.to_string())).await
    }

    /// Runs a command for the first node with a token.
    async fn run(&self, token: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
        command.args(arguments).args(["--admin", &format!("http://{}", self.one.admin().await), "--admin-token-file"]);
        command.arg(self.one.data_dir().join(token)).stdin(Stdio::null()).kill_on_drop(true);
        within("a command", command.output()).await.unwrap()
    }

    /// An application on each node.
    async fn peers(&self) -> (Peer, Peer) {
        (self.one.app_of("crm", "alice").await, self.two.app_of("phone", "alice").await)
    }
}

/// The question why the phone does not get what the CRM publishes.
fn question() -> Value {
    json!({
        "as": { "source": "crm" },
        "envelope": { "channel": "Calls", "topic": "Call", "subtopic": "Ringing" },
        "to": { "source": "phone" }
    })
}

#[tokio::test]
async fn explain_on_one_node_is_told_about_applications_of_others() {
    let Some(site) = Site::start().await else { return };
    let (mut crm, mut phone) = site.peers().await;
    phone.subscribe("Calls/call/*").await;
    let answer = site.call("reader", "/v1/explain", &question()).await.json();
    let row = &answer["others"][0];
    assert_eq!(
        (&row["reason"], &row["node"], &row["also"]),
        (&json!("ELSEWHERE"), &json!("two"), &json!(["NO_MATCH"]))
    );
    assert_eq!(row["nearest"], json!({ "name": "Calls/call/*", "differs": "CASE" }), "{answer}");
    let envelope = question()["envelope"].clone();
    let reply = crm.command("Message", "Explain", json!({ "envelope": envelope, "to": { "source": "phone" } })).await;
    let row = &reply["data"]["Others"][0];
    assert_eq!((&row["Reason"], &row["Node"]), (&json!("ELSEWHERE"), &json!("two")), "{reply}");

    phone.subscribe("Calls/*/*").await;
    let output = site
        .run("reader", &["explain", "Calls", "Call", "Ringing", "--source", "crm", "--user", "alice", "--to", "phone"])
        .await;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("Receives it from another node:"), "{output:?}");
    assert!(
        text.contains("phone of alice: ELSEWHERE, it is connected to two, and receives it there, by Calls/*/*"),
        "{text}"
    );
    let of_two = json!({ "as": { "source": "phone" }, "envelope": question()["envelope"] });
    let answer = site.call("reader", "/v1/explain", &of_two).await.json();
    assert!(answer["detail"].as_str().unwrap().contains("the node 'two'"), "{answer}");

    // A node that stands still makes the answer partial, and does not delay it until it is lost.
    site.two.signal("STOP").await;
    let answer = site.call("reader", "/v1/explain", &question()).await.json();
    assert_eq!((&answer["partial"], &answer["others"][0]["node"]), (&json!(true), &json!("two")), "{answer}");
    site.two.signal("CONT").await;
}

#[tokio::test]
async fn close_on_one_node_closes_the_sessions_of_all() {
    let Some(site) = Site::start().await else { return };
    let (mut crm, mut phone) = site.peers().await;
    let mut bobs = site.two.app_of("phone", "bob").await;
    // A token that may only read closes nothing anywhere.
    let body = json!({ "source": "phone", "user": "alice", "reason": "left the desk" });
    assert_eq!(site.call("reader", "/v1/sessions/close", &body).await.json()["code"], "FORBIDDEN");
    assert_eq!(site.call("guess", "/v1/sessions/close", &body).await.status, 401);
    phone.fence().await;
    let output =
        site.run("actor", &["close", "--source", "phone", "--user", "alice", "--reason", "left the desk"]).await;
    assert_eq!(String::from_utf8_lossy(&output.stdout), "closed 1 session\n", "{output:?}");
    assert_eq!((phone.closed().await, phone.close_reason()), (4410, "left the desk"));
    bobs.fence().await;
    site.two.log_until("the close", |log| log.contains("an admin of another node closed sessions")).await;

    // The node that does not answer is named.
    site.two.signal("STOP").await;
    let body = json!({ "source": "crm", "reason": "maintenance", "reconnect": true });
    let answer = site.call("actor", "/v1/sessions/close", &body).await.json();
    assert_eq!(answer, json!({ "closed": 1, "partial": true, "unanswered": ["two"] }));
    assert_eq!(crm.until_closed().await.1, 1012);
    site.two.signal("CONT").await;
}
