//! [`InForce`]: what connections share and a reload replaces.

use std::future::ready;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;

use super::issuers::Known;
use super::key_fetch::KeyFetch;
use super::key_files::KeyFiles;
use super::same_user::SameUser;
use super::tls::Tls;
use super::trial::UnusableList;
use super::wiring::Proving;
use super::{admin, wiring};
use crate::auth::{
    AuthError, CallClaim, CallVerification, Claim, ClientCertificate, Proof, Proved, Review, Verification, Verifier,
};
use crate::config::{self, AuthMode, Config, Http, Settings};
use crate::telemetry::metrics::Metrics;

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
    pub(super) issuers: Vec<Known>,
    pub(super) fetching: CancellationToken,
    pub(super) key_files: KeyFiles,
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

    pub(super) fn set(&self, value: T) {
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
