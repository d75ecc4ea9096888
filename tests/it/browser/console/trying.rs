//! An application in the page.

use serde_json::json;

use super::{CONFIGURATION, Site, done, heading, link, log_shows, shows};
use crate::admin::TOKENS;
use crate::browser::Chromium;
use crate::support::{Broker, application, token_of};

/// A name that leads to this machine, as tests/node/chromium.cjs says.
const ELSEWHERE: &str = "crm.example.com";

/// The token of an application is used and not kept, and its answers are shown without passwords.
pub(in crate::browser) async fn an_application_is_tried_with_its_token(chromium: &Chromium) {
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
pub(in crate::browser) async fn a_console_from_elsewhere_names_the_origin_to_add(chromium: &Chromium) {
    let broker =
        Broker::with_config(&format!("{CONFIGURATION}{TOKENS}[http]\nallowed_hosts = ['{ELSEWHERE}']\n")).await;
    let address = broker.admin().await;
    let site = Site { broker, address };
    let link = link(site.address).await.replace("127.0.0.1", ELSEWHERE);
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
