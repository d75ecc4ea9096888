//! Listeners, and the life of a connection from accept to its end.
//!
//! `head` waits for the head of its request, `http` answers it, and a WebSocket is then served as a [`Connection`].
//! Waiting for strangers costs nobody anything: a connection takes an admission permit only when there is something to do
//! for it.

mod descriptors;
mod head;
mod http;
mod peer_owner;
mod stream;
mod tls;
#[cfg(unix)]
mod unix;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::yield_now;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

pub(super) use self::descriptors::Descriptors;

use self::descriptors::LOOK_AGAIN;
use self::head::HeadError;
use self::http::{Answered, Client, Peer};
pub(super) use self::peer_owner::PeerOwners;
#[cfg(unix)]
pub(super) use self::unix::{SocketFile, UnixError, UnixSocket};
use super::admission::{Admitted, Slot};
use super::over_http::Post;
use super::tls::Acceptor;
use super::{Broker, over_http, same_user};
use crate::auth::ClientCertificate;
use crate::connection::{self, Connection, Context, UnregisteredGuard, Upgraded};
use crate::telemetry::metrics::{ListenerKind, RefusedFor};

/// Connections that the system keeps until they are accepted. All applications of a call centre may return at once, and
/// one that finds no room tries again a second later (RFC 6298, section 2.1). So the bound is the system's own, which cuts
/// this to `net.core.somaxconn`, 4,096 on Linux. With 1,024, some of 5,000 waited that second.
const BACKLOG: i32 = 0xffff;

/// Bytes that the system may hold for a peer beyond those on their way. Without a bound it holds 4 MiB, a thousand
/// messages that no limit of ours counts, and reports room again only after a third of them: a publisher that waits 250 ms
/// for a slow receiver would wait until its time is over.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNSENT_BYTES: u32 = 128 << 10;

/// How long a request's head may take (protocol.md, Transport and handshake).
const HEAD_TIME: Duration = Duration::from_secs(10);

/// How long a connection keeps its admission permit while it waits for its peer to take the response.
const PROMPT: Duration = Duration::from_millis(5);

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

/// Opens a listener.
pub(super) fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = bind(address)?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Takes a listener that a service manager has opened.
pub(super) fn inherited(listener: std::net::TcpListener) -> io::Result<TcpListener> {
    // Connections inherit it.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket2::SockRef::from(&listener).set_tcp_notsent_lowat(UNSENT_BYTES)?;
    TcpListener::from_std(listener)
}

/// Binds a socket that does not listen yet.
pub(super) fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // 0.0.0.0 and [::] can both be listened on only if the second leaves IPv4 alone.
        socket.set_only_v6(true)?;
    }
    // Elsewhere than on Unix it would let two brokers share an address.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    // Connections inherit it.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_notsent_lowat(UNSENT_BYTES)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
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

/// What is known of a connection over TLS when its HTTP begins.
struct Encrypted {
    /// As it was when the connection was accepted.
    is_foreign: bool,
    certificate: Option<Arc<ClientCertificate>>,
}

/// A connection to a TLS listener from its first byte to its last.
async fn encrypted(broker: Arc<Broker>, acceptor: Arc<Acceptor>, stream: TcpStream, from: Remote, admitted: Admitted) {
    let handshake = Box::pin(async {
        let is_foreign = is_foreign(&broker, from).await;
        let stream = tls::shake_hands(&broker, &acceptor, admitted.peer(from, is_foreign), stream).await?;
        let certificate = tls::certificate(&stream);
        Some((stream, Encrypted { is_foreign, certificate }))
    });
    let encrypted = tokio::select! {
        encrypted = handshake => encrypted,
        () = broker.closing.cancelled() => return,
    };
    drop(acceptor);
    if let Some((stream, encrypted)) = encrypted {
        connection(broker, stream, from, admitted, Some(encrypted)).await;
    }
}

