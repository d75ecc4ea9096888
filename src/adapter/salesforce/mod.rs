//! The channel `Salesforce`: its topics, and what answers them in the process.
//!
//! `credentials` answers `User/FetchCredentials` from the directory or from an org, `audit` records who fetched what.
//! Nothing outside this folder knows a topic of this channel.
//!
//! `events` hears what an org publishes, and publishes it here.
//!
//! Of an org: `org` looks a user up with `client`, the only file that waits, and
//! `diagnosis` finds the broken link; `oauth`, `soql`, `response`, `row`, `fault`
//! and `breaker` say, without waiting, what is sent and what an answer means.

mod audit;
mod credentials;

mod diagnosis;
mod org;

mod events;

mod client;

mod breaker;
mod cache;
mod fault;
mod oauth;
mod response;
mod row;
mod soql;
mod stats;
mod transport;

pub use audit::{Audit, Rotation};
pub use breaker::BreakerState;
pub use credentials::{FetchCredentials, Store};
pub use diagnosis::{Outcome, Step};
pub use events::{Events, TopicSnapshot};
pub use oauth::SetupError;
pub use org::Org;
pub use stats::{LATENCY_MS, Snapshot};

use crate::envelope::{Pattern, Triple};

/// The channel of every topic here.
const CHANNEL: &str = "Salesforce";

/// An agent's CTI credentials, fetched by the agent's gadgets: topic and subtopic.
const FETCH_CREDENTIALS: (&str, &str) = ("User", "FetchCredentials");

/// What an org published, and what became of a record: topics whose subtopic is the event's API name.
const PLATFORM_EVENT: &str = "PlatformEvent";
const CHANGE_EVENT: &str = "ChangeEvent";

fn exactly((topic, subtopic): (&'static str, &'static str)) -> Pattern {
    Pattern::exactly(&Triple::new(CHANNEL, topic, subtopic))
}
