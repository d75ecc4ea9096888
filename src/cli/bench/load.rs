//! The traffic of each workload. Every message has its number and the time at which it was due, so a receiver knows which
//! messages are missing and how late each one is.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::iter;
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::Workload;
use super::connection::{Connection, Target};
use super::progress::Progress;
use super::stamp::{Stamp, Stamps, Template};
use super::window::Window;
use wire::{DecodeLimits, decode};

/// How many messages of a publisher may be on their way if there is no fixed rate; as in benches/yardstick.
const WINDOW_FANOUT: usize = 64;
const WINDOW_PAIRS: usize = 16;

/// How many connections are opened at the same time.
const OPENED_AT_ONCE: usize = 64;

/// How long to wait for the last messages after the end.
const LAST: Duration = Duration::from_secs(5);

/// The longest latency that is recorded as it is, in microseconds.
const LATENCY_MAX: u64 = 60_000_000;

/// The amount of load.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    pub(super) clients: u32,
    pub(super) size: u32,
    /// Messages per second of all publishers together; 0: as the window allows.
    pub(super) rate: f64,
}

/// The result.
pub(super) struct Outcome {
    /// In microseconds, of the messages that were due during the measurement.
    pub(super) latencies: Histogram<u32>,
    /// How many messages were missing, repeated or out of order.
    pub(super) lost: u64,
    /// How many messages were sent in all, also before the measurement.
    pub(super) sent: u64,
    /// How many deliveries or answers of these arrived.
    pub(super) received: u64,
}

impl Outcome {
    fn empty() -> anyhow::Result<Self> {
        Ok(Self { latencies: Histogram::new_with_max(LATENCY_MAX, 2)?, lost: 0, sent: 0, received: 0 })
    }
}

/// Open connections, before the load begins.
pub(super) struct Ready {
    workload: Workload,
    plan: Plan,
    progress: Progress,
    /// Publishers or requesters.
    active: Vec<Connection>,
    /// Subscribers or handlers.
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

/// Returns the topic of the receiver with this number, and of its publisher.
fn topic(workload: Workload, number: u32) -> String {
    match workload {
        Workload::Fanout | Workload::Request => workload.name().to_owned(),
        Workload::Pairs | Workload::Idle => format!("{}{number}", workload.name()),
    }
}

/// The time of the measurement.
#[derive(Clone, Copy)]
struct Times {
    start: Instant,
    end: Instant,
}

impl Times {
    /// Returns a time as it is written on the wire: microseconds since a moment before the warm-up.
    fn write(self, at: Instant) -> u64 {
        let origin = self.start.checked_sub(LAST).unwrap_or(self.start);
        u64::try_from(at.saturating_duration_since(origin).as_micros()).unwrap_or(u64::MAX)
    }

    /// Returns when to stop waiting for messages.
    fn last(self) -> Instant {
        self.end + LAST
    }
}

/// The counters that all tasks share. One histogram stays in the processor's cache; a thousand would not.
#[derive(Clone)]
struct Tally {
    outcome: Arc<Mutex<Outcome>>,
    progress: Progress,
    times: Times,
    /// The beginning and the end of the measurement, as written on the wire.
    measured: (u64, u64),
}

impl Tally {
    fn new(progress: Progress, times: Times) -> anyhow::Result<Self> {
        let measured = (times.write(times.start), times.write(times.end));
        Ok(Self { outcome: Arc::new(Mutex::new(Outcome::empty()?)), progress, times, measured })
    }

    /// Counts the messages of one read, by the time at which each was due.
    fn received(&self, lost: u64, dues: &[u64]) {
        let now = self.times.write(Instant::now());
        let mut outcome = self.outcome.lock();
        outcome.lost += lost;
        outcome.received += u64::try_from(dues.len()).unwrap_or(u64::MAX);
        for due in dues.iter().filter(|due| (self.measured.0..self.measured.1).contains(*due)) {
            outcome.latencies.saturating_record(now.saturating_sub(*due).min(LATENCY_MAX));
        }
        self.progress.delivered(u64::try_from(dues.len()).unwrap_or(u64::MAX));
    }

    fn sent(&self, messages: u64) {
        self.outcome.lock().sent += messages;
    }

    fn lost(&self) {
        self.outcome.lock().lost += 1;
    }
}

/// Running load.
pub(super) struct Running {
    /// Tasks that end by themselves.
    tasks: JoinSet<anyhow::Result<()>>,
    /// Tasks that run until `stop`.
    background: JoinSet<anyhow::Result<()>>,
    stop: CancellationToken,
    outcome: Arc<Mutex<Outcome>>,
}

/// When a publisher sends its next message.
enum Pace {
    Every(Duration),
    Window(Arc<Window>),
}

impl Ready {
    /// Returns the number of connections.
    pub(super) fn connections(&self) -> u32 {
        u32::try_from(self.active.len() + self.passive.len()).unwrap_or(u32::MAX)
    }

