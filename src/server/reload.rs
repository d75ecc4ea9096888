//! Reload: reads the configuration and its files again, checks them whole, and puts all of it in force or nothing.
//!
//! Nothing here waits for a network. What connections share and a reload replaces is in [`InForce`]. First that is
//! replaced, then the router's number of reloads rises, then live sessions are judged (`router/review.rs`).

use std::future::ready;
use std::iter::once;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::issuers::{self, Known};
use super::key_fetch::KeyFetch;
use super::key_files::KeyFiles;
use super::org::NextOrg;
use super::same_user::SameUser;
use super::tls::{Replacement, Tls};
use super::trial::{Unusable, UnusableList};
use super::wiring::Proving;
use super::{Broker, admin, calendar, certificate_warnings, cluster, wiring};
use crate::auth::{
    AuthError, CallClaim, CallVerification, Claim, ClientCertificate, Proof, Proved, Review, Verification, Verifier,
};
use crate::config::{self, AuthMode, Changes, Config, Http, Mistakes, Settings};
use crate::router::Reviewed;
use crate::telemetry::metrics::{Metrics, ReloadOutcome};

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

/// What connections share and a reload replaces.
pub(super) struct InForce {
    verifier: Box<dyn Verifier>,
    pub(super) auth: AuthMode,
    pub(super) admin: config::Admin,
    /// The hashes of the tokens in `admin`.
    pub(super) admin_tokens: admin::Tokens,
    /// The value of each key.
    pub(super) values: Settings,
    pub(super) http: Http,
    pub(super) same_user: SameUser,
    /// The issuers of JWTs. Keys are fetched by tasks that end with `fetching`.
    issuers: Vec<Known>,
    fetching: CancellationToken,
    key_files: KeyFiles,
    /// What the listeners that encrypt use, if there are any.
    pub(super) tls: Option<Arc<Tls>>,
    /// What the operator should know of it.
    warnings: Vec<String>,
}

impl InForce {
    /// Reads the files that it needs. `before` is what a reload replaces: its fetched keys, and the way in which owners of
    /// connections are looked up, stay in use. Returns what fetches keys, too.
    ///
    /// # Errors
    /// Every file that cannot be used.
    pub(super) fn open(
        config: &Config,
        tls: Option<Arc<Tls>>,
        before: Option<&Self>,
        metrics: &Metrics,
    ) -> Result<(Self, Vec<KeyFetch>), UnusableList> {
        let same_user = SameUser::open(config, before.map(|before| &before.same_user));
        let proving = wiring::verifier(config, before.map_or(&[], |before| &before.issuers), metrics);
        match (same_user, proving) {
            (Ok((same_user, warnings)), Ok(Proving { verifier, issuers, fetches })) => {
                let (http, fetching) = (config.http.clone(), CancellationToken::new());
                let key_files = KeyFiles::read(config);
                let (auth, admin, values) = (config.auth, config.admin.clone(), config.settings.clone());
                let admin_tokens = admin::Tokens::new(&admin);
                let in_force = Self {
                    verifier,
                    auth,
                    admin,
                    admin_tokens,
                    values,
                    http,
                    same_user,
                    issuers,
                    fetching,
                    key_files,
                    tls,
                    warnings,
                };
                Ok((in_force, fetches))
            }
            (same_user, proving) => {
                let proving = proving.err().unwrap_or_default();
                Err(UnusableList::from(same_user.err().into_iter().chain(proving).collect::<Vec<_>>()))
            }
        }
    }

    /// When the keys of issuers were last fetched.
    pub(super) fn keys_fetched(&self) -> impl Iterator<Item = (&str, std::time::Instant)> {
        self.issuers.iter().filter_map(Known::fetched)
    }

    /// What the operator should know of the settings that are in force.
    pub(super) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Returns why a certificate proves nothing now: a session without a token may have been connected since before its
    /// authority was removed.
    fn check_certificate(&self, claim: &Claim) -> Result<(), AuthError> {
        match &claim.certificate {
            Some(shown) if claim.token.is_none() && !self.vouches_for(shown) => Err(AuthError::Unauthenticated(
                "no authority in tls.client_ca_file vouches for the client certificate any more".into(),
            )),
            Some(_) | None => Ok(()),
        }
    }

    fn vouches_for(&self, shown: &ClientCertificate) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.vouches_for(shown))
    }
}

impl Verifier for InForce {
    fn verify(&self, claim: Claim) -> Verification<'_> {
        match self.check_certificate(&claim) {
            Ok(()) => self.verifier.verify(claim),
            Err(refused) => Box::pin(ready(Err(refused))),
        }
    }

    fn verify_call(&self, call: CallClaim) -> CallVerification<'_> {
        self.verifier.verify_call(call)
    }

    fn review(&self, proved: &Proved<'_>) -> Review {
        match proved.proof {
            Proof::Certificate(shown) if !self.vouches_for(shown) => Review::End,
            _ => self.verifier.review(proved),
        }
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
        Box::pin(async move { in_force.verify(claim).await })
    }

    fn verify_call(&self, call: CallClaim) -> CallVerification<'_> {
        let in_force = self.get();
        Box::pin(async move { in_force.verify_call(call).await })
    }

    fn review(&self, proved: &Proved<'_>) -> Review {
        self.get().review(proved)
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

/// Keys of `[auth.salesforce_*]` that decide whom a proof is for. When they change, the sessions of the table may be of
/// users whom it does not prove now.
const NAMES_USERS: &[&str] =
    &["org_id", "user", "username_claim", "federation_id_claim", "issuer", "audience", "allowed_clients"];

/// The tables of which such a key has changed.
fn renamed_tables(changed: &[String]) -> Vec<&str> {
    let parts = changed.iter().filter_map(|key| key.rsplit_once('.'));
    parts.filter(|(_, key)| NAMES_USERS.contains(key)).map(|(table, _)| table).collect()
}

/// How long the proof of a session is valid after its issuer has changed, so that the application can renew it.
const RENEWED_WITHIN: Duration = Duration::from_mins(1);

/// Judges live sessions by the verifier in force, except those of tables that name users in another way now, and of issuers
/// whose tokens prove something else now.
struct Judge<'a> {
    verifier: &'a dyn Verifier,
    renamed: Vec<&'a str>,
    /// The names of issuers.
    changed_issuers: Vec<String>,
}

impl Verifier for Judge<'_> {
    fn verify(&self, claim: Claim) -> Verification<'_> {
        self.verifier.verify(claim)
    }

    fn review(&self, proved: &Proved<'_>) -> Review {
        match proved.proof {
            Proof::Salesforce(table) if self.renamed.contains(table) => Review::End,
            Proof::Issuer(name) if self.changed_issuers.iter().any(|changed| **changed == **name) => {
                match self.verifier.review(proved) {
                    Review::Keep(permissions) => Review::KeepFor { permissions, longest: RENEWED_WITHIN },
                    review => review,
                }
            }
            _ => self.verifier.review(proved),
        }
    }
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
