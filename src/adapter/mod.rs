//! Handlers inside the process: the [`Handler`] trait, the [`host`] that attaches an implementation to the router, and
//! the `fair` queue in which requests wait for it. `audited` is what an audit record says of a request.
//!
//! To the router an adapter is a handler like any other; an adapter does not see the router.

mod audited;
mod fair;

pub mod host;

use std::future::Future;
use std::pin::Pin;

use serde_json::value::RawValue;

use wire::{Pattern, Refusal, Triple};

pub use crate::router::{Data, Given, Payload, Refused};

/// What a handler answers, and what it publishes besides.
pub struct Response {
    /// The answer's `data`.
    pub data: Data,
    /// Events that are published once the answer is on its way.
    pub events: Vec<Event>,
}

impl From<Data> for Response {
    fn from(data: Data) -> Self {
        Self { data, events: Vec::new() }
    }
}

/// One event, received or published by a handler.
pub struct Event {
    /// What it is about.
    pub triple: Triple<'static>,
    /// The user; `None` on a shared channel only.
    pub user: Option<String>,
    /// `data` (or `message`) as it came; published as `data`.
    pub payload: Option<Box<RawValue>>,
}

/// The answer of a handler, once it is there.
pub type Answer<'a> = Pin<Box<dyn Future<Output = Result<Response, Refusal>> + Send + 'a>>;

/// A handler at work on an event, or on what it does beside requests.
pub type Heard<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Publishes an event of a handler.
pub type Publish = dyn Fn(Event) + Send + Sync;

/// Answers requests inside the process, and may receive events.
pub trait Handler: Send + Sync {
    /// Its name in metrics.
    fn name(&self) -> &'static str;

    /// The triples that it answers, compared without regard to ASCII case. A reload may change them; none: it is switched
    /// off.
    fn serves(&self) -> Vec<Pattern>;

    /// The null keys that a failure of its triples has before `Success`, the broker's own failures included.
    fn failure_keys(&self) -> &'static [&'static str];

    /// The fields of a request's payload that its failure repeats.
    fn repeats(&self) -> &'static [&'static str] {
        &[]
    }

    /// The record that a request touches. Requests of one session on the same triple and record are handled one after
    /// the other, so that their answers come in the order of the requests.
    fn record_key(&self, given: &Given) -> Option<String> {
        let _ = given;
        None
    }

    /// Answers one request. A refusal becomes a failure on the request's triple, with the declared keys.
    fn handle(&self, given: Given) -> Answer<'_>;

    /// Works beside the requests until the broker ends, for example on what was begun for a request that was answered.
    /// Called once, with what publishes its events.
    fn work<'a>(&'a self, _publish: &'a Publish) -> Heard<'a> {
        Box::pin(std::future::ready(()))
    }

    /// Notes a request on its triples that was refused before it was handled (for an audit record).
    fn refused(&self, refused: &Refused<'_>) {
        let _ = refused;
    }

    /// The events that it receives, of all users. A reload may change them.
    fn hears(&self) -> Vec<Pattern> {
        Vec::new()
    }

    /// Receives one event.
    fn hear(&self, event: Event) -> Heard<'_> {
        drop(event);
        Box::pin(std::future::ready(()))
    }
}
