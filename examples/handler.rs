//! An adapter that uses the Rust client: answers `Crm/Contact/Find`, and reconnects by itself.
//!
//! ```sh
//! SWITCHBOARD_USER=alice@example.com cargo run --example handler [ws://127.0.0.1:7420/ws]
//! switchboard request Crm Contact Find '"+49301234"' --source me --user alice@example.com
//! ```
//!
//! It answers one user's applications. A broker with `auth.mode = "tokens"` takes the user from a token: set
//! `SWITCHBOARD_TOKEN`; with a service's token it answers all users. docs/guides/adapter.md explains the rest.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

use std::pin::pin;
use std::process::ExitCode;

use futures_util::StreamExt;
use serde_json::json;
use switchboard_client::{Client, Failure, Reply, Request, State};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
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
    let mut builder = Client::builder(&url).source("crm");
    if let Ok(token) = std::env::var("SWITCHBOARD_TOKEN") {
        builder = builder.token(token.into());
    }
    if let Ok(user) = std::env::var("SWITCHBOARD_USER") {
        builder = builder.user(user);
    }
    let client = builder.connect().await?;
    let mut serving = client.serve("Crm/Contact/Find".parse()?, find).await?;
    println!("answering Crm/Contact/Find");
    tokio::select! {
        error = serving.ended() => return Err(error.into()),
        () = report(&client) => return Err(serving.ended().await.into()),
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    // Requests that have begun are still answered.
    serving.stop().await;
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

/// Answers one request. Several run at the same time.
async fn find(request: Request) -> Result<Reply, Failure> {
    let number: String =
        request.data().map_err(|_| Failure::new("CONTACT_NOT_FOUND", "send the number as a string"))?;
    match number.as_str() {
        "+49301234" => Ok(json!({ "Success": true, "ErrorMessage": null, "Name": "Ada Lovelace" }).into()),
        _ => Err(Failure::new("CONTACT_NOT_FOUND", "no contact has this number")),
    }
}
