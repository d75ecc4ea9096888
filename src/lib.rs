//! `switchboard`: the WebSocket pub/sub message broker that joins the applications on a call-centre agent's desktop.
//!
//! The rooms, from the lowest floor up; a room may use those above it in this list, never those below. Data flows one
//! way: socket -> session -> router -> outbox -> socket. ARCHITECTURE.md is the map.

pub(crate) mod backoff;
pub(crate) mod expiring;
pub(crate) mod short_text;
pub mod websocket;
pub(crate) mod wiped;

pub mod audit;
pub mod certificates;
pub mod http;
pub mod store;
pub mod telemetry;

pub mod auth;
pub mod cluster;
pub mod config;

pub mod router;

pub mod adapter;

pub mod credentials;

pub mod salesforce;

pub mod connection;

pub mod server;

pub mod cli;
