//! [`Subscription`]: subscribes to one topic while the broker runs. It opens a stream, publishes its events, and
//! requests more as they arrive; `arrived` publishes them. When the stream ends, [`Failure`] says what to do next. Topics do not affect each
//! other.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::mpsc;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};

use super::Shared;
use super::failure::{Failure, Next};
use super::seat::TopicSeat;
use super::stats::Stats;
use super::wire::{FetchRequest, FetchResponse, ReplayPreset};
use crate::backoff::Backoff;
use crate::config::{EventTopic, Start};
use crate::salesforce::counted::CountedCall;
use crate::salesforce::oauth::Token;
use crate::salesforce::stats::count;
use crate::telemetry::metrics::{SalesforceOperation, SalesforceOutcome};

/// The most events that are requested and have not arrived; the limit of the API.
const ASKED_MAX: i32 = 100;

/// More events are requested when no more than this many are outstanding.
const ASKED_LOW: i32 = 50;

/// The API sends something at least every 270 seconds.
const SILENCE: Duration = Duration::from_mins(5);

/// The wait before another attempt.
const AGAIN: Backoff =
    Backoff { least: Duration::from_secs(1), first: Duration::from_secs(2), most: Duration::from_mins(1) };

/// A stream that lasts this long counts as working. One that delivers an event and ends, again and again, does not.
const STANDS: Duration = AGAIN.most;

/// The wait if somebody has to change something first.
const SLOWLY: Duration = Duration::from_mins(5);

/// One topic.
pub(super) struct Subscription {
    /// The NAME of its table in the configuration.
    pub(super) name: String,
    /// Its name in Salesforce.
    pub(super) topic: String,
    /// The settings in force. They name the same topic.
    pub(super) settings: Arc<ArcSwap<EventTopic>>,
    pub(super) stats: Arc<Stats>,
    /// The right to read it, and its position.
    pub(super) seat: Arc<dyn TopicSeat>,
    pub(super) shared: Arc<Shared>,
}

/// A stream of events.
struct Opened {
    token: Arc<Token>,
    /// It continues after an event, or begins with all that are kept.
    is_whole: bool,
    /// Requests further events.
    asks: mpsc::Sender<FetchRequest>,
    stream: Streaming<FetchResponse>,
}

/// The state that outlives a stream.
pub(super) struct Course {
    /// Failures since the last stream that worked.
    failures: u32,
    /// When the present stream was opened.
    begun: Instant,
    /// When a failure was last followed by an immediate attempt.
    at_once: Option<Instant>,
    /// The session that Salesforce no longer accepts.
    expired: Option<Arc<Token>>,
    /// The session of the present stream.
    token: Option<Arc<Token>>,
    /// A failure was logged, and its end is still to be logged.
    told: bool,
    /// It was logged that events name no user.
    pub(super) told_unaddressed: bool,
    /// The turn has not changed since the last stream was opened.
    has_turn: bool,
    chance: StdRng,
}

impl Course {
    /// Returns whether to try again at once. Not if that has just failed, because each attempt may cost a login.
    fn may_go_on(&mut self) -> bool {
        let may = self.at_once.is_none_or(|at| at.elapsed() >= STANDS);
        if may {
            self.at_once = Some(Instant::now());
        }
        may
    }

    /// Forgets what is of no use in the next turn.
    fn turn_over(&mut self) {
        (self.failures, self.told, self.token) = (0, false, None);
    }
}

