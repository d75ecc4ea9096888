//! Several Salesforce tabs of one agent: one of them answers, and what an application sends is done once.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tokio::time::interval;

use super::salesforce::{ALICE, CONTACT, PAGE, TASK, done, files, page, task};
use super::{Chromium, Host, LOOK_EVERY, Page};
use crate::client::fake_broker::FakeBroker;
use crate::support::{Broker, Peer, envelope, within};

const SAVE: &str = "Salesforce/Call/SaveLog";
const OPEN: &str = "Salesforce/Call/OpenObject";

/// Returns a second tab of the same profile, registered.
async fn beside<'c>(page: &Page<'c>) -> Page<'c> {
    let other = page.beside().await;
    other.shows("state", "registered").await;
    other
}

async fn calls(page: &Page<'_>, method: &str) -> Vec<Value> {
    let calls = page.evaluate(&format!("stub.called('{method}')")).await;
    serde_json::from_value(calls).unwrap()
}

async fn save(gadget: &mut Peer, id: &str, data: &Value) -> Value {
    gadget.send(envelope(SAVE, json!({ "id": id, "timeout": 8000, "data": data }))).await;
    gadget.next_answer(SAVE, id).await["data"].take()
}

/// Has a tab show another page, and waits until its session has ended: until then it may be given a request.
async fn leave(page: &Page<'_>, broker: &Broker) {
    page.leave().await;
    broker.log_until("a tab that left", |log| log.contains(": left source=\"salesforce\"")).await;
}

/// Returns the tab that has saved something, then the other one.
async fn by_saved<'c>(one: Page<'c>, other: Page<'c>) -> (Page<'c>, Page<'c>) {
    if calls(&one, "saveLog").await.is_empty() { (other, one) } else { (one, other) }
}

pub(super) async fn a_repeated_log_is_saved_once_whichever_tab_receives_it(chromium: &Chromium) {
    let broker = Broker::start().await;
    let first = page(chromium, &broker).await;
    let second = beside(&first).await;
    let mut gadget = broker.app_of("gadget", ALICE).await;
    let log = task(json!({ "Subject": "Call" }));
    let answer = save(&mut gadget, "log", &log).await;
    assert_eq!(answer["Success"], true, "{answer}");
    assert_eq!(calls(&first, "saveLog").await.len() + calls(&second, "saveLog").await.len(), 1);

    // A gather reaches both tabs.
    gadget.send(envelope(SAVE, json!({ "id": "log", "gather": true, "data": log }))).await;
    for _ in 0..2 {
        assert_eq!(gadget.next_answer(SAVE, "log").await["data"], answer);
    }
    assert_eq!(gadget.next_answer(SAVE, "log").await["data"]["Answered"], 2);

    // The other tab knows the outcome when the one that saved is gone.
    let (saver, other) = by_saved(first, second).await;
    leave(&saver, &broker).await;
    assert_eq!(save(&mut gadget, "log", &log).await, answer);
    assert_eq!(calls(&other, "saveLog").await.len(), 0);

    // An application that counts its ids from 1 after each start sends other values under the same id.
    let another = task(json!({ "Subject": "Another call" }));
    assert_eq!(save(&mut gadget, "log", &another).await["Success"], true);
    assert_eq!(calls(&other, "saveLog").await.len(), 1);
    assert!(!other.evaluate("JSON.stringify(localStorage)").await.to_string().contains("Another call"));
    done(other).await;
    saver.close().await;
}

pub(super) async fn a_log_whose_tab_was_closed_while_it_saved_is_not_saved_again(chromium: &Chromium) {
    let broker = Broker::start().await;
    let first = page(chromium, &broker).await;
    let second = beside(&first).await;
    let mut gadget = broker.app_of("gadget", ALICE).await;
    for tab in [&first, &second] {
        tab.evaluate("stub.hangNext('saveLog')").await;
    }
    let log = task(json!({ "Subject": "Call" }));
    gadget.send(envelope(SAVE, json!({ "id": "log", "timeout": 8000, "data": log }))).await;
    let saving = async {
        let mut often = interval(LOOK_EVERY);
        while calls(&first, "saveLog").await.is_empty() && calls(&second, "saveLog").await.is_empty() {
            often.tick().await;
        }
    };
    within("a tab that saves", saving).await;
    let (saver, other) = by_saved(first, second).await;
    saver.leave().await;
    assert_eq!(gadget.next_answer(SAVE, "log").await["data"]["ErrorCode"], "HANDLER_GONE");
    let answer = save(&mut gadget, "log", &log).await;
    assert_eq!(answer["ErrorCode"], "SAVE_LOG_FAILED", "{answer}");
    assert!(answer["ErrorMessage"].as_str().unwrap().contains("the record may exist"), "{answer}");
    assert_eq!(calls(&other, "saveLog").await.len(), 0);
    other.shows("error", "the record may exist").await;
    done(other).await;
    saver.close().await;
}

