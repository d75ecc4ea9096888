//! [`KeyServer`]: an issuer's address with a key set, which answers as a test wants.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// How the server answers.
#[derive(Clone)]
pub(crate) enum Answer {
    /// With 200 and this body.
    Body(String),
    /// With this status line and these headers.
    Status(String),
    /// Not at all.
    Stall,
}

/// Runs until it is dropped.
pub(crate) struct KeyServer {
    address: SocketAddr,
    shared: Arc<Mutex<(Answer, usize)>>,
    _tasks: JoinSet<()>,
}

impl KeyServer {
    /// Starts a server that answers so.
    pub(crate) async fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Mutex::new((answer, 0)));
        let (mut tasks, own) = (JoinSet::new(), Arc::clone(&shared));
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(serve(stream, Arc::clone(&own)));
            }
        });
        Self { address, shared, _tasks: tasks }
    }

    /// Starts a server with these keys.
    pub(crate) async fn with(keys: &[Value]) -> Self {
        Self::start(Self::set(keys)).await
    }

    /// Returns the answer that is a set of these keys.
    pub(crate) fn set(keys: &[Value]) -> Answer {
        Answer::Body(json!({ "keys": keys }).to_string())
    }

    /// Answers so from now on.
    pub(crate) fn answer(&self, answer: Answer) {
        self.shared.lock().0 = answer;
    }

    /// Returns where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the address of the key set.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/keys?v=2", self.address)
    }

    /// Returns how often the set was asked for.
    pub(crate) fn asked(&self) -> usize {
        self.shared.lock().1
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Mutex<(Answer, usize)>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    assert!(head.starts_with(b"GET /keys"), "{}", String::from_utf8_lossy(&head));
    let answer = {
        let mut shared = shared.lock();
        shared.1 += 1;
        shared.0.clone()
    };
    let response = match answer {
        Answer::Body(body) => {
            format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
        }
        Answer::Status(line) => format!("HTTP/1.1 {line}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"),
        Answer::Stall => std::future::pending().await,
    };
    stream.write_all(response.as_bytes()).await.ok();
    stream.shutdown().await.ok();
}
