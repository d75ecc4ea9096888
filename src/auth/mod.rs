//! Who a session is ([`Identity`]) and what proves it ([`Verifier`]).
//!
//! Nothing here knows a socket or a session: a verifier gets a token and a claim and says who that is.

mod chain;
mod jwt;
mod open;
mod token;

pub use chain::Chain;
pub use jwt::{Claims, Jwt, JwtKeys, JwtRules};
pub use open::Open;
pub use token::{TokenTable, hash_token};

use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;

use wire::{Pattern, Triple};

/// Whose a session is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Principal {
    /// An agent's, by the name that was proved.
    User(Arc<str>),
    /// A server-side application's: no user.
    Service,
}

impl Principal {
    /// The user's name; `None` for a service.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        match self {
            Self::User(user) => Some(user),
            Self::Service => None,
        }
    }
}

/// What was proved at registration, and what follows from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// A user's or a service's.
    pub principal: Principal,
    /// Only one session of a user may register the source.
    pub exclusive: bool,
    /// What a session of this identity may do.
    pub permissions: Permissions,
    /// How long the proof holds: then it has to be given anew. `None`: as long as the session lives.
    pub lasts: Option<Duration>,
}

/// What a session may do. It can change while the session lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permissions {
    /// May subscribe to other users' events (a supervisor).
    pub observe: bool,
    /// Protected triples, and triples of shared channels, that it may be a handler of.
    pub handle: Permission,
    /// Protected triples that it may request.
    pub request: Permission,
}

/// A set of triples that something is allowed on, compared without regard to ASCII case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Permission {
    /// Everything.
    All,
    /// What one of the patterns matches; none: nothing.
    Patterns(Arc<[Pattern]>),
}

impl Permission {
    /// Nothing at all.
    #[must_use]
    pub fn none() -> Self {
        Self::Patterns(Arc::from([]))
    }

    /// Whether the triple is allowed.
    #[must_use]
    pub fn allows(&self, triple: &Triple<'_>) -> bool {
        match self {
            Self::All => true,
            Self::Patterns(patterns) => patterns.iter().any(|pattern| pattern.matches_any_case(triple)),
        }
    }

    /// Whether some triple of the pattern is allowed.
    #[must_use]
    pub fn allows_any_of(&self, wanted: &Pattern) -> bool {
        match self {
            Self::All => true,
            Self::Patterns(patterns) => patterns.iter().any(|pattern| pattern.overlaps_any_case(wanted)),
        }
    }

    /// Whether every triple of the pattern is allowed. Several patterns together allow no more than one of them does: a
    /// part that is `*` has more values than they can name.
    #[must_use]
    pub fn allows_all_of(&self, wanted: &Pattern) -> bool {
        match self {
            Self::All => true,
            Self::Patterns(patterns) => patterns.iter().any(|pattern| pattern.covers_any_case(wanted)),
        }
    }
}

/// What a session says of itself when it registers. Its token does not print.
#[derive(Debug)]
pub struct Claim {
    /// The name it wants to register under.
    pub source: String,
    /// The user it says it is; believed by [`Open`] only.
    pub user: Option<String>,
    /// What is to prove it.
    pub token: Option<SecretString>,
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

/// The outcome of a verification, some time later.
pub type Verification<'a> = Pin<Box<dyn Future<Output = Result<Identity, AuthError>> + Send + 'a>>;

/// Says who a claim is, if it is anybody.
pub trait Verifier: Send + Sync {
    /// Checks one claim. May wait; the session reads nothing meanwhile.
    fn verify(&self, claim: Claim) -> Verification<'_>;
}

/// Verifies with a plain function that never waits.
fn ready(outcome: Result<Identity, AuthError>) -> Verification<'static> {
    Box::pin(std::future::ready(outcome))
}
