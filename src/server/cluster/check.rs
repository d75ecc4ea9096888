//! `switchboard check --cluster`: whether the NATS servers can be reached, and are set up for nodes.

use std::time::Duration;

use reqwest::Method;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::ClusterError;
use super::connect::{options, with_proof};
use super::jetstream::{keeps_durably, largest_stored};
use crate::config::Config;
use crate::http::{self, BaseUrl, Failure, Options};

/// How long a server, or its monitoring port, may take to answer.
const ANSWER_TIME: Duration = Duration::from_secs(3);

/// The longest answer of a monitoring port.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// The longest time between two pings with which a frozen server is noticed soon.
const PING_INTERVAL_MAX: Duration = Duration::from_secs(2);

/// The most pings that may be missed.
const PING_MAX: u64 = 2;

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// A server, or a setting of it.
    pub what: String,
    /// What came of it.
    pub outcome: Came,
    /// In words.
    pub detail: String,
}

/// What came of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Came {
    /// It is as it should be.
    Passed,
    /// It could be better, or cannot be read.
    Warning,
    /// A node cannot use it.
    Failed,
}

impl Finding {
    fn new(what: impl Into<String>, outcome: Came, detail: impl Into<String>) -> Self {
        Self { what: what.into(), outcome, detail: detail.into() }
    }
}

/// What the monitoring port of a server says, as far as it matters (nats-server, `/varz`).
#[derive(Deserialize)]
struct Varz {
    server_name: String,
    /// In nanoseconds.
    ping_interval: u64,
    ping_max: u64,
    max_payload: usize,
    #[serde(default)]
    jetstream: Storage,
    #[serde(default)]
    gateway: Named,
    #[serde(default)]
    leaf: Leaf,
    #[serde(default)]
    cluster: Routes,
}

#[derive(Default, Deserialize)]
struct Storage {
    /// Absent if `JetStream` is off.
    config: Option<StorageConfig>,
}

#[derive(Deserialize)]
struct StorageConfig {
    #[serde(default)]
    sync_always: bool,
}

#[derive(Default, Deserialize)]
struct Named {
    name: Option<String>,
}

#[derive(Default, Deserialize)]
struct Leaf {
    port: Option<u16>,
}

#[derive(Default, Deserialize)]
struct Routes {
    #[serde(default)]
    urls: Vec<String>,
}

/// Looks at every server of `cluster.servers`, and at what `cluster.monitor` says.
pub async fn check_cluster(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    for server in &config.cluster.servers {
        findings.push(reach(config, server).await);
    }
    if config.cluster.monitor.is_empty() {
        let detail = "cluster.monitor names no address, so ping_interval, ping_max, sync_interval, max_payload and the topology cannot be read";
        findings.push(Finding::new("cluster.monitor", Came::Warning, detail));
    }
    for address in &config.cluster.monitor {
        match varz(address).await {
            Ok(varz) => findings.extend(judge(&varz, config)),
            Err(error) => {
                let detail = format!(
                    "ping_interval, ping_max, sync_interval, max_payload and the topology cannot be read: {error}"
                );
                findings.push(Finding::new(address, Came::Warning, detail));
            }
        }
    }
    let detail = "NATS does not report the pings between its servers; each needs in cluster { }: ping_interval: \"1s\", \
                  ping_max: 2";
    findings.push(Finding::new("cluster { }", Came::Warning, detail));
    findings
}

async fn reach(config: &Config, server: &str) -> Finding {
    let connect = async {
        let options = with_proof(&config.cluster, options(&config.cluster, "check")).await?;
        let client = options.connect(server).await;
        client.map_err(|error| ClusterError::Unreachable { servers: server.to_owned(), error: error.to_string() })
    };
    match timeout(ANSWER_TIME, connect).await {
        Ok(Ok(client)) => {
            let info = client.server_info();
            let detail = format!("{} {}, max_payload {}", info.server_name, info.version, info.max_payload);
            Finding::new(server, Came::Passed, detail)
        }
        Ok(Err(ClusterError::Unreachable { error, .. })) => Finding::new(server, Came::Failed, error),
        Ok(Err(error)) => Finding::new(server, Came::Failed, error.to_string()),
        Err(_) => Finding::new(server, Came::Failed, "no answer"),
    }
}

