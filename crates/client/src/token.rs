//! [`Token`]: the proof of identity that a registration carries.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Mutex;
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
    Provider(Provider),
    /// The same, for a token that stays as it is until somebody replaces it.
    Reader(Provider, Used),
}

type Provider = Arc<dyn Fn() -> Asking + Send + Sync>;

/// The token that was given out last.
type Used = Arc<Mutex<Option<SecretString>>>;

impl Token {
    /// Takes the function of [`Builder::token_provider`](super::Builder::token_provider).
    pub(super) fn provider<P, F, E>(provider: P) -> Self
    where
        P: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = Result<SecretString, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        Self::Provider(boxed(provider))
    }

    /// Takes the function of [`Builder::token_reader`](super::Builder::token_reader).
    pub(super) fn reader<P, F, E>(read: P) -> Self
    where
        P: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = Result<SecretString, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        Self::Reader(boxed(read), Used::default())
    }

    /// Returns the token for one registration, within a time limit.
    pub(super) async fn get(&self, limit: Duration) -> Result<Option<SecretString>, Error> {
        match self {
            Self::None => Ok(None),
            Self::Fixed(token) => Ok(Some(token.clone())),
            Self::Provider(provider) => ask(provider, limit).await.map(Some),
            Self::Reader(read, used) => {
                let token = ask(read, limit).await?;
                *used.lock().await = Some(token.clone());
                Ok(Some(token))
            }
        }
    }

    /// As [`get`](Self::get), but `None` if a reader still returns the token that was given out last.
    pub(super) async fn get_changed(&self, limit: Duration) -> Result<Option<SecretString>, Error> {
        let Self::Reader(read, used) = self else { return self.get(limit).await };
        let token = ask(read, limit).await?;
        let mut used = used.lock().await;
        if is_same(used.as_ref(), &token) {
            return Ok(None);
        }
        *used = Some(token.clone());
        Ok(Some(token))
    }

    /// Returns whether a later token can be another one.
    pub(super) fn can_change(&self) -> bool {
        match self {
            Self::None | Self::Fixed(_) => false,
            Self::Provider(_) | Self::Reader(..) => true,
        }
    }

    /// Returns whether the next registration can have another token than the one that was refused.
    pub(super) async fn has_changed(&self, limit: Duration) -> bool {
        let Self::Reader(read, used) = self else { return self.can_change() };
        // A token that cannot be read now may be another one later.
        let Ok(token) = ask(read, limit).await else { return true };
        !is_same(used.lock().await.as_ref(), &token)
    }
}

fn is_same(used: Option<&SecretString>, token: &SecretString) -> bool {
    used.is_some_and(|used| used.expose_secret() == token.expose_secret())
}

fn boxed<P, F, E>(provider: P) -> Provider
where
    P: Fn() -> F + Send + Sync + 'static,
    F: Future<Output = Result<SecretString, E>> + Send + 'static,
    E: Into<BoxError>,
{
    Arc::new(move || {
        let asking = provider();
        Box::pin(async move { asking.await.map_err(Into::into) })
    })
}

async fn ask(provider: &Provider, limit: Duration) -> Result<SecretString, Error> {
    match timeout(limit, provider()).await {
        Ok(Ok(token)) => Ok(token),
        Ok(Err(error)) => Err(Error::Token(error.to_string())),
        Err(_) => Err(Error::TimedOut("the token provider")),
    }
}
