//! `listen = ["unix:PATH"]`: who may connect, and what becomes of the socket's file.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Output;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::Command;

use crate::support::http::{HANDSHAKE, handshake_to, handshake_with};
use crate::support::os_user::{OsUser, SharedProgram};
use crate::support::{Broker, within};

/// A path for a socket, in a folder that every user can enter.
fn place() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = folder.path().join("s.sock");
    (folder, path)
}

async fn listening(path: &Path, toml: Option<&str>) -> Broker {
    Broker::launch(toml, &["--listen", &format!("unix:{}", path.display())]).await
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
}

/// The command line as an application that publishes one event.
fn publish(program: &Path, path: &Path) -> Command {
    let mut command = Command::new(program);
    let url = format!("ws+unix://{}:/ws", path.display());
    command.args(["pub", "A", "B", "C", "1", "--source", "shell", "--url", &url]).kill_on_drop(true);
    command
}

async fn output(command: &mut Command) -> Output {
    within("the command", command.output()).await.unwrap()
}

fn own_program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_switchboard"))
}

async fn ask(path: &Path, head: &str) -> String {
    let mut stream = UnixStream::connect(path).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut response = [0; 1024];
    let len = within("a response", stream.read(&mut response)).await.unwrap();
    String::from_utf8_lossy(&response[..len]).into_owned()
}

#[tokio::test]
async fn a_client_connects_and_the_log_counts_it_as_loopback() {
    let (_folder, path) = place();
    let broker = listening(&path, None).await;
    assert_eq!(broker.urls()[1], format!("ws+unix://{}:/ws", path.display()));
    assert_eq!(mode(&path), 0o600);
    let mut app = broker.app("screen").await;
    app.subscribe("A/*/*").await;
    let published = output(&mut publish(&own_program(), &path)).await;
    assert!(published.status.success(), "{published:?}");
    assert_eq!(app.next().await["source"], "shell");
    broker.log_until("the session", |log| log.contains("source=\"shell\" user=\"local\" address=127.0.0.1")).await;
}

#[tokio::test]
async fn host_and_origin_are_checked_as_everywhere() {
    let (_folder, path) = place();
    let _broker = listening(&path, None).await;
    for (head, status) in [
        (HANDSHAKE.to_owned(), 101),
        (handshake_to("evil.example"), 421),
        (handshake_with("Origin: https://evil.example"), 403),
    ] {
        let response = ask(&path, &head).await;
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{response}");
    }
}

#[tokio::test]
async fn a_limit_per_address_counts_it_as_loopback() {
    let (_folder, path) = place();
    let toml = "auth.mode = 'open'\nlimits.connections_per_address = 1";
    let broker = listening(&path, Some(toml)).await;
    let _over_tcp = broker.app("screen").await;
    let response = ask(&path, HANDSHAKE).await;
    assert!(response.starts_with("HTTP/1.1 503 ") && response.contains("connections_per_address"), "{response}");
}

#[tokio::test]
async fn the_file_is_removed_at_an_orderly_end_and_a_dead_one_is_replaced() {
    let (_folder, path) = place();
    let mut broker = listening(&path, None).await;
    broker.terminate().await;
    assert_eq!(broker.exit_code().await, Some(0));
    assert!(!path.exists());
    let mut broker = listening(&path, None).await;
    broker.signal("KILL").await;
    broker.exit_code().await;
    assert!(fs::symlink_metadata(&path).unwrap().file_type().is_socket());
    let _broker = listening(&path, None).await;
    assert!(output(&mut publish(&own_program(), &path)).await.status.success());
}

#[tokio::test]
async fn a_path_that_is_taken_too_long_or_without_a_folder_is_exit_code_2() {
    let (folder, path) = place();
    let file = folder.path().join("file");
    fs::write(&file, "kept").unwrap();
    let broker = listening(&path, None).await;
    let long = folder.path().join("x".repeat(108));
    let missing = folder.path().join("missing/s.sock");
    for (place, expected, is_mistake) in [
        (&path, "is in use", false),
        (&file, "there is something else at this path", true),
        (&long, "is too long for a Unix socket", true),
        (&missing, "No such file", true),
    ] {
        let listen = format!("unix:{}", place.display());
        let mut serve = Command::new(own_program());
        serve.args(["serve", "--listen", &listen, "--data-dir"]).arg(folder.path().join("data"));
        let serve = output(&mut serve).await;
        let told = String::from_utf8_lossy(&serve.stderr).into_owned();
        assert!(serve.status.code() == Some(2) && told.contains(expected), "{serve:?}");
        let mut check = Command::new(own_program());
        let check = output(check.arg("check").env("SWITCHBOARD__LISTEN", &listen)).await;
        assert_eq!(check.status.code(), Some(if is_mistake { 2 } else { 0 }), "{check:?}");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
    assert!(path.exists());
    drop(broker);
}

#[tokio::test]
async fn its_mode_follows_os_users_at_a_reload() {
    let (_folder, path) = place();
    let toml = |more: &str| format!("{more}\nauth.mode = 'open'\n");
    let broker = listening(&path, Some(&toml(""))).await;
    for (os_users, expected) in [("['root']", 0o666), ("['root', 'daemon']", 0o666), ("[]", 0o600)] {
        broker.configure(&toml(&format!("http.os_users = {os_users}")));
        let line = broker.reload().await;
        assert!(line.contains("changed=\"http.os_users\""), "{line}");
        assert_eq!(mode(&path), expected, "{os_users}");
    }
    // Another file at the path is left alone.
    fs::remove_file(&path).unwrap();
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    broker.configure(&toml("http.os_users = ['root']"));
    broker.reload().await;
    assert_eq!(mode(&path), 0o640);
    assert!(broker.log().contains("was not changed to fit http.os_users"), "{}", broker.log());
}

#[tokio::test]
async fn the_socket_of_another_user_is_left_alone() {
    let Some(other) = OsUser::daemon() else { return };
    let (folder, path) = place();
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    other.owns(&path);
    let mut serve = Command::new(own_program());
    serve
        .args(["serve", "--listen", &format!("unix:{}", path.display()), "--data-dir"])
        .arg(folder.path().join("data"));
    let serve = output(&mut serve).await;
    assert_eq!(serve.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&serve.stderr).contains("a socket of another operating-system user"), "{serve:?}");
    assert!(path.exists());
}

#[tokio::test]
async fn a_neighbours_program_is_refused_by_the_mode_and_by_its_user_id() {
    let (Some(named), Some(neighbour)) = (OsUser::daemon(), OsUser::mail()) else { return };
    let (_folder, path) = place();
    let program = SharedProgram::new();
    let mut broker = listening(&path, None).await;
    let refused = output(named.runs(&mut publish(&program.path(), &path))).await;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Permission denied"), "{refused:?}");
    broker.terminate().await;
    assert_eq!(broker.exit_code().await, Some(0));

    // Over a Unix socket the user is checked also with `same_user = false`.
    let toml = format!("auth.mode = 'open'\nhttp = {{ same_user = false, os_users = ['{}'] }}", named.name());
    let _broker = listening(&path, Some(&toml)).await;
    assert_eq!(mode(&path), 0o666);
    let accepted = output(named.runs(&mut publish(&program.path(), &path))).await;
    assert!(accepted.status.success(), "{accepted:?}");
    let refused = output(neighbour.runs(&mut publish(&program.path(), &path))).await;
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(3) && told.contains("this broker serves the user it runs as"), "{refused:?}");
}
