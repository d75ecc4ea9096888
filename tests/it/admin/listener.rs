//! The listener: where it is, and what bounds it.

use std::process::Stdio;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use super::*;
use crate::support::DEADLINE;
use crate::support::tls::{TlsFiles, connect};

/// Starts a broker without a configuration file, with this admin address. Returns what it writes until it serves.
async fn without_a_file(admin: &str) -> (tokio::process::Child, tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(folder.path().join("data"));
    if !admin.is_empty() {
        command.env("SWITCHBOARD__ADMIN__LISTEN", admin);
    }
    command.stdout(Stdio::piped()).stderr(std::fs::File::create(&log).unwrap()).kill_on_drop(true);
    let child = command.spawn().unwrap();
    let read = || std::fs::read_to_string(&log).unwrap();
    let mut often = tokio::time::interval(std::time::Duration::from_millis(20));
    let outcome = tokio::time::timeout(DEADLINE, async {
        while !read().contains("admin on ")
            && !read().contains("there is no admin listener")
            && !read().contains("error:")
        {
            often.tick().await;
        }
    });
    outcome.await.ok();
    let text = read();
    (child, folder, text)
}

#[tokio::test]
async fn without_a_file_the_default_port_is_used_and_one_that_is_taken_is_a_warning() {
    // Another program may have the port already.
    let taken = std::net::TcpListener::bind("127.0.0.1:7421");
    let (_child, _folder, log) = without_a_file("").await;
    assert!(log.contains("warning: there is no admin listener: could not listen on 127.0.0.1:7421: "), "{log}");
    drop(taken);
    let (_child, _folder, log) = without_a_file("127.0.0.1:0").await;
    assert!(log.contains("\nadmin on http://127.0.0.1:"), "{log}");
}

#[tokio::test]
async fn a_configured_address_that_is_taken_is_exit_code_2() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut child, _folder, log) = without_a_file(&taken.local_addr().unwrap().to_string()).await;
    assert!(log.contains("is in use") && log.contains("admin.listen"), "{log}");
    assert_eq!(within("its end", child.wait()).await.unwrap().code(), Some(2));
}

#[tokio::test]
async fn a_file_without_admin_has_no_admin_listener() {
    let broker = Broker::open_with("").await;
    assert!(!broker.log().contains("admin on"), "{}", broker.log());
    assert!(!broker.data_dir().join("admin.token").exists());
}

#[tokio::test]
async fn beyond_64_connections_further_ones_are_refused_until_others_end() {
    let site = Site::with_tokens("").await;
    let mut idle = Vec::new();
    for _ in 0..64 {
        let mut stream = within("a connection", TcpStream::connect(site.address)).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        // It is counted once it is answered.
        assert_eq!(within("an answer", stream.read_u8()).await.unwrap(), b'H');
        idle.push(stream);
    }
    let refused = call_with(site.address, "GET", "/healthz", &[], None).await;
    refused.is_problem(503, "UNAVAILABLE");
    drop(idle);
    let served = async { while call_with(site.address, "GET", "/healthz", &[], None).await.status != 200 {} };
    within("a connection that is served", served).await;
}

#[tokio::test]
async fn the_listener_encrypts_with_the_certificate_of_the_broker() {
    let files = TlsFiles::new();
    let site = Site::with(&encrypting(&files, true)).await;
    assert!(site.broker.log().contains("admin on https://127.0.0.1:"), "{}", site.broker.log());
    check_encrypts(&site, &files).await;
}

/// Its one listener that encrypts is that of the admin API.
fn encrypting(files: &TlsFiles, tls: bool) -> String {
    let table = if tls { files.table("") } else { String::new() };
    format!("[auth]\nmode = 'open'\n{table}[admin]\nlisten = ['127.0.0.1:0']\ntls = {tls}\n{TOKENS}")
}

async fn check_encrypts(site: &Site, files: &TlsFiles) {
    let url = format!("wss://{}/ws", site.address);
    let client = connect(&url, &std::sync::Arc::new(files.client(None))).await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(client);
    let request =
        "GET /v1/info HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer reader\r\nConnection: close\r\n\r\n";
    writer.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    within("an answer", reader.read_to_string(&mut text)).await.unwrap();
    let answer = answer_of(&text);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.json()["admin"][0].as_str().unwrap().starts_with("https://"));
}

/// The certificate is opened when it is first used, and left alone when it is not used any more.
#[tokio::test]
async fn a_reload_decides_whether_the_next_connection_is_encrypted() {
    let files = TlsFiles::new();
    let site = Site::with(&encrypting(&files, false)).await;
    for _ in 0..2 {
        assert_eq!(
            site.call("reader", "GET", "/v1/info", None).await.json()["admin"][0],
            format!("http://{}/", site.address)
        );
        site.broker.configure(&encrypting(&files, true));
        let line = site.broker.reload().await;
        assert!(line.contains("changed=\"tls.certificate_file, tls.key_file, admin.tls\""), "{line}");
        check_encrypts(&site, &files).await;
        site.broker.configure(&encrypting(&files, false));
        site.broker.reload().await;
    }
    // Without a certificate that fits nothing changes.
    let broken = encrypting(&files, true);
    std::fs::write(files.path("cert.pem"), "none").unwrap();
    site.broker.configure(&broken);
    let line = site.broker.reload().await;
    assert!(line.contains("the reload was refused"), "{line}");
    assert_eq!(site.call("reader", "GET", "/v1/info", None).await.status, 200);
}
