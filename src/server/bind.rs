//! [`Server::bind`]: opens everything that a broker needs, or says why it cannot start.

use std::io;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use secrecy::SecretString;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admin::{NotOpened, OwnToken};
use super::admission::ConnectionLimit;
use super::cluster::{ClusterError, Unjoined};
use super::in_force::{InForce, Replaceable};
use super::inherited::{InheritError, Inherited};
use super::listener::Descriptors;
use super::listeners::Listeners;
use super::over_http::Applications;
use super::service_manager::ServiceManager;
use super::trial::UnusableList;
use super::wiring::{AdapterError, Adapters};
use super::{Broker, Server, admin, calendar, trial};
use crate::config::{Config, ListenAddress};
use crate::connection::{Admission, Settings, Shutdown};
use crate::router::{Ids, Policy, Router};
use crate::telemetry::LogLimit;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::recorder::{Dumps, Recorder};

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
}
