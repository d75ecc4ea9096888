//! Everything that talks to a Salesforce org.
//!
//! [`Org`] is a source of credentials. `messages` answers the requests of the channel `Salesforce` that write to an org,
//! `events` publishes there what an org publishes.
//!
//! Of an org: `org` looks a user up and `write` changes records, both with `client`, the only file that waits for it, and
//! `diagnosis` finds the broken link; `oauth`, `soql`, `response`, `row`, `fault` and `write_fault` say, without waiting,
//! what is sent and what an answer means.
//!
//! `verifier` is who believes that an org's user is one.

mod messages;

mod diagnosis;
mod org;
mod write;

mod events;

mod client;

mod cache;
mod fault;
mod oauth;
mod response;
mod row;
mod soql;
mod stats;
mod write_fault;

mod verifier;

pub use diagnosis::{Outcome, Step, Whose};
pub use events::{Events, TopicSnapshot};
pub use messages::writers;
pub use oauth::SetupError;
pub use org::Org;
pub use stats::{LATENCY_MS, Snapshot};
pub use verifier::{SalesforceVerifier, SetupErrors};

use wire::{Pattern, Triple};

/// The channel of every topic here.
const CHANNEL: &str = "Salesforce";

/// What an org published, and what became of a record: topics whose subtopic is the event's API name.
const PLATFORM_EVENT: &str = "PlatformEvent";
const CHANGE_EVENT: &str = "ChangeEvent";
/// Fields of a record are changed.
const UPDATE_OBJECT: (&str, &str) = ("Call", "UpdateObject");

/// A record is made; also the event that tells of it.
const CREATE_OBJECT: (&str, &str) = ("Call", "CreateObject");

/// Variables are kept for a call.
const SAVE_VARIABLES: (&str, &str) = ("Call", "SaveCustomVariables");

/// Variables of a call are forgotten.
const REMOVE_VARIABLES: (&str, &str) = ("Call", "RemoveCustomVariables");

fn exactly((topic, subtopic): (&'static str, &'static str)) -> Pattern {
    Pattern::exactly(&Triple::new(CHANNEL, topic, subtopic))
}
