//! [`CurrentOrg`]: the org as the configuration in force says, which a reload replaces.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::oauth::SetupError;
use super::org::Org;
use super::stats::Snapshot;
use crate::config;
use crate::credentials::{Found, Source};

/// The org of `[salesforce]`. A call that has begun ends with the settings with which it began.
pub struct CurrentOrg(ArcSwap<Org>);

impl CurrentOrg {
    /// Reads the key, the secret and the certificates. Sends nothing.
    ///
    /// # Errors
    /// A file cannot be used, or a key is missing.
    pub fn open(config: &config::Salesforce) -> Result<Self, SetupError> {
        Org::open(config).map(|org| Self(ArcSwap::from_pointee(org)))
    }

    /// The org with the settings in force.
    pub(super) fn get(&self) -> Arc<Org> {
        self.0.load_full()
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
        self.0.store(org);
    }

    /// The counts of requests and their outcomes.
    pub fn stats(&self) -> Snapshot {
        self.get().stats()
    }
}

impl From<Arc<Org>> for CurrentOrg {
    fn from(org: Arc<Org>) -> Self {
        Self(ArcSwap::new(org))
    }
}

impl Source for CurrentOrg {
    fn find(self: Arc<Self>, user: String) -> Found {
        let org = self.get();
        Box::pin(async move { org.find(&user).await })
    }
}
