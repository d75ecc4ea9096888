//! The order of what one publisher sends on channels of all kinds, on real NATS servers; and wills, retained values and events of
//! adapters on channels with history there.

use salesforce_stand_in::{Options, Org, Seed};
use serde_json::{Map, Value, json};

use super::history::{CHANNELS, node};
use super::servers::Servers;
use crate::support::{Broker, Peer, application, envelope, secret_file, within};

/// Channels with history, without, and with retained values.
const ROADS: [(&str, bool); 5] = [
    ("Phone/Call/Ringing", false),
    ("Other/Call/Ringing", false),
    ("Queue/Call/Waiting", false),
    ("Other/Agent/State", true),
    ("Phone/Agent/State", true),
];

/// A subscriber of everything, and of sessions that leave.
async fn watcher(broker: &Broker) -> Peer {
    let mut watcher = broker.app_of("watcher", "alice").await;
    watcher.subscribe("*/*/*").await;
    watcher.subscribe("Broker/Application/Left").await;
    watcher
}

/// An application whose will is an event on this triple.
async fn with_will(broker: &Broker, triple: &str, more: Value) -> Peer {
    let mut will = json!({ "data": "will" });
    will.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    broker.app_with("phone", json!({ "user": "alice", "will": envelope(triple, will) })).await
}

/// What a watcher is told until a session has left.
async fn until_left(watcher: &mut Peer) -> Vec<Value> {
    let mut seen = Vec::new();
    loop {
        let told = watcher.next().await;
        if told["subtopic"] == "Left" {
            return seen;
        }
        seen.push(told["data"].clone());
    }
}

#[tokio::test]
async fn what_one_publisher_sends_on_channels_of_all_kinds_keeps_its_order_on_every_node() {
    const ROUNDS: usize = 60;
    let Some(servers) = Servers::start(1).await else { return };
    let (one, two) = tokio::join!(node(&servers, "one", 0), node(&servers, "two", 0));
    let (mut near, mut far) = (watcher(&one).await, watcher(&two).await);
    for (will, more) in [("Other/Agent/Gone", json!({})), ("Phone/Agent/Gone", json!({ "retain": true }))] {
        let mut phone = with_will(&one, will, more).await;
        let mut expected = Vec::new();
        for number in 0..ROUNDS * ROADS.len() {
            let (triple, retain) = ROADS[(number * 7 + number / 5) % ROADS.len()];
            phone.send(envelope(triple, json!({ "data": number, "retain": retain }))).await;
            expected.push(json!(number));
        }
        // The last events may still wait when the session ends. Its will, and that it has left, follow them.
        phone.close_with(4000).await;
        expected.push(json!("will"));
        for watcher in [&mut near, &mut far] {
            let seen = until_left(watcher).await;
            assert_eq!(seen.len(), expected.len(), "each event once");
            assert_eq!(seen, expected, "{will}");
        }
    }
}

#[tokio::test]
async fn a_session_without_a_will_has_left_after_its_events() {
    const ROUNDS: usize = 30;
    let Some(servers) = Servers::start(1).await else { return };
    let (one, two) = tokio::join!(node(&servers, "one", 0), node(&servers, "two", 0));
    let (mut near, mut far) = (watcher(&one).await, watcher(&two).await);
    for round in 0..ROUNDS {
        let mut phone = one.app_of("phone", "alice").await;
        phone.send(envelope("Phone/Call/Ringing", json!({ "data": round }))).await;
        phone.close_with(4000).await;
        for watcher in [&mut near, &mut far] {
            assert_eq!(until_left(watcher).await, [json!(round)]);
        }
    }
}

/// Publishes a retained value. Returns its offset.
async fn retain(peer: &mut Peer, data: Value) -> u64 {
    peer.send(envelope("Phone/Agent/State", json!({ "retain": true, "id": "e", "data": data }))).await;
    let receipt = peer.next_on("Broker/Message/Receipt").await;
    receipt["data"]["Offset"].as_u64().unwrap_or_else(|| panic!("{receipt}"))
}

/// The values that a new subscriber of a node receives, with their offsets.
async fn values(broker: &Broker) -> Vec<(Value, u64)> {
    let mut reader = broker.app_of("reader", "alice").await;
    reader.subscribe("Phone/*/*").await;
    let found = reader.drain_events().await;
    reader.close().await;
    assert!(found.iter().all(|it| it["retained"] == true), "{found:?}");
    found.iter().map(|it| (it["data"].clone(), it["offset"].as_u64().unwrap())).collect()
}

