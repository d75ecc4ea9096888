//! [`serve`]: one connection from the handshake to its end, the only place of the room that waits.
//!
//! One loop turns socket, outbox, clock and drain into [`Input`]s, carries out [`Effect`]s and writes what the outbox
//! holds. While an effect is carried out, or the peer takes nothing, the socket is not read, so that order holds and
//! nothing piles up; deadline, drain and the outbox go on.

use std::future::{Future, pending, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::yield_now;
use tokio::time::{self, sleep_until, timeout, timeout_at};

use super::{Connection, Effect, Input};
use crate::auth::{AuthError, Identity, Verification, Verifier};
use crate::router::{Outbox, Router, WakeBatch};
use crate::websocket::{Arrival, Ended, Socket};
use wire::CloseCode;

/// How many messages that have come already are handled before the outbox gets its turn.
const BURST: usize = 64;

/// How many frames are taken from the outbox at once; the socket is not read until they are written.
const BATCH: usize = 256;

/// How long the last frames and the Close frame are kept for a peer that reads nothing (protocol.md, Liveness).
const CLOSING: Duration = Duration::from_secs(5);

/// How long a peer may take to answer a Close frame.
const FAREWELL: Duration = Duration::from_secs(1);

/// How much of what a peer still sends is read and thrown away: a reset because of unread bytes would eat the Close.
const DISCARDED_BYTES_MAX: usize = 4 << 20;

/// When a timer that waits for nothing goes off, for nothing.
const NEVER: Duration = Duration::from_hours(24);

/// A stream after the handshake.
pub struct Upgraded<S> {
    /// Where messages come and go.
    pub stream: S,
    /// What was read together with the handshake.
    pub read_ahead: Bytes,
}

/// What a connection needs of its broker.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Routes.
    pub router: &'a Router,
    /// Says who a session is.
    pub verifier: &'a dyn Verifier,
    /// How long a peer may take nothing while it has something to take.
    pub slow_consumer: Duration,
    /// In which it goes.
    pub crowd: &'a Admission,
}

/// Those who come and those who go, a few at a time among those who are there: to come costs the broker some 100
/// microseconds, to go 50, and while five thousand do so at once nobody else would be served.
pub struct Admission(Semaphore);

impl Admission {
    /// How many have a turn between two turns of those who are there.
    const AT_ONCE: usize = 8;

    /// Waits for a turn; the next one has it when this is dropped.
    pub async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        let turn = self.0.acquire().await.ok();
        // Behind all who have something to do now: else those who go would only stand in another line.
        yield_now().await;
        turn
    }
}

impl Default for Admission {
    fn default() -> Self {
        Self(Semaphore::new(Self::AT_ONCE))
    }
}

/// Serves one connection until it has ended. `drain` is ready when the broker drains, with the time after which this
/// application should come back, in milliseconds.
///
/// Not an `async fn`: that keeps its arguments to its end, beside what became of them, and an idle session is little
/// more than this future.
pub fn serve<S>(
    connection: Upgraded<S>,
    session: Connection,
    context: Context<'_>,
    drain: impl Future<Output = u64>,
) -> impl Future<Output = ()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Upgraded { stream, read_ahead } = connection;
    let socket = Socket::new(stream, &read_ahead, session.message_bytes_max());
    let outbox = Arc::clone(session.outbox());
    let attached = Attached { session, router: context.router };
    let mut task = Task { socket, attached, outbox, context, blocked: false, stalled_from: now() };
    async move {
        let ending = task.run(pin!(drain)).await;
        tracing::debug!(?ending, "the connection ends");
        let Task { mut socket, attached, outbox, .. } = task;
        if ending.sends_what_waits() && !outbox.overflowed() {
            outbox.take(usize::MAX, socket.batch());
        } else {
            socket.drop_unbegun();
            // What the broker says of the queue itself: a slow consumer is warned before it is closed.
            outbox.take(0, socket.batch());
        }
        // Others must not wait for an application that goes, however long its last frames take. Who goes by itself stands in
        // the crowd's line first; what the broker ends has been detached already.
        let turn = match ending {
            Ending::Socket(_) => Box::pin(context.crowd.turn()).await,
            Ending::Close(_) => None,
        };
        drop(attached);
        drop(turn);
        outbox.close();
        // Boxed: few sessions end at a time, and every one would keep the room for it.
        timeout_at(time::Instant::now() + CLOSING, Box::pin(finish(socket, ending))).await.ok();
    }
}

