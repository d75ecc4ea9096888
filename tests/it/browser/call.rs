//! A call in a cluster: a page on one node, the softphone on another, which is restarted in the middle.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use switchboard_client::{Client, Failure, Reply, Request, Triple};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Chromium;
use crate::cluster::balancer::Balancer;
use crate::cluster::servers::Servers;
use crate::support::within;

/// How often the softphone says how long the call lasts.
const EVERY: Duration = Duration::from_millis(20);

/// A page that dials and hangs up, and shows what it is told.
const PAGE: &str = r#"<!doctype html>
<title>Call</title>
<p id="call"></p>
<script src="http://ADDRESS/switchboard.global.js" crossorigin></script>
<script>
  window.told = [];
  const desk = switchboard.connect({ source: "crm", url: "ws://ADDRESS/ws", user: "alice" });
  desk.subscribe("Phone/Call/*", ({ triple, data }) => {
    if (triple === "Phone/Call/Lasts") return told.push(data);
    document.getElementById("call").textContent = `${triple.split("/")[2]} ${data}`;
  });
  window.ask = (what) => desk.request(`Phone/Command/${what}`);
</script>
"#;

/// What the page may ask a softphone for. It answers how often it has been asked.
fn obey(asked: &watch::Sender<Vec<String>>, request: &Request) -> Reply {
    asked.send_modify(|asked| asked.push(request.triple().subtopic.to_string()));
    json!(asked.borrow().len()).into()
}

/// Tells how long the call lasts, from the first command to the second. Returns how often.
async fn call(phone: Client, mut asked: watch::Receiver<Vec<String>>) -> usize {
    let event = |subtopic| Triple::new("Phone", "Call", subtopic);
    within("the call", asked.wait_for(|asked| asked.len() == 1)).await.unwrap();
    phone.publish(event("Connected"), json!("110")).await.unwrap();
    let (mut often, mut told) = (tokio::time::interval(EVERY), 0);
    while asked.borrow().len() < 2 {
        often.tick().await;
        phone.publish(event("Lasts"), json!(told)).await.unwrap();
        told += 1;
    }
    phone.publish(event("Ended"), json!(told)).receipt().await.unwrap();
    told
}

pub(super) async fn a_call_goes_on_while_the_node_of_the_softphone_restarts(chromium: &Chromium) {
    let Some(servers) = Servers::start(1).await else { return };
    let (page_node, mut phone_node) = tokio::join!(servers.node("a", 0), servers.node("b", 0));
    let balancer = Balancer::start().await;
    balancer.nodes.lock().push(phone_node.address());
    let phone = Client::builder(format!("ws://{}/ws", balancer.address)).source("phone").user("alice");
    let phone = within("a connection", phone.connect()).await.unwrap();
    let (asked, asking) = watch::channel(Vec::new());
    let asked = Arc::new(asked);
    let obeying = Arc::clone(&asked);
    let serving = phone
        .serve("Phone/Command/*".parse().unwrap(), move |request| ready(Ok::<_, Failure>(obey(&obeying, &request))));
    let _serving = within("the subscription", serving.into_future()).await.unwrap();
    let mut calling = JoinSet::new();
    calling.spawn(call(phone, asking));

    let text = PAGE.replace("ADDRESS", &page_node.address().to_string());
    let page = chromium.open_served("call/page.html", &[("call/page.html", &text)]).await;
    assert_eq!(page.evaluate("ask('Dial')").await, 1);
    page.shows("call", "Connected 110").await;
    page.wait("told.length > 5").await;

    // The softphone moves to the page's node, and stays there.
    *balancer.nodes.lock() = vec![page_node.address()];
    phone_node.terminate().await;
    assert_eq!(phone_node.exit_code().await, Some(0));
    let _successor = phone_node.successor().await;
    let so_far = page.evaluate("told.length").await;
    page.wait(&format!("told.length > {so_far} + 5")).await;
    assert_eq!(page.evaluate("ask('HangUp')").await, 2);
    let told = within("the end of the call", calling.join_all()).await[0];
    page.shows("call", &format!("Ended {told}")).await;
    let every = (0..told).collect::<Vec<_>>();
    assert_eq!(page.evaluate("told").await, json!(every), "lost, repeated or out of order");
    assert_eq!(*asked.borrow(), ["Dial", "HangUp"]);
    assert_eq!(page.console().await, Vec::<String>::new());
    page.close().await;
}