#[tokio::test]
async fn nodes_that_race_for_a_value_keep_the_last_event_of_the_log() {
    const ROUNDS: usize = 50;
    let Some(servers) = Servers::start(3).await else { return };
    let (one, two) = tokio::join!(node(&servers, "one", 0), node(&servers, "two", 1));
    let (mut first, mut second) = (one.app_of("first", "alice").await, two.app_of("second", "alice").await);
    let mut last = None;
    for round in 0..ROUNDS {
        let (mine, others) = (json!(format!("{round} of one")), json!(format!("{round} of two")));
        let (here, there) = tokio::join!(retain(&mut first, mine.clone()), retain(&mut second, others.clone()));
        assert_eq!((here.min(there), here.max(there)), (2 * round as u64 + 1, 2 * round as u64 + 2));
        let expected = if here > there { (mine, here) } else { (others, there) };
        for node in [&one, &two] {
            assert_eq!(values(node).await.as_slice(), std::slice::from_ref(&expected), "round {round}");
        }
        last = Some(expected);
    }
    let two = two.killed().await;
    assert_eq!(values(&two).await, [last.unwrap()], "so has a node that starts");
    retain(&mut first, json!(null)).await;
    assert!(values(&two).await.is_empty() && values(&one).await.is_empty());
    let two = two.killed().await;
    assert!(values(&two).await.is_empty());
}

#[tokio::test]
async fn a_value_that_a_lost_node_has_not_put_is_put_when_its_event_is_sent_again() {
    let Some(servers) = Servers::start(1).await else { return };
    let (one, two) = tokio::join!(node(&servers, "one", 0), node(&servers, "two", 0));
    let send = async |broker: &Broker, data: &str| {
        let mut phone = broker.app_of("phone", "alice").await;
        let once = json!({ "retain": true, "id": "e", "once": true, "data": data });
        phone.send(envelope("Phone/Agent/State", once)).await;
        phone.next_on("Broker/Message/Receipt").await["data"].clone()
    };
    assert_eq!(send(&one, "first").await["Offset"], 1);
    let client = async_nats::connect(servers.url(0)).await.unwrap();
    let bucket = async_nats::jetstream::new(client).get_stream("KV_sb1_test_retained").await.unwrap();
    bucket.purge().await.unwrap();
    one.signal("KILL").await;
    let two = two.killed().await;
    assert!(values(&two).await.is_empty());
    for _ in 0..2 {
        let receipt = send(&two, "second").await;
        assert_eq!((&receipt["Offset"], &receipt["Duplicate"]), (&json!(1), &json!(true)), "{receipt}");
        assert_eq!(values(&two).await, [(json!("first"), 1)]);
    }
}

#[tokio::test]
async fn wills_on_channels_with_history_are_in_the_logs_of_all_nodes() {
    let Some(servers) = Servers::start(1).await else { return };
    let (one, two) = tokio::join!(node(&servers, "one", 0), node(&servers, "two", 0));
    for (triple, retain) in [("Phone/Agent/Gone", true), ("Queue/Agent/Gone", false)] {
        let mut far = two.app_of("crm", "alice").await;
        let recover = json!({ "recover": null });
        let reply = far.command("Subscription", "Subscribe", envelope(triple, recover)).await;
        let phone = with_will(&one, triple, json!({ "retain": retain })).await;
        phone.kill();
        let will = far.next_on(triple).await;
        assert_eq!(
            (&will["data"], &will["offset"], &will["epoch"]),
            (&json!("will"), &json!(1), &reply["data"]["Epoch"])
        );
        for broker in [&one, &two] {
            let mut late = broker.app_of("late", "alice").await;
            let recover = json!({ "recover": { "epoch": will["epoch"], "offset": 0 } });
            let reply = late.command("Subscription", "Subscribe", envelope(triple, recover)).await;
            assert_eq!(reply["data"]["Replayed"], 1, "{reply}");
            let replayed = late.next_on(triple).await;
            assert_eq!((&replayed["data"], &replayed["replayed"]), (&json!("will"), &json!(true)), "{replayed}");
            late.expect_nothing().await;
        }
        far.expect_nothing().await;
    }
    assert_eq!(values(&two).await, [(json!("will"), 1)]);
}