    /// Starts the load. Messages that are due from `start` to `end` are measured.
    pub(super) fn begin(self, start: Instant, end: Instant) -> anyhow::Result<Running> {
        let Self { workload, plan, progress, active, passive } = self;
        let tally = Tally::new(progress, Times { start, end })?;
        let (mut tasks, mut background, stop) = (JoinSet::new(), JoinSet::new(), CancellationToken::new());
        let each =
            |publishers: u32| (plan.rate > 0.0).then(|| Duration::from_secs_f64(f64::from(publishers) / plan.rate));
        let pace = |publishers: u32, window: &Arc<Window>| match each(publishers) {
            Some(every) => Pace::Every(every),
            None => Pace::Window(Arc::clone(window)),
        };
        let template = |number: u32| Template::new(&topic(workload, number), plan.size);
        match workload {
            Workload::Fanout => {
                let window = Window::new(WINDOW_FANOUT, plan.clients);
                for connection in active {
                    tasks.spawn(publish(connection, template(0), pace(1, &window), tally.clone()));
                }
                for connection in passive {
                    tasks.spawn(receive(connection, Arc::clone(&window), tally.clone()));
                }
            }
            Workload::Pairs => {
                for (number, (publisher, subscriber)) in (0..).zip(active.into_iter().zip(passive)) {
                    let window = Window::new(WINDOW_PAIRS, 1);
                    let pace = pace(plan.clients, &window);
                    tasks.spawn(publish(publisher, template(number), pace, tally.clone()));
                    tasks.spawn(receive(subscriber, window, tally.clone()));
                }
            }
            Workload::Request => {
                for connection in active {
                    tasks.spawn(request(connection, template(0), each(plan.clients), tally.clone()));
                }
                for connection in passive {
                    background.spawn(answer(connection, stop.clone()));
                }
            }
            Workload::Idle => {
                for connection in passive {
                    background.spawn(rest(connection, stop.clone()));
                }
            }
        }
        Ok(Running { tasks, background, stop, outcome: tally.outcome })
    }
}

impl Running {
    /// Waits until the last messages have arrived.
    pub(super) async fn end(mut self) -> anyhow::Result<Outcome> {
        while let Some(ended) = self.tasks.join_next().await {
            ended??;
        }
        self.stop.cancel();
        while let Some(ended) = self.background.join_next().await {
            ended??;
        }
        Ok(std::mem::replace(&mut *self.outcome.lock(), Outcome::empty()?))
    }
}

/// Publishes until the end. The last message is marked as such.
async fn publish(mut connection: Connection, template: Template, pace: Pace, tally: Tally) -> anyhow::Result<()> {
    let times = tally.times;
    let mut due = Instant::now();
    for number in 0.. {
        match &pace {
            Pace::Every(every) => {
                due += *every;
                if due > Instant::now() {
                    connection.flush().await?;
                    connection.wait(sleep_until(due.min(times.end))).await?;
                }
            }
            Pace::Window(window) => {
                while !window.try_enter() && Instant::now() < times.end {
                    connection.flush().await?;
                    connection.wait(timeout_at(times.end, window.room())).await?;
                }
                due = Instant::now();
            }
        }
        let last = due >= times.end || Instant::now() >= times.end;
        connection.feed(&template.event(Stamp { due: times.write(due), number, last }))?;
        if last {
            connection.flush().await?;
            tally.sent(number + 1);
            break;
        }
    }
    Ok(())
}

/// Receives messages until the last one.
async fn receive(mut connection: Connection, window: Arc<Window>, tally: Tally) -> anyhow::Result<()> {
    let mut given_up = pin!(sleep_until(tally.times.last()));
    let (mut stamps, mut expected, mut dues) = (Stamps::default(), 0, Vec::new());
    loop {
        tokio::select! {
            read = connection.read() => read?,
            () = &mut given_up => {
                tally.lost();
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
async fn request(
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
                connection.wait(sleep_until(due.min(times.end))).await?;
            }
            None => due = Instant::now(),
        }
        if Instant::now() >= times.end {
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
                    tally.lost();
                    return Ok(());
                }
            }
        };
        if answer.is_some_and(|stamp| stamp.number == number) {
            tally.received(0, &[times.write(due)]);
        } else {
            // An error of the broker, or the answer to another request.
            tally.lost();
        }
    }
    Ok(())
}

/// Answers each request with its own payload. The answers to the requests of one read are sent together.
async fn answer(mut connection: Connection, stop: CancellationToken) -> anyhow::Result<()> {
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
async fn rest(mut connection: Connection, stop: CancellationToken) -> anyhow::Result<()> {
    connection.wait(stop.cancelled()).await
}
