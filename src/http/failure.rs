//! [`Failure`]: why a request got no complete answer.

use std::error::Error;

/// Why a request got no complete answer. Texts name the last cause, and never a URL, which may contain a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The answer is larger than the caller allows.
    TooLarge,
    /// TLS failed. Repeating the request does not help.
    Tls(String),
    /// There was no connection, so nothing was sent.
    Unconnected(String),
    /// The connection broke, and the request may have arrived.
    Broken(String),
}

impl Failure {
    /// The failure of a request of ours among the causes of an error of another library.
    pub(crate) fn find_in(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut cause = error.source();
        while let Some(error) = cause {
            if let Some(found) = error.downcast_ref::<reqwest::Error>() {
                return Some(Self::of(found));
            }
            cause = error.source();
        }
        None
    }

    fn of(error: &reqwest::Error) -> Self {
        let cause = last_cause(error);
        match error {
            _ if is_tls(error) => Self::Tls(cause),
            _ if error.is_connect() => Self::Unconnected(cause),
            _ => Self::Broken(cause),
        }
    }
}

impl From<reqwest::Error> for Failure {
    fn from(error: reqwest::Error) -> Self {
        Self::of(&error)
    }
}

/// Returns whether TLS failed. An I/O error may hold its cause inside, outside the chain of sources.
fn is_tls(error: &(dyn Error + 'static)) -> bool {
    let inside = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    error.is::<rustls::Error>()
        || match inside {
            Some(inside) => is_tls(inside),
            None => error.source().is_some_and(is_tls),
        }
}

/// The last of an error's causes, which is the most specific.
pub(super) fn last_cause(error: &reqwest::Error) -> String {
    let mut last: &dyn Error = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    if last.is::<reqwest::Error>() { "the connection failed".to_owned() } else { last.to_string() }
}
