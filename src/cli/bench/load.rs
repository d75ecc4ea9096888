//! The traffic: who publishes, who hears, who asks. Each message bears its number and the time at which it was due, so
//! that a receiver can tell what is missing and how late it is.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::StreamExt;
use futures_util::stream::iter;
use hdrhistogram::Histogram;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::Workload;
use super::connection::{Connection, Target};
use super::progress::Progress;
use super::stamp::{Stamp, Template};
use crate::envelope::{DecodeLimits, decode};

/// Messages of a publisher that its receivers do not have yet, where no rate is given: as the yardstick has it.
const WINDOW_FANOUT: u32 = 64;
const WINDOW_PAIRS: u32 = 16;

/// How many connections are opened at once.
const OPENED_AT_ONCE: usize = 64;

/// How long messages may still be on their way when the time is over.
const LAST: Duration = Duration::from_secs(5);

/// The longest latency that is told apart, in microseconds.
const LATENCY_MAX: u64 = 60_000_000;

/// How much load.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    pub(super) clients: u32,
    pub(super) size: u32,
    /// Messages a second of all publishers; 0: within the window.
    pub(super) rate: f64,
}

/// What came of it.
pub(super) struct Outcome {
    /// In microseconds; of messages that were due while it was measured.
    pub(super) latencies: Histogram<u32>,
    /// Missing, repeated or out of order.
    pub(super) lost: u64,
    /// Published or asked, from the first to the last message: not only while it was measured.
    pub(super) sent: u64,
    /// Deliveries, or answers, of these.
    pub(super) received: u64,
}

impl Outcome {
    fn empty() -> anyhow::Result<Self> {
        Ok(Self { latencies: Histogram::new_with_max(LATENCY_MAX, 2)?, lost: 0, sent: 0, received: 0 })
    }

    fn add(&mut self, other: &Self) -> anyhow::Result<()> {
        self.lost += other.lost;
        self.sent += other.sent;
        self.received += other.received;
        self.latencies.add(&other.latencies).context("two histograms differ")
    }
}

/// Connections that wait for the word.
pub(super) struct Ready {
    workload: Workload,
    plan: Plan,
    progress: Progress,
    /// Who publishes or asks.
    active: Vec<Connection>,
    /// Who hears or answers.
    passive: Vec<Connection>,
}

/// Opens all connections of a workload.
pub(super) async fn connect(
    workload: Workload,
    target: &Target,
    plan: Plan,
    progress: &Progress,
) -> anyhow::Result<Ready> {
    let (active, passive, role) = match workload {
        Workload::Fanout => (1, plan.clients, "subscriber"),
        Workload::Pairs => (plan.clients, plan.clients, "subscriber"),
        Workload::Request => (plan.clients, 1, "handler"),
        Workload::Idle => (0, plan.clients, "subscriber"),
    };
    let total = active + passive;
    let opened = iter(0..total).map(|number| async move {
        let mut connection = Connection::open(target).await?;
        if number >= active {
            connection.subscribe(target, &topic(workload, number - active), role).await?;
        }
        anyhow::Ok(connection)
    });
    let mut opened = std::pin::pin!(opened.buffered(OPENED_AT_ONCE));
    let mut all = Vec::new();
    while let Some(connection) = opened.next().await {
        all.push(connection?);
        progress.connected(all.len(), total);
    }
    let passive = all.split_off(usize::try_from(active)?);
    Ok(Ready { workload, plan, progress: progress.clone(), active: all, passive })
}

/// The topic of a receiver, by its number; of its publisher too.
fn topic(workload: Workload, number: u32) -> String {
    match workload {
        Workload::Fanout | Workload::Request => workload.name().to_owned(),
        Workload::Pairs | Workload::Idle => format!("{}{number}", workload.name()),
    }
}

/// When it is measured.
#[derive(Clone, Copy)]
struct Times {
    start: Instant,
    end: Instant,
}

