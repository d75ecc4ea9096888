//! Many messages, many sessions: nothing is lost, order is kept, and a crowd that leaves stalls nobody.
//!
//! The counts fit a debug build on two busy cores; each has its reason beside it.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::{Broker, Peer, envelope};

const UNLIMITED: &str = "[limits]\nrate = 0";

/// The number behind `"data":` of a short event; cheaper than a JSON library where there are 100,000.
fn number(text: &str) -> u64 {
    let start = text.find("\"data\":").expect("an event") + 7;
    text[start..].chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
}

#[tokio::test]
async fn order_is_kept_over_100_000_messages() {
    const EVENTS: u64 = 100_000;
    // Room for all of them: this asks for order, and a test client that shares its thread may pause for long.
    let room = "outbound_messages = 200000\noutbound_bytes = 1073741824";
    let broker = Broker::open_with(&format!("{UNLIMITED}\n{room}")).await;
    let (mut sender, mut receiver) = (broker.app("sender").await, broker.app("receiver").await);
    receiver.subscribe("Order/A/B").await;
    let send = async {
        for batch in 0..EVENTS / 100 {
            let events = (0..100).map(|at| envelope("Order/A/B", json!({"data": batch * 100 + at})));
            sender.send_all(events).await;
        }
    };
    let receive = async {
        for at in 0..EVENTS {
            let mut text = receiver.next_text().await;
            while text.contains("\"Lagging\"") {
                text = receiver.next_text().await;
            }
            assert_eq!(number(&text), at);
        }
    };
    tokio::join!(send, receive);
    receiver.expect_nothing_from(&mut sender).await;
}

/// Connects many peers, some at a time.
async fn crowd(broker: &Broker, count: usize, source: &str) -> Vec<Peer> {
    let mut peers = Vec::with_capacity(count);
    while peers.len() < count {
        let batch = (count - peers.len()).min(64);
        let more = futures_util::future::join_all((0..batch).map(|_| broker.app(source))).await;
        peers.extend(more);
    }
    peers
}

#[tokio::test]
async fn nothing_is_lost_with_500_sessions_publishing_to_each_other() {
    const SESSIONS: usize = 500;
    // One event each makes a quarter of a million deliveries.
    let broker = Broker::open_with(UNLIMITED).await;
    let mut peers = crowd(&broker, SESSIONS, "member").await;
    for peer in &mut peers {
        peer.subscribe("Crowd/A/B").await;
    }
    let mut tasks = JoinSet::new();
    for (me, mut peer) in peers.into_iter().enumerate() {
        tasks.spawn(async move {
            peer.publish("Crowd/A/B", me as u64).await;
            let mut heard = vec![false; SESSIONS];
            for _ in 1..SESSIONS {
                let mut text = peer.next_text().await;
                while text.contains("\"Lagging\"") {
                    text = peer.next_text().await;
                }
                let from = usize::try_from(number(&text)).unwrap();
                assert!(from != me && !heard[from], "{me} hears {from} once");
                heard[from] = true;
            }
            peer
        });
    }
    let mut peers = tasks.join_all().await;
    for peer in &mut peers {
        peer.expect_nothing().await;
    }
}

// Threads of their own: a receiver that waits its turn behind 500 publishers would be a slow one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_publishers_into_one_receiver_lose_nothing() {
    const PUBLISHERS: usize = 500;
    const EACH: u64 = 40;
    let broker = Broker::open_with(UNLIMITED).await;
    let mut receiver = broker.app("receiver").await;
    receiver.subscribe("Funnel/*/*").await;
    let publishers = crowd(&broker, PUBLISHERS, "publisher").await;
    let mut tasks = JoinSet::new();
    for (me, mut peer) in publishers.into_iter().enumerate() {
        tasks.spawn(async move {
            let triple = format!("Funnel/Of/{me}");
            peer.send_all((0..EACH).map(|at| envelope(&triple, json!({ "data": at })))).await;
            peer.fence().await;
        });
    }
    let mut next = vec![0; PUBLISHERS];
    for _ in 0..PUBLISHERS as u64 * EACH {
        let mut event = receiver.next().await;
        while event["subtopic"] == "Lagging" {
            event = receiver.next().await;
        }
        let from: usize = event["subtopic"].as_str().unwrap().parse().unwrap();
        assert_eq!(event["data"], next[from], "each publisher's order is kept");
        next[from] += 1;
    }
    tasks.join_all().await;
    receiver.expect_nothing().await;
}

#[tokio::test]
async fn thousands_of_sessions_that_drop_at_once_do_not_stall_the_others() {
    // Both ends of each connection count against this process's and the broker's limits of open files, and every one
    // is registered and subscribed first: what a debug build does in a few seconds.
    const SESSIONS: usize = 4000;
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let broker = Broker::open_with(UNLIMITED).await;
    let (mut one, mut two) = (broker.app("one").await, broker.app("two").await);
    two.handle("Phone/Call/Dial").await;
    let mut peers = crowd(&broker, SESSIONS, "crowd").await;
    for batch in peers.chunks_mut(64) {
        futures_util::future::join_all(batch.iter_mut().map(|peer| peer.subscribe("Crowd/A/*"))).await;
    }
    one.send(envelope("Crowd/A/B", json!({"id": "all"}))).await;
    assert_eq!(one.next_receipt("all").await, SESSIONS as u64);
    for peer in peers {
        peer.kill();
    }
    let mut worst = Duration::ZERO;
    for at in 0.. {
        let start = Instant::now();
        let id = at.to_string();
        one.ask("Phone/Call/Dial", &id).await;
        let request = two.next_on("Phone/Call/Dial").await;
        two.reply(&request, json!({})).await;
        one.next_answer("Phone/Call/Dial", &id).await;
        worst = worst.max(start.elapsed());
        if at % 10 == 0 && listed(&mut one).await == 2 {
            break;
        }
    }
    // A machine that does other things may take a while; a stall of the crowd's length would be many seconds.
    assert!(worst < Duration::from_secs(2), "a request took {worst:?} while the crowd left");
}

/// Sessions that the presence list counts.
async fn listed(peer: &mut Peer) -> u64 {
    let list = peer.command("Application", "List", Value::Null).await;
    list["data"]["Applications"].as_array().unwrap().iter().map(|it| it["Sessions"].as_u64().unwrap()).sum()
}
