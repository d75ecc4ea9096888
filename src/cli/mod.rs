//! The command line: arguments, exit codes, what a terminal shows. Nothing else knows the terminal.

mod credentials;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

/// The arguments of the program.
#[derive(clap::Parser)]
#[command(name = "switchboard", version)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Looks after the credentials that agents fetch
    Credentials(credentials::Arguments),
}

/// Runs the command that the arguments name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match Program::try_parse_from(arguments) {
        Ok(Program { command: Command::Credentials(arguments) }) => credentials::run(&arguments),
        Err(error) => {
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            let _told = error.print();
            ExitCode::from(code)
        }
    }
}
