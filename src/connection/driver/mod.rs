//! [`serve`]: one connection from the handshake to its end, the only place in this room that waits.
//!
//! One loop turns socket, outbox, clock and drain into [`Input`]s, carries out [`Effect`]s and writes what is to be sent.
//! While the connection does not want to read, or the peer takes nothing, the socket is not read, so that order holds and
//! nothing piles up; deadline, drain and the outbox go on.
//!
//! `admission` limits how many connections are set up or torn down at once, `farewell` is what follows the loop.

mod admission;
mod farewell;

use std::future::{Future, poll_fn};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::yield_now;
use tokio::time::{self, sleep_until, timeout_at};

pub use self::admission::Admission;
use self::farewell::{Ending, finish};
use super::{Connection, Effect, Gone, Input, Shutdown, Stage};
use crate::auth::{AuthError, Identity, Verification, Verifier};
use crate::router::{End, HeldWakes, Router, WakeBatch};
use crate::websocket::{Arrival, Ended, Socket};

/// How long a connection is served before others on the same thread get their turn. The work of a message differs by a
/// factor of a thousand, so a number of messages would bound nothing.
const BURST: Duration = Duration::from_micros(200);

/// How long receivers are not woken while a publisher is served in one burst after the other. A message to 1,000 receivers
/// takes most of a [`BURST`]: woken after each, every receiver would write one frame with one system call, which takes five
/// times the CPU. So others wait for one burst, and receivers for a few: after 2 ms, a fan-out at full speed took a fifth
/// more CPU than after 5 ms.
const WAKE_AFTER: Duration = Duration::from_millis(4);

/// Frames that are taken from the outbox at once. The socket is not read until they are written.
const BATCH: usize = 256;

/// How long the last frames and the Close frame are kept for a peer that reads nothing (docs/protocol.md, Close codes).
const CLOSING: Duration = Duration::from_secs(5);

/// A timer that waits for nothing fires after this time, without effect.
const NEVER: Duration = Duration::from_hours(24);

/// A stream after the handshake.
pub struct Upgraded<S> {
    /// Carries the frames.
    pub stream: S,
    /// Bytes that were read together with the handshake.
    pub read_ahead: Bytes,
}

/// What a connection needs of its broker.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Routes.
    pub router: &'a Router,
    /// Says who a session is.
    pub verifier: &'a dyn Verifier,
    /// Limits setup and teardown.
    pub admission: &'a Admission,
    /// Says how far a drain is.
    pub shutdown: &'a Shutdown,
}

/// Serves one connection until it has ended.
///
/// Not an `async fn`: that keeps its arguments to its end, beside what became of them, and an idle session is little
/// more than this future.
pub fn serve<S>(upgraded: Upgraded<S>, connection: Connection, context: Context<'_>) -> impl Future<Output = ()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Upgraded { stream, read_ahead } = upgraded;
    let socket = Socket::new(stream, &read_ahead, connection.message_bytes_max());
    let attached = Attached { connection, router: context.router };
    let mut driver = Driver {
        socket,
        attached,
        context,
        verification: None,
        blocked: false,
        reads_first: false,
        burst: Burst::default(),
        held: None,
    };
    async move {
        let ending = driver.run().await;
        tracing::debug!(?ending, "the connection ends");
        context.router.metrics().closes.count(ending.counted());
        let Driver { mut socket, mut attached, .. } = driver;
        // A connection that the broker ends is detached already.
        if let Some(gone) = ending.gone() {
            let permit = Box::pin(context.admission.departure()).await;
            attached.gone(gone);
            drop(permit);
        }
        if !ending.sends_what_waits() {
            socket.drop_unbegun();
        }
        if matches!(ending, Ending::Close(_) | Ending::Fault(_)) {
            attached.connection.take(now(), usize::MAX, attached.router, socket.batch());
        }
        drop(attached);
        // Boxed: few connections end at a time, and every one would keep the room for it.
        timeout_at(time::Instant::now() + CLOSING, Box::pin(finish(&mut socket, ending))).await.ok();
        let traffic = &context.router.metrics().traffic;
        traffic.received(socket.take_received());
        traffic.sent(socket.take_sent());
    }
}

/// The connection, for as long as the router may know its session. The guard detaches after a panic or a dropped future
/// too: a session that stays behind would be given requests for ever.
struct Attached<'a> {
    connection: Connection,
    router: &'a Router,
}

impl Attached<'_> {
    fn gone(&mut self, gone: Gone) {
        drop(self.connection.handle(now(), Input::Gone(gone), self.router));
    }
}

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        // After a panic the connection may be in a state that panics again, which must not end the process.
        if catch_unwind(AssertUnwindSafe(|| self.gone(Gone::Lost))).is_err() {
            tracing::error!("a session could not be detached");
        }
    }
}

fn now() -> Instant {
    time::Instant::now().into_std()
}

