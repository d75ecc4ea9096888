//! `switchboard console`: opens the console of a broker in the browser, signed in.
//!
//! The browser gets the address from a file that only this user can read. On its command line, every user of the machine
//! could read the code.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use etcetera::BaseStrategy as _;
use reqwest::Method;
use tokio::process::Command;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::client::{Arguments, CallError, Client};
use crate::cli::output::{self, Output};
use crate::cli::{Exit, Usage};
use crate::store::{make_private_folder, replace};

/// What opens a file in the browser of this user.
#[cfg(target_os = "macos")]
const OPENER: &[&str] = &["open"];
#[cfg(windows)]
const OPENER: &[&str] = &["rundll32.exe", "url.dll,FileProtocolHandler"];
#[cfg(not(any(target_os = "macos", windows)))]
const OPENER: &[&str] = &["xdg-open"];

/// How long the opener may take to fail. One that goes on is the browser itself.
const OPENER_TIME: Duration = Duration::from_secs(3);

/// The file that the browser opens. The next call replaces it.
const FILE: &str = "switchboard-console.html";

/// See the help text.
#[derive(Args)]
#[command(after_help = "\
Examples:
  switchboard console
  switchboard console --print --config /etc/switchboard/switchboard.toml

The link works once, and for a minute. The page may do what the admin token of this command may, for 8 hours. Some browsers cannot \
read the file that this command opens (snap, flatpak): their page stays empty, and --print gives a link to paste.")]
pub(crate) struct Console {
    /// Print the link, and do not open the browser
    #[arg(long)]
    print: bool,
    #[command(flatten)]
    admin: Arguments,
}

/// Gets a code, and opens the page or prints the link.
pub(crate) async fn run(arguments: Console, output: &mut Output) -> anyhow::Result<Exit> {
    let client = Client::open(&arguments.admin)?;
    let answer = client.call(Method::POST, "/v1/console/code", None, None).await?.body;
    let code = answer.get("code").and_then(|code| code.as_str()).filter(|code| is_code(code));
    let code = code.ok_or_else(|| CallError::Foreign(client.url(), "it answered no code".to_owned()))?;
    let link = Zeroizing::new(format!("{}/#code={code}", client.url()));
    if arguments.print {
        output.line(&link)?;
        return Ok(Exit::Done);
    }
    let path = folder().context("there is no folder for the page; use --print")?.join(FILE);
    replace(&path, page(&link).as_bytes()).with_context(|| format!("{}; use --print", path.display()))?;
    open(&path).await?;
    output::note(&format!("opened {} in the browser", path.display()));
    output::note("if the page stays empty, the browser cannot read that folder (snap, flatpak): use --print");
    Ok(Exit::Done)
}

/// Whether a text has only what codes are made of, so that it cannot change the page.
fn is_code(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=128).contains(&text.len()) && text.bytes().all(is_letter)
}

/// Returns a page that leads to the link. A host in an address cannot have a character that HTML gives a meaning.
fn page(link: &str) -> Zeroizing<String> {
    Zeroizing::new(format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"referrer\" content=\"no-referrer\">\n\
         <meta http-equiv=\"refresh\" content=\"0;url={link}\">\n<title>switchboard</title>\n\
         <p><a href=\"{link}\">Open the console</a></p>\n"
    ))
}

/// Returns the runtime folder of this user, or a folder of ours in the one for caches.
fn folder() -> anyhow::Result<PathBuf> {
    let strategy = etcetera::choose_base_strategy()?;
    if let Some(folder) = strategy.runtime_dir().filter(|folder| folder.is_dir()) {
        return Ok(folder);
    }
    let folder = strategy.cache_dir().join("switchboard");
    make_private_folder(&folder).with_context(|| folder.display().to_string())?;
    Ok(folder)
}

/// Opens a file in the browser.
async fn open(path: &Path) -> anyhow::Result<()> {
    let (program, arguments) = OPENER.split_first().unwrap_or((&"", &[]));
    let failed = |why: String| Usage::new(format!("{program} could not open the browser: {why}")).hint(PRINT);
    let mut command = Command::new(program);
    command.args(arguments).arg(path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error: io::Error| failed(error.to_string()))?;
    match timeout(OPENER_TIME, child.wait()).await {
        Ok(Ok(status)) if !status.success() => Err(failed(status.to_string()).into()),
        Ok(Ok(_)) | Err(_) => Ok(()),
        Ok(Err(error)) => Err(failed(error.to_string()).into()),
    }
}

const PRINT: &str = "switchboard console --print prints a link that any browser can open";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_cannot_change_the_page() {
        assert!(is_code("aZ09-_"));
        for text in ["", "a\"b", "a<b", "a b", "é", &"a".repeat(129)] {
            assert!(!is_code(text), "{text}");
        }
    }
}
