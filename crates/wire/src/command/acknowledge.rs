//! `Connection/Acknowledge`.

use super::options::{Options, invalid, options};
use crate::Envelope;
use crate::error::Refusal;

options!(AcknowledgeOptions {
    received = "received",
});

/// Reads how many messages of its session the client has received and handled.
pub(super) fn read(envelope: &Envelope<'_>) -> Result<u64, Refusal> {
    match AcknowledgeOptions::read(envelope)?.received.count()? {
        Some(received) => Ok(received),
        None => Err(invalid("data.received is missing: it is how many messages of the session you have received")),
    }
}
