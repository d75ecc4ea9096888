//! [`Parking`]: the messages that did not fit into a full queue, in order.

use std::collections::VecDeque;

use futures_util::future::select_all;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::waiting::Incoming;

/// See the module.
#[derive(Default)]
pub(super) struct Parking(Vec<Parked>);

/// The messages for one queue.
struct Parked {
    queue: mpsc::Sender<Incoming>,
    items: VecDeque<Incoming>,
}

impl Parking {
    /// Puts a message into a queue. If the queue is full, parks the message.
    pub(super) fn deliver(&mut self, queue: mpsc::Sender<Incoming>, item: Incoming) {
        if let Some(parked) = self.0.iter_mut().find(|parked| parked.queue.same_channel(&queue)) {
            parked.items.push_back(item);
        } else if let Err(TrySendError::Full(item)) = queue.try_send(item) {
            self.0.push(Parked { queue, items: VecDeque::from([item]) });
        }
    }

    /// Waits until a full queue has room, and passes on the messages that fit. If nothing is parked, never ends.
    pub(super) async fn unpark(&mut self) {
        if self.0.is_empty() {
            return std::future::pending().await;
        }
        // Cancel-safe: nothing is passed on before the wait is over, and a dropped permit frees its place.
        let room = |parked: &Parked| Box::pin(parked.queue.clone().reserve_owned());
        drop(select_all(self.0.iter().map(room)).await);
        self.0.retain_mut(Parked::pass_on);
    }

    /// Returns the number of parked messages.
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|parked| parked.items.len()).sum()
    }
}

impl Parked {
    /// Passes on the messages that fit. Returns whether some are left.
    fn pass_on(&mut self) -> bool {
        while let Some(item) = self.items.pop_front() {
            if let Err(TrySendError::Full(item)) = self.queue.try_send(item) {
                self.items.push_front(item);
                return true;
            }
        }
        false
    }
}
