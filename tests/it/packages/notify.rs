//! What systemd is told (`sd_notify`), by a socket in its place.

use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::UnixDatagram as Manager;
use tokio::process::{Child, Command};

use crate::support::http::http;
use crate::support::within;

/// A broker and its service manager.
struct Service {
    child: Child,
    manager: Manager,
    folder: TempDir,
}

impl Service {
    fn start(watchdog: Option<Duration>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let config = folder.path().join("switchboard.toml");
        std::fs::write(&config, "[auth]\nmode = \"open\"\n").unwrap();
        let mut serve = Command::new(env!("CARGO_BIN_EXE_switchboard"));
        serve.args(["serve", "--listen", "127.0.0.1:0", "--config"]).arg(&config);
        serve.arg("--data-dir").arg(folder.path().join("data")).env("NOTIFY_SOCKET", &path);
        if let Some(watchdog) = watchdog {
            serve.env("WATCHDOG_USEC", watchdog.as_micros().to_string());
        }
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        serve.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
        let child = serve.spawn().unwrap();
        Self { child, manager: Manager::from_std(socket).unwrap(), folder }
    }

    /// The next message.
    async fn told(&self) -> String {
        let mut buffer = [0; 256];
        let len = within("a message to the manager", self.manager.recv(&mut buffer)).await.unwrap();
        String::from_utf8(buffer[..len].to_vec()).unwrap()
    }

    /// Waits for this message. Those about the watchdog and the number of sessions may precede it.
    async fn told_that(&self, wanted: &str) -> String {
        loop {
            let message = self.told().await;
            if message.starts_with(wanted) {
                return message;
            }
            assert!(["WATCHDOG=1", "STATUS="].iter().any(|other| message.starts_with(other)), "{message}");
        }
    }

    async fn signal(&self, name: &str) {
        let id = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().await.unwrap().success());
    }

    async fn address(&mut self) -> std::net::SocketAddr {
        use tokio::io::{AsyncBufReadExt, BufReader};

        let mut line = String::new();
        let out = self.child.stdout.take().unwrap();
        within("the listener", BufReader::new(out).read_line(&mut line)).await.unwrap();
        line.trim().trim_start_matches("listening on ws://").trim_end_matches("/ws").parse().unwrap()
    }
}

#[tokio::test]
async fn the_manager_is_told_of_the_start_of_reloads_and_of_the_end() {
    let mut service = Service::start(None);
    service.told_that("READY=1").await;
    let address = service.address().await;
    let probe = http(address, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(probe.status, 200, "a connection is accepted");

    let mut before = 0;
    for config in ["[auth]\nmode = \"open\"\n[limits]\nrate = 7\n", "a mistake"] {
        std::fs::write(service.folder.path().join("switchboard.toml"), config).unwrap();
        service.signal("HUP").await;
        let reloading = service.told_that("RELOADING=1").await;
        let since: u64 = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().parse().unwrap();
        assert!(since > before);
        before = since;
        service.told_that("READY=1").await;
    }
    service.signal("TERM").await;
    service.told_that("STOPPING=1").await;
    let status = within("the end", service.child.wait()).await.unwrap();
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn the_watchdog_is_fed_and_the_status_has_the_number_of_sessions() {
    let mut service = Service::start(Some(Duration::from_millis(300)));
    let (mut fed, mut status) = (0, String::new());
    while fed < 3 || status.is_empty() {
        let message = service.told().await;
        fed += u32::from(message == "WATCHDOG=1");
        if let Some(text) = message.strip_prefix("STATUS=") {
            status = text.to_owned();
        }
    }
    assert_eq!(status, "0 sessions");
    let url = format!("ws://{}/ws", service.address().await);
    let mut sub = Command::new(env!("CARGO_BIN_EXE_switchboard"));
    sub.args(["sub", "Phone", "--source", "desk", "--url", &url]).stdin(Stdio::null()).stdout(Stdio::null());
    let _sub = sub.stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap();
    service.told_that("STATUS=1 session").await;
    // A process that does not run feeds nothing. What it sent before is read first.
    service.signal("STOP").await;
    let silence = async { while tokio::time::timeout(Duration::from_secs(1), service.told()).await.is_ok() {} };
    within("a second without a message", silence).await;
    service.signal("CONT").await;
    service.told_that("WATCHDOG=1").await;
}

/// The watchdog is another process's if it names one.
#[tokio::test]
async fn a_manager_that_cannot_be_reached_does_not_stop_the_broker() {
    let folder = tempfile::tempdir().unwrap();
    let mut serve = Command::new(env!("CARGO_BIN_EXE_switchboard"));
    serve.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(folder.path().join("data"));
    serve.env("NOTIFY_SOCKET", folder.path().join("nothing")).env("WATCHDOG_USEC", "1000").env("WATCHDOG_PID", "1");
    serve.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = serve.spawn().unwrap();
    let mut lines = tokio::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    within("the listener", tokio::io::AsyncBufReadExt::read_line(&mut lines, &mut line)).await.unwrap();
    assert!(line.starts_with("listening on "), "{line}");
}