async fn varz(address: &str) -> Result<Varz, String> {
    let base = BaseUrl::parse(address.trim_end_matches('/'))?;
    let options = Options { server: &base, ca_file: None, insecure_http: !base.https };
    let client = http::Client::new(options).map_err(|error| error.to_string())?;
    let ask = async {
        let answer = http::send(client.request(Method::GET, format!("{base}/varz"))).await?;
        answer.body(ANSWER_BYTES_MAX).await
    };
    let body = timeout(ANSWER_TIME, ask).await.map_err(|_| "no answer".to_owned())?;
    let body = body.map_err(|failure| match failure {
        Failure::TooLarge => "the answer is too long".to_owned(),
        Failure::Tls(why) | Failure::Unconnected(why) | Failure::Broken(why) => why,
    })?;
    serde_json::from_slice(&body).map_err(|error| format!("this is not the /varz of a NATS server: {error}"))
}

fn judge(varz: &Varz, config: &Config) -> Vec<Finding> {
    let check = |what: &str, is_well: bool, detail: String| {
        let came = if is_well { Came::Passed } else { Came::Warning };
        Finding::new(format!("{} {what}", varz.server_name), came, detail)
    };
    let interval = Duration::from_nanos(varz.ping_interval);
    let pings = interval <= PING_INTERVAL_MAX && varz.ping_max <= PING_MAX;
    let servers = varz.cluster.urls.len();
    let needed = largest_stored(config);
    let (is_kept, is_durable) = match &varz.jetstream.config {
        Some(storage) => (true, storage.sync_always || !keeps_durably(config)),
        None => (false, false),
    };
    let apart = varz.gateway.name.is_none() && varz.leaf.port.is_none_or(|port| port == 0);
    vec![
        check(
            "pings",
            pings,
            format!("ping_interval {interval:?}, ping_max {}; at most 2s and {PING_MAX} are needed", varz.ping_max),
        ),
        check("topology", servers == 3, format!("{servers} servers in its cluster; three are needed")),
        check("JetStream", is_kept, "it has to be on: jetstream { store_dir: … }".to_owned()),
        check(
            "sync_interval",
            is_durable,
            "channels with history or retain need jetstream { sync_interval: always }: otherwise the loss of power of two \
             servers loses what was acknowledged"
                .to_owned(),
        ),
        check(
            "max_payload",
            varz.max_payload >= needed,
            format!("{}; what is kept needs limits.message_bytes and 16 KiB, {needed}", varz.max_payload),
        ),
        check("links", apart, "gateways and leaf nodes are not for clusters of brokers".to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::config::Channel;

    fn good() -> Value {
        json!({
            "server_name": "nats-1", "ping_interval": 1_000_000_000, "ping_max": 2, "max_payload": 1 << 20,
            "jetstream": { "config": { "sync_always": true } }, "gateway": {}, "leaf": {},
            "cluster": { "urls": ["one:6222", "two:6222", "three:6222"] }
        })
    }

    /// What is not as it should be, without the server's name.
    fn warnings(varz: Value, config: &Config) -> Vec<String> {
        let findings = judge(&serde_json::from_value(varz).unwrap(), config);
        let bad = findings.into_iter().filter(|it| it.outcome != Came::Passed);
        bad.map(|it| it.what.strip_prefix("nats-1 ").unwrap().to_owned()).collect()
    }

    #[test]
    fn each_setting_that_a_cluster_needs_is_looked_at() {
        let mut config = Config::default();
        config.limits.message_bytes = 512 << 10;
        config.channels = [("Queue".to_owned(), Channel { retain_durable: true, ..Channel::default() })].into();
        assert_eq!(warnings(good(), &config), [""; 0]);
        let check = |key: &str, value: Value, warning: &str| {
            let mut varz = good();
            varz[key] = value;
            assert_eq!(warnings(varz, &config), [warning], "{key}");
        };
        check("ping_interval", json!(3_000_000_000_u64), "pings");
        check("ping_max", json!(3), "pings");
        check("max_payload", json!(512 << 10), "max_payload");
        check("cluster", json!({ "urls": ["one:6222"] }), "topology");
        check("gateway", json!({ "name": "east" }), "links");
        check("leaf", json!({ "port": 7422 }), "links");
        check("jetstream", json!({ "config": { "sync_always": false } }), "sync_interval");
        let mut without = good();
        without["jetstream"] = json!({});
        assert_eq!(warnings(without, &config), ["JetStream", "sync_interval"]);
        // Nothing that is kept has to outlive a loss of power.
        let mut lazy = good();
        lazy["jetstream"] = json!({ "config": { "sync_always": false } });
        config.channels.clear();
        assert_eq!(warnings(lazy, &config), [""; 0]);
    }
}