impl Subscription {
    /// Subscribes while it is this broker's turn, until `leave`. Then publishes what has arrived, and gives up the turn. If it
    /// is dropped earlier, the last events may be published again after a restart.
    pub(super) async fn run(self, leave: &CancellationToken) {
        let chance = StdRng::seed_from_u64(rand::random());
        let mut course = Course {
            failures: 0,
            begun: Instant::now(),
            at_once: None,
            expired: None,
            token: None,
            told: false,
            told_unaddressed: false,
            has_turn: true,
            chance,
        };
        loop {
            course.has_turn &= self.seat.is_turn();
            if leave.run_until_cancelled(self.seat.turn()).await.is_none() {
                break;
            }
            course.begun = Instant::now();
            let ended = tokio::select! {
                ended = self.stream(&mut course, leave) => Some(ended),
                () = self.seat.turn_over() => None,
            };
            self.stats.connected.store(false, Ordering::Relaxed);
            let failure = match ended {
                Some(Ok(())) => break,
                Some(Err(failure)) if self.seat.is_turn() => failure,
                Some(Err(_)) | None => {
                    course.turn_over();
                    continue;
                }
            };
            let wait = self.consider(&failure, &mut course);
            count(&self.stats.reconnects);
            if failure.next == Next::Slowly || (course.failures > 1 && !wait.is_zero()) {
                // Another node may have a way to Salesforce.
                self.seat.give_way(wait);
            }
            if leave.run_until_cancelled(sleep_until(Instant::now() + wait)).await.is_none() {
                break;
            }
        }
        self.seat.leave().await;
    }

    /// Runs one stream until it fails, or until `leave`.
    async fn stream(&self, course: &mut Course, leave: &CancellationToken) -> Result<(), Failure> {
        let Some(opened) = leave.run_until_cancelled(self.open(course)).await else { return Ok(()) };
        let Opened { token, is_whole, asks, mut stream } = opened?;
        if !std::mem::replace(&mut course.has_turn, true) || !is_whole {
            // Another node may have read of changes meanwhile, without telling all. Only now, because caches serve while
            // Salesforce is down.
            self.missed_changes();
        }
        let org = org_of(&token)?;
        let mut owed = ASKED_MAX;
        loop {
            // Only here, because what has arrived is published before the stream ends.
            let next = leave.run_until_cancelled(timeout(SILENCE, stream.message())).await;
            let Some(response) = next else { return Ok(()) };
            let response = response.map_err(|_| silent())?.map_err(|status| Failure::of(&status))?;
            let response =
                response.ok_or_else(|| Failure::passing("Salesforce ended the stream, as it does at times"))?;
            self.heard(course);
            self.take(course, &token, org, &response).await?;
            // Counted here, because `pending_num_requested` does not include requests on their way to Salesforce. An
            // empty response is not an event; it only says that the stream is alive.
            owed -= i32::try_from(response.events.len()).unwrap_or(ASKED_MAX).min(owed);
            let more = ASKED_MAX - owed;
            // The queue is full, so enough has been requested already.
            if owed <= ASKED_LOW && asks.try_send(FetchRequest { num_requested: more, ..self.ask() }).is_ok() {
                owed = ASKED_MAX;
            }
        }
    }

    /// Opens a stream, after a login if there is no session.
    async fn open(&self, course: &mut Course) -> Result<Opened, Failure> {
        let org_in_force = self.shared.org.get();
        let client = &org_in_force.client;
        let token = match &course.expired {
            Some(expired) => client.renewed(expired).await,
            None => client.session().await,
        };
        // If there was no new login, the expired session is the only one.
        let token = token.map_err(|fault| Failure::login(&fault))?;
        course.expired = None;
        course.token = Some(Arc::clone(&token));
        let (asks, queue) = mpsc::channel(2);
        let first = self.first(org_of(&token)?);
        let is_whole = first.replay_preset() != ReplayPreset::Latest;
        asks.try_send(first).ok();
        let counted = CountedCall::begin(client.calls(), SalesforceOperation::Events);
        let opened = timeout(SILENCE, self.shared.pubsub.load_full().subscribe(&token, queue)).await;
        counted.end(outcome_of(&opened));
        let stream = opened.map_err(|_| silent())?.map_err(|status| Failure::of(&status))?;
        Ok(Opened { token, is_whole, asks, stream })
    }

    fn ask(&self) -> FetchRequest {
        FetchRequest {
            topic_name: self.topic.clone(),
            replay_preset: ReplayPreset::Latest.into(),
            replay_id: Vec::new(),
            num_requested: ASKED_MAX,
        }
    }

