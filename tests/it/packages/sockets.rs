//! Socket activation: listeners that the service manager has opened. `systemd-socket-activate` is not needed: a shell passes
//! a descriptor as systemd does.

use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::support::http::http;
use crate::support::within;

const PROBE: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Starts a broker with these descriptors. They become 3, 4 and so on.
fn serve(sockets: &[&OwnedFd], names: &str, folder: &TempDir, more: &[&str]) -> Child {
    // A shell copies each descriptor to its number; its id is that of the broker, which it becomes. `sh` may have only
    // single digits for descriptors, so bash.
    let copies: Vec<_> =
        sockets.iter().enumerate().map(|(at, socket)| format!("{}<&{}", at + 3, socket.as_raw_fd())).collect();
    let script = format!(
        "export LISTEN_PID=$$ LISTEN_FDS={} LISTEN_FDNAMES={names}; exec \"$0\" \"$@\" {}",
        sockets.len(),
        copies.join(" ")
    );
    let mut bash = Command::new("bash");
    bash.args(["-c", &script, env!("CARGO_BIN_EXE_switchboard"), "serve", "--data-dir"])
        .arg(folder.path().join("data"));
    bash.args(more).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    bash.spawn().unwrap()
}

/// A socket that children inherit.
fn inherited(socket: impl Into<OwnedFd>) -> OwnedFd {
    let socket = socket.into();
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::empty()).unwrap();
    socket
}

async fn lines(child: &mut Child, count: usize) -> Vec<String> {
    let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut lines = Vec::new();
    for _ in 0..count {
        lines.push(within("the line of a listener", out.next_line()).await.unwrap().expect("a line"));
    }
    lines
}

/// What a broker says that does not start.
async fn refused(child: Child) -> String {
    let output = within("the end", child.wait_with_output()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    said
}

#[tokio::test]
async fn sockets_of_the_manager_take_the_place_of_listen() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.sock");
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    let (tcp, unix) = (inherited(tcp), inherited(UnixListener::bind(&path).unwrap()));
    let mut child = serve(&[&tcp, &unix], "ws:ws", &folder, &[]);
    let expected =
        [format!("listening on ws://{address}/ws"), format!("listening on ws+unix://{}:/ws", path.display())];
    assert_eq!(lines(&mut child, 2).await, expected);
    assert_eq!(http(address, PROBE).await.status, 200);
    let id = child.id().unwrap().to_string();
    assert!(Command::new("kill").arg(&id).status().await.unwrap().success());
    assert_eq!(within("the end", child.wait()).await.unwrap().code(), Some(0));
    assert!(path.exists(), "the manager's socket is left to the manager");
}

/// During a drain, connections wait in the listen queue instead of getting 503, and the successor serves them.
#[tokio::test]
async fn connections_wait_for_the_successor() {
    let folder = tempfile::tempdir().unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    let tcp = inherited(tcp);
    let mut first = serve(&[&tcp], "ws", &folder, &[]);
    lines(&mut first, 1).await;
    let id = first.id().unwrap().to_string();
    assert!(Command::new("kill").arg(&id).status().await.unwrap().success());
    assert_eq!(within("the end", first.wait()).await.unwrap().code(), Some(0));
    let mut stream = within("a connection", TcpStream::connect(address)).await.unwrap();
    stream.write_all(PROBE.as_bytes()).await.unwrap();
    let mut second = serve(&[&tcp], "ws", &folder, &[]);
    lines(&mut second, 1).await;
    let answer = within("an answer", crate::support::http::read_response(&mut stream)).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_socket_that_the_configuration_does_not_have_is_exit_code_2() {
    let folder = tempfile::tempdir().unwrap();
    let socket = || inherited(TcpListener::bind("127.0.0.1:0").unwrap());
    let said = refused(serve(&[&socket()], "web", &folder, &[])).await;
    assert!(said.contains("'web'") && said.contains("FileDescriptorName"), "{said}");
    let said = refused(serve(&[&socket()], "tls", &folder, &["--listen", "127.0.0.1:0"])).await;
    assert!(said.contains("tls.listen"), "{said}");
    let said = refused(serve(&[&socket()], "admin", &folder, &["--listen", "127.0.0.1:0"])).await;
    assert!(said.contains("admin.listen"), "{said}");
    // The rules of `listen` hold for it.
    let beyond = inherited(TcpListener::bind("0.0.0.0:0").unwrap());
    let said = refused(serve(&[&beyond], "ws", &folder, &[])).await;
    assert!(said.contains("beyond loopback"), "{said}");
}
