//! The life of a connection: TLS, the HTTP phase, and the session of a WebSocket or a call.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::head::{self, HeadError};
use super::http::{self, Answered, Client, Peer};
use super::{Remote, tls};
use crate::auth::ClientCertificate;
use crate::connection::{self, Connection, Context, UnregisteredGuard, Upgraded};
use crate::server::admission::{Admitted, Slot};
use crate::server::over_http::{self, Post};
use crate::server::tls::Acceptor;
use crate::server::{Broker, same_user};

/// How long a request's head may take (protocol.md, Transport and handshake).
const HEAD_TIME: Duration = Duration::from_secs(10);

/// How long a connection keeps its admission permit while it waits for its peer to take the response.
const PROMPT: Duration = Duration::from_millis(5);

/// What is known of a connection over TLS when its HTTP begins.
pub(super) struct Encrypted {
    /// As it was when the connection was accepted.
    is_foreign: bool,
    certificate: Option<Arc<ClientCertificate>>,
}

/// A connection to a TLS listener from its first byte to its last.
pub(super) async fn encrypted(
    broker: Arc<Broker>,
    acceptor: Arc<Acceptor>,
    stream: TcpStream,
    from: Remote,
    admitted: Admitted,
) {
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
pub(super) async fn is_foreign(broker: &Broker, from: Remote) -> bool {
    !broker.in_force.get().same_user.accepts(from).await
}

/// A connection from its first byte of HTTP to its last. An idle session is little more than this future, so nothing of
/// the handshake is left in it.
pub(super) fn connection<S>(
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
pub(super) async fn with_permit<T>(broker: &Broker, work: impl Future<Output = T>) -> T {
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
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};

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
