//! Every test that drives switchboard from outside, in one program; a room of tests is a folder.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail loudly; clippy's own relaxation covers test functions only"
)]

mod support;

mod transcripts;

mod model;
mod over_http;
mod routing;
mod session;
mod wire;

mod admin;
mod auth;
mod browser;
mod certificates;
mod cli;
mod client;
mod cluster;
mod config;
mod credentials;
mod javascript;
mod metrics;
mod packages;
mod salesforce;
mod telemetry;
mod tls;

mod budget;
mod documents;
mod tidy;
