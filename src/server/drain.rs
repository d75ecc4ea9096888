//! How a broker ends (protocol.md, Drain).

use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

use super::Broker;

/// How long after the drain the connections may take to send their last frames.
const CLOSE_TIME: Duration = Duration::from_secs(1);

/// How often a drain looks whether the requests that it waits for have ended.
const LOOK_EVERY: Duration = Duration::from_millis(10);

impl Broker {
    /// Tells all sessions when to return and waits for the requests that are pending now, at most `limits.drain`. Then
    /// closes everything. Until then sessions are served, and new connections are refused with 503.
    pub(super) async fn drain(&self) {
        let (connections, limit) = (self.connections.web_sockets(), self.settings.limits().drain);
        tracing::info!(connections, ?limit, "the drain begins");
        self.draining.cancel();
        self.service_manager.stopping();
        let mut pending = self.router.pending_requests();
        self.shutdown.drain(connections);
        let until = Instant::now() + limit;
        while self.router.any_pending(&mut pending) && Instant::now() < until {
            sleep_until((Instant::now() + LOOK_EVERY).min(until)).await;
        }
        self.close().await;
        tracing::info!("the drain is over");
    }

    /// Closes the listeners and all connections, then the handlers in this process.
    async fn close(&self) {
        self.closing.cancel();
        self.shutdown.close();
        self.tasks.close();
        if timeout(CLOSE_TIME, self.tasks.wait()).await.is_err() {
            self.ended.cancel();
            timeout(CLOSE_TIME, self.tasks.wait()).await.ok();
        }
        self.handlers_stop.cancel();
        self.handlers.close();
        timeout(CLOSE_TIME, self.handlers.wait()).await.ok();
        if let Some(committer) = &self.committer {
            committer.stop();
        }
        if let Some(cluster) = &self.cluster {
            cluster.stop();
        }
    }
}
