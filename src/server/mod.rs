//! [`Server`]: listeners, the WebSocket handshake, the drain. The room that wires everything below together.
//!
//! `cluster` is this node's part in a cluster. `committer` writes the events of durable channels, and `history_reader` reads them. `admin` is the admin API. `listener` accepts and serves connections, `admission` counts them, `handshake` decides who may connect (`names` knows
//! hosts and origins, `same_user` operating-system users, `tokens` where a token may be, `upgrade` RFC 6455), `forwarded` reads
//! the header of a proxy, `refusal` is what it answers then, `over_http` takes messages without a WebSocket (`problem` is an error
//! for programs), `gauges` is what metrics say of the present, `doctor` finds what keeps a page in a browser away, `drain` ends
//! the broker, `service_manager` tells systemd how it is, `inherited` has listeners that systemd has opened, `wiring` has the
//! handlers in this process (`org` those that talk to Salesforce), `issuers` the keys that sign JWTs (`key_fetch` fetches them),
//! `reload` replaces what a new configuration changes
//! (`key_files` knows which files have another content), `trial` opens everything that the broker needs and changes nothing.
//! Only `over_http` knows an envelope.

mod admin;
mod admission;
mod cluster;
mod committer;
pub mod doctor;
mod drain;
mod forwarded;
mod gauges;
mod handshake;
mod history_reader;
mod in_force;
mod inherited;
mod issuers;
mod judge;
mod key_fetch;
mod key_files;
mod listener;
mod listeners;
mod names;
mod org;
mod over_http;
mod problem;
mod refusal;
mod reload;
mod same_user;
mod script;
mod service_manager;
mod tls;
mod tokens;
mod trial;
mod upgrade;
mod wiring;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use hyper::StatusCode;
use parking_lot::Mutex;
use secrecy::SecretString;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::cluster::{ClusterError, adopt as cluster_adopt, check as cluster_check};
pub use self::forwarded::client_address;
pub use self::inherited::{InheritError, Inherited};
pub use self::reload::{How, ReloadError, Reloaded, Reloader};
pub use self::trial::{Unusable, UnusableList, try_config};
pub use self::wiring::AdapterError;
pub use crate::router::explain;

use self::admin::{NotOpened, OwnToken};
use self::admission::ConnectionLimit;
use self::cluster::{Cluster, Unjoined};
use self::committer::Committer;
use self::in_force::{InForce, Replaceable};
use self::listener::Descriptors;
use self::listeners::{Listeners, SocketFiles};
use self::org::Running;
use self::over_http::Applications;
use self::refusal::Reason;
use self::service_manager::ServiceManager;
use self::tls::Tls;
use self::wiring::Adapters;
use crate::config::{Config, ListenAddress, LoadOptions};
use crate::connection::{Admission, Settings, Shutdown};
use crate::router::{Ids, Policy, Router};
use crate::telemetry::LogLimit;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::recorder::{Dumps, Recorder};

/// How long a session gets to release the memory of its queue before the next one is ended too.
const RELEASE_TIME: Duration = Duration::from_millis(20);

/// A broker with its listeners open.
pub struct Server {
    listeners: Listeners,
    admin: admin::Listeners,
    warnings: Vec<String>,
    broker: Arc<Broker>,
}

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Open mode beyond loopback.
    #[error(
        "will not listen on {0} in open mode, where an application can name any user: \
         listen on a loopback address, or set auth.mode = \"tokens\""
    )]
    OpenBeyondLoopback(ListenAddress),
    /// Something that the configuration names cannot be used.
    #[error(transparent)]
    Unusable(#[from] UnusableList),
    /// Another process listens there.
    #[error(
        "{0} is in use: is another broker running? Stop it, or listen elsewhere (--listen, or the keys 'listen', 'tls.listen' and 'admin.listen')"
    )]
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
    /// This node cannot join its cluster.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A socket of the service manager has no place.
    #[error(transparent)]
    Inherit(#[from] InheritError),
    /// There is nothing to listen on.
    #[error("there is no address to listen on: name one in the key 'listen'")]
    Nowhere,
}

impl From<NotOpened> for BindError {
    fn from(NotOpened { address, error }: NotOpened) -> Self {
        match error.kind() {
            io::ErrorKind::AddrInUse => Self::InUse(address.into()),
            _ => Self::Failed { address: address.into(), source: error },
        }
    }
}

