//! Why a page cannot connect, as clients/js finds it out in Firefox, which asks for Local Network Access in its own way: the
//! socket stays in CONNECTING until the person has answered. tests/node/firefox.cjs is the other half.

use serde_json::json;

use super::{Chromium, Host};
use crate::support::Broker;

#[tokio::test]
async fn a_page_in_firefox_says_why_it_cannot_connect() {
    let Some(firefox) = Chromium::launch_firefox().await else { return };
    let public = firefox.origin(Host::Public);
    let broker = Broker::open_with(&format!("[http]\nallowed_origins = [{}]", json!(public))).await;
    let url = format!("ws://{}/ws", broker.address());
    let here = firefox.origin(Host::Loopback).replace("http:", "ws:");
    let open = async |host: Host, url: &str, more: &str| {
        firefox.open(host, &format!("tests/node/reason.html?url={url}{more}"), json!({}), json!({})).await
    };
    for (url, more, code) in [
        (url.clone(), "&policy=connect-src 'self'", "CSP_BLOCKED"),
        ("ws://127.0.0.1:1/ws".to_owned(), "", "BROKER_DOWN"),
        (format!("{here}/ws"), "", "NOT_SWITCHBOARD"),
        (format!("ws://crm.example.com:{}/ws", broker.address().port()), "", "HOST_REFUSED"),
    ] {
        let page = open(Host::Loopback, &url, more).await;
        page.wait(&format!("desk.problem?.code === '{code}' && desk.problem.cure")).await;
        assert_eq!(page.evaluate("desk.state").await, "connecting", "{code}");
        page.close().await;
    }

    // A page from the internet. The person is asked, refuses, and thinks better of it.
    let page = open(Host::Public, &url, "").await;
    for (answer, code) in [(None, "LNA_PROMPT"), (Some("denied"), "LNA_DENIED")] {
        if let Some(answer) = answer {
            firefox.tell(json!({ "do": "permit", "origin": public, "state": answer })).await;
        }
        page.wait(&format!("desk.problem?.code === '{code}' && desk.problem.cure")).await;
    }
    firefox.tell(json!({ "do": "permit", "origin": public, "state": "granted" })).await;
    page.wait("desk.state === 'open' && desk.problem === undefined").await;
    page.close().await;
    firefox.end().await;
}
