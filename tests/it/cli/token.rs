//! `switchboard token new`.

use std::os::unix::fs::PermissionsExt;

use super::*;

async fn token_new(more: &[&str]) -> Outcome {
    run_with(command(&[&["token", "new"], more].concat()), "").await
}

#[tokio::test]
async fn a_block_and_a_file_are_all_that_an_application_needs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("softphone.token");
    let file = path.to_str().unwrap();
    let line = ["--source", "soft\"phone", "--user", "alice@example.com", "--out", file];
    let block = token_new(&line).await;
    block.has(0, "");
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!block.stdout.contains(std::fs::read_to_string(file).unwrap().trim()), "{block:?}");
    let broker = Broker::with_config(&block.stdout).await;
    let apps = ["apps", "--source", "soft\"phone", "--url", &url(&broker), "--token-file", file, "--json"];
    let apps = run_with(command(&apps), "").await;
    assert_eq!(apps.values()[0][0]["User"], "alice@example.com", "{apps:?}");
    token_new(&line).await.has(2, "cannot be written to");
}

/// A limit on the size of files takes the place of a full disk.
#[test]
fn a_token_that_cannot_be_written_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.token");
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", r#"trap "" XFSZ; ulimit -f 0; exec "$0" token new --out "$1""#]);
    shell.arg(env!("CARGO_BIN_EXE_switchboard")).arg(&path);
    let output = shell.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && said.contains("cannot be written to"), "{said}");
    assert!(!path.exists());
}

#[tokio::test]
async fn a_block_without_a_file_is_a_configuration_and_the_token_is_apart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("f.toml");
    let mut blocks = String::new();
    for of in [["--service", "--source", "statistics"].as_slice(), &["--source", "a\\b", "--user", "ä \" #"]] {
        let made = token_new(of).await;
        assert_eq!(made.stderr.trim().strip_prefix("token: ").unwrap().len(), 43);
        blocks += &made.stdout;
    }
    assert!(
        blocks.starts_with("\n[[applications]]\nsource = \"statistics\"\nservice = true\ntoken_sha256 = "),
        "{blocks}"
    );
    std::fs::write(&file, blocks).unwrap();
    let check = run_with(command(&["check", "--strict", "--config", file.to_str().unwrap()]), "").await;
    check.has(0, "");
    assert!(check.stdout.contains("applications: 2, services among them: 1"), "{check:?}");
}

#[tokio::test]
async fn a_block_that_the_configuration_refuses_is_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.token");
    let line = ["--source", "switchboard", "--service", "--out", path.to_str().unwrap()];
    token_new(&line).await.has(2, "the source must not be 'switchboard'");
    assert!(!path.exists());
    token_new(&["--source", "a", "--user", ""]).await.has(2, "the user must not be empty");
}

#[tokio::test]
async fn half_an_application_is_wrong_usage() {
    token_new(&["--source", "softphone"]).await.has(2, "--user USER or --service");
    token_new(&["--user", "alice"]).await.has(2, "--source");
    token_new(&["--source", "softphone", "--user", "alice", "--service"]).await.has(2, "--service");
    token_new(&["--source", "", "--service"]).await.has(2, "the source must not be empty");
}
