//! Several brokers as one (docs/cluster.md). `routing` is several routers in one thread, whose links deliver when the test
//! says so, `logs` and `logs_model` the same with channels that have history; `nats`, `history`, `starting` and `outages` are brokers on real NATS servers.

mod history;
mod kept;
mod logs;
mod logs_model;
mod nats;
mod nodes;
mod outages;
mod routing;
pub(crate) mod servers;
mod starting;
mod stress;
