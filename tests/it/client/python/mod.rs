//! A client that is not ours: Python's `websockets` plays register, publish, request and `FetchCredentials`.

use tokio::process::Command;

use crate::support::programs::python;
use crate::support::{Broker, within};

#[tokio::test]
async fn pythons_websockets_registers_publishes_asks_and_fetches_credentials() {
    let Some(python) = python().await else { return };
    let broker = Broker::start().await;
    broker.credentials_set("agent@example.com", "1245456", "acq@123", "5051").await;
    let url = format!("ws://{}/ws", broker.address());
    let client = Command::new(python).arg("tests/python/client.py").arg(url).kill_on_drop(true).output();
    let output = within("the Python client", client).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 4, "four scenes");
}