/// Returns the time of day, by which proofs end. The monotonic clock does not know it: it stands still while a laptop sleeps.
#[expect(clippy::disallowed_methods, reason = "tokens say by the calendar until when they are good")]
pub(super) fn time_of_day(_: Instant) -> SystemTime {
    SystemTime::now()
}

struct Driver<'a, S> {
    socket: Socket<S>,
    attached: Attached<'a>,
    context: Context<'a>,
    verification: Option<Verification<'a>>,
    /// There is something to send, and the peer takes nothing.
    blocked: bool,
    /// The socket has its turn before the outbox: they alternate, so that a busy outbox does not keep pongs unread.
    reads_first: bool,
    burst: Burst,
    /// Wake-ups of receivers that wait for the next burst.
    held: Option<Box<Held>>,
}

/// Wake-ups of receivers, since the burst that caused the first of them.
struct Held {
    wakes: HeldWakes,
    since: Instant,
}

/// The time since the task has last let others run. While more arrives than it can handle, nothing else would end its
/// poll: the runtime only counts reads, and one read brings up to 32 KiB of messages.
#[derive(Default)]
struct Burst {
    /// `None`: the task has slept since.
    since: Option<Instant>,
    is_over: bool,
}

impl Burst {
    /// Whether others should run now.
    fn is_over(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        self.is_over = now.saturating_duration_since(since) >= BURST;
        self.is_over
    }
}

/// What one turn of the loop brought.
enum Turn {
    Stage,
    Due,
    /// There is something for [`Socket::next_arrival`].
    Arrived,
    /// The peer takes nothing more for now.
    Blocked,
    Wrote,
    /// There is something to send.
    Ready,
    Ended(End),
    /// Boxed: it is large, and every turn is moved.
    Verified(Box<Result<Identity, AuthError>>),
    Relieved,
    Committed,
    Looked,
    Leased,
    Fetched,
    Gone(Ended),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<'_, S> {
    async fn run(&mut self) -> Ending {
        let mut stage = Stage::Draining;
        let mut reached = pin!(self.context.shutdown.reached(stage));
        let mut armed = now() + NEVER;
        let mut timer = pin!(sleep_until(armed.into()));
        loop {
            // Armed anew only for an earlier time: a deadline that moves back costs nothing until the old one comes.
            let due = self.attached.connection.deadline();
            if due.is_some_and(|due| due < armed) {
                armed = due.unwrap_or(armed);
                timer.as_mut().reset(armed.into());
            }
            let turn = tokio::select! {
                () = &mut reached, if stage != Stage::Serving => Turn::Stage,
                () = &mut timer => Turn::Due,
                turn = self.socket_turn() => turn,
            };
            if !matches!(turn, Turn::Arrived) {
                self.held = None;
            }
            let effect = match turn {
                Turn::Stage if stage == Stage::Draining => {
                    stage = Stage::Closing;
                    reached.set(self.context.shutdown.reached(stage));
                    self.drain()
                }
                Turn::Stage => {
                    stage = Stage::Serving;
                    self.handle(now(), Input::Restart)
                }
                Turn::Due => {
                    armed = now() + NEVER;
                    timer.as_mut().reset(armed.into());
                    self.fire_timers()
                }
                Turn::Arrived => match self.handle_arrived() {
                    Ok(effect) => effect,
                    Err(ended) => return self.ending(ended),
                },
                Turn::Blocked => {
                    self.blocked = true;
                    self.handle(now(), Input::Blocked)
                }
                Turn::Wrote => self.wrote(),
                Turn::Ready => self.fill_batch(),
                Turn::Ended(end) => self.handle(now(), Input::Ended(end)),
                Turn::Verified(identity) => self.handle(now(), Input::Verified(*identity)),
                Turn::Relieved => self.handle(now(), Input::Relieved),
                Turn::Committed => self.handle(now(), Input::Committed),
                Turn::Looked => self.handle(now(), Input::Looked),
                Turn::Leased => self.handle(now(), Input::Leased),
                Turn::Fetched => self.handle(now(), Input::Fetched),
                Turn::Gone(ended) => return self.ending(ended),
            };
            match effect {
                None => {}
                Some(Effect::Verify(claim)) => self.verification = Some(self.context.verifier.verify(claim)),
                Some(Effect::Close(close)) => return Ending::Close(close),
            }
            if !self.attached.connection.is_verifying() {
                // A renewal that took too long is answered already.
                self.verification = None;
            }
            if self.burst.is_over {
                yield_now().await;
                self.burst = Burst::default();
            }
        }
    }

    /// Tells the connection that the broker drains, and when to return.
    fn drain(&mut self) -> Option<Effect> {
        let reconnect_after = self.context.shutdown.reconnect_after();
        self.handle(
            now(),
            match self.context.shutdown.is_one_by_one() {
                true => Input::MoveAfter(reconnect_after),
                false => Input::Drain(reconnect_after),
            },
        )
    }

