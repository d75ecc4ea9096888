//! Reload: reads the configuration and its files again, checks them whole, and puts all of it in force or nothing.
//!
//! Nothing here waits for a network. What connections share and a reload replaces is in `in_force`. First that is
//! replaced, then the router's number of reloads rises, then live sessions are judged (`router/review.rs`).

use std::iter::once;
use std::sync::Arc;

use tokio::time::Instant;

use super::in_force::InForce;
use super::issuers;
use super::judge::{Judge, renamed_tables};
use super::key_fetch::KeyFetch;
use super::org::NextOrg;
use super::tls::{Replacement, Tls};
use super::trial::{Unusable, UnusableList};
use super::{Broker, calendar, certificate_warnings, cluster};
use crate::config::{Changes, Config, Mistakes};
use crate::router::Reviewed;
use crate::telemetry::metrics::ReloadOutcome;

/// Lines about mistakes that the log gets of one reload.
const MISTAKES_LOGGED: usize = 20;

/// Reloads the configuration of a running server.
#[derive(Clone)]
pub struct Reloader(Arc<Broker>);

/// How a reload is carried out.
#[derive(Clone, Copy, Debug, Default)]
pub struct How {
    /// Everything is read and checked, and nothing is changed.
    pub dry_run: bool,
    /// Keys that need a restart stay as they are, and the rest is put in force. Otherwise the reload is refused.
    pub keeps_restart_keys: bool,
}

/// A reload that is in force, or that could be.
#[derive(Debug)]
pub struct Reloaded {
    /// How many reloads have been put in force.
    pub number: u64,
    /// The names of the keys that have changed.
    pub changed: Vec<String>,
    /// The names of the keys that have changed and need a restart.
    pub restart: Vec<String>,
    /// What it did to live sessions.
    pub sessions: Reviewed,
    /// What the operator should know of the new configuration.
    pub warnings: Vec<String>,
    /// What has to be the same on all nodes of the cluster; empty if there is none.
    pub(super) digest: Vec<u8>,
}

/// Whether the nodes of a cluster have agreed on a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Agreement {
    /// Only this node has it.
    None,
    /// All nodes have agreed on it, or are about to.
    All,
}

/// Why a reload was refused. Nothing of it is in force.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The configuration has mistakes.
    #[error(transparent)]
    Mistakes(#[from] Mistakes),
    /// A file that the configuration names cannot be used.
    #[error(transparent)]
    Unusable(#[from] UnusableList),
    /// These keys have changed, and need a restart.
    #[error("these keys have changed and need a restart: {}", .0.join(", "))]
    Restart(Vec<String>),
    /// This key has changed, and has to be the same on all nodes of the cluster.
    #[error(
        "{0} has changed, and has to be the same on all nodes of the cluster: change it in the files of all, then reload \
         them all with 'switchboard reload --cluster'"
    )]
    OfTheCluster(String),
    /// This broker is not a node of a cluster.
    #[error("this broker is not a node of a cluster: the configuration has no [cluster]")]
    NoCluster,
    /// A reload of all nodes is under way.
    #[error("another reload of all nodes is under way; try again")]
    Busy,
    /// The file of another node was refused there.
    #[error("the node '{node}': {why}; nothing has changed on any node")]
    Elsewhere {
        /// The node.
        node: String,
        /// What it says.
        why: String,
    },
    /// The file of another node differs from that of this one.
    #[error("{key} in the file of the node '{node}' is not what this node's file has; nothing has changed on any node")]
    Differs {
        /// The node.
        node: String,
        /// The key, which has to be the same on all nodes.
        key: String,
    },
    /// A node does not take part.
    #[error("the node '{node}' {why}; nothing has changed on any node")]
    Unreached {
        /// The node.
        node: String,
        /// What is the matter with it.
        why: &'static str,
    },
    /// A node had agreed, and has not put it in force.
    #[error(
        "the new configuration is in force here, but perhaps not on the node '{node}' ({why}): 'switchboard nodes' says how \
         it is; restart it"
    )]
    Partly {
        /// The node.
        node: String,
        /// What is known of it.
        why: String,
    },
    /// The broker has ended meanwhile.
    #[error("the broker has ended")]
    Ended,
}

impl Reloader {
    pub(super) fn new(broker: Arc<Broker>) -> Self {
        Self(broker)
    }

