//! `switchboard health` and the other commands for operators.

use std::process::Output;

use tokio::process::Command;

use super::*;
use crate::support::secret_file;

/// Runs a command, with these variables of the environment.
pub(super) async fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
    command.args(arguments).env_remove("SWITCHBOARD_ADMIN_TOKEN").envs(variables.iter().copied()).kill_on_drop(true);
    within("the command's end", command.output()).await.unwrap()
}

#[track_caller]
pub(super) fn has(output: &Output, code: i32, stdout: &str, stderr: &str) {
    let [out, err] = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it).into_owned());
    assert_eq!(output.status.code(), Some(code), "{out}{err}");
    assert!(out.contains(stdout) && err.contains(stderr), "{out}{err}");
}

#[tokio::test]
async fn health_is_0_if_ready_1_if_not_and_3_without_an_answer() {
    let mut site = Site::with_tokens("[limits]\ndrain = '20s'").await;
    let url = format!("http://{}/", site.address);
    has(&run(&["health", "--admin", &url], &[]).await, 0, "ready\n", "");
    let json = run(&["health", "--admin", &url, "--json"], &[]).await;
    has(&json, 0, r#"{"ready":true,"failing":[],"warnings":[]}"#, "");

    let mut handler = site.broker.app("handler").await;
    handler.handle("Phone/Call/Dial").await;
    let mut asker = site.broker.app("asker").await;
    asker.ask("Phone/Call/Dial", "1").await;
    handler.next().await;
    let token = secret_file_in(&site, "actor");
    has(&run(&["drain", "--admin", &url, "--admin-token-file", &token], &[]).await, 0, "", "");
    site.broker.log_until("the drain", |log| log.contains("the drain begins")).await;
    has(&run(&["health", "--admin", &url], &[]).await, 1, "not ready: draining\n", "");
    drop(handler);
    assert_eq!(site.broker.exit_code().await, Some(0));
    has(&run(&["health", "--admin", &url], &[]).await, 3, "", "could not reach the admin API at");
    // What answers there is not a broker.
    let other = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", other.local_addr().unwrap());
    let answering = async {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut stream, _) = other.accept().await.unwrap();
        assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
        stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    };
    let health = ["health", "--admin", &url];
    let (output, ()) = tokio::join!(run(&health, &[]), answering);
    has(&output, 3, "", "is not an admin API");
}

pub(super) fn secret_file_in(site: &Site, token: &str) -> String {
    let path = site.broker.data_dir().join(format!("{token}.token"));
    secret_file(&path, token);
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_token_is_in_a_file_in_the_environment_or_in_the_data_folder() {
    let mut site = Site::with("[auth]\nmode = 'open'\n[admin]\nlisten = ['127.0.0.1:0']").await;
    let url = format!("http://{}", site.address);
    let own = site.broker.data_dir().join("admin.token");
    let (folder, own) = (site.broker.data_dir(), own.to_str().unwrap());
    let empty = tempfile::tempdir().unwrap();
    let elsewhere = empty.path().to_str().unwrap();
    let drain = ["drain", "--admin", &url, "--data-dir"];
    let with = |more: &[&'static str]| [&drain[..], &[elsewhere], more].concat();

    let refused = run(&with(&[]), &[]).await;
    has(&refused, 1, "", "UNAUTHENTICATED: ");
    for place in ["--admin-token-file", "SWITCHBOARD_ADMIN_TOKEN", "admin.token in the data folder"] {
        has(&refused, 1, "", place);
    }
    has(&run(&with(&[]), &[("SWITCHBOARD_ADMIN_TOKEN", "wrong")]).await, 1, "", "UNAUTHENTICATED: ");
    has(&run(&with(&[]), &[("SWITCHBOARD_ADMIN_TOKEN", "")]).await, 2, "", "SWITCHBOARD_ADMIN_TOKEN is empty");
    has(&run(&with(&["--admin-token-file", "/nowhere"]), &[]).await, 2, "", "/nowhere");
    assert_eq!(call_with(site.address, "GET", "/readyz", &[], None).await.status, 200);

    // An application's variables do not apply.
    let variables = [("SWITCHBOARD_URL", "ws://127.0.0.1:1/ws"), ("SWITCHBOARD_TOKEN", "x")];
    let by_folder = [&drain[..], &[folder.to_str().unwrap()]].concat();
    has(&run(&by_folder, &variables).await, 0, "", "");
    assert_eq!(site.broker.exit_code().await, Some(0));

    let mut site = Site::of(site.broker.successor().await).await;
    let url = format!("http://{}", site.address);
    let by_file = ["drain", "--admin", &url, "--admin-token-file", own];
    has(&run(&by_file, &[("SWITCHBOARD_ADMIN_TOKEN", "wrong")]).await, 0, "", "");

    assert_eq!(site.broker.exit_code().await, Some(0));
    let site = Site::of(site.broker.successor().await).await;
    let (url, token) = (format!("http://{}", site.address), std::fs::read_to_string(own).unwrap());
    let by_variable = ["drain", "--admin", &url, "--data-dir", elsewhere];
    has(&run(&by_variable, &[("SWITCHBOARD_ADMIN_TOKEN", &token)]).await, 0, "", "");
}

#[tokio::test]
async fn the_address_is_that_of_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("f.toml");
    let path = file.to_str().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    std::fs::write(&file, format!("admin.listen = ['{free}']")).unwrap();
    let expected = format!("could not reach the admin API at http://{free}: ");
    has(&run(&["health", "--config", path], &[]).await, 3, "", &expected);
    std::fs::write(&file, "").unwrap();
    has(&run(&["health", "--config", path], &[]).await, 2, "", "the configuration has no admin listener");
    std::fs::write(&file, "admin.listen = ['127.0.0.1:0']").unwrap();
    has(&run(&["health", "--config", path], &[]).await, 2, "", "give that URL as --admin");
    has(&run(&["health", "--admin", "localhost"], &[]).await, 2, "", "--admin must begin with https://");
    let variables = [("SWITCHBOARD__ADMIN__LISTEN", "127.0.0.1:1")];
    has(&run(&["health"], &variables).await, 3, "", "could not reach the admin API at http://127.0.0.1:1: ");
}
