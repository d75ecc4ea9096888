//! `switchboard reload`: lets a running broker read its configuration again.

use clap::Args;
use reqwest::Method;
use serde_json::{Value, json};

use super::client::{Arguments, Client};
use crate::cli::Exit;
use crate::cli::output::{self, Output};

/// See the help text.
#[derive(Args)]
#[command(after_help = "\
Examples:
  switchboard reload --dry-run
  switchboard reload --config /etc/switchboard/switchboard.toml
  switchboard reload --cluster

The broker reads the configuration and its files again, checks all of it, and puts all of it in force or nothing, as at SIGHUP. \
--config says where its admin API and the token are. A key that needs a restart refuses the reload. With --cluster, every node of the cluster reads its own file, and all of them put \
theirs in force or none does: they have to agree on the keys that are the same everywhere. It needs a token that may act.")]
pub(crate) struct Reload {
    /// Check everything and say what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Reload all nodes of the cluster, or none
    #[arg(long)]
    cluster: bool,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: Arguments,
}

/// Asks for the reload, and prints the outcome.
pub(crate) async fn run(arguments: Reload, output: &mut Output) -> anyhow::Result<Exit> {
    let client = Client::open(&arguments.admin)?;
    let path = if arguments.dry_run { "/v1/reload?dry_run=true" } else { "/v1/reload" };
    let body = arguments.cluster.then(|| json!({ "cluster": true }));
    let answer = client.call(Method::POST, path, body.as_ref(), None).await?.body;
    let names = |key: &str| -> Vec<&str> {
        answer.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
    };
    for warning in names("warnings") {
        output::note(&format!("warning: {warning}"));
    }
    if arguments.json {
        output.line(&answer.to_string())?;
        return Ok(Exit::Done);
    }
    let list = |names: Vec<&str>| if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
    let word = if arguments.dry_run { "would change" } else { "changed" };
    output.line(&format!("{word}: {}", list(names("changed"))))?;
    if !names("restart").is_empty() {
        output.line(&format!("needs a restart: {}", list(names("restart"))))?;
    }
    Ok(Exit::Done)
}
