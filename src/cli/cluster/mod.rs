//! `switchboard cluster`: `adopt` is what becomes of the history of a broker that becomes a node, `check` the part of
//! `check --cluster` that prints.

mod adopt;
mod check;

pub(super) use check::check;

use super::Exit;
use super::data_folder::DataFolder;
use super::output::Output;
use super::secret::credentials_key;
use crate::server::history_settings;

/// The arguments of the command.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    folder: DataFolder,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Move what one broker kept on its disk into the cluster; stop the broker first
    #[command(after_help = "\
Appends the events of durable channels to the logs in JetStream, with their offsets and epochs, so that \
clients recover on any node, and puts durable retained values into the bucket. A log is adopted only if the \
cluster has no events in it, and that of a shared channel only while no node runs; a value only if the \
cluster never had one in its place. Then the file is named history.redb.adopted-TIME.

If it is interrupted, or something could not be adopted (exit code 1), the file stays. Run it again: what it \
has adopted is recognised. Until that is done, or --discard leaves the rest aside, the node does not start.

After a backup was put back, run 'switchboard history repair --new-epochs' first: the backup lacks the \
events since, and its epochs would hide that.")]
    Adopt {
        /// Leave it aside instead: the file gets another name, and nothing of it is put into the cluster
        #[arg(long)]
        discard: bool,
    },
}

/// Runs the command.
pub(super) fn run(arguments: Arguments, output: &mut Output) -> anyhow::Result<Exit> {
    let Arguments { command: Command::Adopt { discard }, folder } = arguments;
    let config = folder.load()?;
    let settings = history_settings(&config, credentials_key());
    match discard {
        true => adopt::discard(&settings, output),
        false => adopt::run(&config, &settings, output),
    }
}
