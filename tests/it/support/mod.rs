//! What the tests stand on: a real broker in a process of its own, and clients that share no code with it.
//!
//! Start with [`Broker`]: it runs the binary, [`Broker::app`] gives a registered [`Peer`], [`Peer::next`] its next
//! message within [`DEADLINE`]. [`frames`] speaks RFC 6455 by hand, for what a decent client would never send. A test
//! that fails prints the whole [`Conversation`] of every connection and the broker's log.

mod broker;
mod conversation;
mod peer;
mod tokens;

pub(crate) mod client;
pub(crate) mod core;
pub(crate) mod disk;
pub(crate) mod frames;
pub(crate) mod framing;
pub(crate) mod http;
pub(crate) mod os_user;
pub(crate) mod programs;
pub(crate) mod rights;
pub(crate) mod tls;
pub(crate) mod transcript;

pub(crate) use broker::{Broker, signal};
pub(crate) use conversation::Conversation;
pub(crate) use peer::{Peer, envelope};
pub(crate) use tokens::{application, token_of};

use std::path::Path;
use std::time::Duration;

/// How long a test waits for what has to happen. Generous, because a busy machine is not a fault of the broker.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Writes a file that only its owner can read, as files with secrets must be.
pub(crate) fn secret_file(path: impl AsRef<Path>, contents: impl AsRef<[u8]>) {
    std::fs::write(&path, contents).unwrap();
    #[cfg(unix)]
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

/// Waits for something that has to happen within [`DEADLINE`]; `what` is for the failure's text.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("{what}: nothing within {DEADLINE:?}"))
}
