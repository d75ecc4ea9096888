//! The console of a broker: signing in (here), every page and axe with names that are scripts (`names`), the keyboard
//! (`keyboard`), an application in the page (`trying`), and what is not well (`health`). Pictures of the pages are in
//! target/screenshots.

mod health;
mod keyboard;
mod names;
mod trying;

use std::net::SocketAddr;

use serde_json::json;

use super::{Chromium, Page};
use crate::admin::{TOKENS, call_with};
use crate::support::programs::built;
use crate::support::{Broker, Peer};

pub(super) use self::health::{health_shows_the_nodes_of_a_cluster, health_shows_the_org_the_certificate_and_the_disk};
pub(super) use self::keyboard::everything_is_done_by_keyboard;
pub(super) use self::names::names_of_others_are_text_on_every_page;
pub(super) use self::trying::{
    a_console_from_elsewhere_names_the_origin_to_add, an_application_is_tried_with_its_token,
};

/// A name of somebody who tries to run a script in the console.
const HOSTILE: &str = "<img src=x onerror=window.attacked=1>";

/// A broker, and its admin listener.
struct Site {
    broker: Broker,
    address: SocketAddr,
}

const CONFIGURATION: &str = "[auth]\nmode = 'open'\n[admin]\nlisten = ['127.0.0.1:0']\n";

impl Site {
    async fn start() -> Self {
        let broker = Broker::with_config(&format!("{CONFIGURATION}{TOKENS}")).await;
        let address = broker.admin().await;
        Self { broker, address }
    }

    /// Opens the console, signed in.
    async fn open<'c>(&self, chromium: &'c Chromium) -> Page<'c> {
        open(chromium, self.address).await
    }
}

/// Returns a link to the console at this address, as `switchboard console --print` does.
async fn link(address: SocketAddr) -> String {
    let headers = [("Authorization", "Bearer actor")];
    let answer = call_with(address, "POST", "/v1/console/code", &headers, None).await.json();
    format!("http://{address}/#code={}", answer["code"].as_str().unwrap())
}

/// Opens the console at this address, signed in.
async fn open(chromium: &Chromium, address: SocketAddr) -> Page<'_> {
    let page = chromium.open_url(&link(address).await).await;
    page.wait(&heading("Overview")).await;
    page
}

/// Whether this is the heading of the page.
fn heading(text: &str) -> String {
    format!("document.querySelector('h1')?.textContent === {}", json!(text))
}

/// Whether the page shows this text.
fn shows(text: &str) -> String {
    format!("document.querySelector('main').innerText.includes({})", json!(text))
}

/// Ends a page that has broken no policy and that no name has attacked.
async fn done(page: Page<'_>) {
    assert_eq!(page.evaluate("[window.violations, window.attacked ?? null]").await, json!([[], null]));
    let console = page.console().await;
    let wrong: Vec<_> = console.iter().filter(|it| it.starts_with("error") || it.starts_with("uncaught")).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    page.close().await;
}

pub(super) async fn a_link_signs_in_once(chromium: &Chromium) {
    let site = Site::start().await;
    let link = link(site.address).await;
    let page = chromium.open_url(&link).await;
    page.wait(&heading("Overview")).await;
    let places = "[location.hash, JSON.stringify(localStorage), document.cookie, Object.keys(sessionStorage).length]";
    assert_eq!(page.evaluate(places).await, json!(["#/overview", "{}", "", 1]));
    assert_eq!(page.evaluate("history.length").await, 2, "the link is not in the history");
    done(page).await;

    let again = chromium.open_url(&link).await;
    again.wait(&shows("the code was used before")).await;
    again.wait(&heading("Sign in")).await;
    // From another machine, with a token.
    again.click("#token").await;
    again.type_text("wrong").await;
    again.press("Enter").await;
    again.wait(&shows("UNAUTHENTICATED")).await;
    again.evaluate("document.getElementById('token').value = ''").await;
    again.click("#token").await;
    again.type_text("reader").await;
    again.press("Enter").await;
    again.wait(&heading("Overview")).await;
    again.close().await;
}

/// A user of the application with the hostile name that subscribes to everything, and a softphone.
async fn applications(site: &Site) -> (Peer, Peer) {
    let mut hostile = site.broker.app_of(HOSTILE, "alice").await;
    hostile.subscribe("Phone/*/*").await;
    let phone = site.broker.app_of("softphone", "alice").await;
    (hostile, phone)
}

/// Whether the log of the page Try it shows this text.
fn log_shows(text: &str) -> String {
    format!("document.querySelector('.log').innerText.replaceAll('\\n', ' ').includes({})", json!(text))
}

/// Subscribes to all of a channel, on the page Try it.
async fn subscribe_to(page: &Page<'_>, channel: &str) {
    page.evaluate(&format!("document.getElementById('pattern').value = {}", json!(channel))).await;
    page.click("section[aria-labelledby=subscribe-title] [type=submit]").await;
    page.wait("document.querySelector('.subscriptions .badge')?.textContent === 'subscribed'").await;
}

/// Looks at a page in each size and scheme: nothing is wider than the window, and axe finds nothing in one size of each scheme.
async fn pictures(page: &Page<'_>, name: &str) {
    let folder = built().parent().unwrap().join("screenshots");
    for width in [360, 1440] {
        for scheme in ["light", "dark"] {
            page.resize(width, scheme).await;
            let look = (width == 360) == (scheme == "dark");
            let found = page.picture(&folder.join(format!("console-{name}-{width}-{scheme}.png")), look).await;
            assert_eq!(found, json!([]), "{name} at {width} px, {scheme}");
            let overflow = page.evaluate("document.documentElement.scrollWidth - innerWidth").await;
            assert!(overflow.as_i64().unwrap() <= 0, "{name} at {width} px is {overflow} px wider than the window");
        }
    }
    page.resize(1280, "light").await;
}

pub(super) async fn a_page_whose_token_is_removed_asks_to_sign_in(chromium: &Chromium) {
    let site = Site::start().await;
    let page = site.open(chromium).await;
    let (reader, _) = TOKENS.split_at(TOKENS.rfind("[[admin.tokens]]").unwrap());
    site.broker.configure(&format!("{CONFIGURATION}{reader}"));
    site.broker.reload().await;
    page.wait(&heading("Sign in")).await;
    page.wait(&shows("The key is no longer valid.")).await;
    assert_eq!(page.evaluate("sessionStorage.length").await, 0);
    page.close().await;
}
