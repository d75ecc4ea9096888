//! Several brokers as one (docs/cluster.md). `routing`, `choosing`, `asking`, `pressure`, `exclusive`, `retained`, `missed`,
//! `moving`, `logs`, `stress` and those that begin so are several routers in one thread or in many, whose links deliver when the
//! test says so; `simulation` is routers with real links on a simulated network; `nats`, `leases`, `values`, `history`,
//! `rolling`, `starting`, `outages`, `operating`, `bursts`, `routes` and `reloading` are brokers on real NATS servers.

mod asking;
mod bursts;
mod choosing;
mod exclusive;
mod history;
mod kept;
mod leases;
mod logs;
mod logs_model;
mod missed;
mod moving;
mod nats;
mod nodes;
mod operating;
mod outages;
mod pressure;
mod reloading;
mod retained;
mod rolling;
mod routes;
mod routing;
pub(crate) mod servers;
mod simulation;
mod starting;
mod storage;
mod stress;
mod stress_moving;
mod stress_retained;
mod values;
