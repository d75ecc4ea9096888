//! Arguments in, exit code out; everything else is the library's `cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    switchboard::cli::run(std::env::args_os())
}
