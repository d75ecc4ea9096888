//! [`Server`]: a broker or a nats-server that keeps what it is sent in files.

use std::path::Path;

use crate::process::Process;
use crate::publisher::Publisher;

/// One log for all publishers, as the stream is one for all. No publisher is held up for its rate.
const CONFIG: &str = "\
[auth]
mode = \"open\"
[limits]
rate = 0
[channels.Durable]
scope = \"shared\"
history = { size = 100000, ttl = \"1h\", durable = true }
";

pub(crate) struct Server {
    kind: Kind,
    process: Process,
}

#[derive(Clone, Copy)]
enum Kind {
    Switchboard,
    Nats,
}

impl Server {
    pub(crate) fn switchboard() -> Self {
        Self { kind: Kind::Switchboard, process: Process::switchboard(|_| CONFIG.to_owned()) }
    }

    pub(crate) fn nats(program: &Path) -> Self {
        let server = Self { kind: Kind::Nats, process: Process::nats(program, ", sync_interval: always") };
        server.publisher(0).create_stream();
        server
    }

    pub(crate) fn name(&self) -> &'static str {
        match self.kind {
            Kind::Switchboard => "switchboard",
            Kind::Nats => "JetStream",
        }
    }

    pub(crate) fn publisher(&self, number: usize) -> Publisher {
        match self.kind {
            Kind::Switchboard => Publisher::of_switchboard(&self.process.address),
            Kind::Nats => Publisher::of_nats(&self.process.address, number),
        }
    }
}
