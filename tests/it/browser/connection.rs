//! How the page's connection ends and is made again, against a broker that says what the real one would not on demand.

use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{Duration, Instant};

use super::salesforce::files;
use super::{Chromium, Host, Page};
use crate::client::fake_broker::{FakeBroker, Peer};

/// Longer than any pause before the first attempt to reconnect.
const DRAIN: Duration = Duration::from_millis(700);

/// A registered page; the third is what it said when it registered.
async fn session<'c>(chromium: &'c Chromium, fake: &FakeBroker) -> (Page<'c>, Peer<TcpStream>, Value) {
    let settings = json!({ "url": fake.url(), "source": "salesforce", "token": "a token" });
    let path = "clients/salesforce/opencti/softphone.html";
    let opened = chromium.open(Host::Loopback, path, files(&settings), json!({}));
    let served = async {
        let (mut peer, register) = fake.session().await;
        grant_all(&mut peer).await;
        (peer, register)
    };
    let (page, (peer, register)) = tokio::join!(opened, served);
    page.shows("state", "registered").await;
    (page, peer, register)
}

async fn grant_all(peer: &mut Peer<TcpStream>) {
    for subtopic in ["OpenObject", "SetClickToDial"] {
        let pattern = json!({ "channel": "Salesforce", "topic": "Call", "subtopic": subtopic, "retained": true });
        assert_eq!(peer.grant().await, pattern);
    }
}

pub(super) async fn a_draining_broker_says_when_to_come_back(chromium: &Chromium) {
    let fake = FakeBroker::start().await;
    let (page, mut peer, register) = session(chromium, &fake).await;
    assert_eq!(register["data"], json!({ "token": "a token", "resume": false }));
    let notice = json!({ "channel": "Broker", "topic": "Connection", "subtopic": "Draining",
        "data": { "ReconnectAfterMs": u64::try_from(DRAIN.as_millis()).unwrap() } });
    peer.say(notice).await;
    let told = Instant::now();
    peer.close(1012, "restart").await;
    // A look at the page does not bring it back before.
    page.evaluate("window.dispatchEvent(new Event('online'))").await;
    let (mut peer, _) = fake.session().await;
    assert!(told.elapsed() >= DRAIN, "reconnected after {:?}", told.elapsed());
    grant_all(&mut peer).await;
    page.shows("state", "registered").await;
    page.close().await;
}

pub(super) async fn some_closes_are_final_and_others_are_not(chromium: &Chromium) {
    let fake = FakeBroker::start().await;
    let (page, mut peer, _) = session(chromium, &fake).await;
    for code in [1001, 1009, 4404, 4413] {
        peer.close(code, "test").await;
        peer = fake.session().await.0;
        grant_all(&mut peer).await;
        page.shows("state", "registered").await;
    }
    // A fixed token is not sent again, unless a person wants it.
    for (code, shown) in [(4409, "REPLACED"), (4401, "UNAUTHENTICATED"), (4403, "FORBIDDEN"), (4410, "KICKED")] {
        peer.close(code, "test").await;
        page.shows("error", shown).await;
        page.shows("state", "stopped").await;
        page.click("#connect").await;
        peer = fake.session().await.0;
        grant_all(&mut peer).await;
        page.shows("state", "registered").await;
    }
    page.close().await;
}

pub(super) async fn a_dead_connection_is_found_when_the_page_wakes(chromium: &Chromium) {
    let fake = FakeBroker::start().await;
    let (page, mut peer, _) = session(chromium, &fake).await;
    page.evaluate("window.dispatchEvent(new Event('pageshow'))").await;
    let ping = peer.expect("Broker/Connection/Ping").await;
    peer.answer(&ping, json!({ "Success": true, "ErrorMessage": null })).await;
    page.shows("state", "registered").await;

    // The next one gets no answer, and time runs ten times as fast.
    page.evaluate("{ const slow = setTimeout; window.setTimeout = (it, ms) => slow(it, ms / 10); }").await;
    page.evaluate("window.dispatchEvent(new Event('online'))").await;
    peer.expect("Broker/Connection/Ping").await;
    let (mut again, _) = fake.session().await;
    grant_all(&mut again).await;
    page.shows("state", "registered").await;
    page.close().await;
}

pub(super) async fn a_hidden_page_says_that_it_sleeps(chromium: &Chromium) {
    let fake = FakeBroker::start().await;
    let (page, mut peer, _) = session(chromium, &fake).await;
    let hide = |hidden: bool| {
        format!(
            "Object.defineProperty(document, 'hidden', {{ value: {hidden}, configurable: true }});\
             document.dispatchEvent(new Event('visibilitychange'))"
        )
    };
    for (change, state) in [
        (hide(true), "asleep"),
        (hide(false), "active"),
        ("document.dispatchEvent(new Event('freeze'))".to_owned(), "asleep"),
        ("document.dispatchEvent(new Event('resume'))".to_owned(), "active"),
    ] {
        page.evaluate(&change).await;
        let told = peer.expect("Broker/Application/SetState").await;
        assert_eq!(told["data"], json!({ "state": state }));
        peer.answer(&told, json!({ "Success": true, "ErrorMessage": null })).await;
        if state == "active" {
            let ping = peer.expect("Broker/Connection/Ping").await;
            peer.answer(&ping, json!({ "Success": true, "ErrorMessage": null })).await;
        }
    }
    // A page that registers while it is hidden says so at once.
    page.evaluate(&hide(true)).await;
    peer.expect("Broker/Application/SetState").await;
    peer.close(1001, "test").await;
    let (mut peer, _) = fake.session().await;
    grant_all(&mut peer).await;
    assert_eq!(peer.expect("Broker/Application/SetState").await["data"], json!({ "state": "asleep" }));
    page.close().await;
}
