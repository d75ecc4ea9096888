//! The handlers in this process and what proves users. The only place that names them.

use std::io;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::committer::{self, Committer};
use super::issuers::{self, Known, Opened};
use super::key_fetch::KeyFetch;
use super::trial::Unusable;
use crate::adapter::Handler;
use crate::adapter::host::{self, Bounds, Host};
use crate::audit::{Audit, Rotation};
use crate::auth::{Chain, Open, Verifier};
use crate::config::{AuthMode, Config, Salesforce, Store};
use crate::credentials::{Directory, DirectoryError, FetchCredentials, OldRecords, Settings, Source};
use crate::http::BreakerState;
use crate::router::{CommitQueue, Declared, ReadQueue, Router, SwitchedOff};
use crate::salesforce::{
    self, CurrentOrg, Events, NextEvents, Org, SalesforceVerifier, SetupError, SetupErrors, Snapshot, Writers,
};
use crate::store::history::{HistoryFile, HistorySettings};
use crate::store::{FolderLock, KeySource, StoreError};
use crate::telemetry::metrics::Metrics;
use wire::Refusal;

/// The breaker of look-ups of credentials, among those of an org.
const CREDENTIALS_BREAKER: &str = "credentials";

/// Why the handlers could not be started.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// The data folder cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The credential store cannot be opened.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// Salesforce cannot be called.
    #[error(transparent)]
    Org(#[from] SetupError),
    /// The audit log cannot be opened.
    #[error(transparent)]
    Audit(#[from] io::Error),
    /// The router refused a handler, which is a defect of the broker.
    #[error("an adapter was refused: {0}")]
    Refused(#[from] Refusal),
}

/// The handlers, with everything that they need.
pub(super) struct Adapters {
    handlers: Vec<Arc<dyn Handler>>,
    off: Vec<SwitchedOff>,
    bounds: Bounds,
    /// The handlers that were started.
    hosts: Mutex<Vec<Host>>,
    audit: Arc<Audit>,
    /// The credential store, if it is the directory.
    directory: Option<Arc<Directory>>,
    /// The org, if anything uses it.
    org: Option<Arc<CurrentOrg>>,
    /// The subscriptions to events of an org.
    events: Option<Events>,
    /// The key that seals the history, if it is in the environment.
    credentials_key: Option<SecretString>,
    /// Keeps a second broker out of the data folder.
    folder: FolderLock,
}

impl Adapters {
    /// Opens what the handlers need. Blocks on the disk.
    pub(super) fn open(
        config: &Config,
        credentials_key: Option<SecretString>,
        metrics: &Metrics,
    ) -> Result<Self, AdapterError> {
        let folder = FolderLock::take(&config.data_dir)?;
        let mut opened = None;
        let mut org = || match &opened {
            Some(org) => Ok(Arc::clone(org)),
            None => {
                let org = Org::open(&config.salesforce)?.with_calls(Arc::clone(&metrics.salesforce));
                Ok::<_, SetupError>(Arc::clone(opened.insert(Arc::new(CurrentOrg::from(Arc::new(org))))))
            }
        };
        let mut store = None;
        let source: Arc<dyn Source> = match config.credentials.store {
            Store::Directory => {
                let directory = Directory::open(&Settings::new(config, credentials_key.clone()))?;
                // Its records were read by `trial`, so that damage is found at start rather than by an agent.
                match directory.erase_old_records_at_start(&folder) {
                    Ok(OldRecords::Erased | OldRecords::Kept) => {}
                    Ok(OldRecords::LeftOnDisk(error)) => tracing::error!(
                        %error,
                        "replaced and removed credentials are not in the store any more, but blocks of its old file on the \
                         disk have them, encrypted, until they are used again"
                    ),
                    Err(error) => tracing::error!(
                        %error,
                        "replaced and removed credentials are still in the store, encrypted; the next start tries to erase \
                         them again"
                    ),
                }
                Arc::clone(store.insert(Arc::new(directory))) as _
            }
            Store::Salesforce => org()?,
        };
        let audit = Arc::new(match config.credentials.audit_required {
            true => Audit::open(&config.data_dir, Rotation::default())?,
            false => Audit::open_optional(&config.data_dir, Rotation::default())?,
        });
        let mut handlers: Vec<Arc<dyn Handler>> = vec![Arc::new(FetchCredentials::new(source, Arc::clone(&audit)))];
        if !config.salesforce.objects.is_empty() {
            handlers.extend_from_slice(Writers::new(&org()?, &config.salesforce, &audit).handlers());
        }
        let events = match config.salesforce.events.topics.is_empty() {
            true => None,
            false => Some(Events::open(org()?, &config.salesforce, &config.data_dir)?),
        };
        let (bounds, org) = (bounds(config), opened);
        let off = salesforce::switched_off(&config.salesforce);
        Ok(Self {
            handlers,
            off,
            bounds,
            hosts: Mutex::default(),
            audit,
            directory: store,
            org,
            events,
            credentials_key,
            folder,
        })
    }

    /// Opens the history, if a channel is durable, and lets the router take over what it has. Blocks on the disk.
    pub(super) fn open_history(
        &self,
        now: Instant,
        wall: SystemTime,
        router: Router,
        config: &Config,
    ) -> Result<(Router, Option<Committing>), AdapterError> {
        if !config.keeps_history() {
            return Ok((router, None));
        }
        let (router, queue) = router.with_commits();
        let (router, reads) = router.with_disk_reads();
        let mut loading = router.loading(now, wall);
        let settings = history(config, self.credentials_key.clone());
        let file = HistoryFile::open(&settings, committer::limits(config), &self.folder, &mut |it| loading.add(it))?;
        drop(loading);
        Ok((router, Some(Committing { queue, reads, file })))
    }

    /// What the router has to know about them before anybody asks.
    pub(super) fn declared(&mut self) -> Declared {
        Declared { on: self.handlers.iter().map(host::declaration).collect(), off: std::mem::take(&mut self.off) }
    }

    /// The audit log.
    pub(super) fn audit(&self) -> Arc<Audit> {
        Arc::clone(&self.audit)
    }

    /// Returns whether the credential store can be read. Blocks on the disk.
    pub(super) fn store_can_be_read(&self) -> bool {
        // No user has this name.
        self.directory.as_ref().is_none_or(|directory| directory.get("").is_ok())
    }

    /// Returns whether Salesforce is called: no breaker that concerns all of its calls, or those for credentials, is open.
    pub(super) fn salesforce_is_called(&self) -> bool {
        let Some(stats) = self.org.as_ref().map(|org| org.stats()) else { return true };
        let credentials = stats.breakers.get(CREDENTIALS_BREAKER).copied().unwrap_or(BreakerState::Closed);
        [stats.breaker, credentials].iter().all(|state| *state == BreakerState::Closed)
    }

    /// How many requests wait for each handler.
    pub(super) fn waiting(&self) -> Vec<(String, usize)> {
        self.hosts.lock().iter().map(|host| (host.handler().name().to_owned(), host.waiting())).collect()
    }

    /// The counts of the org, if it is used.
    pub(super) fn org(&self) -> Option<Snapshot> {
        self.org.as_ref().map(|org| org.stats())
    }

    /// How many look-ups in the credential store have failed.
    pub(super) fn failed_look_ups(&self) -> u64 {
        self.directory.as_ref().map_or(0, |directory| directory.failures())
    }

    /// Publishes the events of an org until `stop`, in tasks on `tasks`.
    pub(super) fn publish_events(&self, router: &Arc<Router>, tasks: &TaskTracker, stop: &CancellationToken) {
        if let Some(events) = &self.events {
            events.start(router, tasks, stop);
        }
    }

    /// Reads what another configuration of the org names. Nothing of it is in force.
    ///
    /// # Errors
    /// A file cannot be used.
    pub(super) fn prepare_org(&self, config: &Config) -> Result<NextOrg, Unusable> {
        let org = self.org.as_ref().map(|org| org.prepare(&config.salesforce)).transpose();
        let events = self.events.as_ref().map(|_| Events::prepare(&config.salesforce, false)).transpose();
        match (org, events) {
            (Ok(org), Ok(events)) => Ok(NextOrg { org, events }),
            (Err(error), _) | (_, Err(error)) => Err(Unusable::from(&error)),
        }
    }

    /// Puts another configuration of the org in force.
    pub(super) fn replace_org(&self, next: NextOrg) {
        if let (Some(current), Some(org)) = (&self.org, next.org) {
            current.replace(org);
        }
        if let (Some(current), Some(events)) = (&self.events, next.events) {
            current.replace(events);
        }
    }

    /// Puts the bounds of another configuration in force.
    pub(super) fn replace_bounds(&self, config: &Config) {
        for host in &*self.hosts.lock() {
            host.set_bounds(bounds(config));
        }
    }

    /// Attaches the handlers to the router. They answer until `stop`, in tasks on `tasks`.
    pub(super) fn start(
        &self,
        router: &Arc<Router>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<(), AdapterError> {
        for handler in &self.handlers {
            let host = Host::attach(Arc::clone(router), Arc::clone(handler), self.bounds)?;
            self.hosts.lock().push(host.clone());
            tasks.spawn(host.run(tasks.clone(), stop.clone()));
        }
        Ok(())
    }
}

/// An org with settings that are about to be in force.
pub(super) struct NextOrg {
    org: Option<Arc<Org>>,
    events: Option<NextEvents>,
}

/// Where the history is, and its key.
pub(super) fn history(config: &Config, credentials_key: Option<SecretString>) -> HistorySettings {
    let key = KeySource::new(config.credentials.key_file.clone(), credentials_key);
    HistorySettings { data_dir: config.data_dir.clone(), key }
}

/// An open history, and the queues of what is to be written to it, and read.
pub(super) struct Committing {
    queue: CommitQueue,
    reads: ReadQueue,
    file: HistoryFile,
}

impl Committing {
    /// Starts the threads that write and read.
    pub(super) fn start(self, router: &Arc<Router>, config: &Config) -> io::Result<Committer> {
        Committer::start(router, (self.queue, self.reads), self.file, config)
    }
}

fn bounds(config: &Config) -> Bounds {
    let requests = &config.requests;
    Bounds { in_flight: requests.adapter_in_flight, waiting: requests.adapter_waiting }
}

/// Whether the broker uses the org of `[salesforce]`.
pub(super) fn needs_org(config: &Config) -> bool {
    let Salesforce { objects, events, .. } = &config.salesforce;
    config.credentials.store == Store::Salesforce || !objects.is_empty() || !events.topics.is_empty()
}

/// What proves users, and the tasks that it needs.
pub(super) struct Proving {
    pub(super) verifier: Box<dyn Verifier>,
    /// The issuers of JWTs.
    pub(super) issuers: Vec<Known>,
    /// What fetches keys of issuers.
    pub(super) fetches: Vec<KeyFetch>,
}

/// What proves users, as the configuration says. `before` has the issuers before a reload.
///
/// # Errors
/// Every file that cannot be used.
pub(super) fn verifier(config: &Config, before: &[Known], metrics: &Metrics) -> Result<Proving, Vec<Unusable>> {
    if config.auth == AuthMode::Open {
        return Ok(Proving { verifier: Box::new(Open), issuers: Vec::new(), fetches: Vec::new() });
    }
    let salesforce = match config.proofs.is_empty() {
        true => Ok(None),
        false => SalesforceVerifier::open(config).map(Some),
    };
    match (issuers::open(config, before), salesforce) {
        (Ok(Opened { issuers, known, fetches }), Ok(salesforce)) => {
            for issuer in &config.issuers {
                metrics.add_issuer(&issuer.name);
            }
            let salesforce = salesforce.map(|it| Box::new(it.with_calls(&metrics.salesforce)) as Box<dyn Verifier>);
            let chain = Chain::new(config.token_table(), issuers, salesforce);
            let verifier = Box::new(chain.counting(&metrics.authentications));
            Ok(Proving { verifier, issuers: known, fetches })
        }
        (issuers, salesforce) => {
            let salesforce = salesforce.err();
            let salesforce = salesforce.iter().flat_map(SetupErrors::list).map(Unusable::from);
            Err(issuers.err().unwrap_or_default().into_iter().chain(salesforce).collect())
        }
    }
}