pub(super) async fn a_log_is_saved_once_when_the_storage_is_full(chromium: &Chromium) {
    let broker = Broker::start().await;
    let tab = page(chromium, &broker).await;
    let mut gadget = broker.app_of("gadget", ALICE).await;
    tab.evaluate(&storage_takes(0)).await;
    let log = task(json!({ "Subject": "Call" }));
    let answer = save(&mut gadget, "log", &log).await;
    assert_eq!(answer["Success"], true, "{answer}");
    assert_eq!(save(&mut gadget, "log", &log).await, answer);
    assert_eq!(calls(&tab, "saveLog").await.len(), 1);

    // A failed one may be repeated.
    tab.evaluate("stub.failNext('saveLog', 'SERVER_ERROR', 'the org is slow')").await;
    assert_eq!(save(&mut gadget, "failed", &log).await["ErrorCode"], "SAVE_LOG_FAILED");
    assert_eq!(save(&mut gadget, "failed", &log).await["Success"], true);
    done(tab).await;
}

pub(super) async fn a_log_whose_result_cannot_be_stored_is_answered_and_not_saved_again(chromium: &Chromium) {
    let broker = Broker::start().await;
    let tab = page(chromium, &broker).await;
    let mut gadget = broker.app_of("gadget", ALICE).await;
    tab.evaluate(&storage_takes(1)).await;
    let log = task(json!({ "Subject": "Call" }));
    let answer = save(&mut gadget, "log", &log).await;
    assert_eq!(answer["Success"], true, "{answer}");
    assert_eq!(save(&mut gadget, "log", &log).await, answer);
    assert_eq!(calls(&tab, "saveLog").await.len(), 1);

    // Another tab knows only that it was begun.
    let other = beside(&tab).await;
    leave(&tab, &broker).await;
    let answer = save(&mut gadget, "log", &log).await;
    assert_eq!(answer["ErrorCode"], "SAVE_LOG_FAILED", "{answer}");
    assert!(answer["ErrorMessage"].as_str().unwrap().contains("the record may exist"), "{answer}");
    assert_eq!(calls(&other, "saveLog").await.len(), 0);
    done(other).await;
    tab.close().await;
}

/// A script after which localStorage takes this many items, and is full then.
fn storage_takes(items: usize) -> String {
    format!(
        "(() => {{
            let room = {items};
            const setItem = Storage.prototype.setItem;
            Storage.prototype.setItem = function (...item) {{
                if (room-- <= 0) throw new DOMException('full', 'QuotaExceededError');
                setItem.apply(this, item);
            }};
        }})()"
    )
}

pub(super) async fn a_hidden_tab_with_slow_timers_opens_a_record_again(chromium: &Chromium) {
    let broker = Broker::start().await;
    let tab = page(chromium, &broker).await;
    let mut gadget = broker.app_of("gadget", ALICE).await;
    // A hidden tab's timers are late, its clock is not.
    let slow = "window.late = [];
        const { setTimeout: soon } = window;
        window.setTimeout = (then, ms, ...rest) => ms === 2000 ? late.push(then) : soon(then, ms, ...rest);";
    tab.evaluate(&format!("(() => {{ {slow} }})()")).await;
    let open = async |gadget: &mut Peer, pops: usize| {
        gadget.publish(OPEN, json!({ "sfid": TASK })).await;
        tab.wait(&format!("stub.called('screenPop').length === {pops}")).await;
    };
    open(&mut gadget, 1).await;
    tab.evaluate("(() => { const now = Date.now; Date.now = () => now() + 2500; })()").await;
    open(&mut gadget, 2).await;
    // Its claim has ended, and it makes another one.
    tab.evaluate("late.splice(0).forEach((end) => end())").await;
    tab.wait(
        "navigator.locks.query().then(({ held }) => !held.some(({ name }) => name.startsWith('switchboard-open')))",
    )
    .await;
    open(&mut gadget, 3).await;
    tab.wait("late.length === 1").await;
    done(tab).await;
}

pub(super) async fn each_record_opens_once_while_the_leading_tab_changes(chromium: &Chromium) {
    const RECORDS: usize = 60;
    let broker = Broker::start().await;
    let tabs = {
        let first = page(chromium, &broker).await;
        let second = beside(&first).await;
        [first, second]
    };
    let mut gadget = broker.app_of("gadget", ALICE).await;
    for at in 0..RECORDS {
        gadget.publish(OPEN, json!({ "sfid": format!("00T{at:012}") })).await;
        if at % 3 == 0 {
            // The agent looks at the other tab.
            let seen = tabs[at % 2].evaluate("document.dispatchEvent(new Event('visibilitychange'))");
            let open = gadget.publish(OPEN, json!({ "sfid": format!("00Q{at:012}") }));
            tokio::join!(seen, open);
        }
    }
    let wanted = RECORDS + RECORDS.div_ceil(3);
    let opened = async || [calls(&tabs[0], "screenPop").await, calls(&tabs[1], "screenPop").await].concat();
    let all = async {
        let mut often = interval(LOOK_EVERY);
        while opened().await.len() < wanted {
            often.tick().await;
        }
    };
    within("every record", all).await;
    // A later event on which both tabs act: what arrived before it has been handled in both.
    gadget.publish("Salesforce/Call/SetClickToDial", json!({ "enabled": true })).await;
    for tab in &tabs {
        tab.wait("stub.clickToDial").await;
    }
    let opened = opened().await;
    let different: BTreeSet<_> = opened.iter().map(|it| it["params"]["recordId"].as_str().unwrap()).collect();
    assert_eq!((opened.len(), different.len()), (wanted, wanted));
    for tab in tabs {
        done(tab).await;
    }
}

