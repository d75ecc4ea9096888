//! Sessions that lose their connections all at once and connect again, on one thread.

use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::iter;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::time::interval;

use crate::wire;

/// Sessions per user.
const DESK: usize = 4;

/// How long all are connected, and how long all are away.
const REST: Duration = Duration::from_secs(2);

/// What a session needs to continue: its token, if it is resumable.
type Ticket = Option<String>;

/// Prints `connected` when all have subscribed, `dropped` when all have lost their connection and before they connect again, and
/// `back` when all have their subscriptions again. `at_once` connect at a time.
pub(crate) fn run(address: &str, count: usize, at_once: usize, is_resumable: bool) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut rest = interval(REST);
        let first = (0..count).map(|number| begin(address, number, is_resumable));
        let (streams, tickets): (Vec<_>, Vec<_>) = all(first, at_once).await.into_iter().unzip();
        println!("connected");
        rest.reset();
        rest.tick().await;
        drop(streams);
        rest.tick().await;
        println!("dropped");
        let again = tickets.into_iter().map(|(number, ticket)| reconnect(address, number, ticket));
        let streams = all(again, at_once).await;
        println!("back");
        std::future::pending::<()>().await;
        drop(streams);
    });
}

async fn all<T>(work: impl Iterator<Item = impl Future<Output = T>>, at_once: usize) -> Vec<T> {
    let mut work = pin!(iter(work).buffer_unordered(at_once));
    let mut done = Vec::new();
    while let Some(one) = work.next().await {
        done.push(one);
    }
    done
}

/// Connects, registers and subscribes.
async fn begin(address: &str, number: usize, is_resumable: bool) -> (TcpStream, (usize, Ticket)) {
    let mut stream = connect(address).await;
    let reply = command(&mut stream, &register(number, if is_resumable { "true" } else { "false" })).await;
    let ticket = is_resumable.then(|| {
        let token = reply.split("\"ResumeToken\":\"").nth(1).and_then(|rest| rest.split('"').next());
        token.expect("a token").to_owned()
    });
    command(&mut stream, &wire::subscribe(["Phone", "Call", "*"])).await;
    (stream, (number, ticket))
}

async fn reconnect(address: &str, number: usize, ticket: Ticket) -> TcpStream {
    let Some(token) = ticket else { return begin(address, number, false).await.0 };
    let mut stream = connect(address).await;
    // The reply to Subscribe was received.
    let resume = format!(r#"{{"token":"{token}","received":1}}"#);
    let reply = command(&mut stream, &register(number, &resume)).await;
    assert!(reply.contains("\"Resumed\":true"), "{reply}");
    stream
}

fn register(number: usize, resume: &str) -> String {
    let user = number / DESK;
    format!(
        r#"{{"channel":"Broker","topic":"Application","subtopic":"Register","source":"crowd","data":{{"user":"agent{user}","resume":{resume}}}}}"#
    )
}

async fn connect(address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(wire::handshake(address).as_bytes()).await.unwrap();
    read_until(&mut stream, |bytes| bytes.ends_with(b"\r\n\r\n")).await;
    stream
}

/// Sends a command. Returns the reply.
async fn command(stream: &mut TcpStream, text: &str) -> String {
    stream.write_all(&wire::frame(text)).await.unwrap();
    let bytes = read_until(stream, |bytes| wire::measure(bytes).is_some()).await;
    let reply = String::from_utf8_lossy(&bytes).into_owned();
    assert!(reply.contains("\"Success\":true"), "{reply}");
    reply
}

async fn read_until(stream: &mut TcpStream, whole: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !whole(&bytes) {
        assert!(stream.read_buf(&mut bytes).await.unwrap() > 0, "the broker closed a connection");
    }
    bytes
}
