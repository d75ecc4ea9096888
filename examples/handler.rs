//! An adapter on the Rust client: answers `Crm/Contact/Find`, and reconnects by itself.
//!
//! ```sh
//! cargo run --example handler [ws://127.0.0.1:7420/ws]
//! switchboard request Crm Contact Find '"+49301234"' --source me
//! ```
//!
//! docs/guides/adapter.md explains the rest.

#![expect(clippy::print_stdout, reason = "a program for a terminal")]

use serde_json::json;
use switchboard_client::{Client, Failure, Payload, Request};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "ws://127.0.0.1:7420/ws".to_owned());
    let client = Client::builder(&url).source("crm").connect().await?;
    let mut serving = client.serve("Crm/Contact/Find".parse()?, find).await?;
    println!("answering Crm/Contact/Find");
    tokio::select! {
        error = serving.ended() => return Err(error.into()),
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    // What has been begun is still answered.
    serving.stop().await;
    client.close().await;
    Ok(())
}

/// Answers one request; several run at the same time.
async fn find(request: Request) -> Result<Payload, Failure> {
    let number: String =
        request.data().map_err(|_| Failure::new("CONTACT_NOT_FOUND", "send the number as a string"))?;
    match number.as_str() {
        "+49301234" => Ok(json!({ "Success": true, "ErrorMessage": null, "Name": "Ada Lovelace" }).into()),
        _ => Err(Failure::new("CONTACT_NOT_FOUND", "no contact has this number")),
    }
}
