//! A client that is not ours: Python's `websockets` plays register, publish, request and `FetchCredentials`.

use std::path::PathBuf;

use tokio::process::Command;

use crate::support::{Broker, within};

/// The interpreter with the library, which the test command makes beside the build.
fn interpreter() -> Option<PathBuf> {
    let target = PathBuf::from(env!("CARGO_BIN_EXE_switchboard")).parent()?.parent()?.to_owned();
    Some(target.join("python/bin/python")).filter(|python| python.exists())
}

#[tokio::test]
async fn pythons_websockets_registers_publishes_asks_and_fetches_credentials() {
    let Some(python) = interpreter() else {
        let have_python = Command::new("python3").arg("--version").output().await.is_ok_and(|it| it.status.success());
        assert!(!have_python, "no target/python: run ./test, which makes it");
        eprintln!("SKIPPED: there is no python3 on this machine");
        return;
    };
    let broker = Broker::start().await;
    broker.credentials_set("agent@example.com", "1245456", "acq@123", "5051").await;
    let url = format!("ws://{}/ws", broker.address());
    let client = Command::new(python).arg("tests/python/client.py").arg(url).kill_on_drop(true).output();
    let output = within("the Python client", client).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 4, "four scenes");
}
