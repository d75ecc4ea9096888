//! Why a page cannot connect, as clients/js finds it out in Chromium. [`super::firefox`] asks Firefox; `WebKit` is not asked: SKIPPED.

use serde_json::json;

use super::{Chromium, Host, Page};
use crate::support::Broker;

async fn open<'c>(chromium: &'c Chromium, host: Host, url: &str, more: &str) -> Page<'c> {
    chromium.open(host, &format!("tests/node/reason.html?url={url}{more}"), json!({}), json!({})).await
}

#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
pub(super) async fn a_page_says_why_it_cannot_connect(chromium: &Chromium) {
    eprintln!("SKIPPED: reasons of failed connections in WebKit, for which this suite has no driver");
    let broker = Broker::start().await;
    let address = broker.address();
    let here = chromium.origin(Host::Loopback).replace("http:", "ws:");
    let cases = [
        (Host::Loopback, format!("ws://{address}/ws"), "&policy=connect-src 'self'", "CSP_BLOCKED"),
        (Host::Loopback, "ws://127.0.0.1:1/ws".to_owned(), "", "BROKER_DOWN"),
        (Host::Loopback, format!("{here}/ws"), "", "NOT_SWITCHBOARD"),
        (Host::Loopback, format!("ws://crm.example.com:{}/ws", address.port()), "", "HOST_REFUSED"),
        (Host::Elsewhere, format!("ws://{address}/ws"), "", "ORIGIN_REFUSED"),
        (Host::Public, format!("ws://{address}/ws"), "&permission=wait", "LNA_PROMPT"),
        // Nobody answers the prompt of a browser without a window, so it counts as refused, and stays so.
        (Host::Public, format!("ws://{address}/ws"), "", "LNA_DENIED"),
    ];
    for (host, url, more, code) in cases {
        let page = open(chromium, host, &url, more).await;
        page.wait(&format!("desk.problem?.code === '{code}' && desk.problem.cure")).await;
        assert_eq!(page.evaluate("desk.state").await, "connecting", "{code}");
        page.close().await;
    }
}

pub(super) async fn a_page_connects_when_the_person_allows_it(chromium: &Chromium) {
    let listed = format!("[http]\nallowed_origins = [{}]", json!(chromium.origin(Host::Public)));
    let broker = Broker::open_with(&listed).await;
    let page = open(chromium, Host::Public, &format!("ws://{}/ws", broker.address()), "&permission=wait").await;
    page.wait("desk.problem?.code === 'LNA_PROMPT'").await;
    // No click is needed: the change of the permission connects.
    page.allow().await;
    page.wait("desk.state === 'open'").await;
    assert_eq!(page.evaluate("desk.problem === undefined").await, true);
    page.close().await;
}
