//! The examples survive any envelope. The broker is played by the test, because the real one sends only whole ones.

use serde_json::{Value, json};
use tokio::process::Command;

use super::examples::{python_adapter, rust_adapter, screens};
use crate::client::fake_broker::{FakeBroker, Peer, event, request};
use crate::support::envelope;
use crate::support::programs::{self, Program, gadget_script};

const FIND: &str = "Crm/Contact/Find";

/// Returns messages that an application does not expect.
fn odd() -> Vec<String> {
    let triples = [
        "Broker/Application/Register",
        "Broker/Subscription/Subscribe",
        "Broker/Connection/Draining",
        "Broker/Message/Error",
        "Broker/Other/Notice",
        "Phone/Call/Ringing",
        "Salesforce/User/FetchCredentials",
        FIND,
    ];
    let rest = [
        json!({}),
        json!({"data": null}),
        json!({"data": "text"}),
        json!({"data": [1, {"Success": false}]}),
        json!({"data": {"Success": "no", "ReconnectAfterMs": "soon", "from": {"toString": 1}}}),
        json!({"id": 7, "user": [], "source": {}, "inReplyTo": []}),
    ];
    let mut odd: Vec<String> =
        triples.iter().flat_map(|triple| rest.iter().map(|rest| envelope(triple, rest.clone()).to_string())).collect();
    odd.extend(["[]", "1", "null", "\"x\"", "{}"].map(String::from));
    odd.extend([
        r#"{"channel":{"toString":1},"topic":[],"subtopic":null}"#.to_owned(),
        r#"{"channel":"Phone","topic":"Call","subtopic":"Other","data":"\ud800"}"#.to_owned(),
        format!(r#"{{"channel":"Phone","topic":"Call","subtopic":"Other","data":{}}}"#, "9".repeat(5000)),
        format!(
            r#"{{"channel":"Phone","topic":"Call","subtopic":"Other","data":{}{}}}"#,
            "[".repeat(120),
            "]".repeat(120)
        ),
    ]);
    odd
}

/// Answers what an application sends after Register, then sends it every odd message.
async fn bother<S>(peer: &mut Peer<S>, follow: usize)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    for _ in 0..follow {
        let envelope = peer.next().await;
        peer.answer(&envelope, json!({ "Success": true, "ErrorMessage": null, "SubscriptionId": "1" })).await;
    }
    for text in odd() {
        peer.say_text(&text).await;
    }
}

/// Returns the next envelope on this triple that the application sends. It may have answered odd ones before.
async fn next_on<S>(peer: &mut Peer<S>, triple: &str) -> Value
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    loop {
        let envelope = peer.next().await;
        if crate::client::fake_broker::triple(&envelope) == triple {
            return envelope;
        }
    }
}

async fn an_adapter_survives(mut adapter: Command) {
    let broker = FakeBroker::start().await;
    adapter.arg(broker.url());
    let _adapter = Program::start(adapter);
    let (mut peer, _) = broker.session().await;
    for round in ["first", "second"] {
        bother(&mut peer, 1).await;
        peer.say(request(FIND, round, json!("+49301234"))).await;
        loop {
            let reply = next_on(&mut peer, FIND).await;
            if reply["inReplyTo"] == round {
                assert_eq!(reply["data"]["Name"], "Ada Lovelace");
                break;
            }
        }
        // `Draining` without a time is not a reason to stay away.
        peer.close(1012, "restart").await;
        peer = broker.session().await.0;
    }
}

#[tokio::test]
async fn the_python_adapter_survives_any_envelope() {
    let Some(adapter) = python_adapter("examples/adapter.py").await else { return };
    an_adapter_survives(adapter).await;
}

#[tokio::test]
async fn the_rust_handler_survives_any_envelope() {
    an_adapter_survives(rust_adapter()).await;
}

#[tokio::test]
async fn the_screen_for_node_survives_any_envelope() {
    for mut screen in screens().await {
        let broker = FakeBroker::start().await;
        screen.arg(broker.url());
        let mut screen = Program::start(screen);
        let (mut peer, _) = broker.session().await;
        for name in ["Ada Lovelace", "Charles Babbage"] {
            bother(&mut peer, 1).await;
            peer.say(event("Phone/Call/Ringing", json!({ "from": "+1" }))).await;
            loop {
                let find = next_on(&mut peer, FIND).await;
                peer.answer(&find, json!({ "Success": true, "ErrorMessage": null, "Name": name })).await;
                if find["data"] == "+1" {
                    break;
                }
            }
            screen.prints(&format!("call from +1: {name}")).await;
            peer.close(1012, "restart").await;
            peer = broker.session().await.0;
        }
    }
}

#[tokio::test]
async fn the_gadget_survives_any_envelope() {
    if !programs::exists("node").await {
        return;
    }
    let broker = FakeBroker::start().await;
    let mut node = programs::node();
    node.arg("--eval").arg(gadget_script(&broker.url(), ""));
    let mut gadget = Program::start(node);
    let (mut peer, _) = broker.session().await;
    for number in ["+1", "+2"] {
        bother(&mut peer, 2).await;
        peer.say(event("Phone/Call/Ringing", json!({ "from": number }))).await;
        gadget.prints(&format!("call: other: {number}")).await;
        peer.close(1012, "restart").await;
        peer = broker.session().await.0;
    }
}
