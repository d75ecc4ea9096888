//! [`Listeners`]: the sockets of the admin API, and the thread that serves their connections.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::pin::pin;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::access::Peer;
use super::stats;
use super::{Admin, NotOpened, router};
use crate::config;
use crate::server::Broker;
use crate::server::inherited::{Inherited, Place};
use crate::server::listener;

/// The most connections at once.
const CONNECTIONS_MAX: usize = 64;

/// How many connections the system keeps until they are accepted.
const BACKLOG: i32 = 128;

/// How long a TLS handshake, and the head of a request, may take.
const HEAD_TIME: Duration = Duration::from_secs(10);

/// How much of a head is read.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// How long a peer may take nothing of an answer.
#[cfg(target_os = "linux")]
const UNREAD_TIME: Duration = Duration::from_secs(30);

/// The pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long calls may take to finish at the end.
const END_TIME: Duration = Duration::from_secs(1);

/// The answer if there are too many connections.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: 5\r\n\
    connection: close\r\ncontent-length: 160\r\n\r\n\
    {\"type\":\"urn:switchboard:error:UNAVAILABLE\",\"title\":\"Service Unavailable\",\"status\":503,\
    \"detail\":\"64 connections are open; try again later\",\"code\":\"UNAVAILABLE\"}";

/// The open sockets of the admin API.
#[derive(Default)]
pub(in crate::server) struct Listeners {
    sockets: Vec<StdListener>,
    pub(in crate::server) addresses: Vec<SocketAddr>,
}

impl Listeners {
    /// Opens them. If the address is the default one and cannot be used, returns a warning too.
    ///
    /// # Errors
    /// The first address that cannot be used.
    pub(in crate::server) fn open(
        admin: &config::Admin,
        inherited: &mut Inherited,
    ) -> Result<(Self, Option<String>), NotOpened> {
        let (mut listeners, mut warning) = (Self::default(), None);
        for address in &admin.listen {
            let opened = match inherited.tcp(Place::Admin, *address) {
                Some(socket) => Ok((socket, *address)),
                None => open(*address),
            };
            match opened {
                Ok((socket, bound)) => {
                    listeners.sockets.push(socket);
                    listeners.addresses.push(bound);
                }
                Err(error) if admin.listen_is_default => {
                    warning = Some(format!(
                        "there is no admin listener: could not listen on {address}: {error}; set the key 'admin.listen'"
                    ));
                }
                Err(error) => return Err(NotOpened { address: *address, error }),
            }
        }
        Ok((listeners, warning))
    }

    /// Serves the calls, on a thread of their own, until the result is dropped or ended. `listeners` are the URLs for
    /// applications. `None` if there is nothing to listen on.
    ///
    /// # Errors
    /// The thread or its runtime cannot be started.
    pub(in crate::server) fn serve(self, broker: &Arc<Broker>, listeners: Vec<String>) -> io::Result<Option<Running>> {
        if self.sockets.is_empty() {
            return Ok(None);
        }
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let stop = CancellationToken::new();
        let (broker, stopped) = (Arc::clone(broker), stop.clone());
        let work = move || {
            runtime.block_on(self.run(broker, listeners, stopped));
            runtime.shutdown_background();
        };
        let thread = thread::Builder::new().name("admin".to_owned()).spawn(work)?;
        Ok(Some(Running { stop, thread: Some(thread) }))
    }

    async fn run(self, broker: Arc<Broker>, listeners: Vec<String>, stop: CancellationToken) {
        let shared = Arc::new(Admin::new(Instant::now(), broker, listeners, self.addresses, stop.clone()));
        let serving = Arc::new(Serving {
            router: router(&shared),
            broker: Arc::clone(&shared.broker),
            room: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            tasks: shared.tasks.clone(),
            stop,
        });
        for socket in self.sockets {
            match TcpListener::from_std(socket) {
                Ok(socket) => drop(serving.tasks.spawn(Arc::clone(&serving).accept(socket))),
                Err(error) => tracing::error!(%error, "the admin listener cannot be served"),
            }
        }
        drop(serving.tasks.spawn(stats::sample(Arc::clone(&shared))));
        serving.stop.cancelled().await;
        serving.tasks.close();
        timeout(END_TIME, serving.tasks.wait()).await.ok();
    }
}

/// The URLs of admin listeners.
pub(in crate::server) fn urls(addresses: &[SocketAddr], encrypts: bool) -> Vec<String> {
    let scheme = if encrypts { "https" } else { "http" };
    addresses.iter().map(|address| format!("{scheme}://{address}/")).collect()
}

fn open(address: SocketAddr) -> io::Result<(StdListener, SocketAddr)> {
    let socket = listener::bind(address)?;
    socket.listen(BACKLOG)?;
    let socket = StdListener::from(socket);
    let bound = socket.local_addr()?;
    Ok((socket, bound))
}

/// The thread of the admin API. It ends when this is dropped.
pub(in crate::server) struct Running {
    stop: CancellationToken,
    thread: Option<thread::JoinHandle<()>>,
}

impl Running {
    /// Lets the calls finish, for a short time. Blocks.
    pub(in crate::server) fn end(mut self) {
        self.stop.cancel();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of the admin API failed");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// What the connections share.
struct Serving {
    router: Router,
    broker: Arc<Broker>,
    room: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Serving {
    async fn accept(self: Arc<Self>, socket: TcpListener) {
        loop {
            let accepted = tokio::select! {
                () = self.stop.cancelled() => return,
                accepted = socket.accept() => accepted,
            };
            let Ok((stream, address)) = accepted else {
                // Out of file descriptors, or an error of the peer.
                timeout(ACCEPT_PAUSE, self.stop.cancelled()).await.ok();
                continue;
            };
            match Arc::clone(&self.room).try_acquire_owned() {
                Ok(permit) => drop(self.tasks.spawn(Arc::clone(&self).connection(stream, address, permit))),
                Err(_) => drop(stream.try_write(FULL)),
            }
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, address: SocketAddr, _permit: OwnedSemaphorePermit) {
        stream.set_nodelay(true).ok();
        #[cfg(target_os = "linux")]
        SockRef::from(&stream).set_tcp_user_timeout(Some(UNREAD_TIME)).ok();
        let Ok(local) = stream.local_addr() else { return };
        // A reload can change whether the next connection is encrypted.
        let in_force = self.broker.in_force.get();
        let (encrypts, tls) = (in_force.admin.tls, in_force.tls.as_ref().map(|tls| tls.listen()));
        drop(in_force);
        let peer = Peer { address, local, is_encrypted: encrypts };
        match tls {
            _ if !encrypts => self.serve(stream, peer).await,
            None => tracing::error!("the admin listener has no certificate"),
            Some(acceptor) => match timeout(HEAD_TIME, TlsAcceptor::from(acceptor.config()).accept(stream)).await {
                Ok(Ok(stream)) => self.serve(stream, peer).await,
                Ok(Err(error)) => tracing::debug!(%address, %error, "a TLS handshake of the admin API failed"),
                Err(_) => tracing::debug!(%address, "a TLS handshake of the admin API took too long"),
            },
        }
    }

    async fn serve(&self, stream: impl AsyncRead + AsyncWrite + Unpin, peer: Peer) {
        let service = service_fn(|mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer);
            TowerToHyperService::new(self.router.clone()).call(request)
        });
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIME)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service);
        let mut serving = pin!(serving);
        let served = tokio::select! {
            served = serving.as_mut() => served,
            () = self.stop.cancelled() => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
        if let Err(error) = served {
            tracing::debug!(address = %peer.address, %error, "a connection of the admin API has failed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_of_a_full_listener_is_whole() {
        let (head, body) = std::str::from_utf8(FULL).unwrap().split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{}", body.len());
        assert!(body.contains(&format!("\"{CONNECTIONS_MAX} connections")), "{body}");
        serde_json::from_str::<serde_json::Value>(body).unwrap();
    }
}
