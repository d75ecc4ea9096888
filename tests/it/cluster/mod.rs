//! Several brokers as one (docs/cluster.md). `routing`, `choosing` and `pressure` are several routers in one thread, whose links
//! deliver when the test says so; `nats`, `starting` and `outages` are brokers on real NATS servers.

mod choosing;
mod nats;
mod nodes;
mod outages;
mod pressure;
mod routing;
pub(crate) mod servers;
mod starting;
mod stress;
