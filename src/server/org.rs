//! [`OrgParts`]: everything that talks to the org of `[salesforce]`, and how a reload replaces it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::cluster::Cluster;
use crate::adapter::Handler;
use crate::audit::Audit;
use crate::config::{Config, Salesforce, Store};
use crate::router::{RecordCache, Router};
use crate::salesforce::{CurrentOrg, Events, NextEvents, Org, SetupError, Snapshot, TopicSnapshot, Writers};
use crate::telemetry::metrics::SalesforceCalls;

/// What talks to the org. Each part is opened when the configuration first needs it, at start or by a reload, and stays open
/// until the broker ends: without objects and topics, it does nothing.
pub(super) struct OrgParts {
    calls: Arc<SalesforceCalls>,
    audit: Arc<Audit>,
    org: OnceLock<Arc<CurrentOrg>>,
    writers: OnceLock<Writers>,
    events: OnceLock<Events>,
    /// A configuration was put in force that does not need the org. So the org has the settings of an earlier one.
    outdated: AtomicBool,
}

/// What another configuration changes of the org. Nothing of it is in force.
pub(super) struct NextOrg {
    pub(super) calls: NextCalls,
    /// `None`: there are no topics, and there were none since the start.
    pub(super) topics: Option<NextTopics>,
}

/// How the org is called.
pub(super) enum NextCalls {
    /// As before, or not at all.
    Same,
    /// For the first time.
    Opened(Arc<CurrentOrg>),
    /// With other settings.
    Replaced(Arc<Org>),
}

/// Which events are published.
pub(super) enum NextTopics {
    /// The first ones.
    Opened(Box<Events>),
    Replaced(NextEvents),
}

/// Where the tasks of adapters run, and until when.
#[derive(Clone, Copy)]
pub(super) struct Running<'a> {
    pub(super) router: &'a Arc<Router>,
    /// Its nodes take turns with the topics.
    pub(super) cluster: Option<&'a Cluster>,
    pub(super) tasks: &'a TaskTracker,
    /// The handlers end.
    pub(super) stop: &'a CancellationToken,
    /// The drain begins: the next broker gets what an org publishes from then on.
    pub(super) draining: &'a CancellationToken,
}

/// Returns whether the broker uses the org of `[salesforce]`.
pub(super) fn needs_org(config: &Config) -> bool {
    let Salesforce { objects, events, .. } = &config.salesforce;
    config.credentials.store == Store::Salesforce || !objects.is_empty() || !events.topics.is_empty()
}

impl OrgParts {
    /// Opens what a configuration needs. Sends nothing: a broker must start even if the org is down. Blocks on the disk.
    ///
    /// # Errors
    /// A file cannot be used, or a key is missing.
    pub(super) fn open(config: &Config, calls: &Arc<SalesforceCalls>, audit: &Arc<Audit>) -> Result<Self, SetupError> {
        let parts = Self {
            calls: Arc::clone(calls),
            audit: Arc::clone(audit),
            org: OnceLock::new(),
            writers: OnceLock::new(),
            events: OnceLock::new(),
            outdated: AtomicBool::new(false),
        };
        if needs_org(config) {
            parts.org(config)?;
        }
        let next = parts.prepare(config, true)?;
        parts.replace_calls(config, next.calls);
        if let Some(NextTopics::Opened(events)) = next.topics {
            parts.events.set(*events).ok();
        }
        Ok(parts)
    }

    /// The org. Opens it if nothing has needed it yet.
    ///
    /// # Errors
    /// A file cannot be used, or a key is missing.
    pub(super) fn org(&self, config: &Config) -> Result<Arc<CurrentOrg>, SetupError> {
        match self.org.get() {
            Some(org) => Ok(Arc::clone(org)),
            None => {
                let org = self.open_org(config)?;
                Ok(Arc::clone(self.org.get_or_init(|| org)))
            }
        }
    }

