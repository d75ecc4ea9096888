//! Events from an org: subscribes to topics of the Pub/Sub API and publishes what arrives on the channel `Salesforce`.
//!
//! [`Events`] starts a `subscription` for each topic, also for those that a reload adds; they share the session with the rest
//! of the room. `seat` is the right to read a topic, and `replay` remembers how far each has been published. `arrived` publishes
//! what a stream has brought. `wire` is the API, `schema` and `bitmap` decode its payloads, `event` turns one into an envelope,
//! `failure` says what the end of a stream means, and `probe` checks whether a topic can be subscribed to. Only events are
//! published, never requests, and nothing here waits for an answer of an application.

mod arrived;
mod bitmap;
mod event;
mod failure;
mod probe;
mod replay;
mod schema;
mod seat;
mod stats;
mod subscription;
mod wire;

pub use seat::{TopicKeeper, TopicReader, TopicSeat};
pub use stats::TopicSnapshot;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::CurrentOrg;
use super::oauth::SetupError;
use crate::config::{self, EventTopic};
use crate::router::{Outbox, OutboxLimits, RecordCache, Router, Session};
use replay::Positions;
use schema::Schemas;
use seat::OwnSeat;
use stats::Stats;
use subscription::Subscription;
use wire::PubSub;

/// The adapter subscribes to nothing, so this queue stays empty.
const WAITING_MAX: OutboxLimits = OutboxLimits { messages: 16, bytes: 1 << 16, refuses: true };

/// How long a new subscription waits for those that a reload has ended. One of them may publish the same topic, and then an
/// event would be published twice.
const ENDING_MAX: Duration = Duration::from_secs(10);

/// How long subscriptions may take to publish what has arrived, and to write their positions, when the broker drains.
const LAST_EVENTS: Duration = Duration::from_millis(500);

/// The topics of an org.
pub struct Events {
    org: Arc<CurrentOrg>,
    /// The API as the configuration in force says.
    pubsub: Arc<ArcSwap<PubSub>>,
    positions: Arc<Positions>,
    /// `[salesforce.events]` as it is in force.
    config: Mutex<config::Events>,
    running: Mutex<Option<Running>>,
}

/// Settings that are about to be in force.
pub struct NextEvents {
    /// `None`: the API is the same.
    pubsub: Option<Arc<PubSub>>,
    config: config::Events,
}

/// The subscriptions of a broker that runs.
struct Running {
    shared: Arc<Shared>,
    /// By the NAME of each topic.
    topics: BTreeMap<String, Topic>,
    /// Those that a reload has ended, and that may still be publishing.
    ending: Vec<CancellationToken>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// A topic that is subscribed to.
struct Topic {
    settings: Arc<ArcSwap<EventTopic>>,
    stats: Arc<Stats>,
    /// Ends the subscription once it has published what has arrived.
    leave: CancellationToken,
    /// Cancelled when the subscription has ended.
    ended: CancellationToken,
}

/// What the subscriptions share.
struct Shared {
    org: Arc<CurrentOrg>,
    /// The API as the configuration in force says.
    pubsub: Arc<ArcSwap<PubSub>>,
    schemas: Schemas,
    positions: Arc<Positions>,
    /// What gives seats, in a cluster.
    keeper: Option<Arc<dyn TopicKeeper>>,
    router: Arc<Router>,
    member: Arc<Session>,
}

impl Events {
    /// Reads how far the topics have been published. Sends nothing. Blocks on the disk.
    ///
    /// # Errors
    /// The certificates or the address cannot be used.
    pub fn open(org: Arc<CurrentOrg>, config: &config::Salesforce, data_dir: &Path) -> Result<Self, SetupError> {
        Ok(Self {
            org,
            pubsub: Arc::new(ArcSwap::from_pointee(PubSub::new(config)?)),
            positions: Arc::new(Positions::open(data_dir)),
            config: Mutex::new(config.events.clone()),
            running: Mutex::default(),
        })
    }

    /// Subscribes to the topics until `stop`, in tasks on `tasks`. In a cluster, a keeper says when this node reads a topic. Must
    /// be called once.
    pub fn start(
        &self,
        router: &Arc<Router>,
        keeper: Option<Arc<dyn TopicKeeper>>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) {
        let member = router.attach_adapter(Instant::now().into_std(), Outbox::new(WAITING_MAX));
        let shared = Arc::new(Shared {
            org: Arc::clone(&self.org),
            pubsub: Arc::clone(&self.pubsub),
            schemas: Schemas::default(),
            positions: Arc::clone(&self.positions),
            keeper,
            router: Arc::clone(router),
            member: Arc::clone(&member),
        });
        let (own, routed) = (TaskTracker::new(), CancellationToken::new());
        if shared.keeper.is_none() {
            tasks.spawn(Arc::clone(&self.positions).run(routed.clone()));
        }
        let (router, all, end) = (Arc::clone(router), own.clone(), stop.clone());
        tasks.spawn(async move {
            end.cancelled().await;
            all.close();
            all.wait().await;
            router.detach(Instant::now().into_std(), &member);
            routed.cancel();
        });
        let mut running =
            Running { shared, topics: BTreeMap::new(), ending: Vec::new(), tasks: own, stop: stop.clone() };
        running.follow(&self.config.lock());
        *self.running.lock() = Some(running);
    }

