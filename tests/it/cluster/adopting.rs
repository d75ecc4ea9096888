//! What one broker kept, when it becomes a node.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::process::Command;

use super::servers::Servers;
use crate::support::{Broker, Peer, envelope, secret_file, within};

const CHANNELS: &str = r#"
[limits]
rate = 0
message_bytes = 65536
[channels.Phone]
history = { size = 1000, ttl = "10m", durable = true }
[channels.Queue]
scope = "shared"
history = { size = 1000, ttl = "10m", durable = true }
[channels.Board]
scope = "shared"
history = { size = 2, ttl = "10m", durable = true }
[channels.Desk]
scope = "shared"
history = { size = 1000, ttl = "10m", durable = true }
[channels.State]
retain = "durable"
[auth]
mode = "open"
[admin]
listen = []
"#;

const PHONE: &str = "Phone/Call/Ringing";
const QUEUE: &str = "Queue/Call/Waiting";
const BOARD: &str = "Board/Call/Waiting";
const DESK: &str = "Desk/Call/Waiting";
const STATE: &str = "State/Agent/Mood";

/// A text that must not be in a file of NATS in the clear, nor in what the command prints.
const CANARY: &str = "canary-51f0";

/// What a program said.
pub(super) struct Said {
    pub(super) code: Option<i32>,
    pub(super) out: String,
    pub(super) error: String,
}

/// Runs a command with the file and the folder of a broker.
pub(super) async fn run(broker: &Broker, arguments: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
    command.args(arguments).arg("--config").arg(broker.data_dir().with_file_name("switchboard.toml"));
    command.env("SWITCHBOARD__DATA_DIR", broker.data_dir());
    let output = within("the command", command.stdin(Stdio::null()).kill_on_drop(true).output()).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code(), out: text(output.stdout), error: text(output.stderr) }
}

/// Publishes an event, and returns its position: offset and epoch.
async fn publish(peer: &mut Peer, triple: &str, more: Value) -> (u64, Value) {
    let mut fields = json!({ "id": "e", "data": CANARY });
    fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    peer.send(envelope(triple, fields)).await;
    let receipt = peer.next_on("Broker/Message/Receipt").await;
    (receipt["data"]["Offset"].as_u64().unwrap_or_default(), receipt["data"]["Epoch"].clone())
}

/// Recovers what follows a position. Returns the reply, and the offsets that were replayed.
async fn recover(broker: &Broker, user: &str, triple: &str, epoch: &Value, offset: u64) -> (Value, Vec<u64>) {
    let mut peer = broker.app_of("reader", user).await;
    let recover = json!({ "recover": { "epoch": epoch, "offset": offset } });
    let reply = peer.command("Subscription", "Subscribe", envelope(triple, recover)).await["data"].clone();
    let mut offsets = Vec::new();
    for _ in 0..reply["Replayed"].as_u64().unwrap_or_default() {
        offsets.push(peer.next_on(triple).await["offset"].as_u64().unwrap());
    }
    peer.close().await;
    (reply, offsets)
}

