//! The OpenAPI document is true: schemathesis, which is not ours, calls a broker by it and compares the answers.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::*;
use crate::support::programs;

/// How long it may take.
const TIME: Duration = Duration::from_mins(1);

/// Calls that end the broker, replace its configuration, or never end.
const LEFT_OUT: [&str; 3] = ["/v1/tap", "/v1/drain", "/v1/reload"];

#[tokio::test]
async fn the_openapi_document_is_what_the_broker_does() {
    let Some(python) = programs::python().await else { return };
    let site = Site::with_tokens("limits.failed_registrations = 100000\nlimits.rate = 0").await;
    let _applications = (site.broker.app_of("phone", "alice").await, site.broker.app_of("log", "bob").await);
    let mut command = Command::new(python.parent().unwrap().join("schemathesis"));
    command.args(["run", &format!("http://{}/v1/openapi.json", site.address)]);
    command.args([
        "--header",
        "Authorization: Bearer actor",
        "--checks",
        "all",
        "--seed",
        "1",
        "--max-examples",
        "10",
        // Threads of Python 3.11 that parse source at the same time fail at times: "AST constructor recursion depth mismatch".
        "--workers",
        "1",
    ]);
    command.args(["--phases", "examples,coverage,fuzzing", "--no-color", "--generation-database", "none"]);
    // A value of the right type can still be refused, such as a log filter that names no part of the program.
    command.args(["--exclude-checks", "positive_data_acceptance"]);
    for path in LEFT_OUT {
        command.args(["--exclude-path", path]);
    }
    let folder = tempfile::tempdir().unwrap();
    command.current_dir(folder.path()).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(TIME, command.output()).await.expect("it takes too long").unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(call_with(site.address, "GET", "/readyz", &[], None).await.status, 200);
}
