//! Who a session is ([`Identity`]), what proves it ([`Verifier`]), and what it may do ([`Permissions`]).
//!
//! Nothing here knows a socket or a session: a verifier gets a token and a claim and says who that is.

mod call;
mod certificate;
mod chain;
mod identity;
mod jwks;
mod jwt;
mod open;
mod permissions;
mod rights;
mod rules;
mod token;
mod users;

pub use call::{CallClaim, CallError, CallVerification, Caller};
pub use certificate::{CertificateName, ClientCertificate};
pub use chain::Chain;
pub use identity::{Ends, Identity, Principal, Proof};
pub use jsonwebtoken::Algorithm;
pub use jwks::{FetchedKeys, KEY_SET_BYTES_MAX, KeySet};
pub use jwt::{ClaimPath, ClaimRules, Claims, Issuer, IssuerKeys, Issuers, Jwt, JwtRules, Keys, Roles, RowSources};
pub use open::Open;
pub use permissions::{Permission, Permissions};
pub use rights::{Right, Rights, Rule, Why};
pub use rules::Rules;
pub use token::{TokenTable, hash_token};
pub use users::Users;

use secrecy::SecretString;
use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// What a session says of itself when it registers. Its token does not print.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The name it wants to register under.
    pub source: String,
    /// The user it says it is; believed by [`Open`] only.
    pub user: Option<String>,
    /// What is to prove it.
    pub token: Option<SecretString>,
    /// The client certificate, which proves the claim if there is no token.
    pub certificate: Option<Arc<ClientCertificate>>,
}

/// Why a claim was not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The token is missing or proves nobody; the text says which.
    #[error("{0}")]
    Unauthenticated(Cow<'static, str>),
    /// The token is good for another source.
    #[error("{0}")]
    Forbidden(Cow<'static, str>),
    /// What should have said so did not answer.
    #[error("{0}")]
    Unavailable(Cow<'static, str>),
}

/// What a live session was proved to be, for [`Verifier::review`].
pub struct Proved<'a> {
    /// The name it registered under.
    pub source: &'a str,
    /// A user's or a service's.
    pub principal: &'a Principal,
    /// What proved it.
    pub proof: &'a Proof,
    /// What it may do at present.
    pub permissions: &'a Permissions,
}

/// What becomes of a live session when the configuration has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Review {
    /// Its proof is still valid, and it may do what it could do before.
    Same,
    /// Its proof is still valid, and this is what it may do now.
    Keep(Permissions),
    /// Its proof is to be replaced by a new one.
    KeepFor {
        /// What it may do now.
        permissions: Permissions,
        /// How long its proof is valid from now on, if it does not end earlier.
        longest: Duration,
    },
    /// Its proof is no longer valid.
    End,
}

/// The outcome of a verification, some time later.
pub type Verification<'a> = Pin<Box<dyn Future<Output = Result<Identity, AuthError>> + Send + 'a>>;

/// Verifies a claim and returns its identity.
pub trait Verifier: Send + Sync {
    /// Checks one claim. May wait; the session reads nothing meanwhile.
    fn verify(&self, claim: Claim) -> Verification<'_>;

    /// Checks the token of a call over HTTP. May wait. The default refuses every call: it is for verifiers without tokens that
    /// allow calls.
    fn verify_call(&self, _call: CallClaim) -> CallVerification<'_> {
        Box::pin(std::future::ready(Err(call::no_tokens())))
    }

    /// Judges a session that a verifier of an earlier configuration has proved. Never waits. Unless a verifier has rules of
    /// its own, no such session stays.
    fn review(&self, _proved: &Proved<'_>) -> Review {
        Review::End
    }
}

/// Verifies with a plain function that never waits.
fn ready(outcome: Result<Identity, AuthError>) -> Verification<'static> {
    Box::pin(std::future::ready(outcome))
}
