//! Handlers in the process: the [`Handler`] trait, and the [`host`] that attaches an implementation to the router.
//!
//! To the router an adapter is a subscriber like any other; an adapter does not see the router.

pub mod host;

use std::future::Future;
use std::pin::Pin;

use secrecy::SecretString;
use serde_json::value::RawValue;

use wire::Refusal;
use wire::{Pattern, Triple};

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
    /// The asker's own `id`, by which the same request, asked again, is known.
    pub request_id: Option<String>,
    /// `data` (or `message`) as it came.
    pub payload: Option<Box<RawValue>>,
}

/// What a handler answers, and what it tells others.
pub struct Response {
    /// The JSON text of the answer's `data`; zeroised when dropped, because it may hold a password.
    pub data: SecretString,
    /// Events that are published once the answer is on its way.
    pub events: Vec<Event>,
}

impl From<SecretString> for Response {
    fn from(data: SecretString) -> Self {
        Self { data, events: Vec::new() }
    }
}

/// One event: heard by a handler, or published by it.
pub struct Event {
    /// What it is.
    pub triple: Triple<'static>,
    /// Whose it is; `None` on a shared channel only.
    pub user: Option<String>,
    /// `data` (or `message`) as it came; published as `data`.
    pub payload: Option<Box<RawValue>>,
}

/// What a handler will have answered.
pub type Answer<'a> = Pin<Box<dyn Future<Output = Result<Response, Refusal>> + Send + 'a>>;

/// A handler at work on an event.
pub type Heard<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Answers requests in the process, and may hear events.
pub trait Handler: Send + Sync {
    /// The triples it answers.
    fn serves(&self) -> Vec<Pattern>;

    /// The null keys that a failure of its triples bears before `Success`, the broker's own failures included.
    fn failure_keys(&self) -> &'static [&'static str];

    /// Answers one request. A refusal becomes a failure on the request's triple, with the declared keys.
    fn handle(&self, request: Request) -> Answer<'_>;

    /// Hears of a request to its triples that the broker refused before it came here (for an audit record).
    fn refused(&self, request: &Request, refusal: &Refusal);

    /// The events it hears, every user's.
    fn hears(&self) -> Vec<Pattern> {
        Vec::new()
    }

    /// Hears one event.
    fn hear(&self, event: Event) -> Heard<'_> {
        drop(event);
        Box::pin(std::future::ready(()))
    }
}
