//! What docs/cluster.md says a node needs in a NATS with users.

use std::time::Duration;

use serde_json::{Value, json};

use super::adopting::run;
use super::servers::Servers;
use crate::support::{Broker, Peer, application, envelope, secret_file, token_of, within};

/// More retained values than a starting node reads one by one.
const VALUES: usize = 40;

const CHANNELS: &str = r#"
[limits]
message_bytes = 65536
[channels.Log]
history = { size = 100, ttl = "10m", durable = true }
[auth]
mode = "tokens"
"#;

/// The applications, all of one user.
const SOURCES: [&str; 5] = ["phone", "crm", "late", "reader", "exclusive"];

/// The permissions of the page, for a cluster `site-a` with one channel with history, `Log`.
fn permissions() -> String {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/cluster.md")).unwrap();
    let block = page.split("```text\n").nth(1).unwrap().split("```").next().unwrap();
    assert!(block.starts_with("publish:") && block.contains("subscribe:"), "{block}");
    block.to_owned()
}

async fn publish(peer: &mut Peer, triple: &str, id: &str, more: Value) -> Value {
    let mut fields = json!({ "id": id });
    fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    peer.send(envelope(triple, fields)).await;
    let receipt = peer.next_on("Broker/Message/Receipt").await;
    assert_eq!((&receipt["inReplyTo"], &receipt["data"]["Success"]), (&json!(id), &json!(true)), "{receipt}");
    receipt["data"].clone()
}

/// Uses everything that crosses NATS, between two nodes. `epoch`: that of alice's log, which has one event.
async fn use_all(one: &Broker, two: &Broker, epoch: &Value) {
    let (mut phone, mut crm) = (one.app_by_token("phone").await, two.app_by_token("crm").await);
    crm.subscribe("Calls/*/*").await;
    crm.subscribe("Log/*/*").await;
    crm.handle("Calls/Call/Dial").await;
    phone.publish("Calls/Call/Ringing", 1).await;
    crm.next_on("Calls/Call/Ringing").await;
    phone.ask("Calls/Call/Dial", "r").await;
    let request = crm.next_on("Calls/Call/Dial").await;
    crm.reply(&request, json!({})).await;
    phone.next_answer("Calls/Call/Dial", "r").await;

    for number in 0..3 {
        publish(&mut phone, "Log/Call/Ended", &number.to_string(), json!({ "once": true })).await;
        crm.next_on("Log/Call/Ended").await;
    }
    let mut late = two.app_by_token("late").await;
    let recover = json!({ "recover": { "epoch": epoch, "offset": 1 } });
    let reply = late.command("Subscription", "Subscribe", envelope("Log/*/*", recover)).await;
    assert_eq!(reply["data"]["Replayed"], 3, "{reply}");

    publish(&mut phone, "State/Agent/Mood", "cleared", json!({ "retain": true, "data": null })).await;
    let held = one.app_by_token("exclusive").await;
    let mut second = two.raw("second").await;
    let refused = second.register("exclusive", json!({ "token": token_of("exclusive") })).await;
    assert_eq!(refused["data"]["ErrorCode"], "SOURCE_IN_USE", "{refused}");
    held.close().await;
}

#[tokio::test]
async fn the_permissions_of_the_page_are_enough_for_nodes() {
    let user = format!("{{ user: node, password: secret, permissions: {{ {} }} }}", permissions());
    let Some(servers) = Servers::start_configured(&format!("authorization {{ users: [ {user} ] }}\n")).await else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("user");
    secret_file(&file, "node\nsecret\n");
    let applications: String = SOURCES
        .iter()
        .map(|source| application(source, Some("alice"), if *source == "exclusive" { "exclusive = true" } else { "" }))
        .collect();
    let table = |node: &str| {
        let table = servers.table(node, 0).replace("name = \"test\"", "name = \"site-a\"");
        format!("{table}user_file = \"{}\"\n{CHANNELS}{applications}", file.display())
    };
    let mut broker = Broker::with_config(&format!("{CHANNELS}{applications}")).await;
    let mut phone = broker.app_by_token("phone").await;
    let receipt = publish(&mut phone, "Log/Call/Ended", "adopted", json!({})).await;
    broker.terminate().await;
    assert_eq!(broker.exit_code().await, Some(0));
    broker.configure(&table("one"));
    let adopted = run(&broker, &["cluster", "adopt"]).await;
    assert_eq!(adopted.code, Some(0), "{}{}", adopted.out, adopted.error);
    let one = broker.successor().await;
    let mut phone = one.app_by_token("phone").await;
    for number in 0..VALUES {
        publish(&mut phone, &format!("State/Agent/Mood{number}"), "v", json!({ "retain": true, "data": number })).await;
    }
    let two = Broker::with_config(&table("two")).await;
    let mut reader = two.app_by_token("reader").await;
    reader.subscribe("State/*/*").await;
    assert_eq!(reader.drain_events().await.len(), VALUES);
    use_all(&one, &two, &receipt["Epoch"]).await;
    assert!(!servers.log(0).contains("Violation"), "{}", servers.log(0));

    // What NATS refuses is in that log.
    let options = async_nats::ConnectOptions::with_user_and_password("node".to_owned(), "secret".to_owned());
    let client = options.connect(servers.url(0)).await.unwrap();
    client.publish("elsewhere", "text".into()).await.unwrap();
    client.flush().await.unwrap();
    let mut often = tokio::time::interval(Duration::from_millis(10));
    within("the violation", async {
        while !servers.log(0).contains("Violation") {
            often.tick().await;
        }
    })
    .await;
}
