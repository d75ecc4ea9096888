//! A small telephony core, as vendors' interfaces describe them: it answers `Cisco/Agent/Login` on another triple, takes a
//! command that has no answer, and reports agents' states as events.
//!
//! ```sh
//! cargo run --example vendor_core [ws://127.0.0.1:7420/ws]
//! switchboard request Cisco Agent Login '{"agentId":"5051","password":"acq@123"}' --source me --envelope
//! switchboard pub Cisco Agent ShowNote '"call back at 3"' --source me
//! ```
//!
//! With `auth.mode = "tokens"`, the key `handle` of this application needs `Cisco/Agent/*`, and the file that
//! `SWITCHBOARD_TOKEN_FILE` names has its token. The file is read again for each registration, so a refused token can be
//! replaced while this program runs. Standard error says why it is not connected.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::json;
use switchboard_client::{Client, Failure, Payload, Reply, Request, State, Triple};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    // The client logs why it waits for the first connection.
    tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(io::stderr().is_terminal()).init();
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "ws://127.0.0.1:7420/ws".to_owned());
    // This program can start before the broker.
    let mut builder = Client::builder(&url).source("cisco").wait_for_broker(Duration::MAX);
    if let Some(path) = std::env::var_os("SWITCHBOARD_TOKEN_FILE").map(PathBuf::from) {
        builder = builder.token_provider(move || {
            let path = path.clone();
            async move { std::fs::read_to_string(path).map(|token| token.trim().into()) }
        });
    }
    let client = builder.connect().await?;

    // Logins are taken one at a time, because this telephone system cannot do two at once.
    let states = client.clone();
    let logins = client.serve("Cisco/Agent/Login".parse()?, move |request| log_in(request, states.clone()));
    let mut logins = logins.ordered(["Agent/LoginSuccess", "Agent/LoginFailure"]).await?;
    let mut notes = client.serve("Cisco/Agent/ShowNote".parse()?, show_note).without_answers().await?;
    println!("answering Cisco/Agent/Login");
    tokio::select! {
        error = logins.ended() => return Err(error.into()),
        error = notes.ended() => return Err(error.into()),
        () = report(&client) => return Err(logins.ended().await.into()),
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    logins.stop().await;
    notes.stop().await;
    client.close().await;
    Ok(())
}

/// Prints why the connection was lost, each time, until the client gives up.
async fn report(client: &Client) {
    let mut states = pin!(client.states());
    while let Some(state) = states.next().await {
        if let State::Disconnected { reason, .. } = state {
            eprintln!("not connected: {reason}");
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Login {
    agent_id: String,
    password: String,
}

/// Answers on `LoginSuccess` or `LoginFailure`, with the payload in `message`. Then publishes the agent's state.
async fn log_in(request: Request, client: Client) -> Result<Reply, Failure> {
    let user = request.user().map(str::to_owned);
    let Login { agent_id, password } =
        request.data().map_err(|_| Failure::new("INVALID_LOGIN", "send agentId and password"))?;
    if password != "acq@123" {
        let payload = Payload::from(json!({ "Success": false, "ErrorMessage": "wrong password" })).in_message();
        return Ok(Reply::from(payload).on(&Triple::new("Cisco", "Agent", "LoginFailure")));
    }
    let state = json!({ "agentId": agent_id, "state": "ready" });
    let mut ready = client.publish(Triple::new("Cisco", "Agent", "State"), state).retain();
    if let Some(user) = user {
        // A service publishes for the user whom it names.
        ready = ready.user(user);
    }
    if let Err(error) = ready.await {
        eprintln!("the state of agent {agent_id} was not published: {error}");
    }
    let payload = Payload::from(json!({ "Success": true, "agentId": agent_id })).in_message();
    Ok(Reply::from(payload).on(&Triple::new("Cisco", "Agent", "LoginSuccess")))
}

async fn show_note(request: Request) -> Result<Reply, Failure> {
    println!("note: {}", request.payload().unwrap_or_default());
    // Not sent, because the command has no answer.
    Ok(().into())
}
