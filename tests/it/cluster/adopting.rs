//! What one broker kept, when it becomes a node.

use std::process::Stdio;

use serde_json::json;
use tokio::process::Command;

use crate::support::{Broker, envelope, secret_file, within};

const CHANNELS: &str = r#"
[channels.Phone]
history = { size = 1000, ttl = "10m", durable = true }
[channels.Queue]
scope = "shared"
history = { size = 1000, ttl = "10m", durable = true }
[channels.State]
retain = "durable"
[auth]
mode = "open"
[admin]
listen = []
"#;

/// What a program said.
struct Said {
    code: Option<i32>,
    out: String,
    error: String,
}

/// Runs a command with the file and the folder of a broker.
async fn run(broker: &Broker, arguments: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
    command.args(arguments).arg("--config").arg(broker.data_dir().with_file_name("switchboard.toml"));
    command.env("SWITCHBOARD__DATA_DIR", broker.data_dir());
    let output = within("the command", command.stdin(Stdio::null()).kill_on_drop(true).output()).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code(), out: text(output.stdout), error: text(output.stderr) }
}

/// Ends a broker, and gives its file `[cluster]`.
async fn become_node(broker: &mut Broker, table: &str) {
    broker.terminate().await;
    assert_eq!(broker.exit_code().await, Some(0));
    broker.configure(&format!("{table}{CHANNELS}"));
}

/// `[cluster]` with servers that nobody has to reach.
fn table(broker: &Broker) -> String {
    let key = broker.data_dir().with_file_name("cluster.key");
    secret_file(&key, "0b".repeat(32));
    let servers = "servers = ['nats://127.0.0.1:1']";
    format!("[cluster]\nname = 'test'\nnode = 'one'\n{servers}\nkey_file = '{}'\n", key.display())
}

#[tokio::test]
async fn a_node_does_not_start_while_its_folder_has_what_one_broker_kept() {
    let mut broker = Broker::with_config(CHANNELS).await;
    let mut cti = broker.app_of("cti", "alice").await;
    for triple in ["Phone/Call/Ringing", "Queue/Call/Waiting", "State/Agent/Mood"] {
        let retain = triple.starts_with("State");
        cti.send(envelope(triple, json!({ "id": triple, "data": "ready", "retain": retain }))).await;
        cti.next_receipt(triple).await;
    }
    let running = run(&broker, &["cluster", "adopt", "--discard"]).await;
    assert!(running.code == Some(2) && running.error.contains("stop it first"), "{}", running.error);
    let table = table(&broker);
    become_node(&mut broker, &table).await;
    let history = broker.data_dir().join("history.redb");
    let before = std::fs::read(&history).unwrap();
    for command in ["serve", "check"] {
        let Said { code, out, error } = run(&broker, &[command]).await;
        let text = format!("{out}{error}");
        assert!(code == Some(2) && text.contains("switchboard cluster adopt"), "{command}: {text}");
        assert!(text.contains("2 logs with 2 events, and 1 retained values"), "{command}: {text}");
    }
    assert!(std::fs::read(&history).unwrap() == before, "the file was changed");

    let aside = run(&broker, &["cluster", "adopt", "--discard"]).await;
    assert!(aside.code == Some(0) && aside.out.contains("history.redb.discarded-"), "{}{}", aside.out, aside.error);
    let path = aside.out.trim().rsplit_once(' ').unwrap().1;
    assert!(std::fs::read(path).unwrap() == before && !history.exists());
    let check = run(&broker, &["check"]).await;
    assert_eq!(check.code, Some(0), "{}", check.out);
    let again = run(&broker, &["cluster", "adopt", "--discard"]).await;
    assert!(again.code == Some(0) && again.error.contains("there is no history"), "{}", again.error);
}