    fn first(&self, org: &str) -> FetchRequest {
        let start = self.settings.load().start;
        let (preset, replay_id) = match (self.seat.find(org).or_else(|| self.adopt(org)), start) {
            (Some(replay_id), _) => (ReplayPreset::Custom, replay_id),
            (None, Start::Latest) => (ReplayPreset::Latest, Vec::new()),
            (None, Start::Earliest) => (ReplayPreset::Earliest, Vec::new()),
        };
        FetchRequest { replay_preset: preset.into(), replay_id, ..self.ask() }
    }

    /// Takes over the position that this broker had before it was in a cluster, which has none.
    fn adopt(&self, org: &str) -> Option<Vec<u8>> {
        let replay_id = self.shared.positions.find(org, &self.topic)?;
        self.seat.advance(org, &replay_id);
        Some(replay_id)
    }

    /// Notes that the stream is alive.
    fn heard(&self, course: &mut Course) {
        if course.begun.elapsed() >= STANDS {
            course.failures = 0;
        }
        if !self.stats.connected.swap(true, Ordering::Relaxed) {
            if course.told {
                tracing::info!(name = self.name, topic = self.topic, "events arrive again");
            } else {
                tracing::debug!(name = self.name, topic = self.topic, "subscribed to the topic");
            }
        }
        course.told = false;
    }

    /// Notes that changes may have been missed, if that is what the topic is about. It may be a channel, which has the changes
    /// of several objects and whose name does not say of which.
    pub(super) fn missed_changes(&self) {
        if self.topic.starts_with("/data/") {
            self.shared.changed(None);
        }
    }

    /// Returns how long to wait after a failure, and logs the failure once.
    fn consider(&self, failure: &Failure, course: &mut Course) -> Duration {
        let token = course.token.take();
        let (name, topic, hint) = (&self.name, &self.topic, &failure.hint);
        course.failures = course.failures.saturating_add(1);
        match failure.next {
            Next::Login => {
                course.expired = token;
                if course.may_go_on() {
                    return Duration::ZERO;
                }
            }
            Next::Anew => {
                tracing::warn!(name, topic, hint, "the topic begins again at its configured start");
                self.missed_changes();
                if let Some(org) = token.as_ref().and_then(|token| token.org.as_deref()) {
                    self.seat.forget(org);
                    self.shared.positions.forget(org, topic);
                }
                if course.may_go_on() {
                    return Duration::ZERO;
                }
            }
            Next::Slowly | Next::Again => {}
        }
        let wait = match failure.next {
            Next::Slowly => SLOWLY,
            Next::Login | Next::Anew | Next::Again => AGAIN.wait(course.failures.saturating_sub(1), &mut course.chance),
        };
        let rpc_id = &failure.rpc_id;
        if std::mem::replace(&mut course.told, true) {
            tracing::debug!(name, topic, hint, rpc_id, ?wait, "no events arrive yet");
        } else if failure.next == Next::Slowly {
            tracing::error!(name, topic, hint, rpc_id, ?wait, "no events arrive");
        } else {
            tracing::warn!(name, topic, hint, rpc_id, ?wait, "no events arrive for now");
        }
        wait
    }
}

/// What a call of the Pub/Sub API is counted as.
pub(super) fn outcome_of<T>(asked: &Result<Result<T, Status>, Elapsed>) -> SalesforceOutcome {
    match asked.as_ref().map(|answer| answer.as_ref().map_err(Status::code)) {
        Ok(Ok(_)) => SalesforceOutcome::Ok,
        Err(_) | Ok(Err(Code::DeadlineExceeded)) => SalesforceOutcome::Timeout,
        Ok(Err(Code::ResourceExhausted)) => SalesforceOutcome::Limit,
        Ok(Err(Code::Unavailable)) => SalesforceOutcome::Network,
        Ok(Err(Code::Internal | Code::Unknown | Code::DataLoss | Code::Aborted)) => SalesforceOutcome::ServerError,
        Ok(Err(_)) => SalesforceOutcome::Rejected,
    }
}

/// The org that a session is for.
fn org_of(token: &Token) -> Result<&str, Failure> {
    token.org.as_deref().ok_or_else(|| {
        Failure::passing("the login does not say which org it is for: is salesforce.login_url Salesforce's own?")
    })
}

fn silent() -> Failure {
    Failure::passing("the Pub/Sub API is silent: a firewall or proxy on the way drops connections that stand")
}
