//! `switchboard reload --cluster`: all nodes, or none.

use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::Command;

use super::servers::Servers;
use crate::support::{Broker, Peer, within};

const IN_FORCE: &str = "the configuration was reloaded";

/// Two nodes, and what their files begin with.
struct Site {
    nodes: [(Broker, String); 2],
    _servers: Servers,
}

impl Site {
    async fn start() -> Option<Self> {
        let servers = Servers::start(1).await?;
        let site = Self { nodes: servers.administered("").await, _servers: servers };
        // The beat with which the second node says that it accepts sessions may be under way.
        let mut often = tokio::time::interval(Duration::from_millis(20));
        within("a live second node", async {
            while !site.sees_a_live_node().await {
                often.tick().await;
            }
        })
        .await;
        Some(site)
    }

    async fn sees_a_live_node(&self) -> bool {
        let (node, _) = &self.nodes[0];
        let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
        command.args(["nodes", "--json", "--admin", &format!("http://{}", node.admin().await), "--data-dir"]);
        let output = command.arg(node.data_dir()).stdin(Stdio::null()).kill_on_drop(true).output().await.unwrap();
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        said["nodes"].as_array().unwrap().iter().any(|it| it["live"] == true)
    }

    /// Writes what the files of both nodes end with.
    fn configure(&self, ends: [&str; 2]) {
        for ((node, table), end) in self.nodes.iter().zip(ends) {
            node.configure(&format!("{table}{end}"));
        }
    }

    /// Reloads all nodes by the first one.
    async fn reload(&self, arguments: &[&str]) -> Output {
        let (node, _) = &self.nodes[0];
        let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
        command.args(["reload", "--cluster", "--admin", &format!("http://{}", node.admin().await), "--data-dir"]);
        command.arg(node.data_dir()).args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        within("a reload", command.output()).await.unwrap()
    }

    /// Reloads all nodes, which is refused with these words, and nothing changes.
    async fn refused(&self, words: &[&str]) {
        let before = self.reloads();
        let output = self.reload(&[]).await;
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{text}");
        for words in words {
            assert!(text.contains(words), "{words:?} is not in:\n{text}");
        }
        assert_eq!(self.reloads(), before, "nothing has changed on any node");
    }

    /// How many reloads were put in force on each node.
    fn reloads(&self) -> [usize; 2] {
        self.nodes.each_ref().map(|(node, _)| node.log().matches(IN_FORCE).count())
    }

    async fn peers(&self) -> (Peer, Peer) {
        let [(one, _), (two, _)] = &self.nodes;
        (one.app_of("queue", "alice").await, two.app_of("desk", "bob").await)
    }
}

#[tokio::test]
async fn a_reload_of_the_cluster_is_put_in_force_on_all_nodes_or_on_none() {
    const SHARED: &str = "[channels.Queue]\nscope = 'shared'\n";
    let Some(site) = Site::start().await else { return };
    site.configure([SHARED, ""]);
    site.refused(&["channels.Queue.scope", "'two'"]).await;
    site.configure([SHARED, "[limits]\nrate = 'fast'\n"]);
    site.refused(&["limits.rate", "'two'"]).await;
    site.configure([SHARED, SHARED]);
    let output = site.reload(&["--dry-run"]).await;
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("would change"), "{output:?}");
    assert_eq!(site.reloads(), [0, 0], "a dry run changes nothing");
    let (mut alice, mut bob) = site.peers().await;
    bob.subscribe("Queue/*/*").await;
    alice.subscribe("Queue/*/*").await;

    let output = site.reload(&[]).await;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("changed: channels.Queue.scope"), "{output:?}");
    assert_eq!(site.reloads(), [1, 1]);
    for peer in [&mut alice, &mut bob] {
        let ended = peer.next_on("Broker/Subscription/Ended").await;
        assert_eq!(ended["data"]["Reason"], "SCOPE", "{ended}");
    }
    bob.subscribe("Queue/*/*").await;
    alice.send(json!({ "channel": "Queue", "topic": "Agent", "subtopic": "Ready", "data": 7 })).await;
    let event = bob.next_on("Queue/Agent/Ready").await;
    assert_eq!((&event["user"], &event["data"]), (&json!("alice"), &json!(7)), "{event}");

    // A node that starts now has to have the new value, and one that does not answer fails the reload.
    site.configure([SHARED, SHARED]);
    let [(_, _), (two, _)] = &site.nodes;
    two.signal("STOP").await;
    site.refused(&["'two'", "nothing has changed on any node"]).await;
    two.signal("CONT").await;
}

#[tokio::test]
async fn a_broker_alone_has_no_cluster_to_reload() {
    let broker = Broker::with_config("[auth]\nmode = 'open'\n[admin]\nlisten = ['127.0.0.1:0']\n").await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
    command.args(["reload", "--cluster", "--admin", &format!("http://{}", broker.admin().await), "--data-dir"]);
    let output = within("a reload", command.arg(broker.data_dir()).output()).await.unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("[cluster]"), "{text}");
}
