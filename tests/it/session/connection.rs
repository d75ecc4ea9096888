//! One connection's task over streams in memory, with a paused clock; and the listener over TCP, without one.

use std::future::pending;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde_json::{Value, json};
use switchboard::auth::{Claim, Open, Verification, Verifier};
use switchboard::config::{Config, Limits};
use switchboard::connection::{Admission, Connection, Context, Settings, Shutdown, Upgraded, serve};
use switchboard::router::{Ids, Policy, Router};
use switchboard::server::Server;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
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
        Client { stream, task: Some(self.serve(ours, verifier, shutdown)) }
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
struct Client<S> {
    stream: S,
    task: Option<JoinHandle<()>>,
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short @ ..=125), _) => frame.push(0x80 | short),
        (_, Ok(medium)) => {
            frame.push(0xFE);
            frame.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            frame.push(0xFF);
            frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    // A mask of zeros is a mask.
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

/// The header of a text frame whose text does not come.
fn header_of(len: usize) -> Vec<u8> {
    frame(TEXT, &vec![b'x'; len])[..14].to_vec()
}

fn text(envelope: &Value) -> Vec<u8> {
    frame(TEXT, envelope.to_string().as_bytes())
}

fn command(topic: &str, subtopic: &str, data: &Value) -> Value {
    json!({"channel": "Broker", "topic": topic, "subtopic": subtopic, "data": data})
}

fn event(number: usize, fill: usize) -> Value {
    json!({"channel": "Demo", "topic": "Hello", "subtopic": "World", "data": {"n": number, "fill": "x".repeat(fill)}})
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    async fn say(&mut self, envelope: &Value) {
        self.send(&text(envelope)).await;
    }

    /// The next frame: its first byte and its payload.
    async fn frame(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 2];
        self.stream.read_exact(&mut head).await.unwrap();
        let len = match head[1] {
            126 => usize::from(self.stream.read_u16().await.unwrap()),
            127 => usize::try_from(self.stream.read_u64().await.unwrap()).unwrap(),
            short => usize::from(short),
        };
        let mut payload = vec![0; len];
        self.stream.read_exact(&mut payload).await.unwrap();
        (head[0], payload)
    }

    /// The next text message; pings pass.
    async fn next(&mut self) -> Value {
        loop {
            match self.frame().await {
                (TEXT, text) => return serde_json::from_slice(&text).unwrap(),
                (PING, _) => {}
                other => panic!("{other:?} in place of a text"),
            }
        }
    }

    /// The code of the Close frame that comes after any number of messages.
    async fn closed(&mut self) -> u16 {
        loop {
            if let (CLOSE, payload) = self.frame().await {
                return u16::from_be_bytes([payload[0], payload[1]]);
            }
        }
    }

    async fn end_of_stream(&mut self) {
        assert_eq!(self.stream.read(&mut [0; 1]).await.unwrap(), 0);
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

fn limits() -> Limits {
    Limits { rate: 0, ..Limits::default() }
}

#[tokio::test(start_paused = true)]
async fn a_message_may_be_larger_after_registration() {
    let broker = Broker::new(limits());
    let mut early = broker.connect(1 << 16);
    early.send(&header_of((16 << 10) + 1)).await;
    assert_eq!(early.closed().await, 1009);
    let mut listener = broker.app("listener", 1 << 22).await;
    listener.subscribe().await;
    let mut app = broker.app("app", 1 << 22).await;
    app.say(&event(1, 1_000_000)).await;
    assert_eq!(listener.next().await["data"]["n"], 1);
    app.send(&header_of((1 << 20) + 1)).await;
    assert_eq!(app.closed().await, 1009);
}

#[tokio::test(start_paused = true)]
async fn faults_are_closed_with_their_code_after_what_was_answered() {
    for (fault, code) in [
        (vec![TEXT, 1, b'a'], 1002),
        (frame(0x83, b""), 1002),
        (frame(TEXT, b"\xFF"), 1007),
        (header_of((1 << 20) + 1), 1009),
    ] {
        let broker = Broker::new(limits());
        let mut app = broker.app("app", 1 << 16).await;
        let mut bytes = text(&command("Connection", "Ping", &json!({})));
        bytes.extend(fault);
        // What comes after a fault means nothing, and is read anyway.
        bytes.extend([b'?'; 10_000]);
        app.send(&bytes).await;
        assert_eq!(app.next().await["data"]["Success"], true);
        assert_eq!(app.closed().await, code);
        app.end_of_stream().await;
        app.send(&vec![0; 100_000]).await;
        drop(app.stream);
        app.task.unwrap().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_stops_sending_is_not_read_for_ever() {
    let broker = Broker::new(limits());
    let mut app = broker.connect(1 << 16);
    app.send(&[TEXT, 1, b'a']).await;
    assert_eq!(app.closed().await, 1002);
    let start = Instant::now();
    while app.stream.write_all(&[0; 1000]).await.is_ok() {}
    app.ended().await;
    assert!(start.elapsed() <= Duration::from_secs(2), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_close_frame_is_answered_with_its_code() {
    let broker = Broker::new(limits());
    for (sent, expected) in [(&b"\x03\xE8bye"[..], &b"\x03\xE8"[..]), (b"", b""), (b"\x0F\xA0", b"\x0F\xA0")] {
        let mut app = broker.app("app", 1 << 16).await;
        app.send(&frame(CLOSE, sent)).await;
        assert_eq!(app.frame().await, (CLOSE, expected.to_vec()));
        app.end_of_stream().await;
        app.ended().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_does_not_register_in_time_is_closed() {
    let start = Instant::now();
    let mut silent = Broker::new(limits()).connect(1000);
    assert_eq!(silent.closed().await, 4406);
    assert_eq!(start.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn pings_are_answered_and_their_absence_is_noticed() {
    let broker = Broker::new(limits());
    let mut app = broker.app("app", 1 << 16).await;
    app.send(&frame(PING, b"are you there")).await;
    assert_eq!(app.frame().await, (PONG, b"are you there".to_vec()));
    let start = Instant::now();
    for _ in 0..5 {
        assert_eq!(app.frame().await, (PING, Vec::new()));
        app.send(&frame(PONG, b"")).await;
    }
    assert_eq!(app.closed().await, 4408, "no pong any more");
    assert!((190..=210).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn malformed_messages_in_a_row_are_closed_with_1008() {
    let mut app = Broker::new(limits()).app("app", 1 << 16).await;
    for _ in 0..10 {
        app.send(&frame(TEXT, b"{")).await;
    }
    for _ in 0..10 {
        assert_eq!(app.next().await["data"]["ErrorCode"], "INVALID_JSON");
    }
    assert_eq!(app.closed().await, 1008);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_nothing_is_warned_and_closed() {
    let broker = Broker::new(Limits { outbound_messages: 100, ..limits() });
    let mut slow = broker.app("slow", 1000).await;
    slow.subscribe().await;
    let mut fast = broker.app("fast", 1 << 20).await;
    for number in 0..400 {
        fast.say(&event(number, 200)).await;
    }
    // What it had begun to take, the warning, and the Close frame come if it takes up again in time.
    tokio::time::advance(Duration::from_millis(5500)).await;
    let mut last = Value::Null;
    let code = loop {
        match slow.frame().await {
            (TEXT, text) => last = serde_json::from_slice(&text).unwrap(),
            (CLOSE, payload) => break u16::from_be_bytes([payload[0], payload[1]]),
            _ => {}
        }
    };
    assert_eq!(code, 4413);
    assert_eq!((&last["channel"], &last["subtopic"]), (&json!("Broker"), &json!("Lagging")));
    // Nobody else is harmed.
    fast.say(&command("Connection", "Ping", &json!({}))).await;
    assert_eq!(fast.next().await["data"]["Success"], true);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_a_little_now_and_then_is_no_slow_consumer() {
    let broker = Broker::new(limits());
    let mut slow = broker.app("slow", 64).await;
    slow.subscribe().await;
    let mut fast = broker.app("fast", 1 << 20).await;
    for number in 0..20 {
        fast.say(&event(number, 200)).await;
    }
    for number in 0..20 {
        tokio::time::sleep_until(Instant::now() + Duration::from_secs(4)).await;
        assert_eq!(slow.next().await["data"]["n"], number);
    }
    drop(slow.stream);
    slow.task.unwrap().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_rate_is_kept_by_reading_more_slowly() {
    let broker = Broker::new(Limits { rate: 10, burst: 10, ..Limits::default() });
    let mut listener = broker.app("listener", 1 << 20).await;
    listener.subscribe().await;
    let mut app = broker.app("app", 1 << 20).await;
    let start = Instant::now();
    for number in 0..110 {
        app.say(&event(number, 1)).await;
    }
    for number in 0..110 {
        assert_eq!(listener.next().await["data"]["n"], number);
    }
    assert!((9..=11).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
}

/// Pings and empty fragments cost the broker work, before registration too.
#[tokio::test(start_paused = true)]
async fn pings_and_empty_fragments_count_against_the_rate() {
    let fragments: Vec<u8> = [frame(0x01, b""), frame(0x00, b"").repeat(108), frame(0x80, b"{}")].concat();
    for flood in [frame(PING, b"").repeat(110), frame(PONG, b"").repeat(110), fragments] {
        for registers in [false, true] {
            let broker = Broker::new(Limits { rate: 20, burst: 10, ..Limits::default() });
            let mut app = broker.connect(1 << 20);
            if registers {
                app.register("app").await;
            }
            let start = Instant::now();
            app.send(&flood).await;
            app.say(&command("Connection", "Ping", &json!({}))).await;
            loop {
                let (first, payload) = app.frame().await;
                if first == TEXT && serde_json::from_slice::<Value>(&payload).unwrap()["subtopic"] == "Ping" {
                    break;
                }
            }
            assert!((5..=6).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
        }
    }
}

/// Never answers.
struct Silent;

impl Verifier for Silent {
    fn verify(&self, _claim: Claim) -> Verification<'_> {
        Box::pin(pending())
    }
}

#[tokio::test(start_paused = true)]
async fn a_verifier_that_never_answers_does_not_hold_the_session() {
    let broker = Broker::new(limits());
    let start = Instant::now();
    let mut app = broker.connect_with(1 << 16, Arc::new(Silent), Arc::default());
    let mut register = command("Application", "Register", &json!({"token": "t"}));
    register["source"] = "app".into();
    app.say(&register).await;
    app.say(&event(1, 1)).await;
    assert_eq!(app.frame().await.0, CLOSE, "nothing is read before the verifier has answered");
    assert_eq!(start.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn drain_tells_when_to_come_back_and_closes_with_1012() {
    let broker = Broker::new(limits());
    let shutdown = Arc::new(Shutdown::default());
    let mut app = broker.connect_with(1 << 16, Arc::new(Open), Arc::clone(&shutdown));
    app.register("app").await;
    shutdown.drain(1);
    let notice = app.next().await;
    assert_eq!((&notice["subtopic"], &notice["data"]["ReconnectAfterMs"]), (&json!("Draining"), &json!(0)));
    app.say(&command("Connection", "Ping", &json!({}))).await;
    assert_eq!(app.next().await["subtopic"], "Ping", "everything is served until the drain is over");
    shutdown.close();
    assert_eq!(app.closed().await, 1012);
    app.send(&frame(CLOSE, b"\x03\xF4")).await;
    app.end_of_stream().await;
    app.ended().await;
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_dropped_leaves_no_session_behind() {
    let broker = Broker::new(limits());
    let mut watcher = broker.app("watcher", 1 << 16).await;
    let left = json!({"channel": "Broker", "topic": "Application", "subtopic": "Left"});
    watcher.say(&command("Subscription", "Subscribe", &left)).await;
    watcher.next().await;
    let app = broker.app("app", 1 << 16).await;
    app.task.unwrap().abort();
    assert_eq!(watcher.next().await["data"]["Source"], "app");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_session_does_not_wait_for_connections_that_are_set_up() {
    let broker = Broker::new(limits());
    let mut watcher = broker.app("watcher", 1 << 16).await;
    let left = json!({"channel": "Broker", "topic": "Application", "subtopic": "Left"});
    watcher.say(&command("Subscription", "Subscribe", &left)).await;
    watcher.next().await;
    let app = broker.app("app", 1 << 16).await;
    let mut permits = Vec::new();
    while let Ok(permit) = timeout(Duration::from_millis(1), broker.admission.arrival()).await {
        permits.push(permit);
    }
    assert!(!permits.is_empty());
    drop(app.stream);
    assert_eq!(watcher.next().await["data"]["Source"], "app");
}

#[tokio::test(start_paused = true)]
async fn a_connection_counts_as_unregistered_until_it_registers_and_after_unregister() {
    let broker = Broker::new(limits());
    let unregistered = broker.settings.unregistered();
    let mut app = broker.connect(1 << 16);
    app.say(&command("Connection", "Ping", &json!({}))).await;
    app.next().await;
    assert_eq!(unregistered.count(), 1);
    app.register("app").await;
    assert_eq!(unregistered.count(), 0);
    app.say(&command("Application", "Unregister", &json!({}))).await;
    app.next().await;
    assert_eq!(unregistered.count(), 1);
    app.register("app").await;
    app.say(&command("Application", "Unregister", &json!({}))).await;
    drop(app.stream);
    app.task.unwrap().await.unwrap();
    assert_eq!(unregistered.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn many_messages_that_come_at_once_keep_their_order() {
    let broker = Broker::new(limits());
    let mut listener = broker.app("listener", 1 << 20).await;
    listener.subscribe().await;
    let mut app = broker.app("app", 1 << 24).await;
    let all: Vec<u8> = (0..5000).flat_map(|number| text(&event(number, number % 300))).collect();
    app.send(&all).await;
    for number in 0..5000 {
        assert_eq!(listener.next().await["data"]["n"], number);
    }
}

/// A peer that always has more to read: pongs without end.
struct Endless;

impl AsyncRead for Endless {
    fn poll_read(self: Pin<&mut Self>, _: &mut task::Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let pong = frame(PONG, b"");
        while buffer.remaining() >= pong.len() {
            buffer.put_slice(&pong);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Endless {
    fn poll_write(self: Pin<&mut Self>, _: &mut task::Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The task of a connection that always has something to do lets others on its thread run.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_flood_without_end_does_not_keep_a_neighbour_from_being_served() {
    let broker = Broker::new(limits());
    let mut neighbour = broker.app("neighbour", 1 << 16).await;
    // It ends by itself, because it does not register in time.
    let flood = broker.serve(Endless, Arc::new(Open), Arc::default());
    neighbour.say(&command("Connection", "Ping", &json!({}))).await;
    assert_eq!(neighbour.next().await["subtopic"], "Ping");
    assert!(!flood.is_finished(), "the neighbour was served only after the flood");
    flood.abort();
}

/// A server on a port of its own, and what ends it.
fn server(limits: Limits) -> (SocketAddr, JoinHandle<()>, tokio::sync::oneshot::Sender<()>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let listen = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
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
    let mut app = Client { stream, task: None };
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
        listen: vec![listen],
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
