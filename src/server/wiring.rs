//! The handlers in this process and what proves users. The only place that names them.

use std::io;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;
use secrecy::SecretString;

use super::committer::{self, Committer};
use super::issuers::{self, Known, Opened};
use super::key_fetch::KeyFetch;
use super::org::{NextOrg, OrgParts, Running};
use super::trial::Unusable;
use crate::adapter::Handler;
use crate::adapter::host::{self, Bounds, Host};
use crate::audit::{Audit, Rotation};
use crate::auth::{Chain, Open, Verifier};
use crate::config::{AuthMode, Config, Store};
use crate::credentials::{Directory, DirectoryError, FetchCredentials, OldRecords, Settings, Source};
use crate::http::BreakerState;
use crate::router::{CommitQueue, Declared, ReadQueue, Router};
use crate::salesforce::{self, SalesforceVerifier, SetupError, SetupErrors, Snapshot, TopicSnapshot};
use crate::store::history::{HistoryFile, HistorySettings};
use crate::store::{FolderLock, KeySource, StoreError};
use crate::telemetry::metrics::Metrics;
use wire::{ErrorCode, Refusal};

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
    fetch: Arc<dyn Handler>,
    /// The handlers that were started.
    hosts: Mutex<Vec<Host>>,
    audit: Arc<Audit>,
    /// The credential store, if it is the directory.
    directory: Option<Arc<Directory>>,
    org: OrgParts,
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
        let directory = match config.credentials.store {
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
                Some(Arc::new(directory))
            }
            Store::Salesforce => None,
        };
        let audit = Arc::new(match config.credentials.audit_required {
            true => Audit::open(&config.data_dir, Rotation::default())?,
            false => Audit::open_optional(&config.data_dir, Rotation::default())?,
        });
        let org = OrgParts::open(config, &metrics.salesforce, &audit)?;
        let source: Arc<dyn Source> = match &directory {
            Some(directory) => Arc::clone(directory) as _,
            None => org.org(config)?,
        };
        let fetch = Arc::new(FetchCredentials::new(source, Arc::clone(&audit)));
        Ok(Self { fetch, hosts: Mutex::default(), audit, directory, org, credentials_key, folder })
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
        let settings = history_settings(config, self.credentials_key.clone());
        let file = HistoryFile::open(&settings, committer::limits(config), &self.folder, &mut |it| loading.add(it))?;
        drop(loading);
        Ok((router, Some(Committing { queue, reads, file })))
    }

    fn handlers(&self) -> impl Iterator<Item = &Arc<dyn Handler>> {
        std::iter::once(&self.fetch).chain(self.org.handlers())
    }

    /// What the router has to know about them before anybody asks.
    pub(super) fn declared(&self, config: &Config) -> Declared {
        let on = self.handlers().map(host::declaration).filter(|it| !it.serves.is_empty()).collect();
        Declared { on, off: salesforce::switched_off(&config.salesforce) }
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
        let Some(stats) = self.org.stats() else { return true };
        let credentials = stats.breakers.get(CREDENTIALS_BREAKER).copied().unwrap_or(BreakerState::Closed);
        [stats.breaker, credentials].iter().all(|state| *state == BreakerState::Closed)
    }

    /// How many requests wait for each handler.
    pub(super) fn waiting(&self) -> Vec<(String, usize)> {
        let hosts = self.hosts.lock();
        let waiting = hosts.iter().map(|host| (host.handler(), host.waiting()));
        // One that is switched off may still have some.
        let listed = waiting.filter(|(handler, waiting)| *waiting > 0 || !handler.serves().is_empty());
        listed.map(|(handler, waiting)| (handler.name().to_owned(), waiting)).collect()
    }

    /// The counts of the org, if it is used.
    pub(super) fn org(&self) -> Option<Snapshot> {
        self.org.stats()
    }

    /// The topics whose events are published.
    pub(super) fn topics(&self) -> Vec<TopicSnapshot> {
        self.org.topics()
    }

    /// How many look-ups in the credential store have failed.
    pub(super) fn failed_look_ups(&self) -> u64 {
        self.directory.as_ref().map_or(0, |directory| directory.failures())
    }

    /// Opens and reads what another configuration of the org needs. Nothing of it is in force. `changed_files`: the keys whose
    /// files have another content. `None`: nothing of the org is another one. A new login costs the org, so it is left alone
    /// then, and if only objects, variables, creations or topics are.
    ///
    /// # Errors
    /// A file cannot be used.
    pub(super) fn prepare_org(
        &self,
        old: &Config,
        new: &Config,
        changed_files: &[String],
    ) -> Result<Option<NextOrg>, Unusable> {
        let is_same_login = !changed_files.iter().any(|key| key.starts_with("salesforce."));
        if is_same_login && old.salesforce == new.salesforce {
            return Ok(None);
        }
        let is_same = is_same_login && old.salesforce.calls_like(&new.salesforce);
        self.org.prepare(new, is_same).map(Some).map_err(|error| Unusable::from(&error))
    }

    /// Puts another configuration of the org in force. Requests that a handler was given are answered, also if it serves
    /// nothing now.
    pub(super) fn replace_org(&self, next: NextOrg, config: &Config, running: Running<'_>) {
        let NextOrg { calls, topics } = next;
        self.org.replace_calls(config, calls);
        self.org.follow_nodes(running.router);
        let mut hosts = self.hosts.lock();
        hosts.iter().for_each(Host::unsubscribe);
        running.router.declare(self.declared(config));
        for host in &*hosts {
            note_refused(host.subscribe());
        }
        let is_new = |handler: &&Arc<dyn Handler>| !hosts.iter().any(|host| Arc::ptr_eq(host.handler(), handler));
        let new: Vec<_> = self.handlers().filter(is_new).cloned().collect();
        for handler in new {
            note_refused(attach(&mut hosts, handler, config, running));
        }
        drop(hosts);
        self.org.replace_topics(topics, running);
    }

    /// Puts the bounds of another configuration in force.
    pub(super) fn replace_bounds(&self, config: &Config) {
        for host in &*self.hosts.lock() {
            host.set_bounds(bounds(config));
        }
    }

    /// Attaches the handlers to the router, and publishes the events of the org.
    pub(super) fn start(&self, config: &Config, running: Running<'_>) -> Result<(), AdapterError> {
        self.org.follow_nodes(running.router);
        let mut hosts = self.hosts.lock();
        for handler in self.handlers() {
            attach(&mut hosts, Arc::clone(handler), config, running)?;
        }
        drop(hosts);
        self.org.publish_events(running);
        Ok(())
    }
}

/// Attaches a handler to the router. It answers in tasks of its own.
fn attach(
    hosts: &mut Vec<Host>,
    handler: Arc<dyn Handler>,
    config: &Config,
    running: Running<'_>,
) -> Result<(), Refusal> {
    let host = Host::attach(Arc::clone(running.router), handler, bounds(config))?;
    hosts.push(host.clone());
    running.tasks.spawn(host.run(running.tasks.clone(), running.stop.clone()));
    Ok(())
}

/// Logs that the router has refused what a handler serves, which is a defect of the broker, unless the broker ends.
fn note_refused(subscribed: Result<(), Refusal>) {
    match subscribed {
        Ok(()) => {}
        Err(refusal) if refusal.code == ErrorCode::NotRegistered => {}
        Err(refusal) => tracing::error!(%refusal, "an adapter was refused"),
    }
}

/// Where the history is, and its key.
pub(crate) fn history_settings(config: &Config, credentials_key: Option<SecretString>) -> HistorySettings {
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
