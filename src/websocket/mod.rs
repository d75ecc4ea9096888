//! RFC 6455, and nothing of ours: frames as they leave, frames as they arrive, and the socket of one connection.

mod frame;
mod header;
mod reader;
mod socket;

pub use frame::{Frame, ping};
pub use socket::{Arrival, Ended, Socket};

/// A rule that the peer broke. What it sends from then on cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A frame that RFC 6455 forbids, with the rule that it broke: 1002.
    Protocol(&'static str),
    /// A text message or close reason that is not UTF-8: 1007.
    InvalidUtf8,
    /// A message over the limit, refused on its header: 1009.
    TooLarge,
}
