//! [`Server`]: listeners, the WebSocket handshake, drain. The room that wires everything below together.
//!
//! `listener` accepts and serves connections, `handshake` decides who may connect, `admission` counts them, `drain` tells
//! them when to come back, `signal` is how they all hear of it, `wiring` has the handlers in the process. Nothing here
//! knows an envelope.

mod admission;
mod handshake;
mod listener;
mod wiring;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::wiring::AdapterError;

use self::admission::ConnectionLimit;
use self::wiring::Adapters;
use crate::auth::{Chain, Open, Verifier};
use crate::config::{AuthMode, Config, Http};
use crate::connection::{Admission, Settings, Shutdown};
use crate::router::{Ids, Policy, Router};
use crate::salesforce::{SalesforceVerifier, SetupErrors};

/// How long after `limits.drain` the sessions may take to send their last frames.
const DRAIN_GRACE: Duration = Duration::from_secs(1);

/// How often a drain looks whether the requests that it waits for have ended.
const DRAIN_LOOK: Duration = Duration::from_millis(10);

/// A broker with its listeners open.
pub struct Server {
    listeners: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
    broker: Arc<Broker>,
}

/// Why a server could not begin.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Open mode beyond loopback.
    #[error(
        "will not listen on {0} in open mode, which believes whatever user an application names: \
         listen on a loopback address, or set auth.mode = \"tokens\""
    )]
    OpenBeyondLoopback(SocketAddr),
    /// Somebody else listens there.
    #[error("{0} is in use: is another broker running? Stop it, or listen elsewhere (--listen, or the key 'listen')")]
    InUse(SocketAddr),
    /// The system refused.
    #[error("could not listen on {address}")]
    Failed {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A handler in the process could not begin.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// What is to prove users cannot begin.
    #[error(transparent)]
    Verifier(#[from] SetupErrors),
    /// Nothing to listen on.
    #[error("there is no address to listen on: name one in the key 'listen'")]
    Nowhere,
}

/// What all connections share.
struct Broker {
    router: Arc<Router>,
    verifier: Box<dyn Verifier>,
    http: Http,
    settings: Arc<Settings>,
    seats: Arc<ConnectionLimit>,
    admission: Admission,
    /// Listeners and connections.
    sessions: TaskTracker,
    adapters: Adapters,
    /// The handlers in the process, which end after the sessions that ask them.
    handlers: TaskTracker,
    /// Tells every connection how far the drain is.
    shutdown: Shutdown,
    /// No new connections, and none that is not yet a WebSocket.
    stopping: CancellationToken,
    /// The time to drain is over.
    ended: CancellationToken,
    /// No session is left to be answered.
    handlers_stop: CancellationToken,
}

impl Server {
    /// Opens the store and the listeners. Connections are accepted by the system from now on, and served by
    /// [`Server::run`]. `credentials_key` stands over the key file. To be called within a tokio runtime.
    pub fn bind(config: Config, credentials_key: Option<SecretString>) -> Result<Self, BindError> {
        let listeners = listen(&config)?;
        let addresses = listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
        let verifier = verifier(&config)?;
        let adapters = Adapters::open(&config, credentials_key)?;
        #[expect(clippy::disallowed_methods, reason = "the calendar enters here, once")]
        let calendar = SystemTime::now();
        let (now, policy) = (Instant::now().into_std(), Policy::new(&config));
        let broker = Broker {
            router: Arc::new(Router::new(now, calendar, policy, Ids::random(), adapters.declarations())),
            verifier,
            seats: Arc::new(ConnectionLimit::new(&config.limits)),
            admission: Admission::default(),
            http: config.http,
            settings: Arc::new(Settings::new(config.limits)),
            sessions: TaskTracker::new(),
            adapters,
            handlers: TaskTracker::new(),
            shutdown: Shutdown::default(),
            stopping: CancellationToken::new(),
            ended: CancellationToken::new(),
            handlers_stop: CancellationToken::new(),
        };
        broker.adapters.start(&broker.router, &broker.handlers, &broker.handlers_stop)?;
        // Until the drain begins: what is published then is heard by the broker that comes next.
        broker.adapters.hear(&broker.router, &broker.handlers, &broker.stopping);
        Ok(Self { listeners, addresses, broker: Arc::new(broker) })
    }

    /// Where it listens, with the port that the system chose where 0 was asked for.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Serves until `shutdown` is ready, then drains: sessions are told when to come back, what is in flight may finish
    /// for as long as `limits.drain` says.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self { listeners, broker, .. } = self;
        for listener in listeners {
            broker.sessions.spawn(listener::accept(listener, Arc::clone(&broker)));
        }
        let served_and_drained = async {
            shutdown.await;
            broker.drain().await;
        };
        tokio::select! {
            () = served_and_drained => {}
            () = tick(&broker.router) => {}
        }
    }
}

impl Broker {
    /// Tells all sessions when to come back and waits for the requests that are pending now, at most `limits.drain`. Then
    /// closes all sessions. Everything is served meanwhile.
    async fn drain(&self) {
        let sessions = self.seats.taken();
        let limit = self.settings.limits().drain;
        tracing::info!(sessions, ?limit, "draining");
        self.stopping.cancel();
        let mut pending = self.router.pending_requests();
        self.shutdown.drain(sessions);
        let until = Instant::now() + limit;
        while self.router.any_pending(&mut pending) && Instant::now() < until {
            sleep_until((Instant::now() + DRAIN_LOOK).min(until)).await;
        }
        self.shutdown.close();
        self.sessions.close();
        if timeout(DRAIN_GRACE, self.sessions.wait()).await.is_err() {
            self.ended.cancel();
            timeout(DRAIN_GRACE, self.sessions.wait()).await.ok();
        }
        self.handlers_stop.cancel();
        self.handlers.close();
        timeout(DRAIN_GRACE, self.handlers.wait()).await.ok();
        tracing::info!("drained");
    }
}

/// Ends what is due in the router: its requests' time limits. Never ready.
async fn tick(router: &Router) {
    loop {
        let earlier = router.earlier().notified();
        match router.deadline() {
            Some(deadline) => tokio::select! {
                () = sleep_until(deadline.into()) => router.expire(Instant::now().into_std()),
                () = earlier => {}
            },
            None => earlier.await,
        }
    }
}

fn listen(config: &Config) -> Result<Vec<TcpListener>, BindError> {
    if config.auth == AuthMode::Open
        && let Some(address) = config.listen.iter().find(|address| !address.ip().is_loopback())
    {
        return Err(BindError::OpenBeyondLoopback(*address));
    }
    let mut listeners = Vec::new();
    for &address in &config.listen {
        match listener::open(address) {
            Ok(listener) => listeners.push(listener),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(BindError::InUse(address)),
            Err(error) if config.listen_is_default && address.is_ipv6() => {
                tracing::warn!(%address, %error, "this system has no IPv6 loopback: a browser's 'localhost' may miss us");
            }
            Err(source) => return Err(BindError::Failed { address, source }),
        }
    }
    if listeners.is_empty() { Err(BindError::Nowhere) } else { Ok(listeners) }
}

fn verifier(config: &Config) -> Result<Box<dyn Verifier>, SetupErrors> {
    Ok(match config.auth {
        AuthMode::Open => Box::new(Open),
        AuthMode::Tokens if config.proofs.is_empty() => Box::new(config.token_table()),
        AuthMode::Tokens => Box::new(Chain::new(config.token_table(), Box::new(SalesforceVerifier::open(config)?))),
    })
}
