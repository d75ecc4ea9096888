//! Our three clients, and an application without any, against every script.

use futures_util::StreamExt;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use switchboard_client::{Client, Error, Failure, Message, Reply, Request, State};
use wire::Triple;

use super::application::Application;
use super::{Judge, judge_beside};
use crate::support::programs::{node_modules, python, with_our_client};

async fn judge_program(mut start: impl AsyncFnMut(&[String]) -> Child) {
    let judge = Judge::start(&[]).await;
    // Ends with the test.
    let _program = start(&judge.addresses).await;
    judge_beside(judge, async { Vec::new() }).await.all_passed();
}

#[tokio::test]
async fn the_javascript_client_passes_every_script() {
    let Some(modules) = node_modules("ws").await else { return };
    judge_program(async |urls| {
        let mut node = Command::new("node");
        // Before Node.js 22, which has one of its own, the WebSocket is that of the package ws.
        node.env("NODE_PATH", &modules).arg("tests/node/conformance.mjs").args(urls);
        node.kill_on_drop(true).spawn().unwrap()
    })
    .await;
}

#[tokio::test]
async fn the_python_client_passes_every_script() {
    let Some(python) = python().await else { return };
    judge_program(async |urls| {
        let mut command = with_our_client(Command::new(&python));
        command.arg("tests/python/conformance.py").args(urls);
        command.kill_on_drop(true).spawn().unwrap()
    })
    .await;
}

#[tokio::test]
async fn the_rust_client_passes_every_script() {
    let judge = Judge::start(&[]).await;
    let playing = join_all(judge.addresses.clone().into_iter().map(play));
    judge_beside(judge, playing).await.all_passed();
}

/// The Rust client as the application of one script, until it is told to stop.
async fn play(url: String) {
    let tokens = std::sync::atomic::AtomicU32::new(0);
    let provider = move || {
        let number = tokens.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        async move { Ok::<_, std::io::Error>(format!("token-{number}").into()) }
    };
    let client = Client::builder(&url).source("rust").token_provider(provider).connect().await.unwrap();
    let ended = {
        let states = client.states();
        async move {
            let mut states = Box::pin(states);
            while let Some(state) = states.next().await {
                if matches!(state, State::Closed { .. }) {
                    return;
                }
            }
        }
    };
    if url.contains("/handler/") {
        let _serving = client.serve("Conformance/Ask/*".parse().unwrap(), answer).await.unwrap();
        ended.await;
        return;
    }
    let mut events = client.subscribe("Conformance/Do/*".parse().unwrap()).await.unwrap();
    let following = async {
        while let Some(event) = events.next().await {
            follow(&client, &event).await.ok();
        }
    };
    tokio::select! {
        () = ended => {}
        () = following => {}
    }
}

async fn answer(request: Request) -> Result<Reply, Failure> {
    match &*request.triple().subtopic {
        "Fail" => return Err(Failure::new("BUSY", "try again later")),
        "Progress" => request.progress(json!("half")).await.ok(),
        "Wait" => return std::future::pending().await,
        _ => None,
    };
    Ok(request.data::<Value>().unwrap_or_default().into())
}

async fn follow(client: &Client, event: &Message) -> Result<(), Error> {
    let done = |subtopic: &'static str| Triple::new("Conformance", "Done", subtopic);
    let data: Value = event.data().unwrap_or_default();
    match &*event.triple().subtopic {
        "Publish" => client.publish(done("Publish"), data).await,
        "Request" => {
            let answer = match client.request(Triple::new("Conformance", "Ask", "Echo"), data).await {
                Ok(answer) => answer.data().unwrap_or_default(),
                Err(Error::Refused(failure)) => json!({ "ErrorCode": failure.code_text() }),
                Err(error) => return Err(error),
            };
            client.publish(done("Request"), answer).await
        }
        "Leave" => {
            client.close().await;
            Ok(())
        }
        _ => Ok(()),
    }
}

#[tokio::test]
async fn an_application_without_a_library_passes_every_script() {
    let judge = Judge::start(&[]).await;
    let playing = join_all(judge.addresses.clone().into_iter().map(|url| Application::play(url, "")));
    judge_beside(judge, playing).await.all_passed();
}
