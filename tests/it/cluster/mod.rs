//! Several brokers as one (docs/cluster.md). `routing` and `moving` are several routers in one thread, whose links deliver when the test
//! says so; `nats`, `starting` and `outages` are brokers on real NATS servers.

mod moving;
mod nats;
mod nodes;
mod outages;
mod rolling;
mod routing;
pub(crate) mod servers;
mod starting;
mod stress;
mod stress_moving;
