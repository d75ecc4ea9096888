//! Every page, with names and errors that are scripts.

use serde_json::json;

use super::{HOSTILE, Site, applications, heading, log_shows, pictures, shows, subscribe_to};
use crate::browser::{Chromium, Page};
use crate::support::programs::node_modules;
use crate::support::{Peer, envelope, within};

pub(in crate::browser) async fn names_of_others_are_text_on_every_page(chromium: &Chromium) {
    if node_modules("axe-core").await.is_none() {
        return;
    }
    let site = Site::start().await;
    let (_hostile, mut phone) = applications(&site).await;
    phone.send(envelope("Crm/Contact/Find", json!({ "id": "1", "timeout": 1000 }))).await;
    phone.next_failure("Crm/Contact/Find", "NO_HANDLER").await;
    let page = site.open(chromium).await;
    // The first sample.
    page.wait("document.querySelectorAll('.chart').length === 5").await;
    page.wait(&shows("NO_HANDLER")).await;
    pictures(&page, "overview").await;

    page.evaluate("location.hash = '#/applications'").await;
    page.wait(&shows(HOSTILE)).await;
    pictures(&page, "applications").await;

    traffic(&page, &mut phone).await;
    why(&page).await;
    try_it(&page, &site).await;
    doctor(&page).await;

    page.evaluate("location.hash = '#/health'").await;
    page.wait(&shows("The credential store can be read.")).await;
    page.wait(&shows("The broker has no certificate")).await;
    page.wait(&shows("The configuration names no org.")).await;

    page.click("#sign-out").await;
    page.wait(&heading("Sign in")).await;
    pictures(&page, "sign-in").await;
    let calls = page.console().await;
    assert!(calls.iter().all(|it| !it.contains("Refused")), "{calls:?}");
    assert_eq!(page.evaluate("[window.violations, window.attacked ?? null]").await, json!([[], null]));
    page.close().await;
}

async fn traffic(page: &Page<'_>, phone: &mut Peer) {
    page.evaluate("location.hash = '#/traffic'").await;
    page.wait(&heading("Traffic")).await;
    // Until the tap is open, messages are not shown.
    let publish = async {
        loop {
            phone.send(envelope("Phone/Call/Ringing", json!({ "id": HOSTILE, "data": 1 }))).await;
            phone.send(envelope(&format!("{HOSTILE}/Call/Ringing"), json!({ "id": "2" }))).await;
            phone.send(envelope("Phone/Call/Dial", json!({ "id": "3", "timeout": 1000 }))).await;
            phone.fence().await;
            if page.evaluate(&shows("NO_HANDLER")).await == true {
                break;
            }
        }
    };
    within("a message in Traffic", publish).await;
    page.wait(&shows(&format!("{HOSTILE}/Call/Ringing"))).await;
    page.click("main button[aria-pressed]").await;
    pictures(page, "traffic").await;
    // One id through request, handler and answer.
    page.click("main button.link").await;
    page.wait(&shows("What happened to")).await;
}

async fn why(page: &Page<'_>) {
    page.evaluate(
        "location.hash = '#/why?source=softphone&user=alice&channel=Phone&topic=Call&subtopic=Ringing&to=log'",
    )
    .await;
    page.wait(&shows("is an event")).await;
    page.wait(&shows("NOT_REGISTERED")).await;
    page.evaluate("document.getElementById('to').value = ''").await;
    page.click("main button[type=submit]").await;
    page.wait(&shows(HOSTILE)).await;
    pictures(page, "why").await;
    // An error that quotes a name.
    page.evaluate(&format!("document.getElementById('source').value = {}", json!(format!("{HOSTILE}2")))).await;
    page.click("main button[type=submit]").await;
    page.wait(&shows(&format!("no session of '{HOSTILE}2'"))).await;
}

async fn try_it(page: &Page<'_>, site: &Site) {
    page.evaluate("location.hash = '#/try'").await;
    page.wait(&shows("Register first.")).await;
    page.wait(&shows("Nothing yet.")).await;
    page.click("section[aria-labelledby=register-title] [type=submit]").await;
    page.wait(&shows("Registered for alice@example.com")).await;
    subscribe_to(page, HOSTILE).await;
    let mut other = site.broker.app_of(&format!("{HOSTILE}3"), "alice@example.com").await;
    let data = json!({ "id": "4", "data": { "text": HOSTILE, "password": "shown-to-nobody" } });
    other.send(envelope(&format!("{HOSTILE}/Call/Ringing"), data)).await;
    page.wait(&log_shows(&format!("{HOSTILE}/Call/Ringing from {HOSTILE}3"))).await;
    page.wait(&log_shows("••••••••")).await;
    assert_eq!(page.evaluate("document.body.innerText.includes('shown-to-nobody')").await, false);
    page.click("section[aria-labelledby=send-title] [type=submit]").await;
    page.wait(&log_shows("Phone/Call/Ringing 0 receivers")).await;
    pictures(page, "try").await;
}

async fn doctor(page: &Page<'_>) {
    page.evaluate(&format!("location.hash = '#/doctor?origin=' + encodeURIComponent({})", json!(HOSTILE))).await;
    page.wait(&shows("the origin")).await;
    page.evaluate("location.hash = '#/doctor'").await;
    page.wait(&shows("A socket to ws://")).await;
    page.wait(&shows("Enter the origin of your page")).await;
    page.click("#origin").await;
    page.type_text("https://crm.example.com").await;
    page.press("Enter").await;
    page.wait(&shows("The broker refuses pages of https://crm.example.com")).await;
    page.wait(&shows("1 to mend")).await;
    pictures(page, "doctor").await;
}
