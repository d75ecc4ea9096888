//! `switchboard token`: makes the random value that proves an application, and the hash that the configuration knows.

use anyhow::Context as _;
use rand::TryRng;
use rand::rngs::SysRng;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::auth::hash_token;

use super::Exit;
use super::output::Output;

/// Make tokens that prove applications
#[derive(clap::Args, Debug)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(clap::Subcommand, Debug)]
enum TokenCommand {
    /// Print a new token, this once, and its hash for the configuration
    New(NewArgs),
}

#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  switchboard token new\n  switchboard token new --json | jq -r .token > softphone.token"
)]
struct NewArgs {
    /// Print both as one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: &TokenArgs, output: &mut Output) -> anyhow::Result<Exit> {
    let TokenCommand::New(NewArgs { json }) = &args.command;
    let mut bytes = Zeroizing::new([0; 32]);
    SysRng.try_fill_bytes(bytes.as_mut()).context("the system gave no random bytes")?;
    let token = written(&bytes);
    let hash = hex::encode(hash_token(&token));
    let token = token.expose_secret();
    // Both are of an alphabet that JSON needs no escapes for.
    let text = Zeroizing::new(if *json {
        format!("{{\"token\":\"{token}\",\"token_sha256\":\"{hash}\"}}\n")
    } else {
        format!("token:        {token}\ntoken_sha256: {hash}\n")
    });
    output.text(&text)?;
    Ok(Exit::Done)
}

/// Base64 for URLs (RFC 4648, section 5), unpadded: not hex, so that nobody takes a token for its hash.
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
