//! RFC 6455, and nothing of ours: frames as they leave, frames as they arrive, and the socket of one connection.

mod frame;
mod header;
mod reader;
mod socket;

pub use frame::{Frame, ping};
pub use socket::{Arrival, Ended, Socket};
