//! The channel `Salesforce`: its topics, and what answers them in the process.
//!
//! `credentials` answers `User/FetchCredentials` from the directory, `audit` records who fetched what. Nothing outside
//! this folder knows a topic of this channel.

mod audit;
mod credentials;

pub use audit::{Audit, Rotation};
pub use credentials::FetchCredentials;

use crate::envelope::{Pattern, Triple};

/// The channel of every topic here.
const CHANNEL: &str = "Salesforce";

/// An agent's CTI credentials, fetched by the agent's gadgets: topic and subtopic.
const FETCH_CREDENTIALS: (&str, &str) = ("User", "FetchCredentials");

fn exactly((topic, subtopic): (&'static str, &'static str)) -> Pattern {
    Pattern::exactly(&Triple::new(CHANNEL, topic, subtopic))
}
