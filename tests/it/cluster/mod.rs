//! Several brokers as one (docs/cluster.md). `routing`, `choosing`, `asking`, `pressure`, `exclusive`, `retained`, `missed`, `records`,
//! `moving`, `logs`, `stress` and those that begin so are several routers in one thread or in many, whose links deliver when the
//! test says so; `simulation` is routers with real links on a simulated `network`. The others are brokers on real NATS servers,
//! which `servers` starts.

mod adopting;
mod asking;
pub(crate) mod balancer;
mod bursts;
mod choosing;
mod exclusive;
mod history;
mod kept;
mod leases;
mod logs;
mod logs_model;
mod logs_order;
mod missed;
mod moving;
mod moving_back;
mod moving_leases;
mod moving_logs;
mod moving_requests;
mod moving_turns;
mod nats;
mod network;
mod nodes;
mod operating;
mod order;
mod outages;
mod permissions;
mod pressure;
mod records;
mod reloading;
mod retained;
mod retained_logged;
mod rolling;
mod rolling_kept;
mod routes;
mod routing;
pub(crate) mod servers;
mod simulation;
mod starting;
mod storage;
mod stress;
mod stress_logs;
mod stress_moves;
mod stress_moving;
mod stress_moving_logs;
mod stress_retained;
mod values;

// For `network`.
use switchboard::cluster::{Bus, Inbound, Incarnation, Outbound};
