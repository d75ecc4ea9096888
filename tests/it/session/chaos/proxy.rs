//! [`Proxy`]: a TCP proxy that does to its connections what networks do.

use std::net::SocketAddr;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::copy;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// What happens to a connection after a while.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// Both sides are reset.
    Killed,
    /// Nothing passes in either direction for some time, then everything goes on.
    Paused,
    /// Nothing passes any more, and both sides stay open until long after the client has given up.
    Frozen,
    /// What the client sends still arrives, but it receives nothing more.
    Deaf,
}

/// How long a frozen connection stays open.
const FROZEN_FOR: Duration = Duration::from_secs(12);

/// A proxy in front of a broker.
pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    calm: CancellationToken,
}

impl Proxy {
    /// Starts a proxy in `tasks`. What it does, and when, follows from the seed.
    pub(super) async fn start(tasks: &mut JoinSet<()>, broker: SocketAddr, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, calm) = (listener.local_addr().unwrap(), CancellationToken::new());
        let token = calm.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            let mut rng = StdRng::seed_from_u64(seed);
            loop {
                let (client, _) = listener.accept().await.unwrap();
                connections.spawn(connect(client, broker, StdRng::seed_from_u64(rng.random()), token.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, calm }
    }

    /// From now on nothing happens to connections any more.
    pub(super) fn calm(&self) {
        self.calm.cancel();
    }
}

async fn connect(client: TcpStream, broker: SocketAddr, mut rng: StdRng, calm: CancellationToken) {
    let Ok(broker) = TcpStream::connect(broker).await else { return };
    for stream in [&client, &broker] {
        stream.set_nodelay(true).unwrap();
        // Every end is a reset, which loses what is under way.
        stream.set_zero_linger().unwrap();
    }
    let ((from_client, to_client), (from_broker, to_broker)) = (client.into_split(), broker.into_split());
    let mut up = Box::pin(pass(from_client, to_broker));
    let mut down = Box::pin(pass(from_broker, to_client));
    loop {
        let fate_at = Instant::now() + Duration::from_millis(rng.random_range(50..4_000));
        tokio::select! {
            () = &mut up => return,
            () = &mut down => return,
            () = sleep_until(fate_at) => {}
        }
        if calm.is_cancelled() {
            tokio::join!(up, down);
            return;
        }
        let fate = match rng.random_range(0..8) {
            0..4 => Fate::Killed,
            4..6 => Fate::Paused,
            6 => Fate::Frozen,
            _ => Fate::Deaf,
        };
        let silence = Duration::from_millis(rng.random_range(50..1_500));
        match fate {
            Fate::Killed => return,
            Fate::Paused => sleep_until(Instant::now() + silence).await,
            Fate::Frozen => {
                sleep_until(Instant::now() + FROZEN_FOR).await;
                return;
            }
            Fate::Deaf => {
                timeout(FROZEN_FOR, up).await.ok();
                return;
            }
        }
    }
}

/// Copies one direction until its end. It must not be dropped while the other end is to go on: it holds bytes that it has
/// read.
async fn pass(mut from: tokio::net::tcp::OwnedReadHalf, mut to: tokio::net::tcp::OwnedWriteHalf) {
    copy(&mut from, &mut to).await.ok();
}
