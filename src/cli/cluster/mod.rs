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
    /// Set the history of one broker aside that becomes a node; stop the broker first
    Adopt {
        /// Leave it aside: the file gets another name, and no event of it is in the cluster
        #[arg(long, required = true)]
        discard: bool,
    },
}

/// Runs the command.
pub(super) fn run(arguments: Arguments, output: &mut Output) -> anyhow::Result<Exit> {
    let Arguments { command: Command::Adopt { discard }, data_dir, config } = arguments;
    let options = LoadOptions { data_dir, ..LoadOptions::from_process(config) };
    let config = Config::load(options)?;
    let key = KeySource::new(config.credentials.key_file.clone(), credentials_key());
    let settings = HistorySettings { data_dir: config.data_dir, key };
    match discard {
        true => adopt::discard(&settings, output),
        false => Ok(Exit::Usage),
    }
}
