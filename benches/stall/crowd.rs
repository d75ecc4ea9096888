//! Sessions that connect all at once, register and subscribe, and then stay idle until the process is killed.

use std::pin::pin;

use futures_util::StreamExt;
use futures_util::stream::iter;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Builder;

use crate::wire;

/// Sessions per user.
const DESK: usize = 4;

/// Prints `connected` when all have subscribed. `at_once` connect at a time.
pub(crate) fn run(address: &str, count: usize, at_once: usize) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut sessions = pin!(iter(0..count).map(|number| open(address, number)).buffer_unordered(at_once));
        let mut open = Vec::with_capacity(count);
        while let Some(session) = sessions.next().await {
            open.push(session);
        }
        println!("connected");
        std::future::pending::<()>().await;
    });
}

async fn open(address: &str, number: usize) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(wire::handshake(address).as_bytes()).await.unwrap();
    read_until(&mut stream, |bytes| bytes.ends_with(b"\r\n\r\n")).await;
    for command in
        [wire::register("crowd", &format!("agent{}", number / DESK)), wire::subscribe(["Phone", "Call", "*"])]
    {
        stream.write_all(&wire::frame(&command)).await.unwrap();
        read_until(&mut stream, |bytes| wire::measure(bytes).is_some()).await;
    }
    stream
}

async fn read_until(stream: &mut TcpStream, whole: impl Fn(&[u8]) -> bool) {
    let mut bytes = Vec::new();
    while !whole(&bytes) {
        assert!(stream.read_buf(&mut bytes).await.unwrap() > 0, "the broker closed a connection");
    }
}
