//! `switchboard apps`: lists the connected applications.

use clap::Args;

use super::Exit;
use super::connect::Connection;
use super::output::{self, Output};
use switchboard_client::Application;

/// See the help text.
#[derive(Args)]
#[command(after_help = "\
Examples:
  switchboard apps --source log
  switchboard apps --source log --json | jq -r '.[].Source'

Lists the applications of the session's user and the services. A service, an observer, and in open mode every session \
gets the applications of all users. The list includes the session of this command.")]
pub(crate) struct Apps {
    /// Print a JSON array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Asks for the list and prints it.
pub(crate) async fn run(arguments: Apps, output: &mut Output) -> anyhow::Result<Exit> {
    let client = arguments.connection.connect().await?;
    let applications = client.applications().await;
    client.close().await;
    let applications = applications?;
    if arguments.json {
        output.line(&serde_json::to_string(&applications)?)?;
    } else {
        for line in table(&applications) {
            output.line(&line)?;
        }
    }
    Ok(Exit::Done)
}

/// Returns the list as a table.
fn table(applications: &[Application]) -> Vec<String> {
    let head = ["SOURCE", "USER", "SESSIONS", "STATE", "SINCE"].map(str::to_owned);
    let row = |it: &Application| {
        let user = it.user.as_deref().unwrap_or("(service)");
        [it.source.clone(), user.to_owned(), it.sessions.to_string(), it.state.clone(), it.since.clone()]
    };
    output::table(&std::iter::once(head).chain(applications.iter().map(row)).collect::<Vec<_>>())
}
