//! [`Cluster`]: this node's part in a cluster (docs/cluster.md). A thread of its own talks to NATS, so that a busy broker
//! does not let its beats wait.
//!
//! `connect` connects to NATS, and `nats` is the only place that waits for it afterwards. `plane` has the links, which the router gives messages to.
//! `jetstream` is what the cluster keeps, on a thread of its own; `leases` are those of exclusive sources, `topics` those of
//! topics of Salesforce, `retained` has the retained values, `history` the logs. `check` says whether NATS is set up for nodes, `joining` is the start of a node, until it may accept
//! sessions; `digest` is what has to be the same on all nodes, `reload` reads the configuration of all again, `clock` is a
//! clock that does not stop while the machine sleeps. `adopt` moves what one broker kept into the cluster.

pub mod adopt;
pub mod check;
mod clock;
mod connect;
mod digest;
mod history;
mod jetstream;
mod joining;
mod leases;
mod nats;
mod plane;
mod reload;
mod retained;
mod topics;

use std::io;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::cluster::{Incarnation, Keys, KeysError, LeaseTimes, NodeId, PeerState, Versions};
use crate::config::{self, Config};
use crate::router::{Backplane, CommitQueue, ReadQueue, Router};
use crate::salesforce::TopicKeeper;
use crate::store::read_group_secret;
use crate::telemetry::metrics::ClusterGauges;
use history::History;
use jetstream::{JetStream, StorageError};
use leases::{LeaseDesk, Leasing};
use plane::Plane;
use retained::{Bucket, Storing};
use topics::Topics;

/// How long NATS may take to be reached at start.
pub(super) const NATS_WAIT: Duration = Duration::from_secs(10);

/// How long the end of the broker waits for the last messages to be acknowledged.
const LAST_MESSAGES: Duration = Duration::from_secs(2);

/// Why a node cannot join its cluster.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// NATS cannot be reached, or accepts no login.
    #[error("no NATS server of cluster.servers can be used ({servers}): {error}")]
    Unreachable {
        /// The servers that were tried.
        servers: String,
        /// What went wrong last.
        error: String,
    },
    /// The configuration is not that of the other nodes, or a file of it cannot be used.
    #[error("{0}")]
    Refused(String),
    /// The system started no thread.
    #[error("the thread of the cluster could not be started")]
    Thread(#[from] io::Error),
}

impl From<KeysError> for ClusterError {
    fn from(error: KeysError) -> Self {
        Self::Refused(format!("cluster.key_file: {error}"))
    }
}

/// This node's part in a cluster.
pub(super) struct Cluster {
    plane: Arc<Plane>,
    storage: Arc<JetStream>,
    history: History,
    leases: Arc<LeaseDesk>,
    topics: Arc<Topics>,
    router: Arc<Router>,
    /// Where the futures of the storage run.
    storage_runtime: Mutex<Option<Runtime>>,
    stop: CancellationToken,
    thread: Mutex<Option<JoinHandle<()>>>,
    name: String,
}

/// The cluster as operators see it.
pub(super) struct View {
    /// `cluster.name`
    pub(super) name: String,
    /// This node's name.
    pub(super) node: String,
    /// This node's incarnation.
    pub(super) incarnation: Incarnation,
    /// Whether NATS is connected, and the server that is.
    pub(super) nats: Option<String>,
    /// Whether this node receives its own beats.
    pub(super) is_cut_off: bool,
    /// The version of the link protocol that is spoken.
    pub(super) version: u8,
    /// The other nodes, by name.
    pub(super) peers: Vec<PeerRow>,
}

/// Another node.
pub(super) struct PeerRow {
    pub(super) node: String,
    pub(super) incarnation: Incarnation,
    pub(super) state: PeerState,
    pub(super) live: bool,
    /// How long ago something of it arrived.
    pub(super) silent_for: Duration,
    pub(super) window_bytes: usize,
    pub(super) versions: Versions,
}

