//! `switchboard health`: says whether a broker can serve applications.

use clap::Args;
use reqwest::Method;

use super::client::{Arguments, CallError, Client};
use crate::cli::Exit;
use crate::cli::output::Output;

/// See the help text.
#[derive(Args)]
#[command(after_help = "\
Exit codes:
  0  the broker is ready
  1  it is not ready; the output says why
  3  no answer

Needs no token. Containers and scripts use it as a health check.")]
pub(crate) struct Health {
    #[command(flatten)]
    admin: Arguments,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// Asks, and prints the answer.
pub(crate) async fn run(arguments: Health, output: &mut Output) -> anyhow::Result<Exit> {
    let client = Client::without_token(&arguments.admin)?;
    let answer = match client.call(Method::GET, "/readyz", None, Some(503)).await {
        Ok(answer) => answer,
        Err(CallError::TimedOut(url)) => {
            let reason = "no answer in time".to_owned();
            return Err(CallError::Unreachable { url, reason }.into());
        }
        Err(error) => return Err(error.into()),
    };
    let ready = answer.status == 200;
    if arguments.json {
        output.line(&answer.body.to_string())?;
    } else {
        let names = |key: &str| {
            let names = answer.body.get(key).and_then(|names| names.as_array()).into_iter().flatten();
            names.filter_map(|name| name.as_str()).collect::<Vec<_>>().join(", ")
        };
        let (failing, warnings) = (names("failing"), names("warnings"));
        let mut line = if ready { "ready".to_owned() } else { format!("not ready: {failing}") };
        if !warnings.is_empty() {
            line = format!("{line}; warnings: {warnings}");
        }
        output.line(&line)?;
    }
    Ok(if ready { Exit::Done } else { Exit::Refused })
}