    fn open_org(&self, config: &Config) -> Result<Arc<CurrentOrg>, SetupError> {
        let org = Org::open(&config.salesforce)?.with_calls(Arc::clone(&self.calls));
        Ok(Arc::new(CurrentOrg::from(Arc::new(org))))
    }

    /// Opens and reads what another configuration needs. `is_same`: calls of the org are made as before. Blocks on the disk.
    ///
    /// # Errors
    /// A file cannot be used, or a key is missing.
    pub(super) fn prepare(&self, config: &Config, is_same: bool) -> Result<NextOrg, SetupError> {
        let (salesforce, needed) = (&config.salesforce, needs_org(config));
        let is_same = is_same && !self.outdated.load(Ordering::Relaxed);
        let calls = match self.org.get() {
            // The keys that a login needs may be missing.
            _ if !needed => NextCalls::Same,
            Some(_) if is_same => NextCalls::Same,
            Some(current) => NextCalls::Replaced(current.prepare(salesforce)?),
            None => NextCalls::Opened(self.open_org(config)?),
        };
        let opened = match &calls {
            NextCalls::Opened(org) => Some(org),
            NextCalls::Same | NextCalls::Replaced(_) => self.org.get(),
        };
        let topics = match (self.events.get(), opened) {
            (Some(_), _) => Some(NextTopics::Replaced(Events::prepare(salesforce, is_same || !needed)?)),
            (None, Some(org)) if !salesforce.events.topics.is_empty() => {
                Some(NextTopics::Opened(Box::new(Events::open(Arc::clone(org), salesforce, &config.data_dir)?)))
            }
            (None, _) => None,
        };
        Ok(NextOrg { calls, topics })
    }

    /// Puts in force how the org is called, and what handlers write. They may serve other triples from then on.
    pub(super) fn replace_calls(&self, config: &Config, next: NextCalls) {
        self.outdated.store(!needs_org(config), Ordering::Relaxed);
        match next {
            NextCalls::Same => {}
            NextCalls::Opened(org) => drop(self.org.set(org)),
            NextCalls::Replaced(org) => {
                if let Some(current) = self.org.get() {
                    current.replace(org);
                }
            }
        }
        match (self.writers.get(), self.org.get()) {
            (Some(writers), _) => writers.replace(&config.salesforce),
            (None, Some(org)) if !config.salesforce.objects.is_empty() => {
                self.writers.set(Writers::new(org, &config.salesforce, &self.audit)).ok();
            }
            (None, _) => {}
        }
    }

    /// Puts in force which events are published.
    pub(super) fn replace_topics(&self, next: Option<NextTopics>, running: Running<'_>) {
        match next {
            Some(NextTopics::Opened(events)) => {
                self.events.set(*events).ok();
                self.publish_events(running);
            }
            Some(NextTopics::Replaced(next)) => {
                if let Some(events) = self.events.get() {
                    events.replace(next);
                }
            }
            None => {}
        }
    }

    /// Lets other nodes tell the org what has changed.
    pub(super) fn follow_nodes(&self, router: &Router) {
        if let Some(org) = self.org.get() {
            router.set_record_cache(&(Arc::clone(org) as Arc<dyn RecordCache>));
        }
    }

    /// Publishes the events of the org, if there are topics, until the drain begins.
    pub(super) fn publish_events(&self, running: Running<'_>) {
        if let Some(events) = self.events.get() {
            events.start(running.router, running.cluster.map(Cluster::topics), running.tasks, running.draining);
        }
    }

    /// The handlers that write. Those that are switched off serve nothing.
    pub(super) fn handlers(&self) -> &[Arc<dyn Handler>] {
        self.writers.get().map_or(&[], Writers::handlers)
    }

    /// The topics whose events are published.
    pub(super) fn topics(&self) -> Vec<TopicSnapshot> {
        self.events.get().map_or_else(Vec::new, Events::snapshot)
    }

    /// The counts of the org, if something uses it.
    pub(super) fn stats(&self) -> Option<Snapshot> {
        self.org.get().map(|org| org.stats())
    }
}
