//! `switchboard simulate salesforce`, as a person or a script runs it.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use super::http;

const LONG: Duration = Duration::from_secs(10);

fn simulate(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
    command.args(["simulate", "salesforce"]).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true);
    command
}

async fn start(arguments: &[&str]) -> (Child, Lines<BufReader<ChildStdout>>, String) {
    let mut child = simulate(&[&["--listen", "127.0.0.1:0"], arguments].concat()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = timeout(LONG, lines.next_line()).await.unwrap().unwrap().unwrap();
    let url = line.strip_prefix("salesforce stand-in on ").unwrap_or_else(|| panic!("{line}")).to_owned();
    (child, lines, url)
}

#[tokio::test]
async fn it_says_where_it_is_and_answers_there() {
    let (_child, _lines, url) = start(&[]).await;
    let body = "grant_type=client_credentials&client_id=demo&client_secret=demo-secret";
    let form = "content-type: application/x-www-form-urlencoded\r\n";
    assert_eq!(http::ask(&url, "POST", "/services/oauth2/token", form, body).await.status, 200);
}

#[cfg(unix)]
#[tokio::test]
async fn over_https_it_leaves_its_authority_in_a_file_until_it_ends() {
    let (mut child, mut lines, url) = start(&["--tls"]).await;
    assert!(url.starts_with("https://127.0.0.1:"), "{url}");
    let line = timeout(LONG, lines.next_line()).await.unwrap().unwrap().unwrap();
    let file = line.strip_prefix("certificate authority in ").unwrap();
    assert!(std::fs::read_to_string(file).unwrap().starts_with("-----BEGIN CERTIFICATE-----"));
    let id = child.id().unwrap().to_string();
    Command::new("kill").args(["-TERM", &id]).status().await.unwrap();
    assert!(timeout(LONG, child.wait()).await.unwrap().unwrap().success());
    assert!(!std::path::Path::new(file).exists());
}

#[tokio::test]
async fn it_warns_if_other_computers_can_reach_it() {
    for (listen, warned) in [("0.0.0.0:0", true), ("[::ffff:127.0.0.1]:0", false), ("127.0.0.1:0", false)] {
        let mut child = simulate(&["--listen", listen]).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        // The last line of its start, or the warning in front of it.
        let line = timeout(LONG, lines.next_line()).await.unwrap().unwrap().unwrap();
        assert_eq!(line.contains("can be reached from other computers"), warned, "{listen}: {line}");
    }
}

#[tokio::test]
async fn its_own_seed_can_be_printed_changed_and_given_back() {
    let printed = simulate(&["--print-seed"]).output().await.unwrap();
    let seed = tempfile::NamedTempFile::new().unwrap();
    let text = String::from_utf8(printed.stdout).unwrap().replace("demo-secret", "another-secret");
    std::fs::write(seed.path(), text).unwrap();
    let (_child, _lines, url) = start(&["--seed", seed.path().to_str().unwrap()]).await;
    let body = "grant_type=client_credentials&client_id=demo&client_secret=another-secret";
    let form = "content-type: application/x-www-form-urlencoded\r\n";
    assert_eq!(http::ask(&url, "POST", "/services/oauth2/token", form, body).await.status, 200);
}

#[tokio::test]
async fn a_mistake_in_the_seed_is_told_before_it_starts() {
    for (text, told) in [
        ("{", "EOF while parsing"),
        (r#"{"orgs":[]}"#, "unknown field `orgs`"),
        (r#"{"records":{"Nothing__c":[]}}"#, "there is no object Nothing__c"),
        (r#"{"records":{"Account":[{"Nmae":"x"}]}}"#, "records.Account[0]: there is no field Nmae"),
        (r#"{"users":[{"username":"a","id":"x"}]}"#, "is not an id of 15 or 18 characters"),
        (r#"{"clients":[{"client_id":"a","certificate":"x"}]}"#, "certificate of a"),
        (r#"{"clients":[{"client_id":"a","certificate_file":"none.pem"}]}"#, "certificate of a"),
    ] {
        let seed = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(seed.path(), text).unwrap();
        let child = simulate(&["--listen", "127.0.0.1:0", "--seed", seed.path().to_str().unwrap()]).output();
        let output = timeout(LONG, child).await.expect("it started").unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(told), "{error}");
    }
}