/// The session, for as long as the router may know it. Detaching by guard, so that a panic or a dropped future does it
/// too: a session that stays behind would be given requests for ever.
struct Attached<'a> {
    session: Connection,
    router: &'a Router,
}

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        // After a panic the session may be in a state that panics again, which must not end the process.
        let detached = catch_unwind(AssertUnwindSafe(|| drop(self.session.handle(now(), Input::Gone, self.router))));
        if detached.is_err() {
            tracing::error!("a session could not be detached");
        }
    }
}

fn now() -> Instant {
    time::Instant::now().into_std()
}

struct Task<'a, S> {
    socket: Socket<S>,
    attached: Attached<'a>,
    outbox: Arc<Outbox>,
    context: Context<'a>,
    /// There is something to take, and the peer takes nothing.
    blocked: bool,
    /// Since when it is blocked.
    stalled_from: Instant,
}

/// What one turn of the loop brought.
enum Turn {
    Drain(u64),
    Due,
    /// Something for [`Socket::next`].
    Came,
    /// The peer takes nothing more for now.
    Blocked,
    Wrote,
    /// The outbox has something.
    Filled,
    Verified(Result<Identity, AuthError>),
    ReadOn,
    End(Ending),
}

/// Why the loop ended.
#[derive(Clone, Copy, Debug)]
enum Ending {
    /// The broker ends it.
    Close(CloseCode),
    /// The socket does.
    Socket(Ended),
}

