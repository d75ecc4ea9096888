//! A proxy in front of a broker that cuts each connection after a random number of bytes, in the middle of whatever is sent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// The bytes of a connection in one direction. The least of them suffices to register.
const BYTES: std::ops::Range<usize> = 1_500..20_000;

/// Runs until it is dropped.
pub(crate) struct CuttingProxy {
    address: SocketAddr,
    /// Whether connections are no longer cut.
    is_quiet: Arc<AtomicBool>,
    cuts: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl CuttingProxy {
    /// Passes connections on to this address.
    pub(crate) async fn start(upstream: SocketAddr, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (is_quiet, cuts) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut tasks = JoinSet::new();
        let (quiet, counted) = (Arc::clone(&is_quiet), Arc::clone(&cuts));
        tasks.spawn(async move {
            let mut chance = StdRng::seed_from_u64(seed);
            let mut connections = JoinSet::new();
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let mut broker = TcpStream::connect(upstream).await.unwrap();
                let (up, down) = (chance.random_range(BYTES), chance.random_range(BYTES));
                let (quiet, counted) = (Arc::clone(&quiet), Arc::clone(&counted));
                connections.spawn(async move {
                    let ((client_reads, client_writes), (broker_reads, broker_writes)) =
                        (client.split(), broker.split());
                    let is_cut = tokio::select! {
                        is_cut = pass(client_reads, broker_writes, up, &quiet) => is_cut,
                        is_cut = pass(broker_reads, client_writes, down, &quiet) => is_cut,
                    };
                    counted.fetch_add(usize::from(is_cut), Ordering::Relaxed);
                });
            }
        });
        Self { address, is_quiet, cuts, _tasks: tasks }
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}/ws", self.address)
    }

    /// Cuts no further connections.
    pub(crate) fn stop(&self) {
        self.is_quiet.store(true, Ordering::Relaxed);
    }

    /// How many connections were cut.
    pub(crate) fn cuts(&self) -> usize {
        self.cuts.load(Ordering::Relaxed)
    }
}

/// Passes bytes on, until one side has closed or this many have passed. Returns whether it was the latter.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut left: usize,
    is_quiet: &AtomicBool,
) -> bool {
    let mut buffer = [0; 4096];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return false };
        let is_last = read >= left && !is_quiet.load(Ordering::Relaxed);
        let passed = if is_last { left } else { read };
        if to.write_all(&buffer[..passed]).await.is_err() {
            return false;
        }
        if is_last {
            return true;
        }
        left = left.saturating_sub(read);
    }
}
