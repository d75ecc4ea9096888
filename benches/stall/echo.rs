//! The other end of the stream that does not go through the broker.

use std::io::{Read, Write};
use std::net::TcpListener;

/// Prints its address, and sends everything back that comes on its one connection.
pub(crate) fn run() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("{}", listener.local_addr().unwrap());
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_nodelay(true).unwrap();
    let mut buffer = [0; 4096];
    while let Ok(len @ 1..) = stream.read(&mut buffer) {
        stream.write_all(&buffer[..len]).unwrap();
    }
}
