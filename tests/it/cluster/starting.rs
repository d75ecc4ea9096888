//! Who may join a cluster.

use std::process::{Output, Stdio};

use tokio::process::Command;

use super::servers::Servers;

/// How long a broker may take to say that it will not start.
const TIME: std::time::Duration = std::time::Duration::from_secs(30);

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
        async {
            let key = servers.key_file(&"f".repeat(64));
            let table: Vec<_> = other.lines().filter(|line| !line.starts_with("key_file")).collect();
            refused(&format!("{}\nkey_file = \"{}\"\n", table.join("\n"), key.display())).await
        },
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
