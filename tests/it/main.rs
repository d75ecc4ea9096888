//! Every test that drives switchboard from outside, in one program.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail loudly; clippy's own relaxation covers test functions only"
)]

mod support;

mod transcript_coverage;
mod transcripts;
mod transcripts_core;

mod corpora;
mod frames;
mod handshake;
mod malformed;
mod server;
mod session;

mod groups;
mod handler_gone;
mod splicing;

mod announce;
mod fetch_credentials;
mod presence;
mod replay;
mod retained;
mod secrets;

mod crowd;
mod drain;
mod load;
mod pressure;

mod bench;
mod budget;
mod chromium;
mod client;
mod close_codes;
mod command_line;
mod configuration;
mod credentials;
mod fake_broker;
mod python;
mod tls_proxy;

mod live_org;
mod metadata;
mod proof;
mod salesforce;
mod simulator;

mod documents;
mod outbox;
mod properties;
mod races_requests;
mod simulation;
mod stress;
mod stress_events;
mod tidy;
