//! [`Source`]: where credentials come from.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use secrecy::SecretString;

use wire::{ErrorCode, Refusal};

/// What an agent's gadget logs in with.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The CTI user name.
    pub username: String,
    /// The CTI password; never printed.
    pub password: SecretString,
    /// The telephone extension.
    pub extension: String,
    /// The user name at the identity provider, if it differs.
    pub adfs_username: Option<String>,
}

/// The credentials of one user, once they are found.
pub type Found = Pin<Box<dyn Future<Output = Result<Credentials, Refusal>> + Send>>;

/// Holds the credentials of users.
pub trait Source: Send + Sync {
    /// Looks up the credentials of a user.
    ///
    /// Ends with a refusal if there are none or the source cannot be asked. The refusal is sent to the agent; details for
    /// the operator go to the log.
    fn find(self: Arc<Self>, user: String) -> Found;

    /// How often what it holds is known to have changed, if it is read over a network. An answer that was asked for at
    /// another age can be an old one, so a new fetch does not share it.
    fn age(&self) -> u64 {
        0
    }
}

/// The refusal for a fault whose cause is in the log.
pub(super) fn internal() -> Refusal {
    Refusal::new(ErrorCode::Internal, "the credential store failed; the broker's log says why")
}
