//! The [`Driver`] without a connection: it waits, connects again, and keeps what the application publishes meanwhile.

use std::sync::Arc;

use tokio::time::{Instant, sleep_until};

use super::backoff::{can_retry, next};
use super::connection::{Link, establish};
use super::order::Order;
use super::outbox::{KEPT_BYTES_MAX, Kind};
use super::reconnect::{Driver, closed_here};
use super::reconnection::Outage;
use super::{Error, ORDERS, State, WhileAway};
use wire::Reconnect;

impl Driver {
    /// Connects again after a connection that ended at `at`, for as long as that can help.
    pub(super) async fn reconnect(&mut self, lost: Error, at: Instant) -> Result<Link, Error> {
        let shared = Arc::clone(&self.shared);
        let (mut error, mut at) = (lost, at);
        let mut is_registering = false;
        loop {
            let next = next(&error);
            if !self.meanwhile(can_retry(&error, &shared.settings, is_registering)).await? {
                return Err(error);
            }
            if next == Reconnect::DropMessage {
                tracing::warn!(%error, "the broker closed the connection because of a message, which is not sent again");
            }
            let after = if next == Reconnect::AfterDelay { self.reconnect_after.take() } else { None };
            let wait = after.unwrap_or_else(|| self.backoff.next());
            let due = at + wait;
            let retry_in = due.saturating_duration_since(Instant::now());
            self.shared.states.send_replace(State::Disconnected { reason: error.to_string(), retry_in });
            self.meanwhile(sleep_until(due)).await?;
            self.shared.states.send_replace(State::Connecting);
            let resume = self.resume.clone();
            match self.meanwhile(Box::pin(establish(&shared.settings, &resume))).await? {
                Ok(link) => return Ok(link),
                Err(again) => (error, at, is_registering) = (again, Instant::now(), true),
            }
        }
    }

    /// Runs a future while the client is disconnected. Fails if the client ends.
    async fn meanwhile<T>(&mut self, future: impl Future<Output = T>) -> Result<T, Error> {
        tokio::pin!(future);
        loop {
            tokio::select! {
                outcome = &mut future => return Ok(outcome),
                order = self.orders.recv() => match order {
                    None => return Err(closed_here()),
                    Some(Order::Close(done)) => {
                        done.send(()).ok();
                        return Err(closed_here());
                    }
                    Some(order) => self.keep(order),
                },
                () = self.table.unpark() => {}
            }
        }
    }

    /// Keeps what can be sent on the next connection. Other orders are dropped: the caller's queue closes without an answer,
    /// which means `Disconnected`.
    fn keep(&mut self, order: Order) {
        let (messages, bytes) = self.out.unwritten();
        let has_room = match self.shared.settings.while_away {
            WhileAway::Keep(messages_max) => messages < messages_max && bytes < KEPT_BYTES_MAX,
            WhileAway::Refuse => false,
        };
        match order {
            // It was published before the connection was known to be lost.
            Order::Send(text) if has_room || messages < ORDERS => {
                self.out.push(Kind::Event { silent: true }, text);
            }
            Order::Send(_) => {
                self.outage.iter_mut().for_each(Outage::lose);
                tracing::warn!("an event without a receipt is lost: the connection is, and no further events are kept");
            }
            Order::Keep { text, kept } if has_room => {
                self.out.push(Kind::Event { silent: true }, text);
                kept.send(()).ok();
            }
            Order::Publish { id, text, once, receipt } if has_room => self.publish(id, text, once, receipt),
            // Its session may go on. There are no more answers than requests that were given.
            Order::Answer { to, more: false, text } => self.answer(&to, false, text),
            Order::Answer { to, more: true, text } if messages < ORDERS => self.answer(&to, true, text),
            Order::Keep { .. }
            | Order::Publish { .. }
            | Order::Answer { .. }
            | Order::Ask { .. }
            | Order::Subscribe { .. }
            | Order::Close(_) => {}
        }
    }
}
