//! `switchboard drain`: ends a broker as SIGTERM does.

use clap::Args;
use reqwest::Method;

use super::client::{Arguments, Client};
use crate::cli::Exit;

/// See the help text.
#[derive(Args)]
#[command(after_help = "\
Tells all sessions when to return, lets requests in flight finish, and ends the broker's process, as SIGTERM does. The command \
does not wait for the end. It needs a token that may act.")]
pub(crate) struct Drain {
    #[command(flatten)]
    admin: Arguments,
}

/// Asks for the drain.
pub(crate) async fn run(arguments: Drain) -> anyhow::Result<Exit> {
    Client::open(&arguments.admin)?.call(Method::POST, "/v1/drain", None, None).await?;
    Ok(Exit::Done)
}
