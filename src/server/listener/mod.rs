//! Listeners, and the connections that they accept.
//!
//! `open` has the socket, `connection` the life of a connection: `head` waits for the head of its request, `http` answers it, and
//! a WebSocket is then served as a [`Connection`](crate::connection::Connection).
//! Waiting for strangers costs nobody anything: a connection takes an admission permit only when there is something to do
//! for it.

mod connection;
mod descriptors;
mod head;
mod http;
mod open;
mod peer_owner;
mod stream;
mod tls;
#[cfg(unix)]
mod unix;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

pub(super) use self::descriptors::Descriptors;
pub(super) use self::open::{bind, inherited, open};

use self::connection::{connection, encrypted};
use self::descriptors::LOOK_AGAIN;
use self::http::Peer;
pub(super) use self::peer_owner::PeerOwners;
#[cfg(unix)]
pub(super) use self::unix::{SocketFile, UnixError, UnixSocket};
use super::Broker;
use super::admission::Admitted;
use super::tls::Acceptor;
use crate::telemetry::metrics::{ListenerKind, RefusedFor};

/// Connections that are accepted between two turns of the established ones. Each takes about 20 µs.
const ACCEPTED_AT_ONCE: u64 = 16;

/// The pause after a failed accept, doubled up to the second value.
const ACCEPT_PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// A socket that listens, and what is spoken on its connections.
pub(super) struct Listener {
    pub(super) socket: TcpListener,
    pub(super) transport: Transport,
    /// A service manager has opened it, and keeps it open after the broker's end.
    pub(super) is_inherited: bool,
}

/// What is spoken on the connections of a listener.
#[derive(Clone)]
pub(super) enum Transport {
    /// WebSocket and HTTP in the clear.
    Plain,
    /// The same, encrypted.
    Tls(Arc<Acceptor>),
}

impl Transport {
    /// What its connections are counted as.
    fn counted(&self) -> ListenerKind {
        match self {
            Self::Plain => ListenerKind::Plain,
            Self::Tls(_) => ListenerKind::Tls,
        }
    }

    /// The scheme of a WebSocket's URL.
    pub(super) fn scheme(&self) -> &'static str {
        match self {
            Self::Plain => "ws",
            Self::Tls(_) => "wss",
        }
    }
}

/// A socket that listens.
pub(super) trait Listening {
    /// Accepts one connection, and spawns the task that serves it. Returns whether the connection has one of the descriptors
    /// that are kept for something else.
    fn accept(&self, broker: &Arc<Broker>) -> impl Future<Output = io::Result<bool>> + Send;

    /// Returns whether the next connection would be given one of those descriptors.
    fn is_short(&self, descriptors: &Descriptors) -> bool;

    /// Returns whether connections can wait in its queue until another broker accepts them.
    fn is_inherited(&self) -> bool;
}

impl Listening for Listener {
    async fn accept(&self, broker: &Arc<Broker>) -> io::Result<bool> {
        let (stream, peer) = self.socket.accept().await?;
        let is_last = broker.descriptors.keep(&stream);
        let local = match stream.set_nodelay(true).and_then(|()| stream.local_addr()) {
            Ok(local) => local,
            Err(error) => {
                tracing::debug!(%peer, %error, "the connection has ended already");
                return Ok(is_last);
            }
        };
        let from = Remote::Tcp { peer, local };
        broker.metrics.accepted.count(self.transport.counted());
        if let Some(admitted) = admit(broker, from) {
            let own = Arc::clone(broker);
            match &self.transport {
                Transport::Plain => spawn(broker, from, connection(own, stream, from, admitted, None)),
                Transport::Tls(acceptor) => {
                    spawn(broker, from, encrypted(own, Arc::clone(acceptor), stream, from, admitted));
                }
            }
        }
        Ok(is_last)
    }

    fn is_short(&self, descriptors: &Descriptors) -> bool {
        descriptors.are_short(&self.socket)
    }