/// What all connections share.
struct Broker {
    router: Arc<Router>,
    metrics: Arc<Metrics>,
    /// What a reload replaces.
    in_force: Replaceable<InForce>,
    /// The configuration in force. Locked during a reload.
    config: Mutex<Config>,
    settings: Arc<Settings>,
    connections: Arc<ConnectionLimit>,
    admission: Admission,
    descriptors: Descriptors,
    /// The Unix sockets' files, whose mode depends on `http.os_users`.
    socket_files: SocketFiles,
    /// Writes what the flight recorder has to files.
    dumps: Arc<Dumps>,
    /// Limits the log lines about refused handshakes.
    refusals: LogLimit<(Reason, Option<StatusCode>)>,
    /// What applications that call over HTTP use of their limits.
    applications: Applications,
    /// Listeners and connections.
    tasks: TaskTracker,
    /// Writes the events of durable channels, if there are such channels.
    committer: Option<Committer>,
    /// The other nodes, if it is a node of a cluster.
    cluster: Option<Cluster>,
    adapters: Adapters,
    /// The handlers in this process, which end after the sessions whose requests they answer.
    handlers: TaskTracker,
    /// The runtime that serves the applications.
    runtime: Handle,
    /// The token of the admin API, if the configuration has none.
    own_token: OwnToken,
    /// What is told how the broker is.
    service_manager: ServiceManager,
    /// The listeners accept connections.
    started: CancellationToken,
    /// How many listeners accept connections now.
    accepting: AtomicUsize,
    /// What the configuration is made from, if it can be read again.
    source: OnceLock<LoadOptions>,
    /// A call of the admin API has asked for a drain.
    drain_asked: CancellationToken,
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
        Self::bind_with(config, credentials_key, Inherited::default())
    }

    /// The same with listeners that are open already. Each takes the place of one of the configuration.
    pub fn bind_with(
        config: Config,
        credentials_key: Option<SecretString>,
        mut inherited: Inherited,
    ) -> Result<Self, BindError> {
        let tls = trial::open_tls(&config, credentials_key.clone())?.map(Arc::new);
        let listeners = Listeners::open(&config, tls.as_deref(), &mut inherited)?;
        let (admin, no_admin) = admin::Listeners::open(&config.admin, &mut inherited)?;
        inherited.check_taken()?;
        let policy = Policy::new(&config);
        let metrics = Arc::new(Metrics::new(policy.channel_names()));
        metrics.set_config_applied(calendar());
        let (in_force, fetches) = InForce::open(&config, tls, None, &metrics)?;
        let adapters = Adapters::open(&config, credentials_key, &metrics)?;
        let own_token = OwnToken::new(&config.data_dir);
        let no_token = if admin.addresses.is_empty() { None } else { own_token.settle(&config.admin) };
        let warnings = in_force.warnings().iter().cloned().chain(no_admin).chain(no_token).collect();
        let now = Instant::now().into_std();
        let recorder = Arc::new(Recorder::new(now, calendar(), config.recorder.bytes));
        let router = Router::new(now, calendar(), policy, Ids::random(), Vec::new());
        router.declare(adapters.declared(&config));
        let router = router.with_metrics(Arc::clone(&metrics)).with_recorder(Arc::clone(&recorder));
        let (router, committing) = adapters.open_history(now, calendar(), router, &config)?;
        let (router, unjoined) = match config.cluster.is_on() {
            true => {
                let unjoined = Unjoined::open(&config)?;
                let (router, events) = unjoined.connect(router).with_commits();
                let (router, reads) = router.with_disk_reads();
                (router, Some((unjoined, (events, reads))))
            }
            false => (router, None),
        };
        let settings = Settings::new(config.limits.clone()).with_audit(adapters.audit());
        let settings = settings.with_metrics(Arc::clone(&metrics));
        let router = Arc::new(router);
        let committer = committing.map(|it| it.start(&router, &config)).transpose().map_err(AdapterError::from)?;
        let cluster = unjoined.map(|(it, queues)| it.join(&router, queues)).transpose()?;
        let broker = Broker {
            router,
            metrics,
            dumps: Arc::new(Dumps::new(recorder, &config.data_dir)),
            committer,
            cluster,
            in_force: Replaceable::new(in_force),
            config: Mutex::new(config),
            connections: Arc::new(ConnectionLimit::new(&settings.limits(), settings.unregistered().clone())),
            admission: Admission::default(),
            descriptors: Descriptors::new(listeners.urls.len()),
            socket_files: listeners.socket_files(),
            refusals: LogLimit::default(),
            applications: Applications::default(),
            settings: Arc::new(settings),
            tasks: TaskTracker::new(),
            adapters,
            handlers: TaskTracker::new(),
            runtime: Handle::current(),
            own_token,
            service_manager: ServiceManager::from_environment(),
            started: CancellationToken::new(),
            accepting: AtomicUsize::new(0),
            source: OnceLock::new(),
            drain_asked: CancellationToken::new(),
            shutdown: Shutdown::default(),
            draining: CancellationToken::new(),
            closing: CancellationToken::new(),
            ended: CancellationToken::new(),
            handlers_stop: CancellationToken::new(),
        };
        broker.fetch_keys(fetches);
        broker.adapters.start(&broker.config.lock(), broker.running())?;
        Ok(Self { listeners, admin, warnings, broker: Arc::new(broker) })
    }

    /// The addresses of its plain TCP listeners, with the port that the system chose for port 0.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.listeners.addresses
    }

    /// The URLs of all its listeners: first those of `listen`, then those of `tls.listen` and of `tls.client_listen`.
    pub fn urls(&self) -> &[String] {
        &self.listeners.urls
    }

    /// The URLs of the admin listeners.
    pub fn admin_urls(&self) -> Vec<String> {
        admin::urls(&self.admin.addresses, self.broker.in_force.get().admin.tls)
    }

    /// What this system keeps the broker from doing, in words for the operator.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Says what its configuration is made from, so that the admin API can reload it.
    pub fn set_source(&self, source: LoadOptions) {
        self.broker.source.set(source).ok();
    }

    /// Reloads its configuration while it runs.
    #[must_use]
    pub fn reloader(&self) -> Reloader {
        Reloader::new(Arc::clone(&self.broker))
    }

    /// What writes the flight recorder to files.
    pub fn dumps(&self) -> &Arc<Dumps> {
        &self.broker.dumps
    }

    /// Serves until `shutdown` is ready, then drains.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self { listeners, admin, broker, .. } = self;
        let admin = admin.serve(&broker, listeners.urls.clone()).unwrap_or_else(|error| {
            tracing::error!(%error, "there is no admin listener");
            None
        });
        listeners.serve(&broker);
        broker.started.cancel();
        broker.service_manager.ready();
        broker.watch_for_service_manager();
        broker.watch_certificate();
        broker.serve_reloads();
        let served_and_drained = async {
            tokio::select! {
                () = shutdown => {}
                () = broker.drain_asked.cancelled() => {}
            }
            broker.drain().await;
            if let Some(admin) = admin {
                spawn_blocking(|| admin.end()).await.ok();
            }
        };
        tokio::select! {
            () = served_and_drained => {}
            () = tick(&broker.router) => {}
            () = bound_queues(&broker) => {}
        }
    }
}

