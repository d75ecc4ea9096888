//! The nodes of a cluster, on real NATS servers: one of them reads a topic.

use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use salesforce_stand_in::{Broken, Fault, Wrong};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::{Instant, interval};

use super::{ALICE, NOTICE, NOTICES, OWN, Stage, listener, next_message};
use crate::cluster::servers::Servers;
use crate::support::{Broker, Peer, within};

/// How long a lease lasts that nobody renews, with some time for the other node.
const LEASE: Duration = Duration::from_secs(25);

/// How long a turn that was given up takes to reach another node.
const AT_ONCE: Duration = Duration::from_secs(5);

/// An org, and a NATS server.
pub(super) struct Site {
    pub(super) stage: Stage,
    pub(super) servers: Servers,
}

impl Site {
    pub(super) async fn start() -> Option<Self> {
        let servers = Servers::start(1).await?;
        Some(Self { stage: Stage::start().await, servers })
    }

    pub(super) fn config(&self, node: &str, topics: &str) -> String {
        let (cluster, org) = (self.servers.table(node, 0), self.stage.config(topics));
        format!("{cluster}[admin]\nlisten = ['127.0.0.1:0']\n{org}")
    }

    async fn node(&self, name: &str) -> Broker {
        Broker::with_config(&self.config(name, OWN)).await
    }

    /// Two nodes, of which the first one reads the topic, and an application of alice on each.
    async fn two_nodes(&self) -> ([Broker; 2], [Peer; 2]) {
        let one = self.node("one").await;
        self.stage.streams(NOTICES, 1).await;
        let two = self.node("two").await;
        two.log_until("the node that reads", |log| log.contains("another node reads the topic")).await;
        let peers = [listener(&one, "alice-desk", NOTICE).await, listener(&two, "alice-crm", NOTICE).await];
        ([one, two], peers)
    }

    /// Waits for a stream of events, and returns how long that took.
    async fn read_again(&self, at_most: Duration) -> Duration {
        let (since, mut often) = (Instant::now(), interval(Duration::from_millis(20)));
        while self.stage.org.streams(NOTICES) == 0 {
            assert!(since.elapsed() < at_most, "nobody reads the topic after {:?}", since.elapsed());
            often.tick().await;
        }
        since.elapsed()
    }

    /// The revision of the position, once it is greater than this.
    async fn position_after(&self, revision: u64) -> u64 {
        let client = async_nats::connect(self.servers.url(0)).await.unwrap();
        let bucket = async_nats::jetstream::new(client).get_stream("KV_sb1_test_leases").await.unwrap();
        let key = format!("$KV.sb1_test_leases.p.={}", URL_SAFE_NO_PAD.encode(NOTICES));
        let mut often = interval(Duration::from_millis(20));
        within("a position in the bucket", async {
            loop {
                often.tick().await;
                let last = bucket.get_last_raw_message_by_subject(&key).await;
                if let Some(last) = last.ok().filter(|last| last.sequence > revision) {
                    assert!(!String::from_utf8_lossy(&last.payload).contains(&self.stage.org.url()), "it is sealed");
                    break last.sequence;
                }
            }
        })
        .await
    }

    /// Publishes a notice, and waits until its position is in the bucket.
    async fn begin(&self, peers: &mut [Peer; 2]) {
        let revision = self.position_after(0).await;
        self.stage.notice(ALICE, "first");
        for peer in peers {
            assert_eq!(next_message(peer).await, "first");
        }
        self.position_after(revision).await;
    }
}

/// The topics, as a node's admin API has them.
async fn topics(node: &Broker) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
    command.args(["nodes", "--json", "--admin", &format!("http://{}", node.admin().await), "--data-dir"]);
    let output = command.arg(node.data_dir()).stdin(Stdio::null()).kill_on_drop(true).output().await.unwrap();
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    said["topics"].clone()
}

/// The messages up to the last one, each once: those after the position that was kept can come again.
async fn each_once(peer: &mut Peer, last: &str) -> Vec<String> {
    let mut seen: Vec<String> = Vec::new();
    while seen.last().is_none_or(|message| message != last) {
        let message = next_message(peer).await;
        if !seen.contains(&message) {
            seen.push(message);
        }
    }
    seen
}

#[tokio::test]
async fn one_of_two_nodes_reads_a_topic_and_each_event_arrives_once() {
    const EVENTS: usize = 50;
    let Some(site) = Site::start().await else { return };
    let ([one, two], mut peers) = site.two_nodes().await;
    for number in 0..EVENTS {
        site.stage.notice(ALICE, &number.to_string());
    }
    for peer in &mut peers {
        for number in 0..EVENTS {
            assert_eq!(next_message(peer).await, number.to_string());
        }
    }
    let [desk, crm] = &mut peers;
    desk.expect_nothing_from(crm).await;
    crm.expect_nothing_from(desk).await;
    assert_eq!((site.stage.org.streams(NOTICES), site.stage.subscriptions()), (1, 1));
    let row =
        |connected: bool| json!([{ "name": "notice", "topic": NOTICES, "reader": "one", "connected": connected }]);
    assert_eq!((topics(&one).await, topics(&two).await), (row(true), row(false)));
}

