//! What each fuzz target does with its input.
//!
//! A target panics if a rule is broken. Otherwise it returns the class of the outcome: `accepted`, an error code, a
//! status, or a close code. A file in `corpus/TARGET` is named `CLASS.what-it-shows`, and `tests/it/wire/corpora.rs` replays
//! all of them on a stable compiler. Files that a fuzzer adds have no class in their name.

mod broker;
mod configuration;
mod envelope;
mod forwarded;
mod frame;
mod handshake;
mod token;

pub use configuration::configuration;
pub use envelope::{command, envelope};
pub use forwarded::forwarded;
pub use frame::frame;
pub use handshake::handshake;
pub use token::{jwt, key_set};
