//! The listener over TCP, in this process: the handshake, the limit on connections, the addresses.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use switchboard::config::{Config, Limits};
use switchboard::server::Server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::connection::{CLOSE, Client, command, frame, limits, text};

/// A server on a port of its own, and what ends it.
fn server(limits: Limits) -> (SocketAddr, JoinHandle<()>, tokio::sync::oneshot::Sender<()>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let listen = vec![SocketAddr::from(([127, 0, 0, 1], 0)).into()];
    let config = Config { listen, limits, data_dir: folder.path().to_owned(), ..Config::default() };
    let server = Server::bind(config, None).unwrap();
    let address = server.addresses()[0];
    let (end, ended) = tokio::sync::oneshot::channel();
    #[expect(clippy::disallowed_methods, reason = "a test has no tracker")]
    let task = tokio::spawn(server.run(async {
        ended.await.ok();
    }));
    (address, task, end, folder)
}

/// Sends the head of a request and reads the head of the answer.
async fn ask(stream: &mut TcpStream, head: &str, rest: &[u8]) -> String {
    stream.write_all(&[head.as_bytes(), rest].concat()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(timeout(Duration::from_secs(20), stream.read_u8()).await.unwrap().unwrap());
    }
    String::from_utf8(answer).unwrap()
}

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Protocol: switchboard.v1\r\n\r\n";

#[tokio::test]
async fn a_connection_over_tcp_from_handshake_to_drain() {
    let (address, task, end, _folder) = server(limits());
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The probe first, which ends its connection; then the first message together with the handshake.
    let probe =
        ask(&mut stream, "GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost:3000\r\n\r\n", b"").await;
    assert!(probe.starts_with("HTTP/1.1 200"), "{probe}");
    assert!(probe.contains("access-control-allow-origin: http://localhost:3000"), "{probe}");
    let mut body = vec![0; 55];
    stream.read_exact(&mut body).await.unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["server"], "switchboard");
    assert!(probe.contains("connection: close") && stream.read_u8().await.is_err(), "{probe}");
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut register = command("Application", "Register", &json!({}));
    register["source"] = "app".into();
    let answer = ask(&mut stream, UPGRADE, &text(&register)).await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    assert!(answer.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{answer}");
    assert!(answer.contains("sec-websocket-protocol: switchboard.v1"), "{answer}");
    let mut app = Client::new(stream, None);
    assert_eq!(app.next().await["data"]["Success"], true);
    end.send(()).unwrap();
    assert_eq!(app.next().await["subtopic"], "Draining");
    assert_eq!(app.closed().await, 1012);
    app.send(&frame(CLOSE, b"\x03\xF4")).await;
    app.end_of_stream().await;
    timeout(Duration::from_secs(20), task).await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err(), "the listener is closed");
}

#[tokio::test]
async fn a_full_broker_says_so_and_has_room_again() {
    let (address, _task, _end, _folder) = server(Limits { connections: 1, ..limits() });
    let mut first = TcpStream::connect(address).await.unwrap();
    assert!(ask(&mut first, UPGRADE, b"").await.starts_with("HTTP/1.1 101"));
    let mut second = TcpStream::connect(address).await.unwrap();
    let refused = ask(&mut second, UPGRADE, b"").await;
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("retry-after"), "{refused}");
    drop((first, second));
    let start = Instant::now();
    loop {
        let mut third = TcpStream::connect(address).await.unwrap();
        if ask(&mut third, UPGRADE, b"").await.starts_with("HTTP/1.1 101") {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "there is no room again");
    }
}

#[tokio::test]
async fn open_mode_stays_on_loopback_and_an_address_is_used_once() {
    let folder = tempfile::tempdir().unwrap();
    let config = |listen: SocketAddr| Config {
        listen: vec![listen.into()],
        listen_is_default: false,
        data_dir: folder.path().to_owned(),
        ..Config::default()
    };
    let beyond = Server::bind(config(SocketAddr::from(([0, 0, 0, 0], 0))), None).err().unwrap();
    assert!(beyond.to_string().contains("open mode"), "{beyond}");
    let first = Server::bind(config(SocketAddr::from(([127, 0, 0, 1], 0))), None).unwrap();
    let again = Server::bind(config(first.addresses()[0]), None).err().unwrap();
    assert!(again.to_string().contains("in use"), "{again}");
}
