//! How a program connects to NATS: as the configuration says, within a bounded time.

use std::time::Duration;

use async_nats::{Client, ConnectOptions, ServerAddr};
use tokio::time::{Instant, sleep_until, timeout};

use super::{ClusterError, NATS_WAIT};
use crate::config;
use crate::store::read_group_secret;

/// How often a node pings its NATS server: two missed pings end the connection, so a frozen server is noticed after 2.2 s.
const PING: Duration = Duration::from_secs(1);

/// How long the library waits before it connects again.
pub(super) const RECONNECT: Duration = Duration::from_millis(250);

/// Why a cluster cannot be joined if its servers do not answer.
pub(super) fn unreachable(settings: &config::Cluster, error: &dyn std::fmt::Display) -> ClusterError {
    ClusterError::Unreachable { servers: settings.servers.join(", "), error: error.to_string() }
}

/// The options of every connection, as this node.
pub(super) fn options(settings: &config::Cluster, node: &str) -> ConnectOptions {
    let options = ConnectOptions::new()
        .name(format!("switchboard {node}"))
        .ping_interval(PING)
        .connection_timeout(Duration::from_secs(2));
    with_tls(settings, options)
}

/// Connects, with what proves who this is. Tries for 10 s.
///
/// # Errors
/// [`ClusterError`]
pub(super) async fn reach(settings: &config::Cluster, options: ConnectOptions) -> Result<Client, ClusterError> {
    let servers: Vec<ServerAddr> = settings.servers.iter().filter_map(|server| server.parse().ok()).collect();
    let options = with_proof(settings, options).await?;
    let mut last = String::new();
    let until = Instant::now() + NATS_WAIT;
    loop {
        match timeout(NATS_WAIT, options.clone().connect(&servers[..])).await {
            Ok(Ok(client)) => return Ok(client),
            Ok(Err(error)) => last = error.to_string(),
            Err(_) if last.is_empty() => "no answer".clone_into(&mut last),
            Err(_) => {}
        }
        if Instant::now() >= until {
            return Err(unreachable(settings, &last));
        }
        sleep_until(Instant::now() + RECONNECT).await;
    }
}

/// The options with what proves to NATS who this node is. The library keeps these secrets in plain texts of its own.
pub(super) async fn with_proof(
    settings: &config::Cluster,
    options: ConnectOptions,
) -> Result<ConnectOptions, ClusterError> {
    let read = |key: &str, path: &std::path::Path| {
        read_group_secret(path).map_err(|error| ClusterError::Refused(format!("{key}: {}: {error}", path.display())))
    };
    if let Some(path) = &settings.credentials_file {
        let options = options.credentials_file(path).await;
        return options
            .map_err(|error| ClusterError::Refused(format!("cluster.credentials_file: {}: {error}", path.display())));
    }
    if let Some(path) = &settings.token_file {
        return Ok(options.token(read("cluster.token_file", path)?.trim().to_owned()));
    }
    if let Some(path) = &settings.nkey_seed_file {
        return Ok(options.nkey(read("cluster.nkey_seed_file", path)?.trim().to_owned()));
    }
    if let Some(path) = &settings.user_file {
        let text = read("cluster.user_file", path)?;
        let mut lines = text.lines();
        return match (lines.next(), lines.next()) {
            (Some(user), Some(password)) => Ok(options.user_and_password(user.to_owned(), password.to_owned())),
            _ => Err(ClusterError::Refused(format!(
                "cluster.user_file: {}: must hold two lines, user and password",
                path.display()
            ))),
        };
    }
    Ok(options)
}

fn with_tls(settings: &config::Cluster, mut options: ConnectOptions) -> ConnectOptions {
    if let Some(path) = &settings.ca_file {
        options = options.add_root_certificates(path.clone());
    }
    if let (Some(certificate), Some(key)) = (&settings.certificate_file, &settings.certificate_key_file) {
        options = options.add_client_certificate(certificate.clone(), key.clone());
    }
    options
}
