//! The recipes of docs/guides/recipes.md that need a browser. clients/js/test/recipes.test.ts has the others.

use serde_json::json;

use super::{Chromium, Page};
use crate::support::Broker;

const GUIDE: &str = "docs/guides/recipes.md";

/// Returns a block of the guide, with the address of the broker in place of the usual one.
fn recipe(name: &str, broker: &Broker) -> String {
    let guide = std::fs::read_to_string(GUIDE).unwrap();
    let (_, after) = guide.split_once(&format!(" as {name} -->\n")).unwrap_or_else(|| panic!("{GUIDE} lacks {name}"));
    let (_, code) = after.split_once('\n').unwrap();
    code.split("```").next().unwrap().replace("localhost:7420", &broker.address().to_string())
}

async fn done(page: Page<'_>) {
    let console = page.console().await;
    assert!(!console.iter().any(|it| it.starts_with("uncaught")), "{console:?}");
    page.close().await;
}

pub(super) async fn a_plain_page_shows_its_calls(chromium: &Chromium) {
    let broker = Broker::start().await;
    let mut phone = broker.app("phone").await;
    let page = chromium.open_served("recipes/page.html", &[("recipes/page.html", &recipe("page.html", &broker))]).await;
    page.shows("state", "open").await;
    page.click("#answer").await;
    page.shows("state", "no handler").await;
    // Its subscription was sent before that request.
    phone.publish("Phone/Call/Ringing", json!({ "from": "110" })).await;
    page.shows("caller", "110").await;
    done(page).await;
}

pub(super) async fn a_worker_receives_and_publishes(chromium: &Chromium) {
    let broker = Broker::start().await;
    let mut phone = broker.app("phone").await;
    phone.subscribe("Phone/State/*").await;
    let owner = format!("<!doctype html><title>Owner</title><script>{}</script>", recipe("owner.js", &broker));
    let client = std::fs::read_to_string("clients/js/bundle/switchboard.js").unwrap();
    let served = [
        ("recipes/owner.html", owner.as_str()),
        ("recipes/worker.js", &recipe("worker.js", &broker)),
        ("recipes/switchboard.js", &client),
    ];
    let page = chromium.open_served("recipes/owner.html", &served).await;
    page.evaluate("publish('Phone/State/Now', 'ready')").await;
    assert_eq!(phone.next_on("Phone/State/Now").await["data"], "ready");
    phone.publish("Phone/Call/Ringing", json!("110")).await;
    let printed = async {
        while !page.console().await.iter().any(|it| it == "log: Phone/Call/Ringing 110") {
            tokio::task::yield_now().await;
        }
    };
    crate::support::within("what the worker got", printed).await;
    done(page).await;
}
