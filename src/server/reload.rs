//! Reload: reads the configuration and its files again, checks them whole, and puts all of it in force or nothing.
//!
//! Nothing here waits for a network. What connections share and a reload replaces is in [`InForce`]. First that is
//! replaced, then the router's number of reloads rises, then live sessions are judged (`router/review.rs`).

use std::sync::Arc;

use parking_lot::RwLock;
use tokio::time::Instant;

use super::key_fetch::KeyFetch;
use super::same_user::SameUser;
use super::tls::{Material, Tls};
use super::trial::{UnusableList, try_files};
use super::wiring::Proving;
use super::{Broker, wiring};
use crate::auth::{Claim, FetchedKeys, Proof, Proved, Review, Verification, Verifier};
use crate::config::{Changes, Config, Http, Mistakes};
use crate::router::Reviewed;

/// Lines about mistakes that the log gets of one reload.
const MISTAKES_LOGGED: usize = 20;

/// Reloads the configuration of a running server.
#[derive(Clone)]
pub struct Reloader(Arc<Broker>);

/// A reload that is in force.
#[derive(Debug)]
pub struct Reloaded {
    /// Its number, from 1.
    pub number: u64,
    /// The names of the keys that have changed.
    pub changed: Vec<String>,
    /// What it did to live sessions.
    pub sessions: Reviewed,
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
        load: impl FnOnce() -> Result<Config, Mistakes> + Send + 'static,
    ) -> Result<Reloaded, ReloadError> {
        let broker = Arc::clone(&self.0);
        // Files are read.
        let outcome = self.0.tasks.spawn_blocking(move || broker.reload(load)).await;
        let outcome = outcome.unwrap_or(Err(ReloadError::Ended));
        log(&outcome);
        outcome
    }
}

/// What connections share and a reload replaces.
pub(super) struct InForce {
    verifier: Box<dyn Verifier>,
    pub(super) http: Http,
    pub(super) same_user: SameUser,
    /// The keys of issuers that are fetched.
    fetched: Vec<Arc<FetchedKeys>>,
}

impl InForce {
    /// Reads the files that it needs. `before` has the fetched keys of issuers before a reload. Returns what fetches the others,
    /// too.
    pub(super) fn open(config: &Config, before: &[Arc<FetchedKeys>]) -> Result<(Self, Vec<KeyFetch>), UnusableList> {
        let (same_user, _) = SameUser::open(config)?;
        let Proving { verifier, fetched, fetches } = wiring::verifier(config, before)?;
        Ok((Self { verifier, http: config.http.clone(), same_user, fetched }, fetches))
    }
}

/// A value that a reload replaces as a whole. A connection reads it once for its handshake and once for each registration,
/// so a lock serves.
pub(super) struct Replaceable<T>(RwLock<Arc<T>>);

impl<T> Replaceable<T> {
    pub(super) fn new(value: T) -> Self {
        Self(RwLock::new(Arc::new(value)))
    }

    /// Returns the present value.
    pub(super) fn get(&self) -> Arc<T> {
        Arc::clone(&self.0.read())
    }

    fn set(&self, value: T) {
        *self.0.write() = Arc::new(value);
    }
}

/// The verifier in force when it is asked.
impl Verifier for Replaceable<InForce> {
    fn verify(&self, claim: Claim) -> Verification<'_> {
        let in_force = self.get();
        Box::pin(async move { in_force.verifier.verify(claim).await })
    }

    fn review(&self, proved: &Proved<'_>) -> Review {
        self.get().verifier.review(proved)
    }
}

impl Broker {
    /// Keeps the keys of issuers fresh, in tasks of their own.
    pub(super) fn fetch_keys(&self, fetches: Vec<KeyFetch>) {
        for fetch in fetches {
            self.handlers.spawn(fetch.run(self.handlers_stop.clone()));
        }
    }

    fn reload(&self, load: impl FnOnce() -> Result<Config, Mistakes>) -> Result<Reloaded, ReloadError> {
        let mut config = self.config.lock();
        let new = load()?;
        let changes = Changes::between(&config, &new);
        if !changes.restart.is_empty() {
            return Err(ReloadError::Restart(changes.restart));
        }
        try_files(&new)?;
        let material =
            self.tls.as_ref().map(|tls| Ok::<_, UnusableList>((tls, Material::read(&new.tls)?))).transpose()?;
        let (in_force, fetches) = InForce::open(&new, &self.in_force.get().fetched)?;
        self.fetch_keys(fetches);
        self.in_force.set(in_force);
        if let Some((tls, material)) = material {
            tls.replace(new.tls.clone(), material);
        }
        self.connections.replace(&new.limits);
        self.settings.replace_limits(new.limits.clone());
        self.router.replace_policy(&new);
        self.adapters.replace_bounds(&new);
        let judge =
            Judge { verifier: &self.in_force, tls: self.tls.as_deref(), renamed: renamed_tables(&changes.reload) };
        let sessions = self.router.review(Instant::now().into_std(), &judge);
        *config = new;
        Ok(Reloaded { number: self.router.reloads(), changed: changes.reload, sessions })
    }
}

/// Keys of `[auth.salesforce_*]` that decide which user a proof is for. When they change, the sessions of the table may be
/// of other users than it proves now.
const NAMES_USERS: &[&str] = &["org_id", "user"];

/// The tables of which such a key has changed.
fn renamed_tables(changed: &[String]) -> Vec<&str> {
    let parts = changed.iter().filter_map(|key| key.rsplit_once('.'));
    parts.filter(|(_, key)| NAMES_USERS.contains(key)).map(|(table, _)| table).collect()
}

/// Judges live sessions by the verifier in force, except those of tables that name users in another way now.
struct Judge<'a> {
    verifier: &'a dyn Verifier,
    tls: Option<&'a Tls>,
    renamed: Vec<&'a str>,
}

impl Verifier for Judge<'_> {
    fn verify(&self, claim: Claim) -> Verification<'_> {
        self.verifier.verify(claim)
    }

    fn review(&self, proved: &Proved<'_>) -> Review {
        match proved.proof {
            Proof::Salesforce(table) if self.renamed.contains(table) => Review::End,
            Proof::Certificate(shown) if !self.tls.is_some_and(|tls| tls.vouches_for(shown)) => Review::End,
            _ => self.verifier.review(proved),
        }
    }
}

/// Logs the outcome of a reload: names of keys, never values.
fn log(outcome: &Result<Reloaded, ReloadError>) {
    match outcome {
        Ok(Reloaded { number, changed, sessions }) => {
            let Reviewed { ended, changed: rights } = sessions;
            let keys = changed.join(", ");
            tracing::info!(number, changed = keys, ended, rights, "the configuration was reloaded");
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
