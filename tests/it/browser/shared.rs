//! Several tabs with one session (`connectShared` of clients/js): the tab that has the WebSocket is reloaded, frozen, put into
//! the back/forward cache and closed, and nothing is lost or arrives twice. tests/node/shared.html is the page.

use serde_json::{Value, json};

use super::desk::{is_in_state, ring};
use super::{Chromium, Host, Page};
use crate::support::{Broker, Peer, envelope};

async fn open<'c>(chromium: &'c Chromium, broker: &Broker) -> Page<'c> {
    let path = format!("tests/node/shared.html?broker={}", broker.address());
    let page = chromium.open(Host::Loopback, &path, json!({}), json!({})).await;
    page.wait("window.session").await;
    page
}

async fn beside<'c>(page: &Page<'c>) -> Page<'c> {
    let other = page.beside().await;
    other.wait("window.session").await;
    other
}

/// Publishes these events, each of which reaches the one session of all tabs.
async fn ring_all(phone: &mut Peer, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        assert_eq!(ring(phone, number).await, 1);
    }
}

/// Waits for the last event of a tab, which has got all since `first` in order, and reports no loss.
async fn has(page: &Page<'_>, first: u64, last: u64) {
    page.wait(&format!("seen.events.at(-1) === {last}")).await;
    let expected: Vec<u64> = (first..=last).collect();
    assert_eq!(page.evaluate("seen.events").await, json!(expected));
    assert_eq!(page.evaluate("[seen.errors, seen.backs.filter((how) => how !== 'resumed')]").await, json!([[], []]));
}

async fn sessions(phone: &mut Peer) -> Value {
    let reply = phone.command("Application", "List", json!({})).await;
    let applications = reply["data"]["Applications"].as_array().unwrap();
    applications.iter().find(|it| it["Source"] == "page").unwrap()["Sessions"].clone()
}

pub(super) async fn tabs_share_a_socket_whatever_becomes_of_the_tab_that_has_it(chromium: &Chromium) {
    let broker = Broker::start().await;
    let mut phone = broker.app("phone").await;
    let first = open(chromium, &broker).await;
    let (second, third) = (beside(&first).await, beside(&first).await);
    assert_eq!(sessions(&mut phone).await, 1);
    ring_all(&mut phone, 1..=3).await;
    for tab in [&first, &second, &third] {
        has(tab, 1, 3).await;
    }

    // The first one has the WebSocket. Its next page goes on where this one was.
    tokio::join!(first.reload(), ring_all(&mut phone, 4..=12));
    ring_all(&mut phone, 13..=15).await;
    for tab in [&second, &third] {
        has(tab, 1, 15).await;
    }
    first.wait("window.session && seen.events.at(-1) === 15").await;
    // Events that arrived before the page was left are in the old page.
    let begin = first.evaluate("seen.events[0]").await.as_u64().unwrap();
    assert!(begin > 3, "{begin} was given twice");
    has(&first, begin, 15).await;
    assert_eq!(sessions(&mut phone).await, 1);

    // Now the second one has it, and is frozen.
    second.freeze(true).await;
    ring_all(&mut phone, 16..=20).await;
    has(&third, 1, 20).await;
    second.freeze(false).await;
    has(&second, 1, 20).await;

    // The third one goes into the back/forward cache, with neither a socket nor a lock. What it sends arrives once, although
    // nothing has told it so: there is no receipt.
    phone.subscribe("Phone/State/*").await;
    third.evaluate("desk.publish('Phone/State/Now', 1, { receipt: false }).then(() => {})").await;
    assert_eq!(phone.next_on("Phone/State/Now").await["data"], 1);
    third.evaluate("window.dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))").await;
    ring_all(&mut phone, 21..=25).await;
    has(&second, 1, 25).await;
    third.evaluate("window.dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))").await;
    has(&third, 1, 25).await;
    third.evaluate("desk.publish('Phone/State/Now', 2).then(() => {})").await;
    assert_eq!(phone.next_on("Phone/State/Now").await["data"], 2);

    // Two are closed, and the last one goes on.
    third.close().await;
    second.close().await;
    ring_all(&mut phone, 26..=27).await;
    has(&first, begin, 27).await;
    assert_eq!(sessions(&mut phone).await, 1);
    tokio::join!(first.reload(), ring_all(&mut phone, 28..=32));
    ring_all(&mut phone, 33..=33).await;
    first.wait("window.session && seen.events.at(-1) === 33").await;
    let begin = first.evaluate("seen.events[0]").await.as_u64().unwrap();
    assert!(begin > 27, "{begin} was given twice");
    has(&first, begin, 33).await;
    first.close().await;
}

pub(super) async fn a_frozen_tab_is_not_asked(chromium: &Chromium) {
    let broker = Broker::start().await;
    let mut phone = broker.app("phone").await;
    let first = open(chromium, &broker).await;
    first.evaluate("serve()").await;
    first.freeze(true).await;
    is_in_state(&mut phone, "page", "asleep").await;
    // A tab that is opened now goes on with the session of the frozen one.
    let second = beside(&first).await;
    assert_eq!(second.evaluate("session").await, first.evaluate("session").await);
    second.evaluate("serve()").await;
    ring_all(&mut phone, 1..=3).await;
    has(&second, 1, 3).await;
    for number in 1..=4 {
        phone.send(envelope("Desk/Page/Show", json!({ "id": format!("show {number}"), "timeout": 5000 }))).await;
        assert_eq!(phone.next_answer("Desk/Page/Show", &format!("show {number}")).await["data"], number);
    }
    first.freeze(false).await;
    has(&first, 1, 3).await;
    assert_eq!(first.evaluate("seen.asked").await, 0);
    second.close().await;
    first.close().await;
}
