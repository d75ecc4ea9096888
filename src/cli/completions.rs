//! `switchboard completions`: prints a completion script for a shell.

use clap::Args;
use clap_complete::{Shell, generate};

use super::Exit;
use super::output::Output;

/// See the help text.
#[derive(Args)]
#[command(after_help = "\
Examples:
  switchboard completions bash > ~/.local/share/bash-completion/completions/switchboard
  switchboard completions zsh > ~/.zfunc/_switchboard
  switchboard completions fish > ~/.config/fish/completions/switchboard.fish")]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

/// Prints the script.
pub(crate) fn run(arguments: &Completions, mut program: clap::Command, output: &mut Output) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    generate(arguments.shell, &mut program, "switchboard", &mut script);
    output.text(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}
