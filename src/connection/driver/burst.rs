//! [`Burst`]: how long a connection is served before others get their turn, and what it handles meanwhile.

use std::mem;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite};

use super::{Attached, Driver, now};
use crate::connection::{Effect, Input};
use crate::router::{HeldWakes, WakeBatch};
use crate::websocket::{Arrival, Ended};

/// How long a connection is served before others on the same thread get their turn. The work of a message differs by a
/// factor of a thousand, so a number of messages would bound nothing.
const BURST: Duration = Duration::from_micros(200);

/// How long receivers are not woken while a publisher is served in one burst after the other. A message to 1,000 receivers
/// takes most of a [`BURST`]: woken after each, every receiver would write one frame with one system call, which takes five
/// times the CPU. So others wait for one burst, and receivers for a few: after 2 ms, a fan-out at full speed took a fifth
/// more CPU than after 5 ms.
const WAKE_AFTER: Duration = Duration::from_millis(4);

/// Wake-ups of receivers, since the burst that caused the first of them.
pub(super) struct Held {
    wakes: HeldWakes,
    since: Instant,
}

/// The time since the task has last let others run. While more arrives than it can handle, nothing else would end its
/// poll: the runtime only counts reads, and one read brings up to 32 KiB of messages.
#[derive(Default)]
pub(super) struct Burst {
    /// `None`: the task has slept since.
    since: Option<Instant>,
    pub(super) is_over: bool,
}

impl Burst {
    /// Whether others should run now.
    pub(super) fn is_over(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        self.is_over = now.saturating_duration_since(since) >= BURST;
        self.is_over
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<'_, S> {
    /// Handles the messages that have arrived, until one has an effect, the connection wants to pause, or the burst is over.
    /// Their receivers are woken then, or after the next burst.
    pub(super) fn handle_arrived(&mut self) -> Result<Option<Effect>, Ended> {
        let at = now();
        let held = self.held.take().filter(|held| at.saturating_duration_since(held.since) < WAKE_AFTER);
        let (batch, since) = match held {
            Some(held) => (WakeBatch::resume(held.wakes), held.since),
            None => (WakeBatch::begin(), at),
        };
        let outcome = self.handle_burst(at);
        // Taken also if nobody counts: a limit that a reload sets counts from then on.
        let received = self.socket.take_received();
        let traffic = &self.context.router.metrics().traffic;
        traffic.received(received);
        if self.attached.connection.counts_bytes() {
            let effect = self.handle(now(), Input::Received(received));
            debug_assert!(effect.is_none(), "counted bytes have no effect");
        }
        if self.burst.is_over && matches!(outcome, Ok(None)) && self.attached.connection.reads() {
            self.held = Some(Box::new(Held { wakes: batch.hold(), since }));
        }
        outcome
    }

    #[inline]
    fn handle_burst(&mut self, mut at: Instant) -> Result<Option<Effect>, Ended> {
        let mut is_first = true;
        let Attached { connection, router } = &mut self.attached;
        while !self.burst.is_over(at) {
            let Some(arrival) = self.socket.next_arrival()? else { break };
            // The clock is read only where there is a message, since most come alone.
            if !mem::take(&mut is_first) {
                at = now();
            }
            let effect = connection.handle(at, arrival.into(), router);
            if connection.take_secret_read() {
                self.socket.wipe_read();
            }
            self.socket.set_message_bytes_max(connection.message_bytes_max());
            if effect.is_some() || !connection.reads() {
                return Ok(effect);
            }
        }
        Ok(None)
    }
}

impl<'s> From<Arrival<'s>> for Input<'s> {
    fn from(arrival: Arrival<'s>) -> Self {
        match arrival {
            Arrival::Text(text) => Self::Text(text),
            Arrival::Binary => Self::Binary,
            Arrival::Alive => Self::Frame,
        }
    }
}