    /// What another configuration needs, to be put in force by [`Events::replace`]. `is_same_api`: the API, and what vouches
    /// for it, are those in force.
    ///
    /// # Errors
    /// The certificates or the address cannot be used.
    pub fn prepare(config: &config::Salesforce, is_same_api: bool) -> Result<NextEvents, SetupError> {
        let pubsub = if is_same_api { None } else { Some(Arc::new(PubSub::new(config)?)) };
        Ok(NextEvents { pubsub, config: config.events.clone() })
    }

    /// Puts other settings in force. Topics that are gone are published up to what has arrived, new ones are subscribed to
    /// after `settle`, and one that only has other settings goes on with them. Each subscription uses another API when it
    /// connects next.
    pub fn replace(&self, next: NextEvents) {
        let NextEvents { pubsub, config } = next;
        if let Some(pubsub) = pubsub {
            self.pubsub.store(pubsub);
        }
        if let Some(running) = &mut *self.running.lock() {
            running.follow(&config);
        }
        *self.config.lock() = config;
    }

    /// The present counts.
    #[must_use]
    pub fn snapshot(&self) -> Vec<TopicSnapshot> {
        let running = self.running.lock();
        let topics = running.iter().flat_map(|running| &running.topics);
        topics.map(|(name, topic)| topic.stats.snapshot(name, &topic.settings.load().topic)).collect()
    }
}

impl Shared {
    /// Forgets credentials whose records have changed, on all nodes. `event` is the API name of the change event; `None`: any
    /// records may have changed.
    fn changed(&self, event: Option<&str>) {
        self.org.records_changed(event);
        self.router.tell_records_changed(event);
    }

    fn seat(&self, topic: &str) -> Arc<dyn TopicSeat> {
        match &self.keeper {
            Some(keeper) => keeper.seat(topic),
            None => Arc::new(OwnSeat { topic: topic.to_owned(), positions: Arc::clone(&self.positions) }),
        }
    }
}

impl Running {
    /// Subscribes to the topics of a configuration, and to no other.
    fn follow(&mut self, config: &config::Events) {
        let goes_on = |name: &String, topic: &Topic| {
            config.topics.get(name).is_some_and(|settings| settings.topic == topic.settings.load().topic)
        };
        self.ending.retain(|ended| !ended.is_cancelled());
        for (name, topic) in std::mem::take(&mut self.topics) {
            if goes_on(&name, &topic) {
                self.topics.insert(name, topic);
            } else {
                topic.leave.cancel();
                self.ending.push(topic.ended);
            }
        }
        for (name, settings) in &config.topics {
            match self.topics.get(name) {
                Some(topic) => topic.settings.store(Arc::new(settings.clone())),
                None => {
                    let topic = self.subscribe(name, settings, config.settle);
                    self.topics.insert(name.clone(), topic);
                }
            }
        }
    }

    /// Subscribes to a topic after `settle`, in a task.
    fn subscribe(&self, name: &str, settings: &EventTopic, settle: Duration) -> Topic {
        let topic = Topic {
            settings: Arc::new(ArcSwap::from_pointee(settings.clone())),
            stats: Arc::default(),
            leave: self.stop.child_token(),
            ended: CancellationToken::new(),
        };
        let (name, own) = (name.to_owned(), settings.topic.clone());
        let (settings, stats, shared) =
            (Arc::clone(&topic.settings), Arc::clone(&topic.stats), Arc::clone(&self.shared));
        let (ending, stop, leave) = (self.ending.clone(), self.stop.clone(), topic.leave.clone());
        let ended = topic.ended.clone().drop_guard();
        self.tasks.spawn(async move {
            let _ended = ended;
            let run = async {
                let others_end = async {
                    for ended in &ending {
                        ended.cancelled().await;
                    }
                };
                // If the time is over, because the disk or a schema takes long, an event may be published twice.
                timeout(ENDING_MAX, others_end).await.ok();
                if leave.run_until_cancelled(sleep_until(Instant::now() + settle)).await.is_some() {
                    // Only now, because a seat wants its turn.
                    let seat = shared.seat(&own);
                    stats.seat.set(Arc::downgrade(&seat)).ok();
                    Subscription { name, topic: own, settings, stats, seat, shared }.run(&leave).await;
                }
            };
            let last = async {
                stop.cancelled().await;
                sleep_until(Instant::now() + LAST_EVENTS).await;
            };
            tokio::select! {
                () = run => {}
                () = last => {}
            }
        });
        topic
    }
}
