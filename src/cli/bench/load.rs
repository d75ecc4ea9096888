//! The load of each workload: its connections, and the tasks that use them.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::iter;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Workload;
use super::connection::{Connection, Target};
use super::progress::Progress;
use super::stamp::Template;
use super::tally::{Outcome, Tally, Times};
use super::traffic::{Pace, Sending, answer, publish, receive, request, rest};
use super::window::Window;

/// How many messages of a publisher may be on their way if there is no fixed rate; as in benches/yardstick.
const WINDOW_FANOUT: usize = 64;
const WINDOW_PAIRS: usize = 16;

/// How many connections are opened at the same time.
const OPENED_AT_ONCE: usize = 64;

/// The amount of load.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    pub(super) clients: u32,
    pub(super) size: u32,
    /// Messages per second of all publishers together; 0: as the window allows.
    pub(super) rate: f64,
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

/// Running load.
pub(super) struct Running {
    /// Tasks that end by themselves.
    tasks: JoinSet<anyhow::Result<()>>,
    /// Tasks that run until `stop`.
    background: JoinSet<anyhow::Result<()>>,
    stop: CancellationToken,
    outcome: Arc<Mutex<Outcome>>,
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
        let sending = |number: u32, receivers| Sending::new(&topic(workload, number), plan.size, receivers);
        match workload {
            Workload::Fanout => {
                let window = Window::new(WINDOW_FANOUT, plan.clients);
                let sending = sending(0, plan.clients);
                for connection in active {
                    tasks.spawn(publish(connection, Arc::clone(&sending), pace(1, &window), tally.clone()));
                }
                for connection in passive {
                    tasks.spawn(receive(connection, Arc::clone(&sending), Arc::clone(&window), tally.clone()));
                }
            }
            Workload::Pairs => {
                for (number, (publisher, subscriber)) in (0..).zip(active.into_iter().zip(passive)) {
                    let window = Window::new(WINDOW_PAIRS, 1);
                    let (pace, sending) = (pace(plan.clients, &window), sending(number, 1));
                    tasks.spawn(publish(publisher, Arc::clone(&sending), pace, tally.clone()));
                    tasks.spawn(receive(subscriber, sending, window, tally.clone()));
                }
            }
            Workload::Request => {
                for connection in active {
                    let template = Template::new(&topic(workload, 0), plan.size);
                    tasks.spawn(request(connection, template, each(plan.clients), tally.clone()));
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