#[tokio::test]
async fn the_topic_of_a_node_that_was_killed_is_read_by_another_without_a_loss() {
    let Some(site) = Site::start().await else { return };
    let ([one, _two], mut peers) = site.two_nodes().await;
    site.begin(&mut peers).await;
    site.stage.notice(ALICE, "before");
    let [_, crm] = &mut peers;
    assert_eq!(next_message(crm).await, "before");
    one.signal("KILL").await;
    site.stage.streams(NOTICES, 0).await;
    site.stage.notice(ALICE, "meanwhile");
    let waited = site.read_again(LEASE).await;
    assert!(waited > Duration::from_secs(10), "the lease had not run out after {waited:?}");
    site.stage.notice(ALICE, "after");
    let seen = each_once(crm, "after").await;
    let seen: Vec<_> = seen.iter().filter(|message| *message != "before").collect();
    assert_eq!(seen, ["meanwhile", "after"]);
    crm.expect_nothing().await;
}

/// The events that arrive while it is frozen are in its connection to Salesforce when it goes on.
#[tokio::test]
async fn a_node_that_was_frozen_beyond_its_lease_publishes_nothing_of_what_has_arrived() {
    let Some(site) = Site::start().await else { return };
    let ([one, two], mut peers) = site.two_nodes().await;
    site.begin(&mut peers).await;
    let [desk, crm] = &mut peers;
    one.signal("STOP").await;
    let (frozen, mut often) = (Instant::now(), interval(Duration::from_millis(20)));
    site.stage.notice(ALICE, "meanwhile");
    while !two.log().contains("this node reads the topic") {
        assert!(frozen.elapsed() < LEASE, "nobody takes the topic over");
        often.tick().await;
    }
    assert_eq!(next_message(crm).await, "meanwhile");
    one.signal("CONT").await;
    one.log_until("the end of its turn", |log| log.contains("the lease of a topic of Salesforce is lost")).await;
    one.log_until("the node that reads", |log| log.contains("another node reads the topic")).await;
    desk.expect_nothing().await;
    site.stage.streams(NOTICES, 1).await;
    site.stage.notice(ALICE, "after");
    assert_eq!(next_message(crm).await, "after");
    crm.expect_nothing().await;
}

#[tokio::test]
async fn the_topic_of_a_node_that_ends_goes_to_another_at_once_and_each_event_arrives_once() {
    const EVENTS: usize = 300;
    let Some(site) = Site::start().await else { return };
    let ([mut one, two], mut peers) = site.two_nodes().await;
    site.begin(&mut peers).await;
    let [desk, crm] = &mut peers;
    let mut often = interval(Duration::from_millis(2));
    for number in 0..EVENTS {
        often.tick().await;
        site.stage.notice(ALICE, &number.to_string());
        if number == EVENTS / 3 {
            one.terminate().await;
        }
    }
    two.log_until("its turn", |log| log.contains("this node reads the topic")).await;
    site.read_again(AT_ONCE).await;
    let mut seen = Vec::new();
    for _ in 0..EVENTS {
        seen.push(next_message(crm).await.parse::<usize>().unwrap());
    }
    // Two nodes have published them.
    seen.sort_unstable();
    assert!(seen.iter().copied().eq(0..EVENTS), "lost or repeated: {seen:?}");
    crm.expect_nothing().await;
    desk.until_closed().await;
    assert_eq!(one.exit_code().await, Some(0));
}

#[tokio::test]
async fn without_nats_a_topic_is_read_for_18_seconds_and_again_when_nats_is_back() {
    let Some(mut site) = Site::start().await else { return };
    let one = site.node("one").await;
    site.stage.streams(NOTICES, 1).await;
    let mut desk = listener(&one, "alice-desk", NOTICE).await;
    site.servers.kill(0).await;
    let killed = Instant::now();
    site.stage.notice(ALICE, "local");
    assert_eq!(next_message(&mut desk).await, "local");
    site.stage.streams(NOTICES, 0).await;
    assert!(killed.elapsed() > Duration::from_secs(11), "it ended after {:?}", killed.elapsed());
    assert!(killed.elapsed() < Duration::from_secs(19), "it ended after {:?}", killed.elapsed());
    site.stage.notice(ALICE, "kept");
    desk.expect_nothing().await;
    site.servers.restart(0).await;
    // The position before "local" may be the last one that NATS has.
    site.read_again(LEASE).await;
    assert_eq!(topics(&one).await[0]["reader"], "one");
    site.stage.notice(ALICE, "after");
    let seen = each_once(&mut desk, "after").await;
    let seen: Vec<_> = seen.iter().filter(|message| *message != "local").collect();
    assert_eq!(seen, ["kept", "after"]);
}