impl Ending {
    /// Whether the peer is to receive what waits for it: not if it has gone, nor if it takes nothing anyhow.
    fn sends_what_waits(self) -> bool {
        match self {
            Self::Close(code) => code != CloseCode::SlowConsumer,
            Self::Socket(Ended::Fault(_)) => true,
            Self::Socket(Ended::ByPeer(_) | Ended::Lost) => false,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Task<'_, S> {
    async fn run(&mut self, mut drain: Pin<&mut impl Future<Output = u64>>) -> Ending {
        let outbox = Arc::clone(&self.outbox);
        let mut drained = false;
        let mut waiting = Waiting::Nothing;
        let mut armed = now() + NEVER;
        let mut timer = pin!(sleep_until(armed.into()));
        loop {
            // Armed anew only for an earlier time: a deadline that moves back costs nothing until the old one comes.
            let due = self.due(&waiting);
            if due.is_some_and(|due| due < armed) {
                armed = due.unwrap_or(armed);
                timer.as_mut().reset(armed.into());
            }
            let unwritten = self.socket.is_writing();
            let reads = !unwritten && matches!(waiting, Waiting::Nothing);
            // Every branch leaves its state in what it borrows, so dropping the others loses nothing.
            let turn = tokio::select! {
                reconnect_after_ms = &mut drain, if !drained => Turn::Drain(reconnect_after_ms),
                () = &mut timer => Turn::Due,
                turn = self.socket_turn(), if unwritten || reads => turn,
                () = outbox.ready(), if !unwritten => Turn::Filled,
                () = outbox.overflow(), if unwritten => Turn::Filled,
                turn = waiting.over() => turn,
            };
            let effect = match turn {
                Turn::Drain(reconnect_after_ms) => {
                    drained = true;
                    self.handle(now(), Input::Drain(reconnect_after_ms))
                }
                Turn::Due => {
                    armed = now() + NEVER;
                    timer.as_mut().reset(armed.into());
                    self.fire_timers(&mut waiting)
                }
                Turn::Came => match self.handle_arrived() {
                    Ok(effect) => effect,
                    Err(ended) => return Ending::Socket(ended),
                },
                Turn::Blocked => {
                    (self.blocked, self.stalled_from) = (true, now());
                    None
                }
                Turn::Wrote => self.has_written(),
                Turn::Filled => self.fill_batch(),
                Turn::Verified(identity) => {
                    waiting = Waiting::Nothing;
                    self.verified(identity)
                }
                Turn::ReadOn => {
                    waiting = Waiting::Nothing;
                    None
                }
                Turn::End(ending) => return ending,
            };
            match effect {
                None => {}
                Some(Effect::Verify(claim)) => {
                    waiting = Waiting::Verification(self.context.verifier.verify(claim));
                }
                Some(Effect::Pause(until, outboxes)) => waiting = Waiting::pause(until, outboxes),
                Some(Effect::Close(code)) => return Ending::Close(code),
            }
        }
    }

    fn handle(&mut self, now: Instant, input: Input<'_>) -> Option<Effect> {
        let effect = self.attached.session.handle(now, input, self.attached.router);
        self.socket.set_message_bytes_max(self.attached.session.message_bytes_max());
        effect
    }

    /// When the clock has something to say next.
    fn due(&self, waiting: &Waiting<'_>) -> Option<Instant> {
        let stalled = self.blocked.then(|| self.stalled_from + self.context.slow_consumer);
        let read_on = match waiting {
            Waiting::Pause(until, _) => Some(*until),
            Waiting::Nothing | Waiting::Verification(_) => None,
        };
        [self.attached.session.deadline(), stalled, read_on].into_iter().flatten().min()
    }

    fn fire_timers(&mut self, waiting: &mut Waiting<'_>) -> Option<Effect> {
        let now = now();
        if self.blocked && now >= self.stalled_from + self.context.slow_consumer {
            return self.handle(now, Input::Overflow);
        }
        if let Waiting::Pause(until, outboxes) = waiting
            && now >= *until
        {
            outboxes
                .iter()
                .filter(|(outbox, since)| !outbox.is_relieved_since(*since))
                .for_each(|(it, _)| it.waited_in_vain());
            *waiting = Waiting::Nothing;
        }
        let deadline = self.attached.session.deadline();
        if deadline.is_some_and(|deadline| deadline <= now) { self.handle(now, Input::Timeout) } else { None }
    }

    fn verified(&mut self, identity: Result<Identity, AuthError>) -> Option<Effect> {
        let effect = self.handle(now(), Input::Verified(identity));
        if let Some(member) = self.attached.session.member() {
            let span = tracing::Span::current();
            span.record("id", tracing::field::display(member.id())).record("source", member.source());
        }
        effect
    }

    /// Writes all that is to be written; reads if there is nothing.
    async fn socket_turn(&mut self) -> Turn {
        let (socket, blocked) = (&mut self.socket, &mut self.blocked);
        poll_fn(|cx| {
            if !socket.is_writing() {
                let came = socket.poll_come(cx);
                return came.map(|came| came.map_or_else(|ended| Turn::End(Ending::Socket(ended)), |()| Turn::Came));
            }
            let mut progress = false;
            while socket.is_writing() {
                match socket.poll_write(cx) {
                    Poll::Ready(Ok(())) => progress = true,
                    Poll::Ready(Err(_)) => return Poll::Ready(Turn::End(Ending::Socket(Ended::Lost))),
                    Poll::Pending if progress => break,
                    Poll::Pending if *blocked => return Poll::Pending,
                    Poll::Pending => return Poll::Ready(Turn::Blocked),
                }
            }
            Poll::Ready(Turn::Wrote)
        })
        .await
    }

    /// The peer has taken something.
    fn has_written(&mut self) -> Option<Effect> {
        // While it took nothing it was not read either, so its pongs have not been heard: taking bytes is life enough.
        if std::mem::take(&mut self.blocked) {
            let effect = self.handle(now(), Input::Pong);
            if effect.is_some() {
                return effect;
            }
        }
        if self.outbox.overflowed() { self.handle(now(), Input::Overflow) } else { None }
    }

    /// The outbox has something, or has overflowed.
    fn fill_batch(&mut self) -> Option<Effect> {
        if self.outbox.overflowed() {
            return self.handle(now(), Input::Overflow);
        }
        self.outbox.take(BATCH, self.socket.batch());
        None
    }

    /// Handles the messages that have come, until one has an effect.
    fn handle_arrived(&mut self) -> Result<Option<Effect>, Ended> {
        let now = now();
        let _burst = WakeBatch::begin();
        for _ in 0..BURST {
            let Some(arrival) = self.socket.next()? else { return Ok(None) };
            let Attached { session, router } = &mut self.attached;
            let effect = session.handle(now, arrival.into(), router);
            self.socket.set_message_bytes_max(session.message_bytes_max());
            if effect.is_some() {
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
            Arrival::Alive => Self::Pong,
        }
    }
}

/// What the task waits for before it reads on.
enum Waiting<'a> {
    Nothing,
    Verification(Verification<'a>),
    /// The time, or relief of all these outboxes, if there are any, counted from the beginning of the pause.
    Pause(Instant, Vec<(Arc<Outbox>, u64)>),
}

impl Waiting<'_> {
    fn pause(until: Instant, outboxes: Vec<Arc<Outbox>>) -> Self {
        let since = |outbox: Arc<Outbox>| {
            let reliefs = outbox.reliefs();
            (outbox, reliefs)
        };
        Self::Pause(until, outboxes.into_iter().map(since).collect())
    }

    async fn over(&mut self) -> Turn {
        match self {
            Self::Nothing => pending().await,
            Self::Verification(verification) => Turn::Verified(verification.await),
            Self::Pause(_, outboxes) if outboxes.is_empty() => pending().await,
            Self::Pause(_, outboxes) => {
                while let Some((outbox, since)) = outboxes.last() {
                    outbox.relieved_since(*since).await;
                    outboxes.pop();
                }
                Turn::ReadOn
            }
        }
    }
}

/// Writes what is left and a Close frame, and waits until the peer has read it. The caller bounds the time.
async fn finish<S: AsyncRead + AsyncWrite + Unpin>(mut socket: Socket<S>, ending: Ending) {
    let (code, reason) = match ending {
        Ending::Close(code) | Ending::Socket(Ended::Fault(code)) => (Some(code.code()), code.reason()),
        Ending::Socket(Ended::ByPeer(code)) => (code, ""),
        Ending::Socket(Ended::Lost) => return,
    };
    if write_out(&mut socket).await.is_err() {
        return;
    }
    socket.close(code, reason);
    if write_out(&mut socket).await.is_err() {
        return;
    }
    let answered = match ending {
        Ending::Close(_) => timeout(FAREWELL, answer(&mut socket)).await == Ok(true),
        Ending::Socket(Ended::ByPeer(_)) => true,
        Ending::Socket(Ended::Fault(_) | Ended::Lost) => false,
    };
    if poll_fn(|cx| socket.poll_shutdown(cx)).await.is_ok() && !answered {
        timeout(FAREWELL, discard(&mut socket)).await.ok();
    }
}

async fn write_out<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut Socket<S>) -> io::Result<()> {
    while socket.is_writing() {
        poll_fn(|cx| socket.poll_write(cx)).await?;
    }
    Ok(())
}

/// Whether the peer answers with a Close frame; what it sent before it had ours is read past.
async fn answer<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut Socket<S>) -> bool {
    loop {
        let came = poll_fn(|cx| socket.poll_come(cx)).await;
        if let Err(ended) = came.and_then(|()| socket.next()) {
            return matches!(ended, Ended::ByPeer(_));
        }
    }
}

async fn discard<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut Socket<S>) {
    let mut discarded = 0;
    while let Ok(read @ 1..) = poll_fn(|cx| socket.poll_discard(cx)).await {
        discarded += read;
        if discarded > DISCARDED_BYTES_MAX {
            break;
        }
    }
}
