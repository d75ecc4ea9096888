//! [`Server`]: listeners, the WebSocket handshake, the drain. The room that wires everything below together.
//!
//! `listener` accepts and serves connections, `admission` counts them, `handshake` decides who may connect (`names` knows
//! hosts and origins, `same_user` operating-system users, `upgrade` RFC 6455), `refusal` is what it answers then, `drain` ends the broker, `wiring` has the
//! handlers in this process, `trial` opens everything that the broker needs and changes nothing.
//! Nothing here knows an envelope.

mod admission;
mod drain;
mod handshake;
mod listener;
mod listeners;
mod names;
mod refusal;
mod same_user;
mod trial;
mod upgrade;
mod wiring;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use hyper::StatusCode;
use secrecy::SecretString;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::trial::{Unusable, UnusableList, try_config};
pub use self::wiring::AdapterError;

use self::admission::ConnectionLimit;
use self::listeners::Listeners;
use self::refusal::Reason;
use self::same_user::SameUser;
use self::wiring::Adapters;
use crate::auth::Verifier;
use crate::config::{Config, Http, ListenAddress};
use crate::connection::{Admission, Settings, Shutdown};
use crate::router::{Ids, Policy, Router};
use crate::salesforce::SetupErrors;
use crate::telemetry::LogLimit;

/// A broker with its listeners open.
pub struct Server {
    listeners: Listeners,
    warnings: Vec<String>,
    broker: Arc<Broker>,
}

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Open mode beyond loopback.
    #[error(
        "will not listen on {0} in open mode, which believes any user that an application names: \
         listen on a loopback address, or set auth.mode = \"tokens\""
    )]
    OpenBeyondLoopback(ListenAddress),
    /// Something that the configuration names cannot be used.
    #[error(transparent)]
    Unusable(#[from] UnusableList),
    /// Another process listens there.
    #[error("{0} is in use: is another broker running? Stop it, or listen elsewhere (--listen, or the key 'listen')")]
    InUse(ListenAddress),
    /// The system refused.
    #[error("could not listen on {address}")]
    Failed {
        /// The address of the listener.
        address: ListenAddress,
        /// The system's error.
        source: io::Error,
    },
    /// A handler in the process could not be started.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// What proves users could not be started.
    #[error(transparent)]
    Verifier(#[from] SetupErrors),
    /// There is nothing to listen on.
    #[error("there is no address to listen on: name one in the key 'listen'")]
    Nowhere,
}

/// What all connections share.
struct Broker {
    router: Arc<Router>,
    verifier: Box<dyn Verifier>,
    http: Http,
    same_user: SameUser,
    settings: Arc<Settings>,
    connections: Arc<ConnectionLimit>,
    admission: Admission,
    /// Limits the log lines about refused handshakes.
    refusals: LogLimit<(Reason, StatusCode)>,
    /// Listeners and connections.
    tasks: TaskTracker,
    adapters: Adapters,
    /// The handlers in this process, which end after the sessions whose requests they answer.
    handlers: TaskTracker,
    /// Tells every connection how far the drain is.
    shutdown: Shutdown,
    /// The drain has begun.
    draining: CancellationToken,
    /// The drain is over: listeners close, and so do connections that have not been upgraded.
    closing: CancellationToken,
    /// The connections that are left end at once.
    ended: CancellationToken,
    /// The handlers end.
    handlers_stop: CancellationToken,
}

impl Server {
    /// Opens the store and the listeners. From now on the system accepts connections; [`Server::run`] serves them.
    /// `credentials_key` takes the place of the key file. Must be called within a tokio runtime.
    pub fn bind(config: Config, credentials_key: Option<SecretString>) -> Result<Self, BindError> {
        try_config(&config, credentials_key.clone())?;
        let (same_user, warnings) = SameUser::open(&config).map_err(UnusableList::from)?;
        let listeners = Listeners::open(&config)?;
        let verifier = wiring::verifier(&config)?;
        let mut adapters = Adapters::open(&config, credentials_key)?;
        #[expect(clippy::disallowed_methods, reason = "the calendar enters here, once")]
        let calendar = SystemTime::now();
        let (now, policy) = (Instant::now().into_std(), Policy::new(&config));
        let router = Router::new(now, calendar, policy, Ids::random(), adapters.declarations());
        let settings = Settings::new(config.limits).with_audit(adapters.audit());
        let broker = Broker {
            router: Arc::new(router.with_switched_off(adapters.switched_off())),
            verifier,
            connections: Arc::new(ConnectionLimit::new(settings.limits(), settings.unregistered().clone())),
            admission: Admission::default(),
            refusals: LogLimit::default(),
            http: config.http,
            same_user,
            settings: Arc::new(settings),
            tasks: TaskTracker::new(),
            adapters,
            handlers: TaskTracker::new(),
            shutdown: Shutdown::default(),
            draining: CancellationToken::new(),
            closing: CancellationToken::new(),
            ended: CancellationToken::new(),
            handlers_stop: CancellationToken::new(),
        };
        broker.adapters.start(&broker.router, &broker.handlers, &broker.handlers_stop)?;
        // Until the drain begins: the next broker gets what an org publishes from then on.
        broker.adapters.publish_events(&broker.router, &broker.handlers, &broker.draining);
        Ok(Self { listeners, warnings, broker: Arc::new(broker) })
    }

    /// The addresses of its TCP listeners, with the port that the system chose for port 0.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.listeners.addresses
    }

    /// The URLs of all its listeners, in the order of the configuration.
    pub fn urls(&self) -> &[String] {
        &self.listeners.urls
    }

    /// What this system keeps the broker from doing, in words for the operator.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Serves until `shutdown` is ready, then drains.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self { listeners, broker, .. } = self;
        listeners.serve(&broker);
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

/// Ends the requests whose time is up. Never ready.
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