/// Returns whether a connection is from an operating-system user that is not accepted. Asked once, when it has been
/// accepted: later, its other end may have been closed or given to another program.
async fn is_foreign(broker: &Broker, from: Remote) -> bool {
    !broker.in_force.get().same_user.accepts(from).await
}

/// A connection from its first byte of HTTP to its last. An idle session is little more than this future, so nothing of
/// the handshake is left in it.
fn connection<S>(
    broker: Arc<Broker>,
    stream: S,
    from: Remote,
    admitted: Admitted,
    encrypted: Option<Encrypted>,
) -> impl Future<Output = ()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let own = Arc::clone(&broker);
    // Boxed with all that it needs, and dropped before the session begins, with hyper's state.
    let greeting = Box::pin(async move {
        let (is_foreign, certificate) = match encrypted {
            Some(Encrypted { is_foreign, certificate }) => (is_foreign, certificate),
            None => (is_foreign(&own, from).await, None),
        };
        let greeted = shake_hands(&own, admitted.peer(from, is_foreign), stream).await;
        let Admitted { slot, unregistered, .. } = admitted;
        greeted.map(|greeted| (greeted, slot, unregistered, certificate))
    });
    async move {
        let (serving, slot) = {
            let greeted = tokio::select! {
                greeted = greeting => greeted,
                () = broker.closing.cancelled() => return,
            };
            let Some((greeted, mut slot, unregistered, certificate)) = greeted else { return };
            let (upgraded, client) = match greeted {
                Greeted::WebSocket(upgraded, client) => (upgraded, client),
                Greeted::Call(post) => return Box::pin(call(&broker, post, unregistered, slot)).await,
            };
            tracing::debug!("a WebSocket was opened");
            slot.upgraded();
            // A browser would show its certificate for any page.
            let certificate = certificate.filter(|_| !client.has_origin);
            let (now, settings) = (Instant::now().into_std(), Arc::clone(&broker.settings));
            let connection = Connection::accepted(now, client.address, settings, rand::random(), unregistered)
                .with_certificate(certificate)
                .with_token(client.token);
            let context = Context {
                router: &broker.router,
                verifier: &broker.in_force,
                admission: &broker.admission,
                shutdown: &broker.shutdown,
            };
            (connection::serve(upgraded, connection, context), slot)
        };
        let serving = pin!(serving);
        tokio::select! {
            () = serving => {}
            () = broker.ended.cancelled() => tracing::warn!("the connection did not drain in time"),
        }
        drop(slot);
        tracing::debug!("the connection has ended");
    }
}

/// What goes on after the HTTP phase.
enum Greeted<S> {
    WebSocket(Upgraded<S>, Client),
    Call(Post<S>),
}

/// A message without a WebSocket. It counts as a connection until its end.
async fn call<S>(broker: &Broker, post: Post<S>, unregistered: UnregisteredGuard, slot: Slot)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if let Some(stream) = over_http::serve(broker, post, unregistered).await {
        http::linger(stream).await;
    }
    drop(slot);
}

/// The HTTP phase. Returns the stream unless it has had its response.
async fn shake_hands<S>(broker: &Broker, peer: Peer<'_>, mut stream: S) -> Option<Greeted<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match timeout(HEAD_TIME, head::read(&mut stream)).await {
        Ok(Ok(_)) if peer.is_foreign => http::refuse(broker, peer, stream, &same_user::refusal()).await,
        Ok(Ok(ahead)) => match with_permit(broker, http::answer(broker, peer, stream, ahead)).await {
            Answered::WebSocket(upgraded, client) => return Some(Greeted::WebSocket(upgraded, client)),
            Answered::Call(post) => return Some(Greeted::Call(post)),
            Answered::Response(stream) => http::linger(stream).await,
            Answered::NotUnderstood(stream) => http::refuse(broker, peer, stream, &head::not_http()).await,
            Answered::Lost => {}
        },
        // Thousands of strangers may leave at the same moment, and closing a socket takes time.
        Ok(Err(HeadError::Lost)) => with_permit(broker, async { drop(stream) }).await,
        Ok(Err(HeadError::Refused(refusal))) => http::refuse(broker, peer, stream, &refusal).await,
        Err(_) => http::refuse(broker, peer, stream, &head::timed_out()).await,
    }
    None
}

