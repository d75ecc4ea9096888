//! [`Token`]: the proof of identity that a registration carries.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tokio::time::timeout;

use super::Error;

/// The future of a token provider.
type Asking = Pin<Box<dyn Future<Output = Result<SecretString, BoxError>> + Send>>;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The source of the token for a registration.
#[derive(Clone)]
pub(super) enum Token {
    /// No token, for a broker in open mode.
    None,
    /// The same token for every registration.
    Fixed(SecretString),
    /// A function that is called before each registration.
    Provider(Arc<dyn Fn() -> Asking + Send + Sync>),
}

impl Token {
    /// Takes the function of [`Builder::token_provider`](super::Builder::token_provider).
    pub(super) fn provider<P, F, E>(provider: P) -> Self
    where
        P: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = Result<SecretString, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        Self::Provider(Arc::new(move || {
            let asking = provider();
            Box::pin(async move { asking.await.map_err(Into::into) })
        }))
    }

    /// Returns the token for one registration, within a time limit.
    pub(super) async fn get(&self, limit: Duration) -> Result<Option<SecretString>, Error> {
        match self {
            Self::None => Ok(None),
            Self::Fixed(token) => Ok(Some(token.clone())),
            Self::Provider(provider) => match timeout(limit, provider()).await {
                Ok(Ok(token)) => Ok(Some(token)),
                Ok(Err(error)) => Err(Error::Token(error.to_string())),
                Err(_) => Err(Error::TimedOut("the token provider")),
            },
        }
    }

    /// Returns whether the next registration can have another token.
    pub(super) fn can_change(&self) -> bool {
        matches!(self, Self::Provider(_))
    }
}
