//! The console of a broker: signing in, every page, the keyboard, axe. Pictures of the pages are in target/screenshots.

use std::net::SocketAddr;

use serde_json::json;

use super::{Chromium, Page};
use crate::admin::{TOKENS, call_with};
use crate::support::programs::{built, node_modules};
use crate::support::{Broker, Peer, application, envelope, token_of};

/// A name of somebody who tries to run a script in the console.
const HOSTILE: &str = "<img src=x onerror=window.attacked=1>";

/// A name that leads to this machine, as tests/node/chromium.cjs says.
const ELSEWHERE: &str = "crm.example.com";

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

    /// Returns a link as `switchboard console --print` does.
    async fn link(&self) -> String {
        let headers = [("Authorization", "Bearer actor")];
        let answer = call_with(self.address, "POST", "/v1/console/code", &headers, None).await.json();
        format!("http://{}/#code={}", self.address, answer["code"].as_str().unwrap())
    }

    /// Opens the console, signed in.
    async fn open<'c>(&self, chromium: &'c Chromium) -> Page<'c> {
        let page = chromium.open_url(&self.link().await).await;
        page.wait(&heading("Overview")).await;
        page
    }
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
    let link = site.link().await;
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

pub(super) async fn names_of_others_are_text_on_every_page(chromium: &Chromium) {
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
    crate::support::within("a message in Traffic", publish).await;
    page.wait(&shows(&format!("{HOSTILE}/Call/Ringing"))).await;
    page.click("main button[aria-pressed]").await;
    pictures(&page, "traffic").await;
    // One id through request, handler and answer.
    page.click("main button.link").await;
    page.wait(&shows("What happened to")).await;

    page.evaluate(
        "location.hash = '#/why?source=softphone&user=alice&channel=Phone&topic=Call&subtopic=Ringing&to=log'",
    )
    .await;
    page.wait(&shows("is an event")).await;
    page.wait(&shows("NOT_REGISTERED")).await;
    page.evaluate("document.getElementById('to').value = ''").await;
    page.click("main button[type=submit]").await;
    page.wait(&shows(HOSTILE)).await;
    pictures(&page, "why").await;
    // An error that quotes a name.
    page.evaluate(&format!("document.getElementById('source').value = {}", json!(format!("{HOSTILE}2")))).await;
    page.click("main button[type=submit]").await;
    page.wait(&shows(&format!("no session of '{HOSTILE}2'"))).await;

    page.evaluate("location.hash = '#/health'").await;
    page.wait(&shows("The credential store can be read.")).await;
    page.wait(&shows("The broker has no certificate")).await;
    pictures(&page, "health").await;

    page.evaluate("location.hash = '#/try'").await;
    page.wait(&shows("Register first.")).await;
    page.wait(&shows("Nothing yet.")).await;
    page.click("section[aria-labelledby=register-title] [type=submit]").await;
    page.wait(&shows("Registered for alice@example.com")).await;
    subscribe_to(&page, HOSTILE).await;
    let mut other = site.broker.app_of(&format!("{HOSTILE}3"), "alice@example.com").await;
    let data = json!({ "id": "4", "data": { "text": HOSTILE, "password": "shown-to-nobody" } });
    other.send(envelope(&format!("{HOSTILE}/Call/Ringing"), data)).await;
    page.wait(&log_shows(&format!("{HOSTILE}/Call/Ringing from {HOSTILE}3"))).await;
    page.wait(&log_shows("••••••••")).await;
    assert_eq!(page.evaluate("document.body.innerText.includes('shown-to-nobody')").await, false);
    page.click("section[aria-labelledby=send-title] [type=submit]").await;
    page.wait(&log_shows("Phone/Call/Ringing 0 receivers")).await;
    pictures(&page, "try").await;

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
    pictures(&page, "doctor").await;

    page.click("#sign-out").await;
    page.wait(&heading("Sign in")).await;
    pictures(&page, "sign-in").await;
    let calls = page.console().await;
    assert!(calls.iter().all(|it| !it.contains("Refused")), "{calls:?}");
    assert_eq!(page.evaluate("[window.violations, window.attacked ?? null]").await, json!([[], null]));
    page.close().await;
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

/// The token of an application is used and not kept, and its answers are shown without passwords.
pub(super) async fn an_application_is_tried_with_its_token(chromium: &Chromium) {
    let configuration = format!(
        "[auth]\nmode = 'tokens'\n[admin]\nlisten = ['127.0.0.1:0']\n{TOKENS}\n{}",
        application("desk", Some("alice"), "")
    );
    let broker = Broker::with_config(&configuration).await;
    let address = broker.admin().await;
    let site = Site { broker, address };
    site.broker.credentials_set("alice", "1245456", "acq@123", "5051").await;
    let page = site.open(chromium).await;
    page.evaluate("location.hash = '#/try'").await;
    page.wait(&heading("Try it")).await;
    page.evaluate("document.getElementById('source').value = 'desk'").await;
    for (token, outcome) in [("wrong".to_owned(), "UNAUTHENTICATED"), (token_of("desk"), "Registered for alice")] {
        page.click("#app-token").await;
        page.type_text(&token).await;
        page.press("Enter").await;
        page.wait(&shows(outcome)).await;
        let kept =
            "[document.getElementById('app-token').value, Object.keys(sessionStorage), JSON.stringify(localStorage)]";
        assert_eq!(page.evaluate(kept).await, json!(["", ["switchboard.console.key"], "{}"]));
    }
    // The second sample.
    page.evaluate("document.getElementById('sample').focus()").await;
    page.press("ArrowDown").await;
    page.click("section[aria-labelledby=send-title] [type=submit]").await;
    page.wait(&log_shows("\"Username\": \"1245456\"")).await;
    page.wait(&log_shows("\"Password\": \"••••••••\"")).await;
    // The session ends with the page.
    page.evaluate("location.hash = '#/applications'").await;
    page.wait(&shows("No application is connected.")).await;
    done(page).await;
}

/// A console beyond loopback has an origin that the broker does not let connect, and says what to add.
pub(super) async fn a_console_from_elsewhere_names_the_origin_to_add(chromium: &Chromium) {
    let broker =
        Broker::with_config(&format!("{CONFIGURATION}{TOKENS}[http]\nallowed_hosts = ['{ELSEWHERE}']\n")).await;
    let address = broker.admin().await;
    let site = Site { broker, address };
    let link = site.link().await.replace("127.0.0.1", ELSEWHERE);
    let page = chromium.open_url(&link).await;
    page.wait(&heading("Overview")).await;
    let line = format!("allowed_origins = [\"http://{ELSEWHERE}:{}\"]", address.port());
    for path in ["try", "doctor"] {
        page.evaluate(&format!("location.hash = '#/{path}'")).await;
        page.wait(&shows(&line)).await;
    }
    page.wait(&shows("is not a secure context")).await;
    page.wait(&shows("to mend")).await;
    page.close().await;
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

/// Presses Tab until this element has the focus.
async fn tab_to(page: &Page<'_>, selector: &str) {
    for _ in 0..40 {
        page.press("Tab").await;
        if page.evaluate(&format!("document.activeElement.matches({})", json!(selector))).await == true {
            return;
        }
    }
    panic!("Tab never reaches {selector}");
}

pub(super) async fn everything_is_done_by_keyboard(chromium: &Chromium) {
    let site = Site::start().await;
    let (mut hostile, mut phone) = applications(&site).await;
    let page = site.open(chromium).await;
    tab_to(&page, "#skip").await;
    for (path, title) in [
        ("traffic", "Traffic"),
        ("why", "Why does it not arrive?"),
        ("health", "Health"),
        ("doctor", "Doctor"),
        ("try", "Try it"),
        ("overview", "Overview"),
    ] {
        visit(&page, path, title).await;
        tab_to(&page, "#skip").await;
    }
    try_by_keyboard(&page).await;
    visit(&page, "applications", "Applications").await;
    tab_to(&page, "#skip").await;
    // Closes a session.
    page.wait(&shows("softphone")).await;
    tab_to(&page, "#source").await;
    page.type_text("softphone").await;
    page.press("Enter").await;
    page.wait("document.querySelectorAll('tbody tr').length === 1").await;
    tab_to(&page, "td.actions button").await;
    page.press("Enter").await;
    page.wait("document.activeElement.id === 'reason'").await;
    page.press("Escape").await;
    page.wait("document.querySelector('dialog') === null && document.activeElement.matches('td.actions button')").await;
    page.press("Enter").await;
    page.wait("document.activeElement.id === 'reason'").await;
    page.type_text("a test").await;
    page.press("Enter").await;
    assert_eq!(phone.closed().await, 4410);
    assert_eq!(phone.close_reason(), "a test");
    page.wait(&shows("No session has this source and user.")).await;
    hostile.fence().await;
    done(page).await;
}

/// Goes to a page by its link.
async fn visit(page: &Page<'_>, path: &str, title: &str) {
    tab_to(page, &format!("nav a[href='#/{path}']")).await;
    page.press("Enter").await;
    page.wait(&heading(title)).await;
    assert_eq!(page.evaluate("document.activeElement.id").await, "main");
}

/// Registers, subscribes and publishes on the page Try it.
async fn try_by_keyboard(page: &Page<'_>) {
    visit(page, "try", "Try it").await;
    tab_to(page, "section[aria-labelledby=register-title] [type=submit]").await;
    page.press("Enter").await;
    page.wait(&shows("Registered for alice@example.com")).await;
    tab_to(page, "#pattern").await;
    page.press("Enter").await;
    page.wait("document.querySelector('.subscriptions .badge')?.textContent === 'subscribed'").await;
    tab_to(page, "section[aria-labelledby=send-title] [type=submit]").await;
    page.press("Enter").await;
    page.wait(&log_shows("Phone/Call/Ringing 0 receivers")).await;
    tab_to(page, "#skip").await;
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