impl Broker {
    /// Keeps the certificate in use up to date, if there is one, in a task of its own.
    fn watch_certificate(&self) {
        if let Some(tls) = self.tls() {
            self.tasks.spawn_on(Tls::watch(Arc::downgrade(&tls), self.draining.clone()), &self.runtime);
        }
    }

    /// What the listeners that encrypt use, if there are any.
    fn tls(&self) -> Option<Arc<Tls>> {
        self.in_force.get().tls.clone()
    }

    /// Where the tasks of adapters run.
    fn running(&self) -> Running<'_> {
        let Self { router, handlers: tasks, handlers_stop: stop, draining, .. } = self;
        let cluster = self.cluster.as_ref();
        Running { router, cluster, tasks, stop, draining }
    }

    /// Feeds the watchdog of the service manager until the handlers end, in a task of the runtime that serves the sessions.
    fn watch_for_service_manager(self: &Arc<Self>) {
        let broker = Arc::clone(self);
        self.handlers.spawn(async move {
            tokio::select! {
                () = broker.service_manager.watch(&broker.router) => {}
                () = broker.handlers_stop.cancelled() => {}
            }
        });
    }
}

/// What an operator should know of the certificate of `[tls]`: that it expires soon, for example. Blocks on the disk.
#[must_use]
pub fn certificate_warnings(now: SystemTime, config: &Config) -> Vec<String> {
    if config.uses_tls() { tls::warnings(now, &config.tls) } else { Vec::new() }
}

/// The time of day.
#[expect(clippy::disallowed_methods, reason = "the calendar enters here")]
fn calendar() -> SystemTime {
    SystemTime::now()
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

/// Ends sessions while the queues of all together use too much memory, the longest queue first. Never ready.
async fn bound_queues(broker: &Broker) {
    let memory = broker.settings.memory();
    loop {
        memory.exceeded().await;
        let is_exceeded = || broker.router.is_memory_exceeded(memory);
        while is_exceeded() && broker.router.end_longest_queue() {
            // What the session's task was about to write is released when that ends.
            if is_exceeded() {
                timeout(RELEASE_TIME, broker.ended.cancelled()).await.ok();
            }
        }
    }
}
