//! [`CurrentOrg`]: the org as the configuration in force says, which a reload replaces.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

use super::oauth::SetupError;
use super::org::Org;
use super::stats::Snapshot;
use crate::config;
use crate::credentials::{Found, Source};
use crate::router::RecordCache;

/// The org of `[salesforce]`. A call that has begun ends with the settings with which it began.
pub struct CurrentOrg {
    org: ArcSwap<Org>,
    /// How often credentials were forgotten: because of a change in the org, or of the settings.
    age: AtomicU64,
}

impl CurrentOrg {
    /// Reads the key, the secret and the certificates. Sends nothing.
    ///
    /// # Errors
    /// A file cannot be used, or a key is missing.
    pub fn open(config: &config::Salesforce) -> Result<Self, SetupError> {
        Org::open(config).map(|org| Self::from(Arc::new(org)))
    }

    /// The org with the settings in force.
    pub(super) fn get(&self) -> Arc<Org> {
        self.org.load_full()
    }

    /// The org with other settings, to be put in force by [`CurrentOrg::replace`]. Its counts go on. Breakers are closed,
    /// nothing is cached, and it logs in anew: what was learnt of the org may not be true with other settings.
    ///
    /// # Errors
    /// A file cannot be used.
    pub fn prepare(&self, config: &config::Salesforce) -> Result<Arc<Org>, SetupError> {
        self.get().with(config).map(Arc::new)
    }

    /// Puts an org with other settings in force.
    pub fn replace(&self, org: Arc<Org>) {
        self.org.store(org);
        self.age.fetch_add(1, Ordering::AcqRel);
    }

    /// The counts of requests and their outcomes.
    pub fn stats(&self) -> Snapshot {
        self.get().stats()
    }
}

impl From<Arc<Org>> for CurrentOrg {
    fn from(org: Arc<Org>) -> Self {
        Self { org: ArcSwap::new(org), age: AtomicU64::default() }
    }
}

impl Source for CurrentOrg {
    fn find(self: Arc<Self>, user: String) -> Found {
        let org = self.get();
        Box::pin(async move { org.find(&user).await })
    }

    fn age(&self) -> u64 {
        self.age.load(Ordering::Acquire)
    }
}

impl RecordCache for CurrentOrg {
    fn records_changed(&self, event: Option<&str>) {
        // The age comes last: what begins at the new one finds nothing old in the cache.
        if self.get().changed(event) {
            self.age.fetch_add(1, Ordering::AcqRel);
        }
    }
}