pub(super) async fn a_tab_that_loses_its_connection_leaves_records_to_another(chromium: &Chromium) {
    let broker = Broker::start().await;
    let first = page(chromium, &broker).await;
    let fake = FakeBroker::start().await;
    let elsewhere = files(&json!({ "url": fake.url(), "source": "salesforce", "user": ALICE }));
    let registered = async {
        let (mut peer, _) = fake.session().await;
        peer.grant().await;
        peer.grant().await;
        peer
    };
    let (second, peer) = tokio::join!(first.beside_with(elsewhere), registered);
    second.shows("leads", "yes").await;
    first.shows("leads", "no").await;

    peer.close(1001, "test").await;
    drop(fake);
    second.shows("leads", "no").await;
    first.shows("leads", "yes").await;
    // The agent looks at the tab without a connection. It does not lead.
    second.evaluate("document.dispatchEvent(new Event('visibilitychange'))").await;
    let mut gadget = broker.app_of("gadget", ALICE).await;
    gadget.publish(OPEN, json!({ "sfid": TASK })).await;
    first.shows("pop", TASK).await;
    assert_eq!(second.evaluate("document.getElementById('leads').textContent").await, "no");
    done(second).await;
    done(first).await;
}

pub(super) async fn a_tab_that_may_not_receive_records_leaves_them_to_another(chromium: &Chromium) {
    let broker = Broker::start().await;
    let first = page(chromium, &broker).await;
    let fake = FakeBroker::start().await;
    let elsewhere = files(&json!({ "url": fake.url(), "source": "salesforce", "user": ALICE }));
    let refused = json!({ "Success": false, "ErrorCode": "FORBIDDEN", "ErrorMessage": "a test refuses it" });
    let registered = async {
        let (mut peer, _) = fake.session().await;
        let open = peer.next().await;
        peer.answer(&open, refused.clone()).await;
        peer.grant().await;
        peer
    };
    let (second, peer) = tokio::join!(first.beside_with(elsewhere), registered);
    second.shows("state", "registered").await;
    second.shows("error", "FORBIDDEN: Salesforce/Call/OpenObject: a test refuses it").await;
    assert_eq!(second.evaluate("document.getElementById('leads').textContent").await, "no");
    let mut gadget = broker.app_of("gadget", ALICE).await;
    gadget.publish(OPEN, json!({ "sfid": CONTACT })).await;
    first.shows("pop", CONTACT).await;

    // The error has gone when a later session may subscribe.
    peer.close(1001, "test").await;
    let (mut peer, _) = fake.session().await;
    peer.grant().await;
    peer.grant().await;
    second.shows("leads", "yes").await;
    second.wait("document.getElementById('error').textContent === ''").await;
    done(second).await;
    done(first).await;
}

pub(super) async fn an_error_is_shown_until_its_cause_is_gone(chromium: &Chromium) {
    let fake = FakeBroker::start().await;
    let settings = json!({ "url": fake.url(), "source": "salesforce" });
    let setup = json!({ "fails": { "runApex": [{ "code": "SERVER_ERROR", "description": "the org is slow" }] }, "tokens": ["good"] });
    let opened = chromium.open(Host::Loopback, PAGE, files(&settings), setup);
    // The first call for a token failed, so the first connection sends the second token.
    let refused = async {
        let mut peer = fake.connection().await;
        let register = peer.expect("Broker/Application/Register").await;
        assert_eq!(register["data"]["token"], "good");
        let data =
            json!({ "Success": false, "ErrorCode": "UPSTREAM_UNAVAILABLE", "ErrorMessage": "Salesforce is slow" });
        peer.answer(&register, data).await;
        peer
    };
    let (page, mut peer) = tokio::join!(opened, refused);
    page.shows("error", "UPSTREAM_UNAVAILABLE: Salesforce is slow").await;
    // It does not wait until the broker closes the connection.
    assert!(peer.is_closed().await);
    let (mut peer, _) = fake.session().await;
    peer.grant().await;
    peer.grant().await;
    page.shows("state", "registered").await;
    page.wait("document.getElementById('error').textContent === ''").await;

    // A message that was refused stays refused after a reconnect; a person dismisses it.
    peer.close(1009, "too large").await;
    let (mut peer, _) = fake.session().await;
    peer.grant().await;
    peer.grant().await;
    page.shows("state", "registered").await;
    page.shows("error", "MESSAGE_REFUSED").await;
    page.click("#error button").await;
    page.wait("document.getElementById('error').textContent === ''").await;
    done(page).await;
}