impl Times {
    /// A time on the wire: microseconds since the start of the warm-up, or of whatever came before.
    fn write(self, at: Instant) -> u64 {
        let origin = self.start.checked_sub(LAST).unwrap_or(self.start);
        u64::try_from(at.saturating_duration_since(origin).as_micros()).unwrap_or(u64::MAX)
    }

    /// Records how late a message is, if it was due while it was measured.
    fn record(self, due: u64, latencies: &mut Histogram<u32>) {
        if (self.write(self.start)..self.write(self.end)).contains(&due) {
            let late = self.write(Instant::now()).saturating_sub(due);
            latencies.saturating_record(late.min(LATENCY_MAX));
        }
    }

    /// When nothing more is waited for.
    fn last(self) -> Instant {
        self.end + LAST
    }
}

/// Traffic that runs.
pub(super) struct Running {
    /// Those that end by themselves.
    tasks: JoinSet<anyhow::Result<Outcome>>,
    /// Those that go on until they are told.
    servants: JoinSet<anyhow::Result<()>>,
    stop: CancellationToken,
}

impl Ready {
    /// How many there are.
    pub(super) fn connections(&self) -> u32 {
        u32::try_from(self.active.len() + self.passive.len()).unwrap_or(u32::MAX)
    }

    /// Begins. What is due from `start` to `end` counts.
    pub(super) fn begin(self, start: Instant, end: Instant) -> Running {
        let Self { workload, plan, progress, active, passive } = self;
        let times = Times { start, end };
        let (mut tasks, mut servants, stop) = (JoinSet::new(), JoinSet::new(), CancellationToken::new());
        let each =
            |publishers: u32| (plan.rate > 0.0).then(|| Duration::from_secs_f64(f64::from(publishers) / plan.rate));
        let template = |topic: &str| Template::new(topic, plan.size);
        match workload {
            Workload::Fanout => {
                let window = Window::new(WINDOW_FANOUT, plan.clients);
                for connection in active {
                    let topic = topic(workload, 0);
                    tasks.spawn(publish(connection, template(&topic), window.clone(), each(1), times));
                }
                for connection in passive {
                    tasks.spawn(hear(connection, window.clone(), progress.clone(), times));
                }
            }
            Workload::Pairs => {
                for (number, (publisher, subscriber)) in (0..).zip(active.into_iter().zip(passive)) {
                    let window = Window::new(WINDOW_PAIRS, 1);
                    let template = template(&topic(workload, number));
                    tasks.spawn(publish(publisher, template, window.clone(), each(plan.clients), times));
                    tasks.spawn(hear(subscriber, window, progress.clone(), times));
                }
            }
            Workload::Request => {
                for connection in active {
                    let template = template(&topic(workload, 0));
                    tasks.spawn(ask(connection, template, progress.clone(), each(plan.clients), times));
                }
                for connection in passive {
                    servants.spawn(answer(connection, stop.clone()));
                }
            }
            Workload::Idle => {
                for connection in passive {
                    servants.spawn(rest(connection, stop.clone()));
                }
            }
        }
        Running { tasks, servants, stop }
    }
}

impl Running {
    /// Waits until what is on its way has come.
    pub(super) async fn end(mut self) -> anyhow::Result<Outcome> {
        let mut outcome = Outcome::empty()?;
        while let Some(ended) = self.tasks.join_next().await {
            outcome.add(&ended??)?;
        }
        self.stop.cancel();
        while let Some(ended) = self.servants.join_next().await {
            ended??;
        }
        Ok(outcome)
    }
}

/// How far a publisher may be ahead of its receivers.
#[derive(Clone)]
struct Window {
    room: Arc<Semaphore>,
    receivers: u32,
}

impl Window {
    fn new(messages: u32, receivers: u32) -> Self {
        let room = usize::try_from(messages * receivers).unwrap_or(Semaphore::MAX_PERMITS);
        Self { room: Arc::new(Semaphore::new(room)), receivers }
    }

    fn try_enter(&self) -> bool {
        self.room.try_acquire_many(self.receivers).map(tokio::sync::SemaphorePermit::forget).is_ok()
    }

