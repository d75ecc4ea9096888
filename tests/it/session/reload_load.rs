//! A hundred reloads while two hundred sessions publish, request and return. Every second one takes twenty rows and a right
//! away, and the next one gives them back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::support::{Broker, Peer, application, envelope, token_of, within};

const RELOADS: usize = 100;
const WORKERS: usize = 200;
const VISITORS: usize = 20;
/// Rounds of a worker on one connection.
const ROUNDS: usize = 10;

/// All rows; or without those of the visitors, and without the right of `asker` to request a password.
fn rows(full: bool) -> String {
    let workers = (0..WORKERS).map(|number| application(&worker(number), Some(&format!("user-{}", number % 20)), ""));
    let visitors = (0..VISITORS).filter(|_| full).map(|number| application(&visitor(number), Some("guest"), ""));
    let request = if full { "" } else { "request = []" };
    let others = [
        application("desk", None, "handle = [\"*/Agent/Login\"]"),
        application("counter", None, ""),
        application("asker", Some("user-0"), request),
    ];
    let limits = "limits = { failed_registrations = 1000000 }\n".to_owned();
    std::iter::once(limits).chain(workers).chain(visitors).chain(others).collect()
}

fn worker(number: usize) -> String {
    format!("worker-{number}")
}

fn visitor(number: usize) -> String {
    format!("visitor-{number}")
}

/// Publishes an event and sends a request at each tick, and returns with a new connection every few ticks, until there are
/// no more. Gives the number of events that it published.
async fn work(broker: Arc<Broker>, number: usize, mut ticks: watch::Receiver<usize>) -> usize {
    let mut published = 0;
    let mut peer = broker.app_by_token(&worker(number)).await;
    while ticks.changed().await.is_ok() {
        let id = published.to_string();
        peer.send(envelope("Load/Work/Done", json!({"id": id}))).await;
        assert_eq!(peer.next_receipt(&id).await, 1);
        published += 1;
        peer.ask("Load/Job/Next", &id).await;
        let answer = peer.next_answer("Load/Job/Next", &id).await;
        assert_eq!(answer["data"]["Success"], true, "{answer}");
        if published % ROUNDS == number % ROUNDS {
            peer.close().await;
            peer = broker.app_by_token(&worker(number)).await;
        }
    }
    published
}

/// Registers whenever its row is there, and waits to be ended.
async fn visit(
    broker: Arc<Broker>,
    number: usize,
    mut present: watch::Receiver<bool>,
    here: Arc<AtomicUsize>,
) -> usize {
    let (source, mut ended) = (visitor(number), 0);
    while present.wait_for(|present| *present).await.is_ok() {
        let mut peer = broker.app_by_token(&source).await;
        peer.subscribe("Load/*/*").await;
        here.fetch_add(1, Ordering::SeqCst);
        let (last, code) = peer.until_closed().await;
        let last = last.last().unwrap();
        assert_eq!((&last["data"]["ErrorCode"], code), (&json!("UNAUTHENTICATED"), 4401));
        here.fetch_sub(1, Ordering::SeqCst);
        ended += 1;
    }
    ended
}

/// Answers every request.
async fn answer(mut desk: Peer) {
    loop {
        let request = desk.next().await;
        // A slow test may be told that its queue is long.
        if request["channel"] != "Broker" {
            desk.reply(&request, json!({"data": {"Success": true}})).await;
        }
    }
}

async fn count_to(what: &str, here: &AtomicUsize, wanted: usize) {
    within(what, async {
        while here.load(Ordering::SeqCst) != wanted {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_and_nobody_keeps_what_a_reload_took_away() {
    let broker = Arc::new(Broker::with_config(&rows(true)).await);
    let ((tick, ticks), (present, is_present)) = (watch::channel(0), watch::channel(true));
    let mut desk = broker.app_by_token("desk").await;
    desk.handle("Load/Job/*").await;
    desk.handle("Cisco/Agent/Login").await;
    let mut counter = broker.app_by_token("counter").await;
    counter.subscribe("Load/Work/Done").await;
    let mut asker = broker.app_by_token("asker").await;
    let (mut workers, mut visitors, mut desks) = (JoinSet::new(), JoinSet::new(), JoinSet::new());
    desks.spawn(answer(desk));
    let counted = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&counted);
    desks.spawn(async move {
        loop {
            let is_event = counter.next().await["channel"] == "Load";
            counting.fetch_add(usize::from(is_event), Ordering::SeqCst);
        }
    });
    for number in 0..WORKERS {
        workers.spawn(work(Arc::clone(&broker), number, ticks.clone()));
    }
    let here = Arc::new(AtomicUsize::new(0));
    for number in 0..VISITORS {
        visitors.spawn(visit(Arc::clone(&broker), number, is_present.clone(), Arc::clone(&here)));
    }

    for reload in 1..=RELOADS {
        let full = reload % 2 == 0;
        if !full {
            count_to("the visitors' registrations", &here, VISITORS).await;
            present.send(false).unwrap();
        }
        tick.send(reload).unwrap();
        broker.configure(&rows(full));
        let line = broker.reload().await;
        let ended = if full { 0 } else { VISITORS };
        let expected = format!("number={reload} changed=\"applications\" ended={ended} rights=1");
        assert!(line.contains(&expected), "{expected}: {line}");
        asker.ask("Cisco/Agent/Login", "1").await;
        let answer = asker.next_answer("Cisco/Agent/Login", "1").await;
        assert_eq!(answer["data"]["Success"], full, "{answer}");
        if full {
            present.send(true).unwrap();
        } else {
            count_to("the visitors' end", &here, 0).await;
            let mut again = broker.raw("again").await;
            let reply = again.register(&visitor(0), json!({"token": token_of(&visitor(0))})).await;
            assert_eq!(reply["data"]["ErrorCode"], "UNAUTHENTICATED");
        }
    }
    drop(tick);
    let published: usize = workers.join_all().await.into_iter().sum();
    count_to("the visitors' last registrations", &here, VISITORS).await;
    present.send(false).unwrap();
    drop(present);
    broker.configure(&rows(false));
    broker.reload().await;
    let ended: Vec<usize> = visitors.join_all().await;
    // Half of the reloads, and the last one.
    assert_eq!(ended, [RELOADS / 2 + 1; VISITORS]);
    count_to("every event", &counted, published).await;
    assert!(published > WORKERS * ROUNDS, "{published}");
}