#[tokio::test]
async fn a_topic_that_a_reload_removes_from_a_node_is_read_by_another_and_stays_there() {
    let Some(site) = Site::start().await else { return };
    let ([one, two], mut peers) = site.two_nodes().await;
    site.begin(&mut peers).await;
    one.configure(&site.config("one", ""));
    assert!(one.reload().await.contains("was reloaded"));
    two.log_until("its turn", |log| log.contains("this node reads the topic")).await;
    site.read_again(AT_ONCE).await;
    let told = |log: &str| log.matches("another node reads the topic").count();
    let before = told(&one.log());
    one.configure(&site.config("one", OWN));
    assert!(one.reload().await.contains("was reloaded"));
    one.log_until("the node that reads", |log| told(log) > before).await;
    site.stage.notice(ALICE, "last");
    for peer in &mut peers {
        assert_eq!(next_message(peer).await, "last");
        peer.expect_nothing().await;
    }
    assert_eq!((site.stage.org.streams(NOTICES), site.stage.subscriptions()), (1, 2));
    assert_eq!(topics(&one).await[0]["reader"], "two");
}

/// Both nodes are reloaded again and again, each time with another name of the table, while events arrive.
#[tokio::test]
async fn no_event_is_missing_or_repeated_over_many_reloads_of_both_nodes() {
    const RELOADS: usize = 12;
    const EVENTS: usize = 20;
    let Some(site) = Site::start().await else { return };
    let ([one, two], mut peers) = site.two_nodes().await;
    site.begin(&mut peers).await;
    let mut published = 0;
    for round in 0..RELOADS {
        let topic = OWN.replace("topics.notice", &format!("topics.n{round}"));
        one.configure(&site.config("one", &topic));
        two.configure(&site.config("two", &topic));
        let publish = async {
            let mut often = interval(Duration::from_millis(5));
            for _ in 0..EVENTS {
                often.tick().await;
                site.stage.notice(ALICE, &published.to_string());
                published += 1;
            }
        };
        let (first, second, ()) = tokio::join!(one.reload(), two.reload(), publish);
        assert!(first.contains("was reloaded") && second.contains("was reloaded"), "{first} {second}");
    }
    for peer in &mut peers {
        let mut seen = Vec::new();
        for _ in 0..published {
            seen.push(next_message(peer).await.parse::<usize>().unwrap());
        }
        seen.sort_unstable();
        assert!(seen.iter().copied().eq(0..published), "lost or repeated: {seen:?}");
        peer.expect_nothing().await;
    }
    site.stage.streams(NOTICES, 1).await;
}

#[tokio::test]
async fn a_broker_that_becomes_a_node_goes_on_where_it_was_and_so_does_the_next_node() {
    let Some(site) = Site::start().await else { return };
    let mut broker = site.stage.broker(OWN).await;
    let mut desk = listener(&broker, "alice-desk", NOTICE).await;
    site.stage.notice(ALICE, "first");
    assert_eq!(next_message(&mut desk).await, "first");
    broker.terminate().await;
    assert_eq!(broker.exit_code().await, Some(0));
    let closed = || site.stage.org.fault(Fault::new(Wrong::Events { error: Broken::Unavailable, after: 0 }));
    closed();
    site.stage.notice(ALICE, "in the file");
    broker.configure(&site.config("one", OWN));
    let mut one = broker.successor().await;
    let mut desk = listener(&one, "alice-desk", NOTICE).await;
    site.stage.org.clear_faults();
    assert_eq!(next_message(&mut desk).await, "in the file");
    one.terminate().await;
    assert_eq!(one.exit_code().await, Some(0));
    closed();
    site.stage.notice(ALICE, "in the bucket");
    let two = site.node("two").await;
    let mut desk = listener(&two, "alice-desk", NOTICE).await;
    site.stage.org.clear_faults();
    assert_eq!(next_message(&mut desk).await, "in the bucket");
    desk.expect_nothing().await;
}

#[tokio::test]
async fn a_node_without_a_way_to_salesforce_lets_another_read() {
    let Some(site) = Site::start().await else { return };
    let endpoint = |url: &str| format!("endpoint = \"{url}\"");
    let config = site.config("one", OWN).replace(&endpoint(&site.stage.org.url()), &endpoint("http://127.0.0.1:9"));
    let one = Broker::with_config(&config).await;
    one.log_until("that others may read", |log| log.contains("this node cannot read the topic")).await;
    let two = site.node("two").await;
    site.stage.streams(NOTICES, 1).await;
    one.log_until("the node that reads", |log| log.contains("another node reads the topic")).await;
    let mut peers = [listener(&one, "alice-desk", NOTICE).await, listener(&two, "alice-crm", NOTICE).await];
    site.stage.notice(ALICE, "first");
    for peer in &mut peers {
        assert_eq!(next_message(peer).await, "first");
    }
    assert_eq!(topics(&one).await[0]["reader"], "two");
}
