//! Every test that drives switchboard from outside, in one program.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail loudly; clippy's own relaxation covers test functions only"
)]

mod client;
mod configuration;
mod credentials;
mod fake_broker;
mod server;
mod tidy;
