//! `switchboard nodes`: lists the nodes of a cluster.

use clap::Args;
use reqwest::Method;
use serde::Deserialize;

use super::client::{Arguments, Client};
use crate::cli::Exit;
use crate::cli::output::{self, Output};

/// See the help text.
#[derive(Args)]
#[command(after_help = "\
Examples:
  switchboard nodes
  switchboard nodes --json | jq '.nodes[].state'

STATE is how the link to a node is: linked, joining, broken or lost. LIVE: the node accepts sessions. SILENT is how long ago the \
last message of it arrived, and WINDOW the bytes that it has been sent and has not acknowledged. A line for each topic of \
Salesforce says which node reads it.")]
pub(crate) struct Nodes {
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: Arguments,
}

/// The cluster, as the node that was asked knows it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Seen {
    cluster: Option<String>,
    node: String,
    nats: Option<String>,
    cut_off: bool,
    nodes: Vec<Other>,
    topics: Vec<Topic>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Other {
    node: String,
    state: String,
    live: bool,
    last_heard_ms: u64,
    window_bytes: usize,
    incarnation: String,
}

#[derive(Deserialize)]
struct Topic {
    topic: String,
    reader: Option<String>,
}

/// Asks for the nodes and prints them.
pub(crate) async fn run(arguments: Nodes, output: &mut Output) -> anyhow::Result<Exit> {
    let client = Client::open(&arguments.admin)?;
    let answer = client.call(Method::GET, "/v1/cluster", None, None).await?.body;
    if arguments.json {
        output.line(&answer.to_string())?;
        return Ok(Exit::Done);
    }
    let Seen { cluster, node, nats, cut_off, nodes, topics } = serde_json::from_value(answer)?;
    let Some(name) = cluster else {
        output.line(&format!("{node} is in no cluster: its configuration has no [cluster]"))?;
        return Ok(Exit::Done);
    };
    let nats = nats.map_or_else(|| "NATS is not connected".to_owned(), |server| format!("NATS server {server}"));
    let cut_off = if cut_off { ", cut off from the others" } else { "" };
    output.line(&format!("{node}: cluster {name}, {nats}{cut_off}"))?;
    print_nodes(&nodes, output)?;
    for Topic { topic, reader } in topics {
        output.line(&format!("topic {topic}: {}", reader.as_deref().unwrap_or("no node reads it")))?;
    }
    Ok(Exit::Done)
}

fn print_nodes(nodes: &[Other], output: &mut Output) -> anyhow::Result<()> {
    if nodes.is_empty() {
        output.line("no other node")?;
        return Ok(());
    }
    let head = ["NODE", "STATE", "LIVE", "SILENT", "WINDOW", "INCARNATION"].map(str::to_owned);
    let row = |it: &Other| {
        [
            it.node.clone(),
            it.state.clone(),
            (if it.live { "yes" } else { "no" }).to_owned(),
            format!("{} ms", it.last_heard_ms),
            it.window_bytes.to_string(),
            it.incarnation.clone(),
        ]
    };
    for line in output::table(&std::iter::once(head).chain(nodes.iter().map(row)).collect::<Vec<_>>()) {
        output.line(&line)?;
    }
    Ok(())
}
