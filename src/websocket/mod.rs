//! RFC 6455, and nothing of ours: frames as they leave.

mod frame;

pub use frame::{Frame, ping};
