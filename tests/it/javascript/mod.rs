//! clients/js, as far as it needs no browser (`browser::desk` has the rest): its catalogue is the broker's, and its own tests,
//! which vitest runs, pass against this broker.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;
use wire::{CloseCode, ErrorCode, Reconnect};

use crate::support::programs::{built, exists};

/// How long a run of vitest may take. Alone on two cores it takes a quarter of that.
const DEADLINE: Duration = Duration::from_secs(110);

/// Returns src/catalogue.ts as the broker's catalogue has it.
fn catalogue() -> String {
    let mut text = String::from(
        "// Generated from the broker's catalogue (crates/wire/src/error.rs); tests/it/javascript compares them.\n\n\
         /** The error codes after which the same envelope may succeed later without any change. */\n\
         export const RETRYABLE: readonly string[] = [\n",
    );
    for code in ErrorCode::ALL.iter().filter(|code| code.retryable()) {
        writeln!(text, "  \"{code}\",").unwrap();
    }
    text.push_str(
        "];\n\n/** What a client does after a close code. After every other code, it backs off. */\n\
         export const RECONNECT: Readonly<Record<number, \"drop-message\" | \"after-delay\" | \"new-token\" | \"stop\">> = {\n",
    );
    for code in CloseCode::ALL {
        let name = match code.reconnect() {
            Reconnect::BackOff => continue,
            Reconnect::DropMessage => "drop-message",
            Reconnect::AfterDelay => "after-delay",
            Reconnect::NewToken => "new-token",
            Reconnect::Stop => "stop",
        };
        writeln!(text, "  {}: \"{name}\",", code.code()).unwrap();
    }
    text + "};\n"
}

#[test]
fn the_client_has_the_catalogue_of_the_broker() {
    let text = fs::read_to_string("clients/js/src/catalogue.ts").unwrap();
    assert!(text == catalogue(), "clients/js/src/catalogue.ts is stale; it has to be:\n{}", catalogue());
}

#[test]
fn the_published_types_name_every_error_code() {
    let text = fs::read_to_string("clients/js/src/switchboard.d.ts").unwrap();
    let union = text.split_once("export type BrokerCode = ").unwrap().1.split_once(';').unwrap().0;
    let named: Vec<&str> = union.split('|').map(|code| code.trim().trim_matches('"')).collect();
    assert_eq!(named, ErrorCode::ALL.iter().map(|code| code.as_str()).collect::<Vec<_>>());
}

/// Returns the folder of a client whose tools are installed. `None`: this machine has no npm.
async fn client() -> Option<PathBuf> {
    let folder = PathBuf::from("clients/js");
    if folder.join("node_modules/vitest").exists() {
        return Some(folder);
    }
    assert!(!exists("npm").await, "no clients/js/node_modules: run ./test, which installs it");
    None
}

/// Runs a program in the client's folder, which has to succeed.
async fn succeed(folder: &Path, program: &str, arguments: &[&str], environment: &[(&str, &Path)]) {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(folder)
        .env("NO_COLOR", "1")
        .envs(environment.iter().copied())
        .kill_on_drop(true);
    command.env("SWITCHBOARD", env!("CARGO_BIN_EXE_switchboard"));
    let output = timeout(DEADLINE, command.output()).await.expect("it hangs").unwrap();
    let (said, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {arguments:?}\n{said}\n{wrong}");
}

/// Builds the client into a folder of its own, and has vitest run tests with the built files.
async fn play(name: &str, chosen: &[&str]) {
    let Some(folder) = client().await else { return };
    let out = built().parent().unwrap().join("javascript").join(name);
    succeed(&folder, "node", &["build.mjs", out.to_str().unwrap()], &[]).await;
    let vitest = [&["node_modules/vitest/vitest.mjs", "run"], chosen].concat();
    succeed(&folder, "node", &vitest, &[("BUILT", &out.join("dist"))]).await;
}

/// Tests of files beside the core. They run apart, so that neither run comes near its deadline on a busy machine.
const BESIDE: &[&str] = &["test/shared.test.ts", "test/openajax.test.ts", "test/recipes.test.ts"];

#[tokio::test]
async fn the_built_client_passes_its_tests() {
    let apart = ["test/package.test.ts", "test/transcripts.test.ts"];
    let excluded: Vec<&str> = apart.iter().chain(BESIDE).flat_map(|file| ["--exclude", *file]).collect();
    play("units", &excluded).await;
}

#[tokio::test]
async fn the_built_files_beside_the_core_pass_their_tests() {
    play("beside", BESIDE).await;
}

#[tokio::test]
async fn the_built_client_plays_the_transcripts() {
    play("transcripts", &["test/transcripts.test.ts"]).await;
}

#[tokio::test]
async fn the_package_is_small_current_and_installs() {
    let Some(folder) = client().await else { return };
    succeed(&folder, "node", &["node_modules/vitest/vitest.mjs", "run", "test/package.test.ts"], &[]).await;
}