    /// Loads a configuration and puts it in force, and logs the outcome. One reload at a time.
    ///
    /// # Errors
    /// Why nothing has changed.
    pub async fn reload(
        &self,
        how: How,
        load: impl FnOnce() -> Result<Config, Mistakes> + Send + 'static,
    ) -> Result<Reloaded, ReloadError> {
        self.carry_out(how, Agreement::None, load).await
    }

    pub(super) fn broker(&self) -> &Broker {
        &self.0
    }

    /// The same for a configuration on which the nodes of the cluster have agreed, or not.
    pub(super) async fn carry_out(
        &self,
        how: How,
        agreement: Agreement,
        load: impl FnOnce() -> Result<Config, Mistakes> + Send + 'static,
    ) -> Result<Reloaded, ReloadError> {
        let broker = Arc::clone(&self.0);
        if !how.dry_run {
            broker.service_manager.reloading();
        }
        // Files are read. Tasks that it starts belong to the runtime that serves the applications.
        let outcome =
            self.0.tasks.spawn_blocking_on(move || broker.reload(how, agreement, load), &self.0.runtime).await;
        let outcome = outcome.unwrap_or(Err(ReloadError::Ended));
        if !how.dry_run {
            self.0.service_manager.ready();
            self.0.metrics.reloads.count(match &outcome {
                Ok(reloaded) if reloaded.changed.is_empty() => ReloadOutcome::Unchanged,
                Ok(_) => ReloadOutcome::Applied,
                Err(_) => ReloadOutcome::Refused,
            });
            log(&outcome);
        }
        outcome
    }
}

impl Broker {
    /// Keeps the keys of issuers fresh, in tasks of their own, until a reload begins others.
    pub(super) fn fetch_keys(&self, fetches: Vec<KeyFetch>) {
        let stop = self.in_force.get().fetching.clone();
        for fetch in fetches {
            let (ends, stop) = (self.handlers_stop.clone(), stop.clone());
            self.handlers.spawn(async move {
                tokio::select! {
                    () = ends.cancelled() => {}
                    () = fetch.run(stop) => {}
                }
            });
        }
    }

    fn reload(
        &self,
        how: How,
        agreement: Agreement,
        load: impl FnOnce() -> Result<Config, Mistakes>,
    ) -> Result<Reloaded, ReloadError> {
        let mut config = self.config.lock();
        let mut new = load()?;
        let Changes { reload: mut changed, mut restart } = Changes::between(&config, &new);
        if !restart.is_empty() && !how.dry_run && !how.keeps_restart_keys {
            return Err(ReloadError::Restart(restart));
        }
        if !restart.is_empty() {
            new.keep_restart_keys(&config);
            // A key that follows one that was kept may be as it was.
            let left = Changes::between(&config, &new);
            if !left.restart.is_empty() {
                return Err(ReloadError::Restart(left.restart));
            }
            changed = left.reload;
            restart.sort();
        }
        let digest = cluster::digest_of(&new);
        let changed_for_all = cluster::changed_for_all(&config, &new);
        if let Some(key) = changed_for_all.clone().filter(|_| agreement == Agreement::None) {
            return Err(ReloadError::OfTheCluster(key));
        }
        let before = self.in_force.get();
        let tls = NextTls::prepare(before.tls.as_ref(), &new);
        let in_force_tls = tls.as_ref().ok().and_then(NextTls::tls);
        let in_force = InForce::open(&new, in_force_tls, Some(&before), &self.metrics);
        // Everything is read before anything is in force.
        let (tls, (in_force, fetches)) = match (tls, in_force) {
            (Ok(tls), Ok(in_force)) => (tls, in_force),
            (Ok(_), Err(unusable)) => return Err(unusable.into()),
            (Err(tls), in_force) => {
                let others = in_force.err().map(UnusableList::into_iter).into_iter().flatten();
                return Err(UnusableList::from(once(tls).chain(others).collect::<Vec<_>>()).into());
            }
        };
        let changed_files = in_force.key_files.changed_since(&before.key_files);
        let org = self.adapters.prepare_org(&config, &new, &changed_files).map_err(UnusableList::from)?;
        changed.extend(changed_files);
        let mut warnings = new.warnings.clone();
        warnings.extend(certificate_warnings(calendar(), &new));
        warnings.extend_from_slice(in_force.warnings());
        if how.dry_run {
            let (number, sessions) = (self.router.reloads(), Reviewed::default());
            return Ok(Reloaded { number, changed, restart, sessions, warnings, digest });
        }
        let opens_tls = matches!(tls, NextTls::Opened(_));
        if let NextTls::Kept(_, replacement) = tls {
            replacement.apply();
        }
        let sessions = self.put_in_force(&config, &new, Checked { in_force, fetches, org }, &mut warnings);
        if opens_tls {
            self.watch_certificate();
        }
        *config = new;
        if let Some(cluster) = self.cluster.as_ref().filter(|_| changed_for_all.is_some()) {
            cluster.digest_changed(digest.clone());
        }
        Ok(Reloaded { number: self.router.reloads(), changed, restart, sessions, warnings, digest })
    }

