//! Several brokers as one (docs/cluster.md). `routing`, `choosing`, `pressure`, `exclusive`, `retained`, `moving`, `logs`, `stress`
//! and those that begin so are several routers in one thread or in many, whose links deliver when the test says so; `simulation`
//! is routers with real links on a simulated network; `nats`, `leases`, `values`, `history`, `rolling`, `starting`, `outages`,
//! `routes` and `reloading` are brokers on real NATS servers.

mod choosing;
mod exclusive;
mod history;
mod kept;
mod leases;
mod logs;
mod logs_model;
mod moving;
mod moving_leases;
mod moving_logs;
mod moving_turns;
mod nats;
mod nodes;
mod outages;
mod pressure;
mod reloading;
mod retained;
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
mod stress_moving;
mod stress_retained;
mod values;
