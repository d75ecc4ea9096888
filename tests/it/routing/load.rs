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
        peer.subscribe("Admission/A/B").await;
    }
    let mut tasks = JoinSet::new();
    for (me, mut peer) in peers.into_iter().enumerate() {
        tasks.spawn(async move {
            peer.publish("Admission/A/B", me as u64).await;
            let mut heard = vec![false; SESSIONS];
            for _ in 1..SESSIONS {
                let mut text = peer.next_text().await;
                while text.contains("\"Lagging\"") {
                    text = peer.next_text().await;
                }
                let from = usize::try_from(number(&text)).unwrap();
                assert!(from != me && !heard[from], "{me} receives from {from} once");
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
    // Publishers wait for it from half of this on; all of theirs fit, because a receiver that a busy machine holds up for
    // 250 ms is not waited for any longer, and would be closed.
    let broker = Broker::open_with(&format!("{UNLIMITED}\noutbound_messages = 20500")).await;
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
    switchboard::cli::open_files::raise_limit().unwrap();
    let broker = Broker::open_with(UNLIMITED).await;
    let (mut one, mut two) = (broker.app("one").await, broker.app("two").await);
    two.handle("Phone/Call/Dial").await;
    let mut peers = crowd(&broker, SESSIONS, "crowd").await;
    for batch in peers.chunks_mut(64) {
        futures_util::future::join_all(batch.iter_mut().map(|peer| peer.subscribe("Admission/A/*"))).await;
    }
    one.send(envelope("Admission/A/B", json!({"id": "all"}))).await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_is_answered_once_while_handlers_come_and_go() {
    const ASKERS: usize = 8;
    // Each asker has twenty in flight, of every kind; a handler lives for a few of them.
    const ROUNDS: u64 = 12;
    const IN_FLIGHT: u64 = 20;
    let broker = std::sync::Arc::new(Broker::open_with(&format!("{UNLIMITED}\n[requests]\ntimeout = \"2s\"")).await);
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut handlers = JoinSet::new();
    for which in 0..6_u64 {
        let (broker, mut stopped) = (std::sync::Arc::clone(&broker), stopped.clone());
        handlers.spawn(async move {
            for life in 0_u64.. {
                let mut peer = broker.app("handler").await;
                let options = json!({"role": "handler", "ordered": which == 5});
                peer.subscribe_with("Phone/Call/Dial", options).await;
                for at in 0..10 + (which + life) % 7 {
                    let request = tokio::select! {
                        request = peer.next() => request,
                        _ = stopped.wait_for(|stopped| *stopped) => return,
                    };
                    // Cancels and refusals of late answers come as well; they ask nothing.
                    if request["channel"] == "Phone" && (at + which) % 5 != 4 {
                        peer.reply(&request, json!({"data": "answer"})).await;
                    }
                }
                peer.kill();
            }
        });
    }
    let mut askers = JoinSet::new();
    for _ in 0..ASKERS {
        let broker = std::sync::Arc::clone(&broker);
        askers.spawn(async move {
            let mut peer = broker.app("asker").await;
            for _ in 0..ROUNDS {
                let mut open: Vec<String> = (0..IN_FLIGHT).map(|at| at.to_string()).collect();
                for (at, id) in open.iter().enumerate() {
                    let timeout = if at % 4 == 0 { 30 } else { 1000 };
                    let asked = json!({"id": id, "timeout": timeout, "idempotent": at % 3 == 0});
                    peer.send(envelope("Phone/Call/Dial", asked)).await;
                    if at % 7 == 6 {
                        let cancel = json!({"data": {"id": id}});
                        peer.send(envelope("Broker/Request/Cancel", cancel)).await;
                    }
                }
                while !open.is_empty() {
                    let answer = peer.next().await;
                    if answer["channel"] == "Broker" {
                        continue;
                    }
                    let id = answer["inReplyTo"].as_str().expect("an id");
                    let place = open.iter().position(|it| it == id);
                    open.swap_remove(place.unwrap_or_else(|| panic!("a second answer: {answer}")));
                }
            }
            // A second answer would have arrived before a handler's next.
            let mut rest = peer.drain_events().await;
            rest.retain(|message| message["channel"] != "Broker");
            assert!(rest.is_empty(), "{rest:?}");
        });
    }
    askers.join_all().await;
    stop.send(true).unwrap();
    handlers.join_all().await;
}

#[tokio::test]
async fn a_burst_of_fetches_is_answered_and_leaves_the_adapter_alive() {
    // Far more than a session's own queue holds.
    const PEERS: usize = 40;
    const EACH: usize = 100;
    const FETCH: &str = "Salesforce/User/FetchCredentials";
    let broker =
        Broker::open_with(&format!("{UNLIMITED}\noutbound_messages = 256\n[requests]\nadapter_waiting = 10000")).await;
    broker.credentials_set("local", "1245456", "acq@123", "5051").await;
    let mut tasks = JoinSet::new();
    for mut peer in crowd(&broker, PEERS, "peer").await {
        tasks.spawn(async move {
            peer.send_all((0..EACH).map(|at| envelope(FETCH, json!({"id": at.to_string()})))).await;
            let mut answered = 0;
            while answered < EACH {
                let answer = peer.next().await;
                if answer["subtopic"] != "Lagging" {
                    assert_eq!(answer["data"]["Success"], true, "{answer}");
                    answered += 1;
                }
            }
        });
    }
    tasks.join_all().await;
    let mut late = broker.app("late").await;
    late.ask(FETCH, "f").await;
    assert_eq!(late.next_answer(FETCH, "f").await["data"]["Username"], "1245456");
}
