//! The handlers in the process: which there are, and when they begin and end. The only place that names them.

use std::io;
use std::sync::Arc;

use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::adapter::Handler;
use crate::adapter::host::{self, Host};
use crate::config::{Config, Store};
use crate::credentials::{Audit, Directory, DirectoryError, FetchCredentials, Rotation, Settings, Source};
use crate::router::{Declaration, Router};
use crate::salesforce::{self, Events, Org, SetupError};
use crate::store::{FolderLock, StoreError};
use wire::Refusal;

/// Why the handlers could not begin.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// The data folder.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The credential store.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The way to Salesforce.
    #[error(transparent)]
    Org(#[from] SetupError),
    /// The audit record.
    #[error(transparent)]
    Audit(#[from] io::Error),
    /// The router, which is a fault of ours.
    #[error("an adapter was refused: {0}")]
    Refused(#[from] Refusal),
}

/// The handlers, open.
pub(super) struct Adapters {
    handlers: Vec<Arc<dyn Handler>>,
    /// What is heard from an org.
    events: Option<Events>,
    /// One broker a data folder.
    _folder: FolderLock,
}

impl Adapters {
    /// Opens what they need. Blocks on the disk.
    pub(super) fn open(config: &Config, credentials_key: Option<SecretString>) -> Result<Self, AdapterError> {
        let folder = FolderLock::take(&config.data_dir)?;
        let mut opened = None;
        let mut org = || match &opened {
            Some(org) => Ok(Arc::clone(org)),
            None => Org::open(&config.salesforce).map(|org| Arc::clone(opened.insert(Arc::new(org)))),
        };
        let source: Arc<dyn Source> = match config.credentials.store {
            Store::Directory => {
                let directory = Directory::open(&Settings::new(config, credentials_key))?;
                // Every record, so that damage is found at start rather than by an agent: a tenth of a millisecond each.
                directory.check()?;
                Arc::new(directory)
            }
            Store::Salesforce => org()?,
        };
        let audit = Audit::open(&config.data_dir, Rotation::default())?;
        let mut handlers: Vec<Arc<dyn Handler>> = vec![Arc::new(FetchCredentials::new(source, Arc::new(audit)))];
        if !config.salesforce.objects.is_empty() {
            handlers.extend(salesforce::writers(&org()?));
        }
        let events = match config.salesforce.events.topics.is_empty() {
            true => None,
            false => Some(Events::open(org()?, &config.data_dir)?),
        };
        Ok(Self { handlers, events, _folder: folder })
    }

    /// What the router has to know of them before it begins.
    pub(super) fn declarations(&self) -> Vec<Declaration> {
        self.handlers.iter().map(host::declaration).collect()
    }

    /// Hears what an org publishes, until `stop`, in tasks on `tasks`.
    pub(super) fn hear(&self, router: &Arc<Router>, tasks: &TaskTracker, stop: &CancellationToken) {
        if let Some(events) = &self.events {
            events.start(router, tasks, stop);
        }
    }

    /// Attaches them to the router; they answer until `stop`, in tasks on `tasks`.
    pub(super) fn start(
        &self,
        router: &Arc<Router>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<(), AdapterError> {
        for handler in &self.handlers {
            let host = Host::attach(Arc::clone(router), Arc::clone(handler))?;
            tasks.spawn(host.run(tasks.clone(), stop.clone()));
        }
        Ok(())
    }
}
