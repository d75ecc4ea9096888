//! [`Streams`]: one message per millisecond through the broker and one through the echo, with the times at which each was
//! written and read.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::time::Instant;

use crate::wire;

/// The time between two messages.
const EVERY: Duration = Duration::from_millis(1);

/// Enough for ten minutes.
const MESSAGES: usize = 600_000;

/// The latency of a message that has not come after this time.
const LOST: Duration = Duration::from_secs(20);

/// Both streams. They run until they are closed.
pub(crate) struct Streams {
    shared: Arc<Shared>,
    sender: JoinHandle<()>,
}

struct Shared {
    origin: Instant,
    written: Vec<AtomicU64>,
    /// By stream, in nanoseconds; 0: not yet.
    read: [Vec<AtomicU64>; 2],
    sent: AtomicU64,
    stop: AtomicBool,
}

impl Shared {
    /// Never 0.
    fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_nanos()).unwrap() + 1
    }
}

impl Streams {
    /// Opens both streams and starts them.
    pub(crate) fn open(broker: &str, echo: &str) -> Self {
        let none = || (0..MESSAGES).map(|_| AtomicU64::new(0)).collect::<Vec<_>>();
        let shared = Arc::new(Shared {
            origin: Instant::now(),
            written: none(),
            read: [none(), none()],
            sent: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let mut subscriber = session(broker, "subscriber", "stall");
        command(&mut subscriber, &wire::subscribe(["Stall", "Paced", "*"]));
        let publisher = session(broker, "publisher", "stall");
        let echo = TcpStream::connect(echo).unwrap();
        echo.set_nodelay(true).unwrap();
        for (stream, from) in [subscriber, echo.try_clone().unwrap()].into_iter().enumerate() {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || receive(&shared, stream, from));
        }
        let sender = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || send(&shared, [publisher, echo])
        });
        Self { shared, sender }
    }

    /// The number of messages sent so far.
    pub(crate) fn sent(&self) -> usize {
        usize::try_from(self.shared.sent.load(Ordering::Acquire)).unwrap()
    }

    /// The latencies of all messages from number `begun` on: through the broker, through the echo.
    pub(crate) fn latencies(&self, begun: usize) -> (Latencies, Latencies) {
        let range = begun..self.sent();
        let deadline = Instant::now() + LOST;
        let [broker, echo] = [0, 1].map(|stream| {
            let latency = |number: usize| {
                let written = self.shared.written[number].load(Ordering::Acquire);
                loop {
                    match self.shared.read[stream][number].load(Ordering::Acquire) {
                        0 if Instant::now() > deadline => return LOST,
                        0 => std::thread::sleep(EVERY),
                        read => return Duration::from_nanos(read.saturating_sub(written)),
                    }
                }
            };
            let mut all: Vec<_> = range.clone().map(latency).collect();
            all.sort_unstable();
            Latencies(all)
        });
        (broker, echo)
    }

    pub(crate) fn close(self) {
        self.shared.stop.store(true, Ordering::Release);
        self.sender.join().unwrap();
    }
}

/// Latencies, shortest first.
pub(crate) struct Latencies(Vec<Duration>);

impl Latencies {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank")]
    pub(crate) fn quantile(&self, quantile: f64) -> Duration {
        let rank = (self.0.len() as f64 * quantile) as usize;
        self.0[rank.min(self.0.len() - 1)]
    }

    /// The number of latencies over `limit`.
    pub(crate) fn over(&self, limit: Duration) -> usize {
        self.0.len() - self.0.partition_point(|latency| *latency <= limit)
    }
}

/// A registered session.
pub(crate) fn session(address: &str, source: &str, user: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    handshake_on(&mut stream, address);
    command(&mut stream, &wire::register(source, user));
    stream
}

/// Turns a connection into a WebSocket.
pub(crate) fn handshake_on(stream: &mut TcpStream, address: &str) {
    stream.set_nodelay(true).unwrap();
    stream.write_all(wire::handshake(address).as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
}

/// Sends a command and waits for a reply.
pub(crate) fn command(stream: &mut TcpStream, text: &str) {
    stream.write_all(&wire::frame(text)).unwrap();
    let mut bytes = Vec::new();
    while wire::measure(&bytes).is_none() {
        let mut buffer = [0; 1024];
        let len = stream.read(&mut buffer).unwrap();
        assert!(len > 0, "the broker closed the connection");
        bytes.extend_from_slice(&buffer[..len]);
    }
}

/// Sends a message per millisecond on both streams, each of the same length, in order: readers number them by counting.
fn send(shared: &Shared, mut streams: [TcpStream; 2]) {
    let text = r#"{"channel":"Stall","topic":"Paced","subtopic":"Stream","data":"0123456789abcdef"}"#;
    let messages = [wire::frame(text), MESSAGE.to_vec()];
    let mut due = Instant::now();
    for number in 0..MESSAGES {
        if shared.stop.load(Ordering::Acquire) {
            return;
        }
        due += EVERY;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        shared.written[number].store(shared.now(), Ordering::Release);
        for (stream, message) in streams.iter_mut().zip(&messages) {
            stream.write_all(message).unwrap();
        }
        shared.sent.fetch_add(1, Ordering::Release);
    }
}

/// The message of the echo: a frame as a server sends it, so that both streams are read alike.
const MESSAGE: &[u8] = b"\x81\x10 0123456789abcde";

fn receive(shared: &Shared, stream: usize, mut from: TcpStream) {
    let (mut bytes, mut buffer, mut number) = (Vec::new(), vec![0; 64 << 10], 0);
    while let Ok(len @ 1..) = from.read(&mut buffer) {
        let now = shared.now();
        bytes.extend_from_slice(&buffer[..len]);
        while let Some((_, whole)) = wire::measure(&bytes) {
            bytes.drain(..whole);
            shared.read[stream][number].store(now, Ordering::Release);
            number += 1;
        }
    }
}
