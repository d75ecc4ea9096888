//! clients/js in a browser: what becomes of its session when the page is reloaded, duplicated, put into the back/forward cache
//! or frozen. tests/node/desk.html is the page.

use serde_json::{Value, json};

use super::{Chromium, Host, Page};
use crate::support::{Broker, Peer, envelope, within};

/// The end of every scene's page: the address of its broker.
async fn open<'c>(chromium: &'c Chromium, broker: &Broker, more: &str) -> Page<'c> {
    let path = format!("tests/node/desk.html?broker={}{more}", broker.address());
    let page = chromium.open(Host::Loopback, &path, json!({}), json!({})).await;
    page.wait("window.session").await;
    page
}

/// Publishes an event and returns how many sessions it reached.
pub(super) async fn ring(phone: &mut Peer, number: u64) -> u64 {
    phone.send(envelope("Phone/Call/Ringing", json!({ "id": format!("ring {number}"), "data": number }))).await;
    phone.next_receipt(&format!("ring {number}")).await
}

/// Waits until the application's connection is away.
pub(super) async fn is_in_state(phone: &mut Peer, source: &str, state: &str) {
    let looking = async {
        loop {
            let reply = phone.command("Application", "List", json!({})).await;
            let found = reply["data"]["Applications"]
                .as_array()
                .unwrap()
                .iter()
                .any(|it| it["Source"] == source && it["State"] == state);
            if found {
                return;
            }
        }
    };
    within(state, looking).await;
}

pub(super) async fn a_reload_in_mid_call_loses_nothing_and_the_answer_arrives(chromium: &Chromium) {
    let broker = Broker::start().await;
    let mut phone = broker.app("phone").await;
    phone.handle("Phone/Call/Dial").await;
    let page = open(chromium, &broker, "").await;
    let session = page.evaluate("window.session").await;
    assert_eq!(ring(&mut phone, 1).await, 1);
    page.wait("seen.events.length === 1").await;
    page.evaluate("void ask('dial')").await;
    let request = phone.next().await;
    page.leave().await;
    is_in_state(&mut phone, "page", "away").await;
    // The page is away: its session has what arrives, the answer too.
    for number in 2..=5 {
        assert_eq!(ring(&mut phone, number).await, 1);
    }
    phone.send(envelope("Phone/Call/Dial", json!({ "inReplyTo": request["id"], "data": "connected" }))).await;
    page.back().await;
    page.wait("window.session").await;
    assert_eq!(page.evaluate("window.session").await, session);
    page.wait("seen.events.length === 4").await;
    assert_eq!(page.evaluate("seen.events").await, json!([2, 3, 4, 5]));
    page.evaluate("void ask('dial')").await;
    page.wait("seen.answers.length === 1").await;
    assert_eq!(page.evaluate("seen.answers").await, json!(["connected"]));
    assert_eq!(ring(&mut phone, 6).await, 1, "no second request arrived");
    page.wait("seen.events.length === 5").await;
    // Events that arrive around a reload are given once and in order, half of them before it and half after it.
    let before = page.evaluate("seen.events").await;
    page.reload().await;
    ring(&mut phone, 7).await;
    page.wait("seen.events.length === 1").await;
    assert_eq!(
        (before.as_array().unwrap().last().unwrap(), page.evaluate("seen.events").await),
        (&json!(6), json!([7]))
    );
    assert_eq!(page.evaluate("[seen.errors, seen.backs]").await, json!([[], []]));
    page.close().await;
}

