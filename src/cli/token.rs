//! `switchboard token`: makes a random token for an application, and its hash for the configuration.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Context as _;
use rand::TryRng;
use rand::rngs::SysRng;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::auth::hash_token;
use crate::config::{self, Fault};
use crate::store::create_new;

use super::output::Output;
use super::{Exit, Usage};

/// Make tokens that prove applications
#[derive(clap::Args, Debug)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(clap::Subcommand, Debug)]
enum TokenCommand {
    /// Make a token, and print it once with its hash for the configuration
    New(NewArgs),
}

#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  switchboard token new
  switchboard token new --source softphone --user alice@example.com --out softphone.token >> switchboard.toml
  switchboard token new --source statistics --service --out statistics.token >> switchboard.toml
  switchboard token new --json | jq -r .token_sha256

With --source, prints a complete [[applications]] block for the configuration on standard output. The token \
goes into the file of --out, or else to standard error.")]
struct NewArgs {
    /// The source of the application
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// The user of the application
    #[arg(long, value_name = "USER", requires = "source", conflicts_with = "service")]
    user: Option<String>,
    /// The application is a service, which belongs to no user
    #[arg(long, requires = "source")]
    service: bool,
    /// Write the token into this new file, which only its owner can read, instead of printing it
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: &TokenArgs, output: &mut Output) -> anyhow::Result<Exit> {
    let TokenCommand::New(args) = &args.command;
    // Before anything is written.
    let row = args.row()?;
    let mut bytes = Zeroizing::new([0; 32]);
    SysRng.try_fill_bytes(bytes.as_mut()).context("the system gave no random bytes")?;
    let token = written(&bytes);
    let hash = hex::encode(hash_token(&token));
    let printed = match &args.out {
        Some(path) => {
            let line = Zeroizing::new(format!("{}\n", token.expose_secret()));
            create_new(path, line.as_bytes())
                .map_err(|error| Usage::new(format!("the token cannot be written to {}: {error}", path.display())))?;
            None
        }
        None => Some(token.expose_secret()),
    };
    // Neither needs an escape in JSON.
    let text = Zeroizing::new(match (args.json, printed, &row) {
        (true, Some(token), _) => format!("{{\"token\":\"{token}\",\"token_sha256\":\"{hash}\"}}\n"),
        (true, None, _) => format!("{{\"token_sha256\":\"{hash}\"}}\n"),
        (false, Some(token), None) => format!("token:        {token}\ntoken_sha256: {hash}\n"),
        (false, None, None) => format!("token_sha256: {hash}\n"),
        (false, _, Some(row)) => format!("\n{row}token_sha256 = \"{hash}\"\n"),
    });
    output.text(&text)?;
    if let (false, Some(token), Some(_)) = (args.json, printed, &row) {
        // Apart from the block, which can then be appended to the configuration without the token.
        let text = Zeroizing::new(format!("token: {token}\n"));
        io::stderr().write_all(text.as_bytes())?;
    }
    Ok(Exit::Done)
}

impl NewArgs {
    /// Returns the `[[applications]]` block without its hash, if the application is named.
    fn row(&self) -> Result<Option<String>, Usage> {
        let Some(source) = &self.source else { return Ok(None) };
        // The rules of the configuration, which the block is for.
        let wrong = |what: &str, fault: &Fault| Usage::new(format!("the {what} {}", fault.message()));
        config::check_source(source).map_err(|fault| wrong("source", &fault))?;
        if let Some(user) = &self.user {
            config::check_user(user).map_err(|fault| wrong("user", &fault))?;
        }
        let quoted = |text: &str| toml::Value::from(text).to_string();
        let owner = match &self.user {
            Some(user) => format!("user = {}", quoted(user)),
            None if self.service => "service = true".to_owned(),
            None => return Err(Usage::new("an application is of a user or a service: add --user USER or --service")),
        };
        Ok(Some(format!("[[applications]]\nsource = {}\n{owner}\n", quoted(source))))
    }
}

/// Returns the bytes in base64 for URLs (RFC 4648, section 5), without padding. A token in hex would look like its hash.
fn written(bytes: &[u8; 32]) -> SecretString {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = Zeroizing::new(String::with_capacity(43));
    for three in bytes.chunks(3) {
        let bits = three.iter().fold(0_u32, |bits, byte| (bits << 8) | u32::from(*byte)) << (8 * (3 - three.len()));
        let digits = (0..=three.len()).map(|at| (bits >> (18 - 6 * at)) & 63);
        text.extend(digits.filter_map(|digit| ALPHABET.get(digit as usize).map(|byte| char::from(*byte))));
    }
    SecretString::from(text.as_str())
}
