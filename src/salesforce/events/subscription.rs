//! [`Subscription`]: subscribes to one topic while the broker runs. It opens a stream, publishes its events, and
//! requests more as they arrive. When the stream ends, [`Failure`] says what to do next. Topics do not affect each
//! other.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::mpsc;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};

use super::Shared;
use super::event::{self, Heard, To};
use super::failure::{Failure, Next};
use super::schema::Schema;
use super::stats::Stats;
use super::wire::{ConsumerEvent, FetchRequest, FetchResponse, ReplayPreset};
use crate::backoff::Backoff;
use crate::config::{EventTopic, Start};
use crate::router::{CommitTicket, Routed, Session};
use crate::salesforce::counted::CountedCall;
use crate::salesforce::oauth::Token;
use crate::salesforce::stats::count;
use crate::telemetry::metrics::{SalesforceOperation, SalesforceOutcome};
use wire::{DecodeLimits, ErrorCode, Refusal, decode};

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
    pub(super) shared: Arc<Shared>,
}

/// A stream of events.
struct Opened {
    token: Arc<Token>,
    /// Requests further events.
    asks: mpsc::Sender<FetchRequest>,
    stream: Streaming<FetchResponse>,
}

/// The state that outlives a stream.
struct Course {
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
    told_unaddressed: bool,
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
}