const NOTICES: &str = "/event/CTI_Notice__e";
/// The channel of the adapter that is connected to the org.
const SALESFORCE: &str = "[channels.Salesforce]\nhistory = { size = 10000, ttl = \"10m\" }\n";

const NOTICE: &str = "Salesforce/PlatformEvent/CTI_Notice__e";

/// The tables that let a node publish what an org publishes.
fn org_tables(org: &Org, secret: &str) -> String {
    let url = org.url();
    format!(
        "[salesforce]\nlogin_url = \"{url}\"\nclient_id = \"demo\"\nclient_secret_file = \"{secret}\"\n\
         instance_hosts = [\"127.0.0.1\"]\ninsecure_http = true\n[salesforce.events]\nendpoint = \"{url}\"\nsettle = \"0s\"\n\
         [salesforce.events.topics.notice]\ntopic = \"{NOTICES}\"\n"
    )
}

#[tokio::test]
async fn an_event_of_an_adapter_for_all_users_is_in_the_log_of_each_on_all_nodes() {
    const EVENTS: usize = 20;
    let Some(servers) = Servers::start(1).await else { return };
    let folder = tempfile::tempdir().unwrap();
    secret_file(folder.path().join("secret"), "demo-secret");
    let listen = "127.0.0.1:0".parse().unwrap();
    let org = Org::start(Options { listen, tls: false, seed: Seed::demo().unwrap() }).await.unwrap();
    let applications = [("alice-crm", Some("alice")), ("bob-crm", Some("bob")), ("cti", None)];
    let applications: String = applications.iter().map(|(source, user)| application(source, *user, "")).collect();
    let tables = org_tables(&org, &folder.path().join("secret").display().to_string());
    let config =
        |name: &str, more: &str| format!("{applications}{}{CHANNELS}{SALESFORCE}{more}", servers.table(name, 0));
    let (with_org, without) = (config("one", &tables), config("two", ""));
    let (one, two) = tokio::join!(Broker::with_config(&with_org), Broker::with_config(&without));
    let mut often = tokio::time::interval(std::time::Duration::from_millis(5));
    within("a stream", async {
        while org.streams(NOTICES) != 1 {
            often.tick().await;
        }
    })
    .await;
    let (mut alice, mut bob) = (one.app_by_token("alice-crm").await, two.app_by_token("bob-crm").await);
    let mut services = [one.app_by_token("cti").await, two.app_by_token("cti").await];
    let mut epochs = Vec::new();
    for peer in [&mut alice, &mut bob] {
        let reply = peer.command("Subscription", "Subscribe", envelope(NOTICE, json!({ "recover": null }))).await;
        epochs.push(reply["data"]["Epoch"].clone());
    }
    for service in &mut services {
        service.subscribe(NOTICE).await;
    }
    for number in 0..EVENTS {
        let record: Map<String, Value> = json!({ "Message__c": number.to_string() }).as_object().unwrap().clone();
        org.publish(NOTICES, &record).unwrap();
    }
    for number in 0..EVENTS {
        for (peer, epoch) in [&mut alice, &mut bob].into_iter().zip(&epochs) {
            let event = peer.next_on(NOTICE).await;
            let place = (&event["offset"], &event["epoch"]);
            assert_eq!(place, (&json!(number + 1), epoch), "{event}");
            assert_eq!(
                (&event["data"]["Message__c"], &event["source"]),
                (&json!(number.to_string()), &json!("switchboard"))
            );
        }
        for service in &mut services {
            let event = service.next_on(NOTICE).await;
            assert_eq!(
                (&event["data"]["Message__c"], event.get("offset")),
                (&json!(number.to_string()), None),
                "{event}"
            );
        }
    }
    // Each recovers on the other node.
    for (broker, source, epoch) in [(&two, "alice-crm", &epochs[0]), (&one, "bob-crm", &epochs[1])] {
        let mut peer = broker.app_by_token(source).await;
        let recover = json!({ "recover": { "epoch": epoch, "offset": 5 } });
        let reply = peer.command("Subscription", "Subscribe", envelope(NOTICE, recover)).await;
        assert_eq!(reply["data"]["Replayed"], json!(EVENTS - 5), "{reply}");
        let first = peer.next_on(NOTICE).await;
        assert_eq!((&first["offset"], &first["data"]["Message__c"]), (&json!(6), &json!("5")), "{first}");
    }
    for peer in [&mut alice, &mut bob].into_iter().chain(&mut services) {
        peer.expect_nothing().await;
    }
}
