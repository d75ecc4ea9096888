//! A broker in this process, in open mode.

use std::future::pending;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::LazyLock;
use std::thread;
use std::time::Duration;

use switchboard::config::Config;
use switchboard::server::Server;

/// The time within which the broker has to end a connection.
const DEADLINE: Duration = Duration::from_secs(20);

static ADDRESS: LazyLock<SocketAddr> = LazyLock::new(start);

fn start() -> SocketAddr {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut config = Config { data_dir: folder.path().to_owned(), ..Config::default() };
    config.listen = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()];
    config.limits.connections = 100_000;
    let server = runtime.block_on(async { Server::bind(config, None) }).expect("a broker");
    let address = *server.addresses().first().expect("an address");
    // The files stay open, and nothing is left behind.
    drop(folder);
    thread::spawn(move || runtime.block_on(server.run(pending())));
    address
}

/// Sends a request head on a new connection, and returns the connection with what the broker sends up to a blank line.
pub(super) fn ask(head: &[u8]) -> (TcpStream, Vec<u8>) {
    let mut stream = TcpStream::connect(*ADDRESS).expect("a connection");
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    // The broker can refuse a head, and end the connection, before it has read everything.
    stream.write_all(head).ok();
    let mut received = Vec::new();
    let mut byte = [0];
    while !received.ends_with(b"\r\n\r\n") && ended(stream.read(&mut byte)) == Some(1) {
        received.extend(byte);
    }
    (stream, received)
}

/// Sends bytes, ends this direction, and returns all that the broker sends until it ends the other.
pub(super) fn finish(mut stream: TcpStream, bytes: &[u8]) -> Vec<u8> {
    let mut writer = stream.try_clone().expect("a second handle");
    let mut received = Vec::new();
    thread::scope(|scope| {
        scope.spawn(move || writer.write_all(bytes).and_then(|()| writer.shutdown(Shutdown::Write)));
        ended(stream.read_to_end(&mut received));
    });
    received
}

/// Returns how much was read, if the connection was not reset. The broker has to answer or end it in time.
fn ended(read: io::Result<usize>) -> Option<usize> {
    match read {
        Ok(len) => Some(len),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
        Err(error) => panic!("the connection did not end: {error}"),
    }
}