impl Subscription {
    /// Subscribes until `leave`, and then publishes what has arrived. If it is dropped earlier, the last events may be
    /// published again after a restart.
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
            chance,
        };
        loop {
            course.begun = Instant::now();
            let ended = self.stream(&mut course, leave).await;
            self.stats.connected.store(false, Ordering::Relaxed);
            let Err(failure) = ended else { return };
            let wait = self.consider(&failure, &mut course);
            count(&self.stats.reconnects);
            if leave.run_until_cancelled(sleep_until(Instant::now() + wait)).await.is_none() {
                return;
            }
        }
    }

    /// Runs one stream until it fails, or until `leave`.
    async fn stream(&self, course: &mut Course, leave: &CancellationToken) -> Result<(), Failure> {
        let Some(opened) = leave.run_until_cancelled(self.open(course)).await else { return Ok(()) };
        let Opened { token, asks, mut stream } = opened?;
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
        asks.try_send(self.first(org_of(&token)?)).ok();
        let counted = CountedCall::begin(client.calls(), SalesforceOperation::Events);
        let opened = timeout(SILENCE, self.shared.pubsub.load_full().subscribe(&token, queue)).await;
        counted.end(outcome_of(&opened));
        let stream = opened.map_err(|_| silent())?.map_err(|status| Failure::of(&status))?;
        Ok(Opened { token, asks, stream })
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
        let (preset, replay_id) = match (self.shared.positions.find(org, &self.topic), start) {
            (Some(replay_id), _) => (ReplayPreset::Custom, replay_id),
            (None, Start::Latest) => (ReplayPreset::Latest, Vec::new()),
            (None, Start::Earliest) => (ReplayPreset::Earliest, Vec::new()),
        };
        FetchRequest { replay_preset: preset.into(), replay_id, ..self.ask() }
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

    /// Publishes events and records how far the topic is.
    async fn take(
        &self,
        course: &mut Course,
        token: &Token,
        org: &str,
        response: &FetchResponse,
    ) -> Result<(), Failure> {
        let mut pressed = Vec::new();
        // Events of a durable channel share commits.
        let mut waiting = Vec::new();
        let mut outcome = Ok(());
        for event in &response.events {
            self.stats.received();
            let ticket = match self.read(token, event).await {
                Ok(Some(heard)) => self.route(course, &heard, &mut pressed),
                Ok(None) => {
                    count(&self.stats.unreadable);
                    Ok(None)
                }
                Err(failure) => Err(failure),
            };
            match ticket {
                Ok(ticket) => waiting.push((ticket, event)),
                Err(failure) => {
                    outcome = Err(failure);
                    break;
                }
            }
        }
        for (ticket, event) in waiting {
            if let Some(ticket) = ticket {
                self.committed(*ticket, &mut pressed).await?;
            }
            self.shared.positions.advance(org, &self.topic, &event.replay_id);
        }
        outcome?;
        if response.events.is_empty() && !response.latest_replay_id.is_empty() {
            self.shared.positions.advance(org, &self.topic, &response.latest_replay_id);
        }
        relief(pressed).await;
        Ok(())
    }

    /// Waits until an event is on disk. If it cannot be, the stream begins again after the last one that is.
    async fn committed(&self, mut ticket: CommitTicket, pressed: &mut Vec<Arc<Session>>) -> Result<(), Failure> {
        match poll_fn(|cx| ticket.poll(cx)).await {
            Ok(routed) => {
                count(&self.stats.routed);
                pressed.extend(routed.pressed);
                Ok(())
            }
            Err(denied) => self.refused(&denied.refusal),
        }
    }

    /// An event was refused. Salesforce keeps it while the disk cannot.
    fn refused(&self, refusal: &Refusal) -> Result<(), Failure> {
        if refusal.code == ErrorCode::StorageUnavailable {
            return Err(Failure::passing("events of a durable channel cannot be written to the disk"));
        }
        count(&self.stats.unaddressed);
        tracing::debug!(name = self.name, code = refusal.code.as_str(), "an event was not published");
        Ok(())
    }

    /// Decodes an event. `None`: it can never be decoded.
    async fn read(&self, token: &Token, event: &ConsumerEvent) -> Result<Option<Heard>, Failure> {
        let Some(id) = event.event.as_ref().map(|it| it.schema_id.as_str()) else { return Ok(None) };
        let schema = match self.shared.schemas.find(id) {
            Some(schema) => schema,
            None => match self.schema(token, id).await? {
                Some(schema) => schema,
                None => return Ok(None),
            },
        };
        let org = self.shared.org.get();
        if schema.is_change() {
            org.changed(schema.name());
        }
        let heard = event::read(event, &schema, &self.settings.load(), org.password_field());
        if heard.is_none() {
            tracing::warn!(name = self.name, schema_id = id, "an event does not fit its schema and was skipped");
        }
        Ok(heard)
    }

    async fn schema(&self, token: &Token, id: &str) -> Result<Option<Arc<Schema>>, Failure> {
        let org = self.shared.org.get();
        let counted = CountedCall::begin(org.client.calls(), SalesforceOperation::Events);
        let asked = timeout(org.config.timeout, self.shared.pubsub.load().schema(token, id)).await;
        counted.end(outcome_of(&asked));
        let json = match asked {
            Ok(Err(status)) if is_unknown(&status) => {
                tracing::warn!(
                    name = self.name,
                    schema_id = id,
                    "the schema of an event is unknown; the event was skipped"
                );
                return Ok(None);
            }
            Ok(asked) => asked.map_err(|status| Failure::of(&status))?,
            Err(_) => return Err(Failure::passing("the Pub/Sub API takes too long to return a schema")),
        };
        match Schema::parse(&json) {
            Ok(schema) => {
                let schema = Arc::new(schema);
                self.shared.schemas.keep(id, Arc::clone(&schema));
                Ok(Some(schema))
            }
            Err(fault) => {
                tracing::warn!(
                    name = self.name,
                    schema_id = id,
                    fault,
                    "the schema of an event cannot be used; the event was skipped"
                );
                Ok(None)
            }
        }
    }

    /// Publishes an event. With a ticket, it is published when it is on disk.
    fn route(
        &self,
        course: &mut Course,
        heard: &Heard,
        pressed: &mut Vec<Arc<Session>>,
    ) -> Result<Option<Box<CommitTicket>>, Failure> {
        let user = match &heard.to {
            To::Everybody => None,
            To::User(user) => Some(user.as_str()),
            To::Nobody => {
                count(&self.stats.unaddressed);
                if !std::mem::replace(&mut course.told_unaddressed, true) {
                    tracing::warn!(
                        name = self.name,
                        user_field = self.settings.load().user_field,
                        "events whose user_field is empty reach nobody: a change event contains only what has changed, \
                         unless its channel is enriched with the field"
                    );
                }
                return Ok(None);
            }
        };
        let Ok(envelope) = decode(&heard.text, DecodeLimits::OWN) else {
            count(&self.stats.unreadable);
            return Ok(None);
        };
        let now = Instant::now().into_std();
        match self.shared.router.announce(now, &self.shared.member, &envelope, user) {
            Ok(Routed { ticket: Some(ticket), .. }) => Ok(Some(ticket)),
            Ok(routed) => {
                count(&self.stats.routed);
                pressed.extend(routed.pressed);
                Ok(None)
            }
            Err(refusal) => self.refused(&refusal).map(|()| None),
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
                self.shared.org.get().missed_changes(topic);
                if let Some(org) = token.as_ref().and_then(|token| token.org.as_deref()) {
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

/// Waits for receivers whose queues are more than half full, up to a limit. Salesforce keeps the events meanwhile.
async fn relief(pressed: Vec<Arc<Session>>) {
    let now = Instant::now();
    let begun: Vec<_> = pressed.iter().map(|receiver| receiver.outbox().begin_wait(now.into_std())).collect();
    for (receiver, (reliefs, most)) in pressed.iter().zip(begun) {
        let outbox = receiver.outbox();
        let relieved = poll_fn(|cx| outbox.poll_relieved_since(reliefs, cx));
        if timeout_at(now + most, relieved).await.is_err() {
            // One slow reader must not slow down everybody's events.
            outbox.waited_in_vain(Instant::now().into_std());
        }
    }
}

/// What a call of the Pub/Sub API is counted as.
fn outcome_of<T>(asked: &Result<Result<T, Status>, Elapsed>) -> SalesforceOutcome {
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

fn is_unknown(status: &Status) -> bool {
    matches!(status.code(), Code::NotFound | Code::InvalidArgument)
}

fn silent() -> Failure {
    Failure::passing("the Pub/Sub API is silent: a firewall or proxy on the way drops connections that stand")
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::config::Config;
    use crate::router::{Ids, OnFull, Outbox, OutboxLimits, Policy, Pressure, Router};
    use crate::websocket::Frame;

    #[tokio::test(start_paused = true)]
    async fn a_receiver_that_takes_nothing_is_waited_for_once() {
        let now = || Instant::now().into_std();
        let router =
            Router::new(now(), SystemTime::UNIX_EPOCH, Policy::new(&Config::default()), Ids::seeded(1), Vec::new());
        let limits = OutboxLimits { messages: 10, bytes: 1 << 20, refuses: false };
        let receiver = router.attach_adapter(now(), Outbox::new(limits));
        let push = || receiver.outbox().push(now(), Frame::new("{}"), OnFull::Close).ok();
        let mut pressed = None;
        while pressed != Some(Pressure::Over) {
            pressed = push();
        }
        let start = Instant::now();
        relief(vec![Arc::clone(&receiver)]).await;
        assert_eq!(start.elapsed(), Duration::from_millis(250));
        assert_eq!(push(), Some(Pressure::Relieved), "nobody waits for it again until it is under half");
    }
}
