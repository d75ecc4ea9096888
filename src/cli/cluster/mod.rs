//! `switchboard cluster`: `adopt` is what becomes of the history of a broker that becomes a node, `check` the part of
//! `check --cluster` that prints.

mod adopt;
mod check;

use std::path::PathBuf;

pub(super) use check::check;

use super::Exit;
use super::output::Output;
use super::secret::credentials_key;
use crate::config::{Config, LoadOptions};
use crate::store::KeySource;
use crate::store::history::HistorySettings;

/// The arguments of the command.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,

    /// The data folder; default: that of the configuration, or else the platform's data folder
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// The configuration file, which names the data folder, the key file and the cluster
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
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
    let Arguments { command: Command::Adopt { discard }, data_dir, config } = arguments;
    let options = LoadOptions { data_dir, ..LoadOptions::from_process(config) };
    let config = Config::load(options)?;
    let key = KeySource::new(config.credentials.key_file.clone(), credentials_key());
    let settings = HistorySettings { data_dir: config.data_dir.clone(), key };
    match discard {
        true => adopt::discard(&settings, output),
        false => adopt::run(&config, &settings, output),
    }
}
