//! The traffic of each connection. Every message has its number and the time at which it was due, so a receiver knows
//! which messages are missing and how late each one is.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::connection::Connection;
use super::stamp::{Stamp, Stamps, Template};
use super::tally::Tally;
use super::window::Window;
use wire::{DecodeLimits, decode};

/// How many bytes a publisher that is late collects before it sends them.
const BATCH_BYTES: usize = 64 << 10;

/// When a publisher sends its next message.
pub(super) enum Pace {
    Every(Duration),
    Window(Arc<Window>),
}

/// A publisher's messages, as its receivers see them.
pub(super) struct Sending {
    topic: Template,
    receivers: u32,
    /// How many were sent.
    sent: AtomicU64,
}

impl Sending {
    pub(super) fn new(topic: &str, size: u32, receivers: u32) -> Arc<Self> {
        Arc::new(Self { topic: Template::new(topic, size), receivers, sent: AtomicU64::new(0) })
    }

    fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

/// Publishes until the end. The last message is marked as such.
pub(super) async fn publish(
    mut connection: Connection,
    sending: Arc<Sending>,
    pace: Pace,
    tally: Tally,
) -> anyhow::Result<()> {
    let mut due = Instant::now();
    let publishing = publish_until_end(&mut connection, &sending, &pace, &tally, &mut due);
    // A broker that does not read must not keep the bench from ending.
    if let Ok(outcome) = timeout_at(tally.times.last(), publishing).await {
        outcome?;
    }
    if let Pace::Every(every) = pace {
        tally.unsent(Instant::now(), due, every, sending.receivers);
    }
    tally.sent(sending.sent());
    Ok(())
}

/// Publishes until the end. `due` is when the first message was due that was not sent.
async fn publish_until_end(
    connection: &mut Connection,
    sending: &Sending,
    pace: &Pace,
    tally: &Tally,
    due: &mut Instant,
) -> anyhow::Result<()> {
    let times = tally.times;
    for number in 0.. {
        let last = match pace {
            Pace::Every(every) => {
                *due += *every;
                if *due > Instant::now() {
                    connection.flush().await?;
                    connection.wait(sleep_until((*due).min(times.end))).await?;
                } else if connection.outgoing_bytes() >= BATCH_BYTES {
                    connection.flush().await?;
                    // Pings are answered meanwhile.
                    connection.wait(yield_now()).await?;
                }
                *due >= times.end || Instant::now() >= times.send_until()
            }
            Pace::Window(window) => {
                while !window.try_enter() && Instant::now() < times.end {
                    connection.flush().await?;
                    connection.wait(timeout_at(times.end, window.room())).await?;
                }
                *due = Instant::now();
                *due >= times.end
            }
        };
        // The last message is an additional one, so it is not measured.
        let written = times.write(if last { (*due).max(times.end) } else { *due });
        connection.feed(&sending.topic.event(Stamp { due: written, number, last }))?;
        sending.sent.store(number + 1, Ordering::Relaxed);
        if last {
            return connection.flush().await;
        }
    }
    Ok(())
}

/// Receives messages until the last one.
pub(super) async fn receive(
    mut connection: Connection,
    sending: Arc<Sending>,
    window: Arc<Window>,
    tally: Tally,
) -> anyhow::Result<()> {
    let mut given_up = pin!(sleep_until(tally.times.last()));
    let (mut stamps, mut expected, mut dues) = (Stamps::default(), 0, Vec::new());
    loop {
        tokio::select! {
            read = connection.read() => read?,
            () = &mut given_up => {
                // At least the last one.
                tally.lost(sending.sent().saturating_sub(expected).max(1));
                return Ok(());
            }
        }
        let (first, mut lost, mut last) = (expected, 0, false);
        while let Some(text) = connection.take()? {
            let Some(stamp) = stamps.read(text) else { continue };
            lost += stamp.number.abs_diff(expected);
            expected = stamp.number + 1;
            last |= stamp.last;
            dues.push(stamp.due);
        }
        tally.received(lost, &dues);
        dues.clear();
        window.leave(first..expected);
        if last {
            return Ok(());
        }
    }
}

/// Sends one request after the other, each after the answer to the one before.
pub(super) async fn request(
    mut connection: Connection,
    template: Template,
    every: Option<Duration>,
    tally: Tally,
) -> anyhow::Result<()> {
    let times = tally.times;
    let mut given_up = pin!(sleep_until(times.last()));
    let (mut stamps, mut due) = (Stamps::default(), Instant::now());
    for number in 0.. {
        match every {
            Some(every) => {
                due += every;
                if due > Instant::now() {
                    connection.wait(sleep_until(due.min(times.end))).await?;
                }
            }
            None => due = Instant::now(),
        }
        if due >= times.end || Instant::now() >= times.send_until() {
            break;
        }
        connection.feed(&template.event(Stamp { due: times.write(due), number, last: false }))?;
        tally.sent(1);
        let answer = loop {
            if let Some(text) = connection.take()? {
                break stamps.read(text);
            }
            tokio::select! {
                read = connection.read() => read?,
                () = &mut given_up => {
                    tally.lost(1);
                    if let Some(every) = every {
                        tally.unsent(Instant::now(), due + every, every, 1);
                    }
                    return Ok(());
                }
            }
        };
        if answer.is_some_and(|stamp| stamp.number == number) {
            tally.received(0, &[times.write(due)]);
        } else {
            // An error of the broker, or the answer to another request.
            tally.lost(1);
        }
    }
    if let Some(every) = every {
        tally.unsent(Instant::now(), due, every, 1);
    }
    Ok(())
}

/// Answers each request with its own payload. The answers to the requests of one read are sent together.
pub(super) async fn answer(mut connection: Connection, stop: CancellationToken) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            read = connection.read() => read?,
            () = stop.cancelled() => return Ok(()),
        }
        let mut answers = Vec::new();
        while let Some(text) = connection.take()? {
            let Ok(envelope) = decode(text, DecodeLimits::OWN) else { continue };
            if let (Some(id), Some(payload)) = (envelope.id(), envelope.payload()) {
                let triple = envelope.triple();
                let (channel, topic, subtopic) = (&triple.channel, &triple.topic, &triple.subtopic);
                let head = format!(r#"{{"channel":"{channel}","topic":"{topic}","subtopic":"{subtopic}""#);
                answers.push(format!(r#"{head},"inReplyTo":"{id}","data":{payload}}}"#));
            }
        }
        answers.iter().try_for_each(|answer| connection.feed(answer))?;
    }
}

/// Only answers pings.
pub(super) async fn rest(mut connection: Connection, stop: CancellationToken) -> anyhow::Result<()> {
    connection.wait(stop.cancelled()).await
}
