//! [`Server`]: listeners, the WebSocket handshake, the drain. The room that wires everything below together.
//!
//! `bind` opens what a start needs. `cluster` is this node's part in a cluster. `committer` writes the events of durable
//! channels, and `history_reader` reads them. `admin` is the admin API. `listener` accepts and serves connections, `admission`
//! counts them, `handshake` decides who may connect (`names` knows hosts and origins, `same_user` operating-system users,
//! `tokens` where a token may be, `upgrade` RFC 6455), `forwarded` reads the header of a proxy, `refusal` is what it answers
//! then, `over_http` takes messages without a WebSocket (`problem` is an error for programs), `gauges` is what metrics say of
//! the present, `doctor` finds what keeps a page in a browser away, `drain` ends the broker, `service_manager` tells systemd
//! how it is, `inherited` has listeners that systemd has opened, `wiring` has the handlers in this process (`org` those that
//! talk to Salesforce), `issuers` the keys that sign JWTs (`key_fetch` fetches them), `reload` replaces what a new
//! configuration changes (`key_files` knows which files have another content), `trial` opens everything that the broker needs
//! and changes nothing. Only `over_http` knows an envelope.

mod admin;
mod admission;
mod bind;
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
use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use hyper::StatusCode;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::bind::BindError;
pub use self::cluster::{ClusterError, adopt as cluster_adopt, check as cluster_check};
pub use self::forwarded::client_address;
pub use self::inherited::{InheritError, Inherited};
pub use self::reload::{How, ReloadError, Reloaded, Reloader};
pub use self::trial::{Unusable, UnusableList, try_config};
pub use self::wiring::AdapterError;
pub(crate) use self::wiring::history_settings;
pub use crate::router::explain;

use self::admin::OwnToken;
use self::admission::ConnectionLimit;
use self::cluster::Cluster;
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
use crate::config::{Config, LoadOptions};
use crate::connection::{Admission, Settings, Shutdown};
use crate::router::Router;
use crate::telemetry::LogLimit;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::recorder::Dumps;

/// How long a session gets to release the memory of its queue before the next one is ended too.
const RELEASE_TIME: Duration = Duration::from_millis(20);

/// A broker with its listeners open.
pub struct Server {
    listeners: Listeners,
    admin: admin::Listeners,
    warnings: Vec<String>,
    broker: Arc<Broker>,
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
