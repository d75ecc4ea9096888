//! Who may join a cluster.

use std::process::{Output, Stdio};

use tokio::process::Command;

use super::servers::{KEY, Servers};
use crate::support::Broker;

/// How long a broker may take to say that it will not start.
const TIME: std::time::Duration = std::time::Duration::from_secs(30);

/// Another key of a cluster.
const NEW: &str = "ff01020304050607ff090a0b0c0d0e0fff11121314151617ff191a1b1c1d1e1f";

/// Starts a broker that will not run, and returns what it said.
async fn refused(toml: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("switchboard.toml");
    std::fs::write(&file, format!("{toml}\n[auth]\nmode = \"open\"\n[admin]\nlisten = []\n")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(folder.path().join("data"));
    command.arg("--config").arg(file).stdin(Stdio::null()).kill_on_drop(true);
    tokio::time::timeout(TIME, command.output()).await.expect("it runs").unwrap()
}

#[track_caller]
fn check(output: &Output, code: i32, words: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for words in words {
        assert!(text.contains(words), "{words:?} is not in:\n{text}");
    }
}

#[tokio::test]
async fn a_node_that_does_not_fit_its_cluster_does_not_start() {
    let Some(servers) = Servers::start(1).await else { return };
    let _first = servers.node("first", 0).await;
    let other = servers.table("other", 0);
    let (differs, same_name, unknown_key) = tokio::join!(
        async { refused(&format!("limits.message_bytes = 4096\n{other}")).await },
        async { refused(&servers.table("first", 0)).await },
        async { refused(&servers.table_with_keys("other", NEW)).await },
    );
    check(&differs, 2, &["limits.message_bytes", "'first'"]);
    check(&same_name, 2, &["cluster.node", "'first'"]);
    check(&unknown_key, 2, &["cluster.key_file"]);
}

#[tokio::test]
async fn a_node_without_nats_does_not_start() {
    let Some(mut servers) = Servers::start(1).await else { return };
    servers.kill(0).await;
    let url = servers.url(0);
    check(&refused(&servers.table("node", 0)).await, 3, &["cluster.servers", &url]);
}

/// An event from one node arrives on another.
async fn check_linked(one: &Broker, other: &Broker) {
    let mut crm = other.app_of("crm", "alice").await;
    crm.subscribe("Calls/*/*").await;
    one.app_of("phone", "alice").await.publish("Calls/Call/Ringing", 1).await;
    crm.next_on("Calls/Call/Ringing").await;
    crm.close().await;
}

#[tokio::test]
async fn a_node_that_live_ones_cannot_open_does_not_start() {
    let Some(servers) = Servers::start(1).await else { return };
    let (first, second) = tokio::join!(servers.node("first", 0), servers.node("second", 0));
    check_linked(&first, &second).await;
    check(
        &refused(&servers.table_with_keys("third", &format!("{NEW}\n{KEY}"))).await,
        2,
        &["cluster.key_file", "node '"],
    );
    check(&refused(&servers.table_with_keys("third", NEW)).await, 2, &["cluster.key_file"]);
    check_linked(&first, &second).await;
    for node in [&first, &second] {
        let log = node.log();
        assert!(!log.contains("third") && !log.contains("another node is lost"), "{log}");
    }
}

#[tokio::test]
async fn a_key_is_changed_in_three_rolling_restarts() {
    let Some(servers) = Servers::start(1).await else { return };
    let keys = [KEY.to_owned(), format!("{KEY}\n{NEW}"), format!("{NEW}\n{KEY}"), NEW.to_owned()];
    let start = async |node: &str, keys: &str| Broker::open_with(&servers.table_with_keys(node, keys)).await;
    let (mut one, mut two) = (start("one", &keys[0]).await, start("two", &keys[0]).await);
    for keys in &keys[1..] {
        drop(one);
        one = start("one", keys).await;
        check_linked(&one, &two).await;
        drop(two);
        two = start("two", keys).await;
        check_linked(&one, &two).await;
    }
}