    fn ending(&self, ended: Ended) -> Ending {
        match ended {
            Ended::ByPeer(code) => Ending::ByPeer(code),
            Ended::Lost => Ending::Lost,
            Ended::Fault(fault) => Ending::Fault(self.attached.connection.close_of(fault)),
        }
    }

    fn handle(&mut self, now: Instant, input: Input<'_>) -> Option<Effect> {
        let effect = self.attached.connection.handle(now, input, self.attached.router);
        self.socket.set_message_bytes_max(self.attached.connection.message_bytes_max());
        effect
    }

    /// One turn of everything but the clock and the drain. Each part leaves its state in `self`, so a turn that is dropped
    /// loses nothing.
    async fn socket_turn(&mut self) -> Turn {
        poll_fn(|cx| {
            let turn = self.poll_socket_turn(cx);
            if turn.is_pending() {
                self.burst = Burst::default();
                self.held = None;
            }
            turn
        })
        .await
    }

    fn poll_socket_turn(&mut self, cx: &mut std::task::Context<'_>) -> Poll<Turn> {
        let Self { socket, attached, verification, blocked, reads_first, .. } = self;
        let connection = &mut attached.connection;
        if let Some(waiting) = verification
            && let Poll::Ready(identity) = waiting.as_mut().poll(cx)
        {
            *verification = None;
            return Poll::Ready(Turn::Verified(Box::new(identity)));
        }
        if connection.poll_pause(cx).is_ready() {
            return Poll::Ready(Turn::Relieved);
        }
        if connection.poll_commits(cx).is_ready() {
            return Poll::Ready(Turn::Committed);
        }
        if connection.poll_look(cx).is_ready() {
            return Poll::Ready(Turn::Looked);
        }
        if connection.poll_lease(cx).is_ready() {
            return Poll::Ready(Turn::Leased);
        }
        if connection.poll_fetch(cx).is_ready() {
            return Poll::Ready(Turn::Fetched);
        }
        if socket.is_writing() {
            if let Poll::Ready(end) = connection.poll_end(cx) {
                return Poll::Ready(end.map_or(Turn::Due, Turn::Ended));
            }
            return write_some(socket, *blocked, cx);
        }
        let read = mem::take(reads_first) && connection.reads();
        if read && let Poll::Ready(arrived) = poll_arrived(socket, cx) {
            return Poll::Ready(arrived);
        }
        if connection.poll_ready(cx).is_ready() {
            *reads_first = true;
            return Poll::Ready(Turn::Ready);
        }
        if read || !connection.reads() {
            return Poll::Pending;
        }
        poll_arrived(socket, cx)
    }

    fn fire_timers(&mut self) -> Option<Effect> {
        if self.socket.take_heard() {
            let effect = self.handle(now(), Input::Alive);
            debug_assert!(effect.is_none(), "a sign of life has no effect");
        }
        self.handle(now(), Input::Timeout)
    }

    /// The peer has taken something.
    fn wrote(&mut self) -> Option<Effect> {
        self.context.router.metrics().traffic.sent(self.socket.take_sent());
        if !mem::take(&mut self.blocked) {
            return None;
        }
        self.handle(now(), Input::Taken)
    }

    /// There is something to send, or the outbox has ended.
    fn fill_batch(&mut self) -> Option<Effect> {
        if let Some(end) = self.attached.connection.ended() {
            return self.handle(now(), Input::Ended(end));
        }
        let at = now();
        self.burst.is_over(at);
        self.attached.connection.take(at, BATCH, self.attached.router, self.socket.batch());
        if !self.socket.is_writing() {
            // A replay looked at many values and found none for this session. Others have their turn before it goes on.
            self.burst.is_over = true;
        }
        None
    }

    /// Handles the messages that have arrived, until one has an effect, the connection wants to pause, or the burst is over.
    /// Their receivers are woken then, or after the next burst.
    fn handle_arrived(&mut self) -> Result<Option<Effect>, Ended> {
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

fn poll_arrived<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut Socket<S>,
    cx: &mut std::task::Context<'_>,
) -> Poll<Turn> {
    let arrived = socket.poll_come(cx);
    arrived.map(|arrived| arrived.map_or_else(Turn::Gone, |()| Turn::Arrived))
}

/// Writes what the peer takes now.
fn write_some<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut Socket<S>,
    blocked: bool,
    cx: &mut std::task::Context<'_>,
) -> Poll<Turn> {
    let mut progress = false;
    while socket.is_writing() {
        match socket.poll_write(cx) {
            Poll::Ready(Ok(())) => progress = true,
            Poll::Ready(Err(_)) => return Poll::Ready(Turn::Gone(Ended::Lost)),
            Poll::Pending if progress => break,
            Poll::Pending if blocked => return Poll::Pending,
            Poll::Pending => return Poll::Ready(Turn::Blocked),
        }
    }
    Poll::Ready(Turn::Wrote)
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
