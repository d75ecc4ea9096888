//! simple-salesforce and jsforce log in, query, page, write and meet errors, salesforce-pubsub-api-client publishes and
//! subscribes: scripts in tests/python and tests/node.

use std::path::PathBuf;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use super::Fixture;

/// What the test command makes beside the build. `None`: this machine lacks the program.
async fn installed(folder: &str, program: &str) -> Option<PathBuf> {
    let target = PathBuf::from(env!("CARGO_BIN_EXE_switchboard")).parent()?.parent()?.to_owned();
    let installed = target.join(folder);
    if installed.exists() {
        return Some(installed);
    }
    let have = Command::new(program).arg("--version").output().await.is_ok_and(|it| it.status.success());
    assert!(!have, "no target/{folder}: run ./test, which makes it");
    // Skipped; the test command says so.
    None
}

async fn check(client: &mut Command, scenes: usize) {
    let output = timeout(Duration::from_mins(1), client.kill_on_drop(true).output()).await.expect("it hangs").unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(told.lines().count(), scenes, "{told}");
}

#[tokio::test]
async fn simple_salesforce_is_at_home() {
    let Some(python) = installed("python/bin/python", "python3").await else { return };
    let fixture = Fixture::with(true, |_| {}).await;
    let authority = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(authority.path(), fixture.org.ca_pem().unwrap()).unwrap();
    let mut client = Command::new(python);
    client.arg("tests/python/salesforce.py").arg(fixture.org.url()).arg(authority.path()).arg(fixture.keys.key_file());
    check(&mut client, 11).await;
}

#[tokio::test]
async fn salesforce_pubsub_api_client_is_at_home() {
    let Some(modules) = installed("node/node_modules", "npm").await else { return };
    let fixture = Fixture::with(true, |_| {}).await;
    let authority = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(authority.path(), fixture.org.ca_pem().unwrap()).unwrap();
    let mut client = Command::new("node");
    client
        .env("NODE_PATH", modules)
        .env("NODE_EXTRA_CA_CERTS", authority.path())
        .arg("tests/node/pubsub.cjs")
        .arg(fixture.org.url());
    check(&mut client, 5).await;
}

#[tokio::test]
async fn jsforce_is_at_home() {
    let Some(modules) = installed("node/node_modules", "npm").await else { return };
    let fixture = Fixture::start().await;
    let mut client = Command::new("node");
    client
        .env("NODE_PATH", modules)
        .arg("tests/node/salesforce.cjs")
        .arg(fixture.org.url())
        .arg(fixture.keys.key_file());
    check(&mut client, 10).await;
}
