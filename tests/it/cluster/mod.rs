//! Several brokers as one (docs/cluster.md). `routing` is several routers in one thread, whose links deliver when the test
//! says so; `nats` and `starting` are brokers on real NATS servers.

mod nats;
mod nodes;
mod routing;
pub(crate) mod servers;
mod starting;
mod stress;
