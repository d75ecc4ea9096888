//! examples/gadget.html in a browser: it shows an agent's login, and the password nowhere.

use std::net::SocketAddr;

use super::Chromium;
use crate::support::Broker;
use crate::support::programs::gadget_page;

const PASSWORD: &str = "acq@123-never-shown";

/// What a page showed, and everywhere else that a text of it might be.
pub(crate) struct Shown {
    /// `Username`, or what went wrong.
    pub(crate) login: String,
    /// `Extension`.
    pub(crate) extension: String,
    /// The whole document, its fields, its storage, its address and its console.
    pub(crate) everything: String,
}

/// Has the gadget fetch this user's credentials through this broker, which is in open mode and may have any store, and
/// waits until it shows an answer.
pub(crate) async fn fetch_credentials(chromium: &Chromium, broker: SocketAddr, user: &str) -> Shown {
    let path = format!("{}/gadget.html", broker.port());
    let page = chromium.open_text(&path, &format!("user={user}"), &gadget_page(&format!("ws://{broker}/ws"))).await;
    page.wait("document.getElementById('login').textContent !== ''").await;
    let text = async |id: &str| {
        let found = page.evaluate(&format!("document.getElementById('{id}').textContent")).await;
        found.as_str().unwrap_or_default().to_owned()
    };
    let (login, extension) = (text("login").await, text("extension").await);
    let places = "[document.documentElement.outerHTML, location.href, document.cookie, JSON.stringify(localStorage), \
                  JSON.stringify(sessionStorage), ...[...document.querySelectorAll('input')].map((it) => it.value)]";
    let mut everything = page.evaluate(places).await.to_string();
    everything.push_str(&page.console().await.join("\n"));
    page.close().await;
    Shown { login, extension, everything }
}

pub(super) async fn a_gadget_shows_the_login_and_never_the_password(chromium: &Chromium) {
    let broker = Broker::start().await;
    broker.credentials_set("alice@example.com", "1245456", PASSWORD, "5051").await;
    let shown = fetch_credentials(chromium, broker.address(), "alice@example.com").await;
    assert_eq!((shown.login.as_str(), shown.extension.as_str()), ("1245456", "5051"));
    assert!(shown.everything.contains("1245456"), "the places were looked at");
    assert!(!shown.everything.contains(PASSWORD), "{}", shown.everything);

    let shown = fetch_credentials(chromium, broker.address(), "nobody@example.com").await;
    assert!(shown.login.contains("nobody@example.com"), "{}", shown.login);
    assert_eq!((shown.extension.as_str(), shown.everything.contains(PASSWORD)), ("", false));
}
