//! Exclusive sources of brokers on real NATS servers.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, interval};

use super::servers::Servers;
use crate::support::{Broker, Peer, application, token_of};

/// How long a lease lasts that nobody renews, with some time for the storage.
const LEASE: Duration = Duration::from_secs(24);

const REGISTER: &str = "Broker/Application/Register";

async fn node(servers: &Servers, name: &str) -> Broker {
    let table = servers.table(name, 0);
    let file = format!("{table}[auth]\nmode = 'tokens'\n{}{}", exclusive(), application("crm", Some("alice"), ""));
    Broker::with_config(&file).await
}

fn exclusive() -> String {
    application("softphone", Some("alice"), "exclusive = true\n")
}

fn token() -> Value {
    json!({ "token": token_of("softphone") })
}

/// Attempts to register the exclusive source. Gives the code if it is refused.
async fn attempt(broker: &Broker, options: Value) -> Result<Peer, Value> {
    let mut peer = broker.raw("softphone").await;
    let reply = peer.register("softphone", options).await;
    match reply["data"]["Success"] == true {
        true => Ok(peer),
        false => Err(reply["data"].clone()),
    }
}

#[tokio::test]
async fn of_two_nodes_that_race_for_an_exclusive_source_one_has_it() {
    const ROUNDS: usize = 50;
    let Some(servers) = Servers::start(1).await else { return };
    let (one, two) = tokio::join!(node(&servers, "one"), node(&servers, "two"));
    for round in 0..ROUNDS {
        let until = Instant::now() + Duration::from_secs(5);
        let (mut winner, loser) = loop {
            match tokio::join!(attempt(&one, token()), attempt(&two, token())) {
                (Ok(winner), Err(loser)) | (Err(loser), Ok(winner)) => break (winner, loser),
                (Ok(_), Ok(_)) => panic!("round {round}: both have it"),
                // The lease of the last round is removed a moment after its session has ended.
                (Err(first), Err(_)) => assert!(round > 0 && Instant::now() < until, "nobody has it: {first}"),
            }
        };
        assert_eq!(loser["ErrorCode"], "SOURCE_IN_USE", "{loser}");
        winner.command("Application", "Unregister", json!({})).await;
    }
}

#[tokio::test]
async fn a_session_that_is_away_on_another_node_is_ended() {
    let Some(servers) = Servers::start(1).await else { return };
    let (one, two) = tokio::join!(node(&servers, "one"), node(&servers, "two"));
    let mut crm = two.app_with("crm", json!({ "token": token_of("crm") })).await;
    crm.subscribe("Broker/Application/*").await;
    let mut resumable = token();
    resumable["resume"] = json!(true);
    let first = attempt(&one, resumable.clone()).await.expect("it is free");
    assert_eq!(crm.next_on("Broker/Application/Joined").await["data"]["Source"], "softphone");
    let refused = attempt(&two, token()).await.err().expect("it is in use");
    assert_eq!(refused["ErrorCode"], "SOURCE_IN_USE");
    assert!(refused["ErrorMessage"].as_str().unwrap().contains("registered it at 20"), "{refused}");
    first.kill();
    one.log_until("the loss of a connection", |log| log.contains("away")).await;
    let mut often = interval(Duration::from_millis(20));
    let second = loop {
        match attempt(&two, resumable.clone()).await {
            Ok(peer) => break peer,
            Err(data) => assert_eq!(data["ErrorCode"], "SOURCE_IN_USE"),
        }
        often.tick().await;
    };
    assert_eq!(crm.next_on("Broker/Application/Left").await["data"]["Source"], "softphone");
    assert_eq!(crm.next_on("Broker/Application/Joined").await["data"]["Source"], "softphone");
    drop(second);
}

#[tokio::test]
async fn the_source_of_a_node_that_was_killed_is_free_when_its_lease_has_run_out() {
    let Some(servers) = Servers::start(1).await else { return };
    let (one, two) = tokio::join!(node(&servers, "one"), node(&servers, "two"));
    let first = attempt(&one, token()).await.expect("it is free");
    one.signal("KILL").await;
    drop(first);
    let killed = Instant::now();
    let mut often = interval(Duration::from_millis(200));
    let mut refused = 0;
    while let Err(data) = attempt(&two, token()).await.map(|_| ()) {
        assert_eq!(data["ErrorCode"], "SOURCE_IN_USE", "{data}");
        assert!(killed.elapsed() < LEASE, "it is not free after {:?}", killed.elapsed());
        refused += 1;
        often.tick().await;
    }
    assert!(refused > 0 && killed.elapsed() > Duration::from_secs(10), "it was free after {:?}", killed.elapsed());
}

#[tokio::test]
async fn without_nats_a_session_keeps_its_exclusive_source_for_18_seconds() {
    let Some(mut servers) = Servers::start(1).await else { return };
    let one = node(&servers, "one").await;
    let mut phone = attempt(&one, token()).await.expect("it is free");
    let since = Instant::now();
    // It is renewed meanwhile.
    let mut often = interval(Duration::from_secs(1));
    while since.elapsed() < Duration::from_secs(7) {
        often.tick().await;
        phone.fence().await;
    }
    servers.kill(0).await;
    let killed = Instant::now();
    let refused = attempt(&one, token()).await.err().expect("it is in use");
    assert_eq!(refused["ErrorCode"], "SOURCE_IN_USE", "a second session of the node needs no storage to be refused");
    while killed.elapsed() < Duration::from_secs(11) {
        often.tick().await;
        phone.fence().await;
    }
    let (_, code) = phone.until_closed().await;
    assert_eq!((code, phone.close_reason()), (4404, "the lease of the exclusive source was lost"));
    assert!(killed.elapsed() < Duration::from_secs(19), "{:?}", killed.elapsed());
    let mut late = one.raw("softphone").await;
    let reply = late.register("softphone", token()).await;
    assert_eq!(reply["data"]["ErrorCode"], "UPSTREAM_UNAVAILABLE", "{reply}");
    servers.restart(0).await;
    // The connection lives on.
    let until = Instant::now() + LEASE;
    loop {
        late.send(json!({ "channel": "Broker", "topic": "Application", "subtopic": "Register", "source": "softphone",
            "data": token() }))
            .await;
        let reply = late.next_on(REGISTER).await;
        if reply["data"]["Success"] == true {
            break;
        }
        assert!(reply["data"]["ErrorCode"] == "UPSTREAM_UNAVAILABLE" && Instant::now() < until, "{reply}");
    }
}
