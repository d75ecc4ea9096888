//! `switchboard`: the WebSocket pub/sub message broker that joins the applications on a call-centre agent's desktop.
//!
//! The rooms, from the lowest floor up; a room may use those above it in this list, never those below. Data flows one
//! way: socket -> session -> router -> outbox -> socket. ARCHITECTURE.md is the map.

pub mod websocket;

pub mod telemetry;

pub mod auth;
pub mod config;

pub mod router;

pub mod adapter;

pub mod session;

pub mod server;

pub mod simulator;

pub mod cli;
