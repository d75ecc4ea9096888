//! Python: a client that is not ours, and the package in `clients/python`: its own tests, its types, its catalogue of codes, and
//! its installation.

mod catalogue;
mod installing;

use tokio::process::Command;

use crate::support::programs::{PYTHON_CLIENT, python};
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

/// Runs a module of Python in the package's folder. Without Python, does nothing.
async fn run(arguments: &[&str]) {
    let Some(python) = python().await else { return };
    let mut command = Command::new(python);
    command.arg("-m").args(arguments).current_dir(PYTHON_CLIENT).kill_on_drop(true);
    command.env("SWITCHBOARD", env!("CARGO_BIN_EXE_switchboard")).env("PYTHONDONTWRITEBYTECODE", "1");
    // Each wait in there has a deadline of its own, and nextest has one for the whole.
    let output = command.output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[tokio::test]
async fn the_packages_tests_of_lost_connections_pass() {
    run(&["pytest", "-q", "tests/test_lost_connections.py"]).await;
}

#[tokio::test]
async fn the_packages_tests_of_requests_and_events_pass() {
    run(&["pytest", "-q", "tests/test_requests.py", "tests/test_events.py"]).await;
}

#[tokio::test]
async fn the_packages_tests_of_connecting_and_closing_pass() {
    run(&["pytest", "-q", "tests/test_connecting.py", "tests/test_closing.py"]).await;
}

#[tokio::test]
async fn the_python_client_plays_the_transcripts() {
    run(&["pytest", "-q", "tests/test_transcripts.py"]).await;
}

#[tokio::test]
async fn the_guide_and_the_recipes_in_python_do_what_they_say() {
    run(&["pytest", "-q", "tests/test_guide.py", "tests/test_recipes.py"]).await;
}

#[tokio::test]
async fn the_package_and_its_tests_are_typed_and_formatted() {
    run(&["mypy"]).await;
    run(&["ruff", "check", "."]).await;
    run(&["ruff", "format", "--check", "."]).await;
}
