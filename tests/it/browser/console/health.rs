//! What is not well: the org, a certificate, the logs of a channel.

use std::time::{Duration, SystemTime};

use serde_json::json;

use super::{done, open, pictures};
use crate::admin::TOKENS;
use crate::browser::Chromium;
use crate::cluster::servers::Servers;
use crate::salesforce::live_org::{Fixture, demo};
use crate::support::programs::node_modules;
use crate::support::tls::TlsFiles;
use crate::support::{Broker, envelope};

/// A user of the demonstration's org.
const USER: &str = "005000000000002AAA";

/// What the broker's calls to the org came to, a certificate near its end, and the logs of a channel.
#[expect(clippy::disallowed_methods, reason = "a certificate ends by the calendar")]
pub(in crate::browser) async fn health_shows_the_org_the_certificate_and_the_disk(chromium: &Chromium) {
    if node_modules("axe-core").await.is_none() {
        return;
    }
    let files = TlsFiles::new();
    let now = rcgen::date_time_ymd(1970, 1, 1) + SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    files.write(&files.authority.issue_with(|params| params.not_after = now + Duration::from_hours(5 * 24)));
    let more = format!(
        "[admin]\nlisten = ['127.0.0.1:0']\n{TOKENS}\n[channels.Phone]\nhistory = {{ size = 10, ttl = '10m' }}\n{}",
        files.table("listen = ['127.0.0.1:0']")
    );
    let fixture = Fixture::with(&more, demo(), &[]).await;
    let mut phone = fixture.broker.app_of("phone", USER).await;
    phone.send(envelope("Phone/Call/Ringing", json!({ "data": 1 }))).await;
    phone.send(envelope("Salesforce/User/FetchCredentials", json!({ "id": "1", "timeout": 5000 }))).await;
    phone.next_answer("Salesforce/User/FetchCredentials", "1").await;
    let page = open(chromium, fixture.broker.admin().await).await;
    page.evaluate("location.hash = '#/health'").await;
    let section = |name: &str| format!("document.querySelector('[aria-labelledby={name}-title]')?.innerText ?? ''");
    for (name, text) in [
        ("salesforce", "switchboard check --salesforce"),
        ("salesforce", "lookup 1 worked"),
        ("salesforce", "network, tls not tried here"),
        ("salesforce", "The broker logged in"),
        ("certificates", "Certificate of the listeners, until"),
        ("certificates", "4 days left"),
        ("certificates", "switchboard cert renew"),
        ("history", USER),
        ("history", "of 256 MiB (history.bytes)"),
    ] {
        page.wait(&format!("({}).includes({})", section(name), json!(text))).await;
    }
    pictures(&page, "health").await;
    done(page).await;
}

/// The nodes of a cluster, of which one is lost.
pub(in crate::browser) async fn health_shows_the_nodes_of_a_cluster(chromium: &Chromium) {
    if node_modules("axe-core").await.is_none() {
        return;
    }
    let Some(servers) = Servers::start(1).await else { return };
    let admin = format!("[admin]\nlisten = ['127.0.0.1:0']\n{TOKENS}\n");
    let one = Broker::open_with(&format!("{admin}{}", servers.table("one", 0))).await;
    let two = servers.node("two", 0).await;
    let page = open(chromium, one.admin().await).await;
    page.evaluate("location.hash = '#/health'").await;
    let section = "document.querySelector('[aria-labelledby=cluster-title]')?.innerText ?? ''";
    for text in ["test", "one", "nats-0", "two", "linked"] {
        page.wait(&format!("({section}).includes({})", json!(text))).await;
    }
    pictures(&page, "cluster").await;
    two.terminate().await;
    page.wait(&format!("({section}).includes('lost')")).await;
    done(page).await;
}
