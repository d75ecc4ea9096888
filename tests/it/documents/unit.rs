//! The systemd unit of docs/guides/operate.md, the steps before it and the configuration there work together.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Output, Stdio};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::support::within;

const PAGE: &str = "docs/guides/operate.md";

/// The fenced block of the page that has this text.
fn block(with: &str) -> String {
    let text = fs::read_to_string(PAGE).unwrap();
    let blocks = text.split("\n```").skip(1).step_by(2).filter_map(|block| block.split_once('\n'));
    let mut found = blocks.filter(|(_, block)| block.contains(with)).map(|(_, block)| format!("{block}\n"));
    let block = found.next().unwrap_or_else(|| panic!("{PAGE} has no block with '{with}'"));
    assert!(found.next().is_none(), "{PAGE} has two blocks with '{with}'");
    block
}

#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
fn skip(why: &str) {
    eprintln!("SKIPPED: {why}");
}

/// A line of the unit, without its name.
fn setting<'u>(unit: &'u str, name: &str) -> &'u str {
    unit.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
        .unwrap_or_else(|| panic!("no {name} in the unit"))
}

/// What systemd before 253 says of a type that is for later ones.
const UNKNOWN_TYPE: &str = "Failed to parse service type, ignoring: notify-reload";

/// Lets systemd check a unit.
async fn verify(unit: &Path) {
    let verify = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(unit).stdin(Stdio::null()).output();
    match within("systemd-analyze", verify).await {
        Ok(output) => nothing_wrong(&output),
        Err(error) => skip(&format!("systemd-analyze: {error}")),
    }
}

fn nothing_wrong(output: &Output) {
    let said = String::from_utf8_lossy(&output.stderr);
    let wrong: Vec<&str> = said.lines().filter(|line| !line.ends_with(UNKNOWN_TYPE)).collect();
    assert!(output.status.success() && wrong.is_empty(), "{output:?}");
    if !said.is_empty() {
        skip("Type=notify-reload (this systemd is older than 253)");
    }
}

#[tokio::test]
async fn systemd_finds_nothing_wrong_with_the_unit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("switchboard.service");
    let unit = block("[Install]");
    fs::write(&path, unit.replace("/usr/bin/switchboard", env!("CARGO_BIN_EXE_switchboard"))).unwrap();
    verify(&path).await;
}

#[tokio::test]
async fn systemd_finds_nothing_wrong_with_the_socket() {
    let folder = tempfile::tempdir().unwrap();
    let unit = block("[Install]").replace("/usr/bin/switchboard", env!("CARGO_BIN_EXE_switchboard"));
    fs::write(folder.path().join("switchboard.service"), unit).unwrap();
    let path = folder.path().join("switchboard.socket");
    fs::copy("deploy/systemd/switchboard.socket", &path).unwrap();
    verify(&path).await;
}

#[test]
fn the_page_shows_the_unit_that_is_installed() {
    assert_eq!(block("[Install]"), fs::read_to_string("deploy/systemd/switchboard.service").unwrap());
}

#[test]
fn the_unit_does_not_repeat_what_cannot_succeed_and_waits_for_the_drain() {
    let unit = block("[Install]");
    assert_eq!(setting(&unit, "RestartPreventExitStatus"), "2");
    assert_eq!(setting(&unit, "Restart"), "on-failure");
    let limits = switchboard::config::Config::default().limits;
    assert!(setting(&unit, "TimeoutStopSec").parse::<u64>().unwrap() > limits.drain.as_secs());
    assert!(setting(&unit, "LimitNOFILE").parse::<usize>().unwrap() > limits.connections);
}

/// The steps of the page as the user `nobody`, below a folder instead of the root.
#[tokio::test]
async fn the_documented_steps_and_configuration_start_as_another_user() {
    let setpriv = ["--reuid=nobody", "--regid=nogroup", "--clear-groups", "--"];
    let probe = Command::new("setpriv").args(setpriv).arg("true").output().await;
    if !probe.is_ok_and(|output| output.status.success()) {
        return skip("only root can run a program as the user nobody, with setpriv");
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    fs::set_permissions(root, fs::Permissions::from_mode(0o755)).unwrap();
    let binary = root.join("switchboard");
    fs::copy(env!("CARGO_BIN_EXE_switchboard"), &binary).unwrap();
    let below = |text: &str| {
        let path = |at: &str| format!("{}{at}", root.display());
        let here = text.replace("/etc/", &path("/etc/")).replace("/var/lib/", &path("/var/lib/"));
        here.replace("-o switchboard -g switchboard", "-o nobody -g nogroup").replace("-g switchboard", "-g nogroup")
    };
    let lines = |text: &str, without: &str| -> String {
        text.split_inclusive('\n').filter(|line| !line.starts_with(without)).collect()
    };
    for folder in ["etc", "var/lib"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    shell(&below(&lines(&block("useradd"), "useradd")), root).await;
    let config = block("[[applications]]").replace("127.0.0.1:7420", "127.0.0.1:0");
    fs::write(root.join("etc/switchboard/switchboard.toml"), below(&config)).unwrap();
    let second = lines(&block("daemon-reload"), "systemctl").replace("root:switchboard", "root:nogroup");
    let as_nobody = format!("setpriv {} {}", setpriv.join(" "), binary.display());
    shell(&below(&second.replace("runuser -u switchboard -- switchboard", &as_nobody)), root).await;

    let unit = block("[Install]");
    let start = below(setting(&unit, "ExecStart")).replace("/usr/bin/switchboard", &as_nobody);
    let mut serve = Command::new("sh");
    serve.args(["-c", &format!("umask {}; exec {start}", setting(&unit, "UMask"))]).current_dir("/");
    let mut child = serve.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut line = String::new();
    within("the listener", BufReader::new(child.stdout.take().unwrap()).read_line(&mut line)).await.unwrap();
    assert!(line.starts_with("listening on ws://127.0.0.1:"), "{line}: {:?}", child.wait_with_output().await);
}

async fn shell(script: &str, folder: &Path) {
    let mut shell = Command::new("sh");
    shell.args(["-euc", script]).current_dir(folder).stdin(Stdio::null());
    let output = within("a step", shell.output()).await.unwrap();
    assert!(output.status.success(), "{script}\n{output:?}");
}