    fn is_inherited(&self) -> bool {
        self.is_inherited
    }
}

/// Where a connection is from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Remote {
    /// The addresses of both ends.
    Tcp { peer: SocketAddr, local: SocketAddr },
    /// A program of this host, of the operating-system user `uid`.
    Unix { uid: Option<u32> },
}

impl Remote {
    /// The address that limits and logs are for.
    fn address(&self) -> IpAddr {
        match self {
            Self::Tcp { peer, .. } => peer.ip().to_canonical(),
            Self::Unix { .. } => Ipv4Addr::LOCALHOST.into(),
        }
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { peer, .. } => peer.fmt(f),
            Self::Unix { .. } => f.write_str("unix"),
        }
    }
}

/// Accepts connections until the drain is over, as long as there are descriptors for them. On a listener of a service
/// manager, until it begins: further connections wait for the successor. No error ends it: they pass, or belong to a peer.
pub(super) async fn serve(listener: impl Listening, broker: Arc<Broker>) {
    let end = if listener.is_inherited() { &broker.draining } else { &broker.closing };
    let mut pause = ACCEPT_PAUSE.0;
    for number in 1_u64.. {
        if number.is_multiple_of(ACCEPTED_AT_ONCE) {
            yield_now().await;
        }
        let accepted = tokio::select! {
            () = end.cancelled() => {
                broker.accepting.fetch_sub(1, Ordering::Relaxed);
                return;
            }
            accepted = listener.accept(&broker) => accepted,
        };
        match accepted {
            Ok(is_last) => {
                pause = ACCEPT_PAUSE.0;
                if is_last {
                    wait_for_descriptors(&listener, &broker, end).await;
                }
            }
            Err(error) if is_of_the_peer(&error) => {}
            Err(error) if Descriptors::are_exhausted(&error) => wait_for_descriptors(&listener, &broker, end).await,
            Err(error) => {
                broker.descriptors.log_fault(Instant::now().into_std(), &error);
                timeout(pause, end.cancelled()).await.ok();
                pause = (pause * 2).min(ACCEPT_PAUSE.1);
            }
        }
    }
}

/// Waits until there is a descriptor for a further connection, or until the end.
async fn wait_for_descriptors(listener: &impl Listening, broker: &Broker, end: &CancellationToken) {
    broker.metrics.refused.count(RefusedFor::Files);
    broker.descriptors.log_short(Instant::now().into_std());
    broker.accepting.fetch_sub(1, Ordering::Relaxed);
    while timeout(LOOK_AGAIN, end.cancelled()).await.is_err() {
        if !listener.is_short(&broker.descriptors) {
            break;
        }
    }
    broker.accepting.fetch_add(1, Ordering::Relaxed);
}

impl Admitted {
    /// The peer at the other end of the connection, which may be a proxy.
    fn peer(&self, from: Remote, is_foreign: bool) -> Peer<'_> {
        Peer { address: from.address(), slot: &self.slot, beyond: self.beyond, is_foreign }
    }
}

fn is_of_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

/// Counts a new connection, if there is room for it.
fn admit(broker: &Broker, from: Remote) -> Option<Admitted> {
    let address = from.address();
    match broker.connections.admit() {
        Ok(mut admitted) => {
            // A trusted proxy names its client in the head of the request.
            if !broker.in_force.get().http.trusted_proxies.iter().any(|proxy| proxy.contains(address)) {
                admitted.beyond = admitted.slot.count_address(address).or(admitted.beyond);
            }
            Some(admitted)
        }
        Err(cap) => {
            http::log_dropped(broker, address, cap);
            None
        }
    }
}

/// Serves a connection on a task of its own.
fn spawn(broker: &Broker, from: Remote, connection: impl Future<Output = ()> + Send + 'static) {
    broker.tasks.spawn(connection.instrument(tracing::info_span!("connection", peer = %from)));
}
