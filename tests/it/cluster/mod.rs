//! Several brokers as one (docs/cluster.md). `routing`, `choosing` and `pressure` are several routers in one thread, whose links
//! deliver when the test says so; `simulation` is routers with real links on a simulated network; `nats`,
//! `starting`, `outages`, `routes` and `reloading` are brokers on real NATS servers.

mod choosing;
mod nats;
mod nodes;
mod outages;
mod pressure;
mod reloading;
mod routes;
mod routing;
pub(crate) mod servers;
mod simulation;
mod starting;
mod stress;