pub(super) async fn what_the_page_before_had_ends_if_the_new_one_does_not_make_it(chromium: &Chromium) {
    let broker = Broker::start().await;
    let mut phone = broker.app("phone").await;
    let page = open(chromium, &broker, "").await;
    page.evaluate("serve()").await;
    phone.send(envelope("Phone/Call/Hold", json!({ "id": "hold", "timeout": 60_000 }))).await;
    page.evaluate("desk.subscribe('Desktop/Old/*', () => {}).ready.then(() => {})").await;
    page.reload().await;
    // The page that was left has answered, because it cannot go on.
    assert_eq!(phone.next().await["data"]["ErrorCode"], "HANDLER_GONE");
    page.wait("window.session").await;
    let ended = async {
        loop {
            phone.send(envelope("Desktop/Old/Note", json!({ "id": "old" }))).await;
            if phone.next().await["data"]["Receivers"] == 0 {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    within("the old subscription ends", ended).await;
    // What both pages have is left.
    assert_eq!(ring(&mut phone, 1).await, 1);
    page.close().await;
}

pub(super) async fn a_duplicated_tab_is_a_session_of_its_own(chromium: &Chromium) {
    let broker = Broker::start().await;
    let mut phone = broker.app("phone").await;
    let page = open(chromium, &broker, "").await;
    let first = page.evaluate("window.session").await;
    // Its record is in the storage that the duplicate gets a copy of.
    page.evaluate("window.dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))").await;
    page.evaluate("window.dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))").await;
    page.wait("seen.backs.length === 1").await;
    assert_ne!(page.evaluate("sessionStorage.length").await, 0);
    let copy = page.duplicate().await;
    copy.wait("window.session").await;
    assert_ne!(copy.evaluate("window.session").await, first);
    assert_eq!(ring(&mut phone, 1).await, 2);
    for tab in [&page, &copy] {
        tab.wait("seen.events.length === 1").await;
        assert_eq!(tab.evaluate("[desk.state, seen.errors]").await, json!(["open", []]));
    }
    // Each of them survives its own reload.
    let second = copy.evaluate("window.session").await;
    copy.reload().await;
    copy.wait("window.session").await;
    assert_eq!(copy.evaluate("window.session").await, second);
    copy.close().await;
    page.close().await;
}

pub(super) async fn a_page_in_the_back_forward_cache_resumes(chromium: &Chromium) {
    let broker = Broker::start().await;
    let mut phone = broker.app("phone").await;
    let page = open(chromium, &broker, "").await;
    page.evaluate("window.dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))").await;
    is_in_state(&mut phone, "page", "away").await;
    assert_eq!(page.evaluate("navigator.locks.query().then(({ held }) => held.length)").await, 0);
    ring(&mut phone, 1).await;
    page.evaluate("window.dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))").await;
    page.wait("seen.events.length === 1").await;
    assert_eq!(page.evaluate("seen.backs.map(({ how }) => how)").await, json!(["resumed"]));
    page.close().await;
}

pub(super) async fn a_frozen_page_says_that_it_sleeps(chromium: &Chromium) {
    let broker = Broker::start().await;
    let mut phone = broker.app("phone").await;
    let page = open(chromium, &broker, "").await;
    page.evaluate("document.dispatchEvent(new Event('freeze'))").await;
    is_in_state(&mut phone, "page", "asleep").await;
    page.evaluate("document.dispatchEvent(new Event('resume'))").await;
    is_in_state(&mut phone, "page", "active").await;
    page.close().await;
}

pub(super) async fn a_restarted_broker_is_reported_to_the_new_page(chromium: &Chromium) {
    let broker = Broker::start().await;
    let page = open(chromium, &broker, "").await;
    // As if the broker had forgotten the session.
    page.evaluate(
        "addEventListener('pagehide', () => {
        const key = sessionStorage.key(0);
        sessionStorage.setItem(key, JSON.stringify({ ...JSON.parse(sessionStorage.getItem(key)), token: 'unknown' }));
    })",
    )
    .await;
    page.reload().await;
    page.wait("window.session && seen.backs.length === 1").await;
    let back: Value = page.evaluate("seen.backs[0]").await;
    assert_eq!((&back["how"], &back["patterns"]), (&json!("lost"), &json!([])));
    page.close().await;
}
