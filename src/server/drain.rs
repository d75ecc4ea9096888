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
    ///
    /// A node of a cluster closes its sessions one after the other instead. It waits until other nodes have taken over those
    /// that are resumable, or their grace has ended.
    pub(super) async fn drain(&self) {
        let (connections, limit) = (self.connections.web_sockets(), self.settings.limits().drain);
        tracing::info!(connections, ?limit, "the drain begins");
        self.draining.cancel();
        self.service_manager.stopping();
        let mut pending = self.router.pending_requests();
        match self.cluster {
            Some(_) => {
                self.router.set_draining();
                self.shutdown.drain_one_by_one(connections);
            }
            None => self.shutdown.drain(connections),
        }
        let until = Instant::now() + limit;
        while (self.router.any_pending(&mut pending) || self.has_sessions_to_move()) && Instant::now() < until {
            sleep_until((Instant::now() + LOOK_EVERY).min(until)).await;
        }
        self.router.give_up_gone(Instant::now().into_std());
        self.close().await;
        tracing::info!("the drain is over");
    }

    /// Whether a node of a cluster has sessions that other nodes may yet take over, or connections whose turn to close has not
    /// come.
    fn has_sessions_to_move(&self) -> bool {
        self.cluster.is_some() && (self.connections.web_sockets() > 0 || self.router.has_sessions_to_move())
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
