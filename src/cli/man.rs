//! `switchboard man`: writes man pages.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use super::Exit;

/// See the help text.
#[derive(Args)]
#[command(after_help = "\
Examples:
  switchboard man ~/.local/share/man/man1
  switchboard man /usr/local/share/man/man1")]
pub(crate) struct Man {
    /// The folder for the pages, one for each command. It is made if there is none
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Writes the pages.
pub(crate) fn run(arguments: &Man, program: clap::Command) -> anyhow::Result<Exit> {
    let folder = &arguments.folder;
    fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(program, folder))
        .with_context(|| format!("the pages could not be written to {}", folder.display()))?;
    Ok(Exit::Done)
}