/// The values that a new subscriber of a node receives.
async fn values(broker: &Broker, user: &str) -> Vec<Value> {
    let mut peer = broker.app_of("reader", user).await;
    peer.subscribe("State/*/*").await;
    let values = peer.drain_events().await.iter().map(|it| it["data"].clone()).collect();
    peer.close().await;
    values
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
    for triple in [PHONE, QUEUE, STATE] {
        publish(&mut cti, triple, json!({ "retain": triple == STATE })).await;
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

#[tokio::test]
async fn without_nats_the_history_stays() {
    let mut broker = Broker::with_config(CHANNELS).await;
    publish(&mut broker.app_of("cti", "alice").await, PHONE, json!({})).await;
    let table = table(&broker);
    become_node(&mut broker, &table).await;
    let history = broker.data_dir().join("history.redb");
    let before = std::fs::read(&history).unwrap();
    let adopted = run(&broker, &["cluster", "adopt"]).await;
    assert!(adopted.code == Some(3) && adopted.error.contains("cluster.servers"), "{}{}", adopted.out, adopted.error);
    assert!(std::fs::read(&history).unwrap() == before, "the file was changed");
    broker.configure(CHANNELS);
    let adopted = run(&broker, &["cluster", "adopt"]).await;
    assert!(adopted.code == Some(2) && adopted.error.contains("no [cluster]"), "{}{}", adopted.out, adopted.error);
}

#[tokio::test]
async fn what_one_broker_kept_is_served_by_all_nodes() {
    let Some(servers) = Servers::start(1).await else { return };
    let mut broker = Broker::with_config(CHANNELS).await;
    let (mut alice, mut bob) = (broker.app_of("cti", "alice").await, broker.app_of("cti", "bob").await);
    let mut epochs = Vec::new();
    for triple in [PHONE, QUEUE, BOARD] {
        for offset in 1..=4 {
            let position = publish(&mut alice, triple, json!({ "once": true, "id": format!("call {offset}") })).await;
            assert_eq!(position.0, offset);
            epochs.push(position.1);
        }
    }
    let (phone, queue, board) = (&epochs[0], &epochs[4], &epochs[8]);
    let (_, bobs) = publish(&mut bob, PHONE, json!({})).await;
    publish(&mut alice, STATE, json!({ "retain": true, "data": format!("{CANARY} alice") })).await;
    publish(&mut bob, STATE, json!({ "retain": true, "data": format!("{CANARY} bob") })).await;
    become_node(&mut broker, &servers.table("one", 0)).await;
    let history = broker.data_dir().join("history.redb");
    let copy = std::fs::read(&history).unwrap();

    let adopted = run(&broker, &["cluster", "adopt"]).await;
    assert_eq!(adopted.code, Some(0), "{}{}", adopted.out, adopted.error);
    for words in
        ["4 logs complete", "11 events", "2 retained values put", "channel 'Board': its first events were gone"]
    {
        assert!(adopted.out.contains(words), "{words}: {}", adopted.out);
    }
    assert!(!adopted.out.contains(CANARY) && adopted.out.contains("history.redb.adopted-"), "{}", adopted.out);
    assert!(!history.exists() && !servers.have_on_disk(CANARY));

    // The copy as a second run after one whose end was lost.
    std::fs::write(&history, &copy).unwrap();
    let again = run(&broker, &["cluster", "adopt"]).await;
    assert_eq!(again.code, Some(0), "{}{}", again.out, again.error);
    assert!(again.out.contains("4 logs complete in the cluster; 0 events appended now"), "{}", again.out);
    assert!(again.out.contains("0 retained values put now, and 2 retained values by an earlier run"), "{}", again.out);

    // Nodes change the streams to what is configured. The logs stay as they are.
    let channels = CHANNELS.replace("size = 1000", "size = 2000");
    broker.configure(&format!("{}{channels}", servers.table("one", 0)));
    let one = broker.successor().await;
    let two = Broker::with_config(&format!("{}{channels}", servers.table("two", 0))).await;
    for node in [&one, &two] {
        for (triple, epoch) in [(PHONE, phone), (QUEUE, queue)] {
            let (reply, offsets) = recover(node, "alice", triple, epoch, 1).await;
            assert_eq!((&reply["Recovered"], &reply["Epoch"]), (&json!(true), epoch), "{triple}: {reply}");
            assert_eq!(offsets, [2, 3, 4], "{triple}");
        }
        assert_eq!(recover(node, "bob", PHONE, &bobs, 0).await.1, [1]);
        let (reply, _) = recover(node, "alice", BOARD, board, 3).await;
        assert_eq!((&reply["RecoverReason"], &reply["Offset"]), (&json!("EPOCH"), &json!(2)), "{reply}");
        assert_eq!(recover(node, "alice", BOARD, &reply["Epoch"], 0).await.1, [1, 2]);
        assert_eq!(values(node, "alice").await, [json!(format!("{CANARY} alice"))]);
        assert_eq!(values(node, "bob").await, [json!(format!("{CANARY} bob"))]);
    }
    let mut alice = two.app_of("cti", "alice").await;
    for (triple, epoch) in [(PHONE, phone), (QUEUE, queue)] {
        let repeated = publish(&mut alice, triple, json!({ "once": true, "id": "call 4" })).await;
        assert_eq!(repeated, (4, epoch.clone()), "{triple}: known by its id");
        assert_eq!(publish(&mut alice, triple, json!({})).await, (5, epoch.clone()), "{triple}");
    }
    publish(&mut alice, STATE, json!({ "retain": true, "data": "newer" })).await;

    // Nodes have gone on since: nothing is put over what they have.
    let mut one = one;
    become_node(&mut one, &servers.table("one", 0)).await;
    std::fs::write(&history, &copy).unwrap();
    let late = run(&one, &["cluster", "adopt"]).await;
    assert_eq!(late.code, Some(0), "{}{}", late.out, late.error);
    assert!(late.out.contains("4 logs complete in the cluster; 0 events appended now"), "{}", late.out);
    assert!(late.out.contains("1 retained value left out: the cluster has later ones"), "{}", late.out);
    assert_eq!(values(&two, "alice").await, [json!("newer")]);
}

#[tokio::test]
async fn logs_in_which_the_cluster_has_other_events_are_left_alone() {
    let Some(servers) = Servers::start(1).await else { return };
    let node = Broker::with_config(&format!("{}{CHANNELS}", servers.table("one", 0))).await;
    let mut alice = node.app_of("cti", "alice").await;
    let (_, epoch) = publish(&mut alice, PHONE, json!({})).await;
    publish(&mut alice, QUEUE, json!({})).await;
    publish(&mut alice, STATE, json!({ "retain": true, "data": "of the cluster" })).await;

    let mut broker = Broker::with_config(CHANNELS).await;
    let (mut alice, mut bob) = (broker.app_of("cti", "alice").await, broker.app_of("cti", "bob").await);
    for triple in [PHONE, QUEUE, DESK] {
        publish(&mut alice, triple, json!({})).await;
    }
    let (_, bobs) = publish(&mut bob, PHONE, json!({})).await;
    publish(&mut alice, STATE, json!({ "retain": true, "data": "of one broker" })).await;
    become_node(&mut broker, &servers.table("two", 0)).await;
    let adopted = run(&broker, &["cluster", "adopt"]).await;
    assert_eq!(adopted.code, Some(1), "{}{}", adopted.out, adopted.error);
    for words in [
        "1 log complete in the cluster; 1 event appended now",
        "1 retained value left out",
        "'alice' on channel 'Phone': not adopted: the log in the cluster has other events",
        "channel 'Queue': not adopted: the log in the cluster has other events",
        "channel 'Desk': not adopted: nodes of the cluster run",
    ] {
        assert!(adopted.out.contains(words), "{words}: {}", adopted.out);
    }
    assert!(adopted.error.contains("--discard") && broker.data_dir().join("history.redb").exists());
    assert_eq!(recover(&node, "bob", PHONE, &bobs, 0).await.1, [1]);
    assert_eq!(recover(&node, "alice", PHONE, &epoch, 0).await.1, [1]);
    assert_eq!(values(&node, "alice").await, [json!("of the cluster")]);

    // Without a node, there is one cause less.
    drop(node);
    let adopted = run(&broker, &["cluster", "adopt"]).await;
    assert!(adopted.code == Some(1) && !adopted.out.contains("channel 'Desk'"), "{}{}", adopted.out, adopted.error);
}

#[tokio::test]
async fn an_adoption_that_was_killed_goes_on() {
    const EVENTS: u64 = 800;
    let Some(servers) = Servers::start(1).await else { return };
    let mut broker = Broker::with_config(CHANNELS).await;
    let mut alice = broker.app_of("cti", "alice").await;
    let mut epochs = Vec::new();
    for triple in [PHONE, QUEUE] {
        alice.send_all((1..EVENTS).map(|number| envelope(triple, json!({ "data": number })))).await;
        epochs.push(publish(&mut alice, triple, json!({})).await);
    }
    become_node(&mut broker, &servers.table("one", 0)).await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
    command.args(["cluster", "adopt", "--config"]).arg(broker.data_dir().with_file_name("switchboard.toml"));
    command.env("SWITCHBOARD__DATA_DIR", broker.data_dir()).stdout(Stdio::null());
    let mut child = command.kill_on_drop(true).spawn().unwrap();
    let appended = within("some events", servers.wait_for_messages("sb1_test_h_Queue", 50)).await;
    child.kill().await.unwrap();
    assert!(appended < EVENTS, "it was done before it was killed");
    let check = run(&broker, &["check"]).await;
    assert_eq!(check.code, Some(2), "{}", check.out);

    let adopted = run(&broker, &["cluster", "adopt"]).await;
    assert_eq!(adopted.code, Some(0), "{}{}", adopted.out, adopted.error);
    assert!(adopted.out.contains("2 logs complete"), "{}", adopted.out);
    let node = broker.successor().await;
    for (triple, (offset, epoch)) in [PHONE, QUEUE].into_iter().zip(&epochs) {
        assert_eq!(*offset, EVENTS);
        let (reply, offsets) = recover(&node, "alice", triple, epoch, 0).await;
        assert_eq!(reply["Recovered"], json!(true), "{triple}: {reply}");
        assert!(offsets.into_iter().eq(1..=EVENTS), "{triple}: each once, in order");
    }
}