    /// Puts a checked configuration in force in place of the `old` one, and judges live sessions by it.
    fn put_in_force(&self, old: &Config, new: &Config, checked: Checked, warnings: &mut Vec<String>) -> Reviewed {
        let Checked { in_force, fetches, org } = checked;
        let before = self.in_force.get();
        let changed_issuers = issuers::changed(&before.issuers, &in_force.issuers);
        let changes = Changes::between(old, new);
        self.in_force.set(in_force);
        before.fetching.cancel();
        self.fetch_keys(fetches);
        self.router.recorder().set_bytes(new.recorder.bytes);
        self.connections.replace(&new.limits);
        self.settings.replace_limits(new.limits.clone());
        if old.http.os_users.is_empty() != new.http.os_users.is_empty() {
            warnings.extend(self.socket_files.set_mode(!new.http.os_users.is_empty()));
        }
        warnings.extend(self.own_token.settle(&new.admin));
        let now = Instant::now().into_std();
        self.router.replace_policy(now, new);
        self.adapters.replace_bounds(new);
        if let Some(org) = org {
            self.adapters.replace_org(org, new, self.running());
        }
        self.committer.iter().for_each(|committer| committer.replace(new));
        let renamed = renamed_tables(&changes.reload);
        self.metrics.set_config_applied(calendar());
        self.router.review(now, &Judge { verifier: &self.in_force, renamed, changed_issuers })
    }
}

/// What the listeners that encrypt are about to use. Whether the admin listener is one of them can change.
enum NextTls<'a> {
    /// None of them encrypts.
    Unused,
    /// What is in use, with other files.
    Kept(Arc<Tls>, Box<Replacement<'a>>),
    /// There was nothing before.
    Opened(Arc<Tls>),
}

impl<'a> NextTls<'a> {
    /// Reads the files. Blocks on the disk.
    fn prepare(before: Option<&'a Arc<Tls>>, new: &Config) -> Result<Self, Unusable> {
        match before {
            _ if !new.uses_tls() => Ok(Self::Unused),
            Some(tls) => Ok(Self::Kept(Arc::clone(tls), Box::new(tls.prepare(new.tls.clone())?))),
            None => Ok(Self::Opened(Arc::new(Tls::open(&new.tls)?))),
        }
    }

    fn tls(&self) -> Option<Arc<Tls>> {
        match self {
            Self::Unused => None,
            Self::Kept(tls, _) | Self::Opened(tls) => Some(Arc::clone(tls)),
        }
    }
}

/// What was read and checked before anything is in force.
struct Checked {
    in_force: InForce,
    fetches: Vec<KeyFetch>,
    /// If something of the org has changed.
    org: Option<NextOrg>,
}

/// Logs the outcome of a reload: names of keys, never values.
fn log(outcome: &Result<Reloaded, ReloadError>) {
    match outcome {
        Ok(Reloaded { number, changed, restart, sessions, warnings, digest: _ }) => {
            let Reviewed { ended, changed: rights, expiring } = sessions;
            let keys = changed.join(", ");
            for warning in warnings {
                tracing::warn!("{warning}");
            }
            if !restart.is_empty() {
                tracing::warn!(
                    keys = restart.join(", "),
                    "these keys have changed and need a restart; they stay as they are"
                );
            }
            tracing::info!(number, changed = keys, ended, rights, expiring, "the configuration was reloaded");
        }
        Err(ReloadError::Mistakes(mistakes)) => {
            for mistake in mistakes.list().iter().take(MISTAKES_LOGGED) {
                tracing::error!("{mistake}");
            }
            let count = mistakes.list().len();
            tracing::error!(mistakes = count, "the reload was refused; the configuration is in force as it was before");
        }
        Err(error) => {
            tracing::error!(%error, "the reload was refused; the configuration is in force as it was before");
        }
    }
}
