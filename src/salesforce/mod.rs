//! Everything that talks to a Salesforce org.
//!
//! [`Org`] is a source of credentials. `messages` answers the requests of the channel `Salesforce` that write to an org,
//! `events` publishes there what an org publishes.
//!
//! `org` looks up a user and `write` changes records; `current` is the org with the settings in force. Both use `client`, which
//! sends a `call` when `breakers` and `quota` allow it, with the session of `login`; `counted` counts it. Only `transport` uses
//! the network. `diagnosis` finds the broken link. `oauth`, `private_key`, `soql`, `response`, `row`, `pause` and the faults
//! (`fault`, `answer_fault`, `login_fault`, `write_fault`) decide, without waiting, what is sent and what an answer means.
//!
//! `verifier` asks an org who a user is.

mod messages;

mod diagnosis;
mod org;
mod write;

mod events;

mod client;

mod answer_fault;
mod breakers;
mod cache;
mod call;
mod counted;
mod current;
mod fault;
mod login;
mod login_fault;
mod oauth;
mod pause;
mod private_key;
mod quota;
mod response;
mod row;
mod soql;
mod stats;
mod transport;
mod write_fault;

mod verifier;

pub use current::CurrentOrg;
pub use diagnosis::{Outcome, Step, Whose};
pub use events::{Events, NextEvents, TopicKeeper, TopicReader, TopicSeat, TopicSnapshot};
pub use messages::{Writers, switched_off};
pub use oauth::SetupError;
pub use org::Org;
pub use stats::{LATENCY_MS, Snapshot};
pub use verifier::{SalesforceVerifier, SetupErrors};

use wire::{Pattern, Triple};

/// The channel of every topic below.
const CHANNEL: &str = "Salesforce";

/// Platform events and change events of an org. The subtopic is the API name of the event.
const PLATFORM_EVENT: &str = "PlatformEvent";
const CHANGE_EVENT: &str = "ChangeEvent";
/// Changes fields of a record.
const UPDATE_OBJECT: (&str, &str) = ("Call", "UpdateObject");

/// Creates a record; also the event that announces it.
const CREATE_OBJECT: (&str, &str) = ("Call", "CreateObject");

/// Keeps variables for a call.
const SAVE_VARIABLES: (&str, &str) = ("Call", "SaveCustomVariables");

/// Drops variables of a call.
const REMOVE_VARIABLES: (&str, &str) = ("Call", "RemoveCustomVariables");

fn exactly((topic, subtopic): (&'static str, &'static str)) -> Pattern {
    Pattern::exactly(&Triple::new(CHANNEL, topic, subtopic))
}