    async fn enter(&self) {
        // Never closed.
        self.room.acquire_many(self.receivers).await.map(tokio::sync::SemaphorePermit::forget).ok();
    }

    /// A receiver has one.
    fn leave(&self) {
        self.room.add_permits(1);
    }
}

/// Publishes until the end, and then a last message by which receivers know that it was the last.
async fn publish(
    mut connection: Connection,
    template: Template,
    window: Window,
    every: Option<Duration>,
    times: Times,
) -> anyhow::Result<Outcome> {
    let mut due = Instant::now();
    let mut number = 0;
    loop {
        match every {
            Some(every) => {
                due += every;
                if due > Instant::now() {
                    connection.flush().await?;
                    connection.wait(sleep_until(due.min(times.end))).await?;
                }
            }
            None => {
                if !window.try_enter() {
                    connection.flush().await?;
                    connection.wait(timeout_at(times.end, window.enter())).await?;
                }
                due = Instant::now();
            }
        }
        let last = due >= times.end || Instant::now() >= times.end;
        connection.feed(template.event(Stamp { due: times.write(due), number, last })).await?;
        number += 1;
        if last {
            connection.flush().await?;
            return Ok(Outcome { sent: number, ..Outcome::empty()? });
        }
    }
}

/// Hears until the last message.
async fn hear(mut connection: Connection, window: Window, progress: Progress, times: Times) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::empty()?;
    let mut expected = 0;
    while let Ok(text) = timeout_at(times.last(), connection.next()).await {
        let Some(stamp) = Stamp::read(&text?) else { continue };
        outcome.received += 1;
        outcome.lost += stamp.number.abs_diff(expected);
        expected = stamp.number + 1;
        times.record(stamp.due, &mut outcome.latencies);
        progress.delivered();
        if stamp.last {
            return Ok(outcome);
        }
        window.leave();
    }
    outcome.lost += 1;
    Ok(outcome)
}

/// Asks, waits for the answer, and asks again.
async fn ask(
    mut connection: Connection,
    template: Template,
    progress: Progress,
    every: Option<Duration>,
    times: Times,
) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::empty()?;
    let mut due = Instant::now();
    for number in 0.. {
        match every {
            Some(every) => {
                due += every;
                connection.wait(sleep_until(due.min(times.end))).await?;
            }
            None => due = Instant::now(),
        }
        if Instant::now() >= times.end {
            break;
        }
        connection.send(template.event(Stamp { due: times.write(due), number, last: false })).await?;
        outcome.sent += 1;
        let Ok(text) = timeout_at(times.last(), connection.next()).await else {
            outcome.lost += 1;
            break;
        };
        if Stamp::read(&text?).is_some_and(|stamp| stamp.number == number) {
            outcome.received += 1;
            times.record(times.write(due), &mut outcome.latencies);
            progress.delivered();
        } else {
            // An error of the broker, or another's answer.
            outcome.lost += 1;
        }
    }
    Ok(outcome)
}

/// Answers each request with its own payload.
async fn answer(mut connection: Connection, stop: CancellationToken) -> anyhow::Result<()> {
    loop {
        let text = tokio::select! {
            text = connection.next() => text?,
            () = stop.cancelled() => return Ok(()),
        };
        let Ok(request) = decode(&text, DecodeLimits::OWN) else { continue };
        if let (Some(id), Some(payload)) = (request.id(), request.payload()) {
            let triple = request.triple();
            let (channel, topic, subtopic) = (&triple.channel, &triple.topic, &triple.subtopic);
            let head = format!(r#"{{"channel":"{channel}","topic":"{topic}","subtopic":"{subtopic}""#);
            connection.send(format!(r#"{head},"inReplyTo":"{id}","data":{payload}}}"#)).await?;
        }
    }
}

/// Does nothing but answer pings.
async fn rest(mut connection: Connection, stop: CancellationToken) -> anyhow::Result<()> {
    connection.wait(stop.cancelled()).await
}
