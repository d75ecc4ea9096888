//! Reloads that replace an issuer's key while a hundred sessions renew, publish and return, and others register with the old
//! key as late as they can.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::signing::Signer;
use super::{Files, ROLES, claims, issuer};
use crate::support::{Broker, Peer, application, envelope, within};

/// Odd, so that the last sessions with the even key are replaced too.
const RELOADS: usize = 21;
const WORKERS: usize = 80;
const LATE: usize = 20;

const SECRETS: [&[u8]; 2] =
    [b"the-secret-of-even-reloads-which-is-long-enough", b"the-secret-of-odd-reloads-which-is-long-enough-too"];

/// A token that the key after this number of reloads has signed.
fn token(reload: usize) -> String {
    Signer::secret(SECRETS[reload % 2]).token("HS256", &claims(json!({})))
}

async fn register(broker: &Broker, reload: usize) -> (Peer, Value) {
    let mut peer = broker.raw("softphone").await;
    let reply = peer.register("softphone", json!({ "token": token(reload) })).await;
    (peer, reply["data"].clone())
}

/// Renews after each reload, with events before and after it on the same session. Every few reloads it returns on another
/// connection. Gives the number of events that it published.
async fn work(
    broker: Arc<Broker>,
    number: usize,
    mut reloads: watch::Receiver<usize>,
    renewed: Arc<AtomicUsize>,
) -> usize {
    let (mut peer, reply) = register(&broker, 0).await;
    assert_eq!(reply["Success"], true, "{reply}");
    renewed.fetch_add(1, Ordering::SeqCst);
    let mut published = 0;
    while reloads.changed().await.is_ok() {
        let reload = *reloads.borrow_and_update();
        peer.next_on("Broker/Connection/Expiring").await;
        for is_renewed in [false, true] {
            let id = format!("{reload}-{is_renewed}");
            peer.send(envelope("Load/Work/Done", json!({ "id": id }))).await;
            assert_eq!(peer.next_receipt(&id).await, 1);
            published += 1;
            if !is_renewed {
                let reply = peer.command("Application", "Renew", json!({ "token": token(reload) })).await;
                assert_eq!(reply["data"]["Success"], true, "{reply}");
            }
        }
        if reload % 5 == number % 5 {
            peer.close().await;
            peer = register(&broker, reload).await.0;
        }
        renewed.fetch_add(1, Ordering::SeqCst);
    }
    published
}

/// Registers again and again with the even key. Every session that it gets is told when the key is replaced, however late it
/// has registered. Gives the number of its sessions.
async fn register_late(broker: Arc<Broker>, mut reloads: watch::Receiver<usize>) -> usize {
    let mut sessions = 0;
    while reloads.wait_for(|reload| reload % 2 == 0).await.is_ok() {
        let (mut peer, reply) = register(&broker, 0).await;
        if reply["Success"] == true {
            peer.next_on("Broker/Connection/Expiring").await;
            peer.close().await;
            sessions += 1;
        } else {
            assert_eq!(reply["ErrorCode"], "UNAUTHENTICATED", "{reply}");
        }
        tokio::task::yield_now().await;
    }
    sessions
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_session_keeps_a_proof_that_its_issuer_has_replaced_and_none_is_lost() {
    let files = Files::new();
    let secret = files.write("secret", SECRETS[0]);
    let lines = format!("algorithms = ['HS256']\nsecret_file = '{secret}'\nsources = ['softphone', 'counter']");
    let limits = "limits = { failed_registrations = 1000000, sessions_per_user = 0 }\n";
    let counter = application("counter", Some("alice"), "");
    let broker = Arc::new(Broker::with_config(&format!("{limits}{counter}{}{ROLES}", issuer("idp", &lines))).await);
    let mut counter = broker.app_by_token("counter").await;
    counter.subscribe("Load/Work/Done").await;
    let counted = Arc::new(AtomicUsize::new(0));
    let (counting, mut counters) = (Arc::clone(&counted), JoinSet::new());
    counters.spawn(async move {
        loop {
            counter.next_on("Load/Work/Done").await;
            counting.fetch_add(1, Ordering::SeqCst);
        }
    });
    let (reloaded, reloads) = watch::channel(0);
    let renewed = Arc::new(AtomicUsize::new(0));
    let (mut workers, mut late) = (JoinSet::new(), JoinSet::new());
    for number in 0..WORKERS {
        workers.spawn(work(Arc::clone(&broker), number, reloads.clone(), Arc::clone(&renewed)));
    }
    for _ in 0..LATE {
        late.spawn(register_late(Arc::clone(&broker), reloads.clone()));
    }
    count_to("the first registrations", &renewed, WORKERS).await;
    for reload in 1..=RELOADS {
        files.write("secret", SECRETS[reload % 2]);
        let line = broker.reload().await;
        assert!(line.contains("changed=\"auth.jwt.idp.secret_file\" ended=0 rights=0"), "{line}");
        reloaded.send(reload).unwrap();
        count_to("the renewals", &renewed, WORKERS * (reload + 1)).await;
    }
    drop(reloaded);
    let published: usize = workers.join_all().await.into_iter().sum();
    assert_eq!(published, WORKERS * RELOADS * 2);
    count_to("every event", &counted, published).await;
    let sessions: usize = late.join_all().await.into_iter().sum();
    assert!(sessions >= LATE, "{sessions}");
}

async fn count_to(what: &str, count: &AtomicUsize, wanted: usize) {
    within(what, async {
        while count.load(Ordering::SeqCst) != wanted {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
