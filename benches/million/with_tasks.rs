//! Sessions with their tasks, over in-memory streams.

use std::sync::Arc;

use bytes::Bytes;
use switchboard::auth::Open;
use switchboard::connection::{Admission, Connection, Context, Settings, Shutdown, Upgraded, serve};
use switchboard::router::Router;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::runtime::{Builder, Runtime};
use tokio_util::task::TaskTracker;

use crate::meter::{Cpu, resident};
use crate::wire::{self, subscribe};
use crate::{ADDRESS, PAYLOAD_BYTES, SOME, broker, event, float, micros, millis, register, row};

/// What a stream holds: more than any message here.
const STREAM_BYTES: usize = 1024;

/// Reads one message of the broker.
async fn read(client: &mut DuplexStream) -> Vec<u8> {
    let mut bytes = vec![0; STREAM_BYTES];
    let mut len = 0;
    loop {
        len += client.read(&mut bytes[len..]).await.unwrap();
        if let Some((start, whole)) = wire::measure(&bytes[..len]) {
            assert_eq!(whole, len, "one message at a time");
            bytes.truncate(len);
            bytes.drain(..start);
            return bytes;
        }
    }
}

async fn expect_success(client: &mut DuplexStream) {
    let text = String::from_utf8(read(client).await).unwrap();
    assert!(text.contains(r#""Success":true"#), "{text}");
}

/// Opens one more session, with its task; the client's end.
fn connect(tasks: &TaskTracker, router: &Arc<Router>, settings: &Arc<Settings>) -> DuplexStream {
    let (client, stream) = duplex(STREAM_BYTES);
    let (router, settings) = (Arc::clone(router), Arc::clone(settings));
    tasks.spawn(async move {
        let connection = Connection::new(tokio::time::Instant::now().into_std(), ADDRESS, settings, 1);
        let (admission, shutdown) = (Admission::default(), Shutdown::default());
        let context = Context { router: &router, verifier: &Open, admission: &admission, shutdown: &shutdown };
        serve(Upgraded { stream, read_ahead: Bytes::new() }, connection, context).await;
    });
    client
}

/// What the two ends of a stream take that once carried what a session's does.
pub(crate) fn streams(count: usize) {
    println!("\nin-memory streams");
    runtime().block_on(async {
        let mut streams = Vec::with_capacity(count);
        let (memory, up, down) = (resident(), wire::frame(&subscribe(["News", "Desk", "*"])), [b'x'; 300]);
        for _ in 0..count {
            let (mut client, mut server) = duplex(STREAM_BYTES);
            client.write_all(&up).await.unwrap();
            server.write_all(&down).await.unwrap();
            server.read_exact(&mut vec![0; up.len()]).await.unwrap();
            client.read_exact(&mut [0; 300]).await.unwrap();
            streams.push((client, server));
        }
        row("both ends of one", float(resident() - memory) / float(count), "bytes");
    });
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

/// Measures `count` sessions.
pub(crate) fn run(count: usize) {
    println!("\n{count} sessions with their tasks, over in-memory streams");
    runtime().block_on(async {
        let (_, router, settings) = broker();
        let (router, tasks) = (Arc::new(router), TaskTracker::new());
        let mut clients = Vec::with_capacity(count);
        let (memory, begun) = (resident(), Cpu::begin());
        while clients.len() < count {
            let first = clients.len();
            clients.extend((first..count.min(first + 1_000)).map(|_| connect(&tasks, &router, &settings)));
            for (number, client) in clients.iter_mut().enumerate().skip(first) {
                client.write_all(&wire::frame(&register(number))).await.unwrap();
            }
            for client in clients.iter_mut().skip(first) {
                expect_success(client).await;
                client.write_all(&wire::frame(&subscribe(["News", "Desk", "*"]))).await.unwrap();
            }
            for client in clients.iter_mut().skip(first) {
                expect_success(client).await;
            }
        }
        let spent = begun.spent();
        let bytes = float(resident() - memory) / float(count);
        row("a session with its task, a subscription and its stream", bytes, "bytes");
        row("registering and subscribing, with the client's part", micros(spent, count), "µs");

        let mut sender = connect(&tasks, &router, &settings);
        sender.write_all(&wire::frame(&register(0))).await.unwrap();
        expect_success(&mut sender).await;
        for round in ["one event, until all have read it", "  once more"] {
            let begun = Cpu::begin();
            sender.write_all(&wire::frame(&event(["News", "Desk", "Closing"]))).await.unwrap();
            for client in &mut clients {
                assert!(read(client).await.len() > PAYLOAD_BYTES, "the event");
            }
            row(round, millis(begun.spent()), "ms");
        }

        let some = SOME.min(count / 4);
        for (what, leaving) in
            [(format!("leaving, {some} of {count}"), some), ("  all others".to_owned(), count - some)]
        {
            let begun = Cpu::begin();
            clients.truncate(clients.len() - leaving);
            while tasks.len() > clients.len() + 1 {
                tokio::task::yield_now().await;
            }
            row(&what, micros(begun.spent(), leaving), "µs");
            assert_eq!(router.size().sessions, clients.len() + 1, "who went is gone");
        }
    });
}
