//! Several brokers as one (docs/cluster.md). `routing` is several routers in one thread, whose links deliver when the test
//! says so, as are `exclusive`, `retained`, `stress` and `stress_retained`; `nats`, `leases`, `values`, `starting` and `outages` are brokers on real NATS servers.

mod exclusive;
mod leases;
mod nats;
mod nodes;
mod outages;
mod retained;
mod routing;
pub(crate) mod servers;
mod starting;
mod storage;
mod stress;
mod stress_retained;
mod values;