/// A node that is not connected yet.
pub(super) struct Unjoined {
    plane: Arc<Plane>,
    leases: Arc<LeaseDesk>,
    keys: Keys,
    config: Config,
    /// The keys of resume tokens.
    token_keys: Vec<Zeroizing<[u8; 32]>>,
}

impl Unjoined {
    /// Reads the key file, and makes the links. Blocks on the disk.
    ///
    /// # Errors
    /// [`ClusterError::Refused`].
    pub(super) fn open(config: &Config) -> Result<Self, ClusterError> {
        let settings = &config.cluster;
        let keys = read_keys(settings)?;
        let node = NodeId::new(&match settings.node.is_empty() {
            true => own_name(),
            false => settings.node.clone(),
        });
        let node = node.ok_or_else(|| ClusterError::Refused("cluster.node is not a name".to_owned()))?;
        let token_keys = keys.derive("switchboard cluster: resume tokens");
        let plane = Plane::new(settings, node, keys.clone(), digest::of(config));
        Ok(Self { plane: Arc::new(plane), leases: Arc::default(), keys, config: config.clone(), token_keys })
    }

    /// Makes a router a node of the cluster.
    pub(super) fn connect(&self, router: Router) -> Router {
        let plane: Arc<dyn Backplane> = Arc::clone(&self.plane) as _;
        let router = router.with_backplane(plane).with_node(self.plane.node().as_str(), &self.token_keys);
        router.with_leases(Arc::clone(&self.leases) as _)
    }

    /// Connects, and waits until this node knows what every live one announces, and has all retained values. Blocks for some
    /// seconds. `queue`: the events that wait for the storage.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub(super) fn join(
        self,
        router: &Arc<Router>,
        (events, reads): (CommitQueue, ReadQueue),
    ) -> Result<Cluster, ClusterError> {
        let Self { plane, leases, keys, config, .. } = self;
        let stop = CancellationToken::new();
        let (name, servers) = (config.cluster.name.clone(), config.cluster.servers.join(", "));
        let storage_runtime =
            Builder::new_multi_thread().worker_threads(1).thread_name("jetstream").enable_all().build()?;
        let (joined, outcome) = mpsc::sync_channel(1);
        let thread = {
            let node = nats::Joiner { plane: Arc::clone(&plane), router: Arc::clone(router), keys, config };
            let (stop, storage) = (stop.clone(), storage_runtime.handle().clone());
            let run = move || match Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime.block_on(nats::run(&node, &storage, &stop, &joined)),
                Err(error) => drop(joined.send(Err(ClusterError::Thread(error)))),
            };
            thread::Builder::new().name("cluster".to_owned()).spawn(run)?
        };
        let ended = || ClusterError::Refused("the thread of the cluster has ended".to_owned());
        let outcome = outcome.recv().map_err(|_| ended()).flatten();
        let storage = match outcome {
            Ok(storage) => storage,
            Err(error) => {
                // The caller may be a task.
                storage_runtime.shutdown_background();
                return Err(error);
            }
        };
        let (read, values) = mpsc::sync_channel(1);
        // What is for no log.
        let queue = CommitQueue::default();
        let bucket = Arc::new(Bucket::new(Arc::clone(&storage), Arc::clone(router)));
        let storing = Storing { queue: queue.clone(), bucket: Arc::clone(&bucket) };
        storage_runtime.spawn(storing.run(read));
        let values = values.recv().map_err(|_| ended());
        if let Err(error) = values.and_then(|outcome| outcome.map_err(|error| unread(&servers, &error))) {
            stop.cancel();
            storage_runtime.shutdown_background();
            return Err(error);
        }
        let leasing = Leasing {
            desk: Arc::clone(&leases),
            storage: Arc::clone(&storage),
            router: Arc::clone(router),
            plane: Arc::clone(&plane),
            times: LeaseTimes::default(),
        };
        storage_runtime.spawn(leasing.run());
        let topics = Arc::new(Topics::new(Arc::clone(&storage), Arc::clone(&plane), LeaseTimes::default()));
        let (storage_runtime, thread) = (Mutex::new(Some(storage_runtime)), Mutex::new(Some(thread)));
        let history = History::start(router, &storage, (events, reads), (queue, bucket))?;
        let router = Arc::clone(router);
        Ok(Cluster { plane, storage, history, leases, topics, router, storage_runtime, stop, thread, name })
    }
}

