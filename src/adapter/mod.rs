//! Handlers in the process: the [`Handler`] trait, and what implements it.
//!
//! To the router an adapter is a subscriber like any other (`host`); to an adapter the router is out of sight.

pub mod host;

pub mod directory;
pub mod salesforce;

use std::future::Future;
use std::pin::Pin;

use secrecy::SecretString;
use serde_json::value::RawValue;

use crate::envelope::{Pattern, Triple};
use crate::error::Refusal;

/// One request, as a handler in the process sees it.
pub struct Request {
    /// What is asked.
    pub triple: Triple<'static>,
    /// The application that asks, verified.
    pub source: String,
    /// For which user: the asker's own, or the one that a service named. `None`: a service named nobody.
    pub user: Option<String>,
    /// The session that asks.
    pub session: String,
    /// `data` (or `message`) as it came.
    pub payload: Option<Box<RawValue>>,
}

/// The JSON text of an answer's `data`; zeroised when dropped, because it may hold a password.
pub type Response = SecretString;

/// What a handler will have answered.
pub type Answer<'a> = Pin<Box<dyn Future<Output = Result<Response, Refusal>> + Send + 'a>>;

/// Answers requests in the process.
pub trait Handler: Send + Sync {
    /// The triples it answers.
    fn serves(&self) -> Vec<Pattern>;

    /// The null keys that a failure of its triples bears before `Success`, the broker's own failures included.
    fn failure_keys(&self) -> &'static [&'static str];

    /// Answers one request. A refusal becomes a failure on the request's triple, with the declared keys.
    fn handle(&self, request: Request) -> Answer<'_>;

    /// Hears of a request to its triples that the broker refused before it came here (for an audit record).
    fn refused(&self, request: &Request, refusal: &Refusal);
}
