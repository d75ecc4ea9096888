//! The configuration for the stand-in in docs/salesforce.md can be pasted: its commands are run as they are written there, but
//! for their ports.

use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::support::{secret_file, within};

/// Returns the section of the page, for a stand-in at this address.
fn section(address: &str) -> String {
    let page = std::fs::read_to_string("docs/salesforce.md").unwrap();
    let (_, section) = page.split_once("### Try it without an org\n").unwrap();
    let (section, _) = section.split_once("**With https").unwrap();
    section.replace("127.0.0.1:7480", address)
}

/// Returns the command on the line that starts like this, to be run in a folder.
fn command(section: &str, start: &str, folder: &Path) -> Command {
    let line = section.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("no '{start}'"));
    let words = line.split_once('#').map_or(line, |(words, _)| words).split_whitespace().skip(1);
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
    command.args(words).current_dir(folder).kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// Starts a command, and returns the address that its first line ends with.
async fn start(mut command: Command) -> (Child, String) {
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.as_mut().unwrap());
    within("the first line", stdout.read_line(&mut line)).await.unwrap();
    let (_, address) = line.trim().split_once("://").unwrap();
    let address = address.trim_end_matches("/ws").to_owned();
    (child, address)
}

#[tokio::test]
async fn the_configuration_for_the_stand_in_can_be_pasted() {
    let folder = tempfile::tempdir().unwrap();
    let mut simulate = command(&section(""), "switchboard simulate salesforce ", folder.path());
    simulate.args(["--listen", "127.0.0.1:0"]);
    let (_org, org) = start(simulate).await;
    let section = section(&org);

    assert!(section.contains("printf demo-secret > demo-secret && chmod 600 demo-secret"));
    secret_file(folder.path().join("demo-secret"), "demo-secret");
    let (_, config) = section.split_once("```toml\n").unwrap();
    std::fs::write(folder.path().join("stand-in.toml"), config.split_once("```").unwrap().0).unwrap();

    let check = command(&section, "switchboard check", folder.path()).output();
    let check = within("check", check).await.unwrap();
    assert!(check.status.success(), "{check:?}");

    let mut serve = command(&section, "switchboard serve", folder.path());
    serve.args(["--listen", "127.0.0.1:0", "--data-dir", "data"]);
    let (_broker, broker) = start(serve).await;
    let mut request = command(&section, "switchboard request", folder.path());
    request.args(["--url", &format!("ws://{broker}/ws")]);
    let answer = within("the answer", request.output()).await.unwrap();
    let answer = String::from_utf8(answer.stdout).unwrap();
    assert!(answer.contains(r#""Username":"1245456""#), "{answer}");
}
