//! Brokers with durable channels that are killed again and again while they are published to.

use std::collections::BTreeMap;
use std::future::pending;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tokio::time::timeout;

use super::durable::position;
use crate::support::{Broker, Peer, envelope};

/// The kills of a test run. `just kills` has more.
const KILLS: u64 = 200;

/// The brokers that are killed side by side, so that one works while another one waits for its disk.
const BROKERS: u64 = 4;

const USERS: [&str; 2] = ["alice", "bob"];

/// Everything that is not needed here would make each start longer.
const CONFIG: &str = r#"
[auth]
mode = "open"
[limits]
rate = 0
outbound_messages = 100000
[recorder]
bytes = 0
[channels.Phone]
history = { size = 100000, ttl = "1d", durable = true }
"#;

/// The events of one user's log.
#[derive(Default)]
struct Log {
    epoch: String,
    /// The number that is sent next.
    next: u64,
    /// What was delivered or confirmed: offset -> number.
    promised: BTreeMap<u64, u64>,
    /// What was found after a restart: offset -> number.
    kept: BTreeMap<u64, u64>,
}

impl Log {
    /// Subscribes after a restart, and checks what the log has since the last one that was found.
    async fn check(&mut self, subscriber: &mut Peer, what: &str) {
        let last = self.kept.last_key_value().map_or(0, |(last, _)| *last);
        self.recover(subscriber, last, what).await;
        let first_new = last + 1;
        for (offset, number) in self.promised.range(first_new..) {
            assert_eq!(self.kept.get(offset), Some(number), "{what} lost offset {offset}");
        }
    }

    async fn recover(&mut self, subscriber: &mut Peer, from: u64, what: &str) {
        let recover = match from {
            0 => json!({ "last": 1_000_000 }),
            offset => json!({ "epoch": self.epoch, "offset": offset }),
        };
        let subscribe = envelope("Phone/*/*", json!({ "recover": recover }));
        let reply = subscriber.command("Subscription", "Subscribe", subscribe).await;
        assert_eq!(reply["data"]["Recovered"], true, "{what}: {reply}");
        reply["data"]["Epoch"].as_str().unwrap().clone_into(&mut self.epoch);
        self.kept.split_off(&(from + 1));
        for offset in from + 1..=from + reply["data"]["Replayed"].as_u64().unwrap() {
            let event = subscriber.next().await;
            assert_eq!(position(&event), (offset, self.epoch.clone()), "{what}: no gap");
            let number = event["data"].as_u64().unwrap();
            let before = self.kept.last_key_value().map(|(_, number)| *number);
            assert!(before.is_none_or(|before| before < number), "{what}: each once, in order: {event}");
            self.kept.insert(offset, number);
        }
    }

    /// Sends numbered events until the broker dies.
    async fn send_until_the_end(&mut self, mut publisher: Peer) -> BTreeMap<u64, u64> {
        let mut receipts = BTreeMap::new();
        loop {
            let numbers = self.next..self.next + 20;
            self.next = numbers.end;
            let event =
                |number: u64| envelope("Phone/Call/Ringing", json!({ "id": number.to_string(), "data": number }));
            if !publisher.try_send(numbers.map(event).collect::<Vec<_>>()).await {
                return receipts;
            }
            for _ in 0..20 {
                let Some(receipt) = publisher.try_next().await else { return receipts };
                assert_eq!(receipt["data"]["Success"], true, "{receipt}");
                receipts.insert(position(&receipt).0, receipt["inReplyTo"].as_str().unwrap().parse().unwrap());
            }
        }
    }
}

/// Receives events until the broker dies. Returns what came: offset -> number.
async fn receive_until_the_end(mut subscriber: Peer) -> BTreeMap<u64, u64> {
    let mut received = BTreeMap::new();
    while let Some(event) = subscriber.try_next().await {
        received.insert(position(&event).0, event["data"].as_u64().unwrap());
    }
    received
}

/// Publishes and receives until the broker dies.
async fn work((log, subscriber, publisher): (&mut Log, Peer, Peer)) {
    let (receipts, received) = tokio::join!(log.send_until_the_end(publisher), receive_until_the_end(subscriber));
    log.promised.extend(received);
    log.promised.extend(receipts);
}

/// Kills a broker this often, each time at another moment.
async fn survive(name: u64, kills: u64) {
    let mut broker = Broker::with_config(CONFIG).await;
    let mut logs: [Log; USERS.len()] = Default::default();
    for kill in 0..kills {
        let mut peers = Vec::new();
        for (user, log) in USERS.into_iter().zip(&mut logs) {
            let mut subscriber = broker.app_of("agent", user).await;
            log.check(&mut subscriber, &format!("broker {name}, kill {kill}, {user}")).await;
            peers.push((log, subscriber, broker.app_of("cti", user).await));
        }
        let kill_it = async {
            // Not to wait for an effect: it comes at a moment that differs each time.
            timeout(Duration::from_millis(5 + (name * 11 + kill * 17) % 60), pending::<()>()).await.unwrap_err();
            broker.killed().await
        };
        broker = tokio::join!(join_all(peers.into_iter().map(work)), kill_it).1;
    }
    for (user, log) in USERS.into_iter().zip(&mut logs) {
        let what = format!("broker {name}, {user}");
        let mut subscriber = broker.app_of("agent", user).await;
        log.recover(&mut subscriber, 0, &what).await;
        for (offset, number) in &log.promised {
            assert_eq!(log.kept.get(offset), Some(number), "{what} lost offset {offset}");
        }
    }
    let promised = logs.iter().map(|log| log.promised.len()).sum::<usize>() as u64;
    assert!(promised > kills, "broker {name}: {promised} events in {kills} kills");
}

#[tokio::test]
async fn a_kill_at_any_moment_loses_no_event_that_was_delivered_or_confirmed() {
    let kills: u64 = std::env::var("SWITCHBOARD_KILLS").ok().and_then(|it| it.parse().ok()).unwrap_or(KILLS);
    join_all((0..BROKERS).map(|name| survive(name, kills.div_ceil(BROKERS)))).await;
}