impl Cluster {
    /// This node's name.
    pub(super) fn node(&self) -> &str {
        self.plane.node().as_str()
    }

    /// The cluster, as operators see it.
    pub(super) fn view(&self) -> View {
        self.plane.view(&self.name)
    }

    /// Whether NATS is connected, and this node receives its own beats.
    pub(super) fn is_well(&self) -> bool {
        self.plane.is_well()
    }

    /// What says which node reads a topic of Salesforce.
    pub(super) fn topics(&self) -> Arc<dyn TopicKeeper> {
        Arc::clone(&self.topics) as _
    }

    /// Says from now on that this is what all nodes have in common.
    pub(super) fn digest_changed(&self, digest: Vec<u8>) {
        self.plane.digest_changed(digest);
    }

    /// What metrics show of the cluster.
    pub(super) fn gauges(&self) -> ClusterGauges {
        let gauges = self.plane.gauges();
        ClusterGauges { unopened: gauges.unopened + self.storage.unopened(), ..gauges }
    }

    /// How many reads and writes of the storage failed.
    pub(super) fn storage_errors(&self) -> u64 {
        self.storage.failed()
    }

    /// Leaves the cluster, when what was sent is acknowledged. Blocks, but not for long.
    pub(super) fn stop(&self) {
        self.history.stop();
        let until = self.plane.now() + LAST_MESSAGES;
        self.router.end_commits();
        self.leases.release_all();
        self.topics.release_all();
        let is_kept = || self.leases.is_idle() && self.topics.is_idle();
        let waits = || self.router.uncommitted() > 0 || !is_kept() || self.plane.has_unacknowledged();
        while waits() && self.plane.now() < until {
            thread::sleep(Duration::from_millis(5));
        }
        self.stop.cancel();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the cluster has failed");
        }
        if let Some(runtime) = self.storage_runtime.lock().take() {
            runtime.shutdown_background();
        }
    }
}

/// What has to be the same on all nodes, of the configuration of a node; empty if it is none.
pub(super) fn digest_of(config: &Config) -> Vec<u8> {
    if config.cluster.is_on() { digest::of(config) } else { Vec::new() }
}

/// The first key that differs between two configurations of a node and has to be the same on all nodes.
pub(super) fn changed_for_all(old: &Config, new: &Config) -> Option<String> {
    if !old.cluster.is_on() {
        return None;
    }
    digest::difference(&digest::of(old), &digest::of(new))
}

fn unread(servers: &str, error: &StorageError) -> ClusterError {
    let error = format!("the retained values cannot be read from JetStream: {error}");
    ClusterError::Unreachable { servers: servers.to_owned(), error }
}

fn read_keys(settings: &config::Cluster) -> Result<Keys, ClusterError> {
    let file =
        settings.key_file.as_deref().ok_or_else(|| ClusterError::Refused("cluster.key_file is missing".into()))?;
    let text = read_group_secret(file)
        .map_err(|error| ClusterError::Refused(format!("cluster.key_file: {}: {error}", file.display())))?;
    Ok(Keys::parse(&text)?)
}

/// The host's name up to a dot, and a random part: several brokers can run on one host.
fn own_name() -> String {
    let host = host_name();
    let plain: String =
        host.split('.').next().unwrap_or_default().chars().filter(|it| is_plain(*it)).take(50).collect();
    let random = hex::encode(rand::random::<[u8; 3]>());
    if plain.is_empty() { format!("node-{random}") } else { format!("{plain}-{random}") }
}

fn is_plain(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '-' | '_')
}

#[cfg(unix)]
fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(not(unix))]
fn host_name() -> String {
    std::env::var("COMPUTERNAME").unwrap_or_default()
}

/// The time of day, `ago` before now.
#[expect(clippy::disallowed_methods, reason = "the calendar enters here")]
fn date(ago: Duration) -> SystemTime {
    SystemTime::now() - ago
}
