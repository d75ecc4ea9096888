//! The traffic: who publishes, who hears, who asks. Each message bears its number and the time at which it was due, so
//! that a receiver can tell what is missing and how late it is.

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

/// Messages of a publisher that its receivers do not have yet, where no rate is given: as the yardstick has it.
const WINDOW_FANOUT: usize = 64;
const WINDOW_PAIRS: usize = 16;

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

    /// When nothing more is waited for.
    fn last(self) -> Instant {
        self.end + LAST
    }
}

/// What all count together: one histogram, which stays in the cache, where a thousand would not.
#[derive(Clone)]
struct Tally {
    outcome: Arc<Mutex<Outcome>>,
    progress: Progress,
    times: Times,
    /// What is due between these counts, as it is written on the wire.
    measured: (u64, u64),
}

impl Tally {
    fn new(progress: Progress, times: Times) -> anyhow::Result<Self> {
        let measured = (times.write(times.start), times.write(times.end));
        Ok(Self { outcome: Arc::new(Mutex::new(Outcome::empty()?)), progress, times, measured })
    }

    /// Counts what came at once, with the time at which each was due.
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

/// Traffic that runs.
pub(super) struct Running {
    /// Those that end by themselves.
    tasks: JoinSet<anyhow::Result<()>>,
    /// Those that go on until they are told.
    servants: JoinSet<anyhow::Result<()>>,
    stop: CancellationToken,
    outcome: Arc<Mutex<Outcome>>,
}

/// When a publisher publishes.
enum Pace {
    Every(Duration),
    Window(Arc<Window>),
}

impl Ready {
    /// How many there are.
    pub(super) fn connections(&self) -> u32 {
        u32::try_from(self.active.len() + self.passive.len()).unwrap_or(u32::MAX)
    }

    /// Begins. What is due from `start` to `end` counts.
    pub(super) fn begin(self, start: Instant, end: Instant) -> anyhow::Result<Running> {
        let Self { workload, plan, progress, active, passive } = self;
        let tally = Tally::new(progress, Times { start, end })?;
        let (mut tasks, mut servants, stop) = (JoinSet::new(), JoinSet::new(), CancellationToken::new());
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
                    tasks.spawn(hear(connection, Arc::clone(&window), tally.clone()));
                }
            }
            Workload::Pairs => {
                for (number, (publisher, subscriber)) in (0..).zip(active.into_iter().zip(passive)) {
                    let window = Window::new(WINDOW_PAIRS, 1);
                    let pace = pace(plan.clients, &window);
                    tasks.spawn(publish(publisher, template(number), pace, tally.clone()));
                    tasks.spawn(hear(subscriber, window, tally.clone()));
                }
            }
            Workload::Request => {
                for connection in active {
                    tasks.spawn(ask(connection, template(0), each(plan.clients), tally.clone()));
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
        Ok(Running { tasks, servants, stop, outcome: tally.outcome })
    }
}

impl Running {
    /// Waits until what is on its way has come.
    pub(super) async fn end(mut self) -> anyhow::Result<Outcome> {
        while let Some(ended) = self.tasks.join_next().await {
            ended??;
        }
        self.stop.cancel();
        while let Some(ended) = self.servants.join_next().await {
            ended??;
        }
        Ok(std::mem::replace(&mut *self.outcome.lock(), Outcome::empty()?))
    }
}

/// Publishes until the end, and then a last message by which receivers know that it was the last.
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

/// Hears until the last message.
async fn hear(mut connection: Connection, window: Arc<Window>, tally: Tally) -> anyhow::Result<()> {
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

/// Asks, waits for the answer, and asks again.
async fn ask(
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
            // An error of the broker, or another's answer.
            tally.lost();
        }
    }
    Ok(())
}

/// Answers each request with its own payload, those that come together together.
async fn answer(mut connection: Connection, stop: CancellationToken) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            read = connection.read() => read?,
            () = stop.cancelled() => return Ok(()),
        }
        let mut answers = Vec::new();
        while let Some(text) = connection.take()? {
            let Ok(request) = decode(text, DecodeLimits::OWN) else { continue };
            if let (Some(id), Some(payload)) = (request.id(), request.payload()) {
                let triple = request.triple();
                let (channel, topic, subtopic) = (&triple.channel, &triple.topic, &triple.subtopic);
                let head = format!(r#"{{"channel":"{channel}","topic":"{topic}","subtopic":"{subtopic}""#);
                answers.push(format!(r#"{head},"inReplyTo":"{id}","data":{payload}}}"#));
            }
        }
        answers.iter().try_for_each(|answer| connection.feed(answer))?;
    }
}

/// Does nothing but answer pings.
async fn rest(mut connection: Connection, stop: CancellationToken) -> anyhow::Result<()> {
    connection.wait(stop.cancelled()).await
}
