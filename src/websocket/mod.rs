//! RFC 6455, and nothing of ours: frames as they leave, frames as they arrive, and the socket of one connection.

mod frame;
mod header;
mod memory;
mod reader;
mod socket;

pub use frame::{Frame, ping};
pub use memory::FrameMemory;
pub use socket::{Arrival, Ended, Socket};

/// A rule that the peer broke. What it sends from then on cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A frame that RFC 6455 forbids, with the rule that it broke: 1002.
    Protocol(Rule),
    /// A text message or close reason that is not UTF-8: 1007.
    InvalidUtf8,
    /// A message over the limit, refused on its header: 1009.
    TooLarge,
}

/// A rule of RFC 6455 about frames. A byte, because every read returns room for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "`as_str` says what each is")]
pub enum Rule {
    Opcode,
    Mask,
    ReservedBit,
    Length,
    ControlLength,
    ControlFragment,
    NothingToContinue,
    Incomplete,
    ClosePayload,
    CloseCode,
}

impl Rule {
    /// Returns the rule in words, with its section.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Opcode => "the opcode is reserved (RFC 6455, section 5.2)",
            Self::Mask => "a client masks its frames (RFC 6455, section 5.1)",
            Self::ReservedBit => "a reserved bit is set, but there is no extension (RFC 6455, section 5.2)",
            Self::Length => "the length is not encoded in the fewest bytes (RFC 6455, section 5.2)",
            Self::ControlLength => "a control frame has at most 125 bytes (RFC 6455, section 5.5)",
            Self::ControlFragment => "a control frame is not fragmented (RFC 6455, section 5.5)",
            Self::NothingToContinue => "there is no message to continue (RFC 6455, section 5.4)",
            Self::Incomplete => "the message before is not complete (RFC 6455, section 5.4)",
            Self::ClosePayload => "a Close frame has no payload, or a status code (RFC 6455, section 5.5.1)",
            Self::CloseCode => "the status code of the Close frame is not valid (RFC 6455, section 7.4)",
        }
    }
}
