//! [`serve`]: one connection from the handshake to its end, the only place in this room that waits.
//!
//! One loop turns socket, outbox, clock and drain into [`Input`]s, carries out [`Effect`]s and writes what is to be sent.
//! While the connection does not want to read, or the peer takes nothing, the socket is not read, so that order holds and
//! nothing piles up; deadline, drain and the outbox go on.
//!
//! `turn` says what comes next for the loop, `burst` handles the messages that have arrived, `farewell` is what follows the
//! loop. `admission` limits how many connections are set up or torn down at once.

mod admission;
mod burst;
mod farewell;
mod turn;

use std::future::Future;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::yield_now;
use tokio::time::{self, sleep_until, timeout_at};

pub use self::admission::Admission;
use self::burst::{Burst, Held};
use self::farewell::{Ending, finish};
use self::turn::Turn;
use super::{Connection, Effect, Gone, Input, Shutdown, Stage};
use crate::auth::{Verification, Verifier};
use crate::router::Router;
use crate::websocket::{Ended, Socket};

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
}
