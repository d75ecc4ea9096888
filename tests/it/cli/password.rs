//! The password prompt of `switchboard credentials set`, on a terminal that Python makes.

use std::path::Path;

use super::*;

/// Runs `credentials set` on a terminal, and answers its prompts with these keys.
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
async fn set(data_dir: &Path, keys: [&str; 2]) -> Option<Outcome> {
    if !Command::new("python3").arg("--version").output().await.is_ok_and(|it| it.status.success()) {
        eprintln!("SKIPPED: there is no python3 on this machine");
        return None;
    }
    let mut python = Command::new("python3");
    python.arg("tests/python/terminal.py").args(keys).arg(env!("CARGO_BIN_EXE_switchboard"));
    python
        .args(["credentials", "set", "alice", "--username", "1001", "--extension", "5051", "--data-dir"])
        .arg(data_dir);
    python.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let outcome = run_with(python, "").await;
    assert!(!outcome.stdout.contains("the terminal was left"), "{outcome:?}");
    Some(outcome)
}

#[tokio::test]
async fn a_password_is_asked_for_twice_and_not_shown() {
    let broker = Broker::start().await;
    let Some(outcome) = set(&broker.data_dir(), ["wrong\u{15}acq@12\u{7f}23\r", "acq@123\r"]).await else { return };
    outcome.has(0, "");
    assert!(outcome.stdout.contains("CTI password of alice: "), "{outcome:?}");
    assert!(outcome.stdout.contains("stored 'alice'"), "{outcome:?}");
    assert!(!outcome.stdout.contains("acq") && !outcome.stdout.contains("wrong"), "{outcome:?}");
    let fetch = run(&url(&broker), &["request", "Salesforce", "User", "FetchCredentials", "--user", "alice"]).await;
    assert_eq!(fetch.values()[0]["Password"], "acq@123");
}

#[tokio::test]
async fn two_passwords_that_differ_and_ctrl_c_store_nothing_and_restore_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let Some(outcome) = set(folder.path(), ["acq@123\r", "acq@124\r"]).await else { return };
    assert!(outcome.code == Some(2) && outcome.stdout.contains("the two passwords differ"), "{outcome:?}");
    let Some(outcome) = set(folder.path(), ["acq@123\r", "\u{3}"]).await else { return };
    assert!(outcome.code == Some(2) && outcome.stdout.contains("interrupted"), "{outcome:?}");
    let data_dir = folder.path().to_str().unwrap();
    let list = run_with(command(&["credentials", "list", "--json", "--data-dir", data_dir]), "").await;
    assert_eq!(list.stdout, "[]\n");
}
