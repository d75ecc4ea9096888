//! One connection's task over streams in memory, with a paused clock: its registration (`registering`), its renewal
//! (`renewing`), its pace (`pace`) and its end (`closing`).

mod closing;
mod pace;
mod registering;
mod renewing;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use serde_json::{Value, json};
use switchboard::auth::{Open, Verifier};
use switchboard::config::{Config, Limits};
use switchboard::connection::{Admission, Connection, Context, Settings, Shutdown, Upgraded, serve};
use switchboard::router::{Ids, Policy, Router};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::support::framing;

const TEXT: u8 = 0x81;
pub(super) const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8A;

/// A router, and what sessions share.
struct Broker {
    router: Arc<Router>,
    settings: Arc<Settings>,
    admission: Arc<Admission>,
}

impl Broker {
    fn new(limits: Limits) -> Self {
        let config = Config { limits: limits.clone(), ..Config::default() };
        #[expect(clippy::disallowed_methods, reason = "a broker's calendar")]
        let calendar = SystemTime::now();
        let now = Instant::now().into_std();
        let router = Router::new(now, calendar, Policy::new(&config), Ids::seeded(1), Vec::new());
        Self { router: Arc::new(router), settings: Arc::new(Settings::new(limits)), admission: Arc::default() }
    }

    /// A connection with `room` bytes in each direction, served by a task.
    fn connect(&self, room: usize) -> Client<DuplexStream> {
        self.connect_with(room, Arc::new(Open), Arc::default())
    }

    fn connect_with(&self, room: usize, verifier: Arc<dyn Verifier>, shutdown: Arc<Shutdown>) -> Client<DuplexStream> {
        let (ours, stream) = duplex(room);
        Client::new(stream, Some(self.serve(ours, verifier, shutdown)))
    }

    /// Serves a connection in a task.
    fn serve<S>(&self, stream: S, verifier: Arc<dyn Verifier>, shutdown: Arc<Shutdown>) -> JoinHandle<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (router, settings, admission) =
            (Arc::clone(&self.router), Arc::clone(&self.settings), Arc::clone(&self.admission));
        let address = IpAddr::from(Ipv4Addr::LOCALHOST);
        #[expect(clippy::disallowed_methods, reason = "a test has no tracker")]
        tokio::spawn(async move {
            let connection = Connection::new(Instant::now().into_std(), address, settings, 1);
            let context = Context { router: &router, verifier: &*verifier, admission: &admission, shutdown: &shutdown };
            serve(Upgraded { stream, read_ahead: Bytes::new() }, connection, context).await;
        })
    }

    async fn app(&self, source: &str, room: usize) -> Client<DuplexStream> {
        let mut client = self.connect(room);
        client.register(source).await;
        client
    }
}

/// A client that frames by hand.
pub(super) struct Client<S> {
    pub(super) stream: S,
    pub(super) task: Option<JoinHandle<()>>,
    /// Bytes that were read and are not yet handled.
    incoming: Vec<u8>,
}

pub(super) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    framing::frame_with(first, true, payload)
}

pub(super) fn text(envelope: &Value) -> Vec<u8> {
    frame(TEXT, envelope.to_string().as_bytes())
}

pub(super) fn command(topic: &str, subtopic: &str, data: &Value) -> Value {
    json!({"channel": "Broker", "topic": topic, "subtopic": subtopic, "data": data})
}

fn event(number: usize, fill: usize) -> Value {
    json!({"channel": "Demo", "topic": "Hello", "subtopic": "World", "data": {"n": number, "fill": "x".repeat(fill)}})
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(super) fn new(stream: S, task: Option<JoinHandle<()>>) -> Self {
        Self { stream, task, incoming: Vec::new() }
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    pub(super) async fn say(&mut self, envelope: &Value) {
        self.send(&text(envelope)).await;
    }

    /// The next frame: its first byte and its payload.
    pub(super) async fn frame(&mut self) -> (u8, Vec<u8>) {
        let (start, end) = loop {
            if let Some(frame) = framing::measure(&self.incoming) {
                break frame;
            }
            let read = self.stream.read_buf(&mut self.incoming).await.unwrap();
            assert!(read > 0, "the connection ended before a frame");
        };
        let frame: Vec<u8> = self.incoming.drain(..end).collect();
        (frame[0], frame[start..].to_vec())
    }

    /// The next text message; pings pass.
    pub(super) async fn next(&mut self) -> Value {
        loop {
            match self.frame().await {
                (TEXT, text) => return serde_json::from_slice(&text).unwrap(),
                (PING, _) => {}
                other => panic!("{other:?} in place of a text"),
            }
        }
    }

    /// The code of the Close frame that comes after any number of messages.
    pub(super) async fn closed(&mut self) -> u16 {
        loop {
            if let (CLOSE, payload) = self.frame().await {
                return u16::from_be_bytes([payload[0], payload[1]]);
            }
        }
    }

    pub(super) async fn end_of_stream(&mut self) {
        assert_eq!(self.stream.read_buf(&mut self.incoming).await.unwrap(), 0);
        assert!(self.incoming.is_empty(), "{:?}", self.incoming);
    }

    async fn register(&mut self, source: &str) {
        let mut register = command("Application", "Register", &json!({}));
        register["source"] = source.into();
        self.say(&register).await;
        let reply = self.next().await;
        assert_eq!(reply["data"]["Success"], true, "{reply}");
    }

    async fn subscribe(&mut self) {
        self.say(&command("Subscription", "Subscribe", &json!({"channel": "Demo"}))).await;
        assert_eq!(self.next().await["data"]["Success"], true);
    }

    /// Waits until the task has ended.
    async fn ended(&mut self) {
        self.task.take().unwrap().await.unwrap();
    }
}

pub(super) fn limits() -> Limits {
    Limits { rate: 0, ..Limits::default() }
}
