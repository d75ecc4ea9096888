//! Programs that watch a broker: [`Tap`] reads its decisions, [`Scraper`] its metrics.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// A tap whose lines are read and dropped.
pub(crate) struct Tap {
    socket: TcpStream,
    reader: JoinHandle<usize>,
}

impl Tap {
    pub(crate) fn open(address: &str, token: &str) -> Self {
        let mut socket = ask(address, token, "/v1/tap");
        let mut head = [0; 1];
        socket.read_exact(&mut head).unwrap();
        let mut from = socket.try_clone().unwrap();
        let reader = std::thread::spawn(move || {
            let (mut bytes, mut buffer) = (0, [0; 16_384]);
            while let Ok(len @ 1..) = from.read(&mut buffer) {
                bytes += len;
            }
            bytes
        });
        Self { socket, reader }
    }

    /// Returns how many bytes were read.
    pub(crate) fn close(self) -> usize {
        self.socket.shutdown(Shutdown::Both).unwrap();
        self.reader.join().unwrap()
    }
}

/// Reads the metrics once a second.
pub(crate) struct Scraper {
    is_over: Arc<AtomicBool>,
    reader: JoinHandle<usize>,
}

impl Scraper {
    pub(crate) fn start(address: &str, token: &str) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let (address, token, ends) = (address.to_owned(), token.to_owned(), Arc::clone(&is_over));
        let reader = std::thread::spawn(move || {
            let mut scrapes = 0;
            while !ends.load(Ordering::Relaxed) {
                let mut answer = String::new();
                ask(&address, &token, "/metrics").read_to_string(&mut answer).unwrap();
                assert!(answer.contains("switchboard_sessions"), "{answer}");
                scrapes += 1;
                std::thread::park_timeout(Duration::from_secs(1));
            }
            scrapes
        });
        Self { is_over, reader }
    }

    /// Returns how many scrapes there were.
    pub(crate) fn stop(self) -> usize {
        self.is_over.store(true, Ordering::Relaxed);
        self.reader.thread().unpark();
        self.reader.join().unwrap()
    }
}

fn ask(address: &str, token: &str, path: &str) -> TcpStream {
    let mut socket = TcpStream::connect(address).unwrap();
    let head =
        format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n");
    socket.write_all(head.as_bytes()).unwrap();
    socket
}