/// Does some work for a stranger under an admission permit. A peer that does not take its response does not keep the
/// permit.
async fn with_permit<T>(broker: &Broker, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    let permit = broker.admission.arrival().await;
    if let Ok(output) = timeout(PROMPT, &mut work).await {
        return output;
    }
    drop(permit);
    work.await
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;
    use crate::config::Config;
    use crate::server::Server;

    const HANDSHAKE: &[u8] = b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

    /// A broker whose listener nobody connects to: the paused clock needs streams in memory.
    fn broker() -> (Arc<Broker>, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let listen = vec![SocketAddr::from(([127, 0, 0, 1], 0)).into()];
        let config = Config { listen, data_dir: folder.path().to_owned(), ..Config::default() };
        (Server::bind(config, None).unwrap().broker, folder)
    }

    /// Connects a client that sends these bytes. A task shakes hands with it, and says whether it became a WebSocket.
    async fn connect(broker: &Arc<Broker>, bytes: &[u8]) -> (DuplexStream, tokio::task::JoinHandle<bool>) {
        let (mut client, stream) = duplex(1 << 16);
        client.write_all(bytes).await.unwrap();
        let (shared, admitted) = (Arc::clone(broker), broker.connections.admit().unwrap());
        let task = broker.tasks.spawn(async move {
            let address = IpAddr::from(Ipv4Addr::LOCALHOST);
            let peer = Peer { address, slot: &admitted.slot, beyond: None, is_foreign: false };
            shake_hands(&shared, peer, stream).await.is_some()
        });
        (client, task)
    }

    #[tokio::test(start_paused = true)]
    async fn a_newcomer_does_not_wait_for_connections_that_wait() {
        let (broker, _folder) = broker();
        let mut waiting = Vec::new();
        for bytes in [b"".as_slice(), b"GET /ws HT", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"] {
            for _ in 0..1000 {
                waiting.push(connect(&broker, bytes).await);
            }
        }
        let start = Instant::now();
        let (_client, task) = connect(&broker, HANDSHAKE).await;
        assert!(task.await.unwrap());
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert!(waiting[..2000].iter().all(|(_, task)| !task.is_finished()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_has_10_s_however_slowly_it_comes() {
        let (broker, _folder) = broker();
        let start = Instant::now();
        let (mut client, task) = connect(&broker, b"GET /ws HTTP/1.1\r\n").await;
        for at in 1..10 {
            tokio::time::sleep_until(start + Duration::from_secs(at)).await;
            client.write_all(b"X: y\r\n").await.unwrap();
        }
        let mut response = String::new();
        client.read_to_string(&mut response).await.unwrap();
        assert!(response.starts_with("HTTP/1.1 408 "), "{response}");
        assert_eq!(start.elapsed(), HEAD_TIME);
        drop(client);
        assert!(!task.await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_after_the_head_are_handed_over() {
        let (broker, _folder) = broker();
        for ahead in [b"".as_slice(), b"first frame", &[b'x'; 10_000]] {
            let (mut client, stream) = duplex(1 << 16);
            client.write_all(&[HANDSHAKE, ahead].concat()).await.unwrap();
            let admitted = broker.connections.admit().unwrap();
            let address = IpAddr::from(Ipv4Addr::LOCALHOST);
            let peer = Peer { address, slot: &admitted.slot, beyond: None, is_foreign: false };
            let Some(Greeted::WebSocket(mut upgraded, _)) = shake_hands(&broker, peer, stream).await else {
                panic!("not a WebSocket")
            };
            drop(client);
            let mut read = upgraded.read_ahead.to_vec();
            upgraded.stream.read_to_end(&mut read).await.unwrap();
            assert!(read == ahead, "{} of {} bytes", read.len(), ahead.len());
        }
    }
}
