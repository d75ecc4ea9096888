//! Events from an org: subscribes to topics of the Pub/Sub API and publishes what arrives on the channel `Salesforce`.
//!
//! [`Events`] starts a `subscription` for each topic; they share the session with the rest of the room. `replay`
//! remembers how far each topic has been published. `wire` is the API, `schema` and `bitmap` decode its payloads,
//! `event` turns one into an envelope, `failure` says what the end of a stream means, and `probe` checks whether a
//! topic can be subscribed to. Only events are published, never requests, and nothing here waits for an answer of an
//! application.

mod bitmap;
mod event;
mod failure;
mod probe;
mod replay;
mod schema;
mod stats;
mod subscription;
mod wire;

pub use stats::TopicSnapshot;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::CurrentOrg;
use super::oauth::SetupError;
use crate::config;
use crate::router::{Outbox, OutboxLimits, Router, Session};
use replay::Positions;
use schema::Schemas;
use stats::Stats;
use subscription::Subscription;
use wire::PubSub;

/// The adapter subscribes to nothing, so this queue stays empty.
const WAITING_MAX: OutboxLimits = OutboxLimits { messages: 16, bytes: 1 << 16, refuses: true };

/// The topics of an org.
pub struct Events {
    org: Arc<CurrentOrg>,
    /// The API as the configuration in force says.
    pubsub: Arc<ArcSwap<PubSub>>,
    positions: Arc<Positions>,
    topics: Vec<(String, config::EventTopic, Arc<Stats>)>,
    settle: Duration,
}

/// Settings that are about to be in force.
pub struct NextEvents(Arc<PubSub>);

/// What the subscriptions share.
struct Shared {
    org: Arc<CurrentOrg>,
    /// The API as the configuration in force says.
    pubsub: Arc<ArcSwap<PubSub>>,
    schemas: Schemas,
    positions: Arc<Positions>,
    router: Arc<Router>,
    member: Arc<Session>,
}

impl Events {
    /// Reads how far the topics have been published. Sends nothing. Blocks on the disk.
    ///
    /// # Errors
    /// The certificates or the address cannot be used.
    pub fn open(org: Arc<CurrentOrg>, config: &config::Salesforce, data_dir: &Path) -> Result<Self, SetupError> {
        let pubsub = Arc::new(ArcSwap::from_pointee(PubSub::new(config)?));
        let topics = config.events.topics.iter();
        let topics = topics.map(|(name, topic)| (name.clone(), topic.clone(), Arc::default())).collect();
        Ok(Self { pubsub, topics, positions: Arc::new(Positions::open(data_dir)), settle: config.events.settle, org })
    }

    /// Subscribes to the topics until `stop`, in tasks on `tasks`. Must be called once.
    pub fn start(&self, router: &Arc<Router>, tasks: &TaskTracker, stop: &CancellationToken) {
        let Self { org, pubsub, positions, topics, settle } = self;
        let settle = *settle;
        let member = router.attach_adapter(Instant::now().into_std(), Outbox::new(WAITING_MAX));
        let shared = Arc::new(Shared {
            org: Arc::clone(org),
            pubsub: Arc::clone(pubsub),
            schemas: Schemas::default(),
            positions: Arc::clone(positions),
            router: Arc::clone(router),
            member,
        });
        let own = TaskTracker::new();
        for (name, topic, stats) in topics.clone() {
            let subscription = Subscription { name, topic, stats, shared: Arc::clone(&shared) };
            let stop = stop.clone();
            own.spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = sleep_until(Instant::now() + settle) => {}
                }
                subscription.run(stop).await;
            });
        }
        own.close();
        let routed = CancellationToken::new();
        tasks.spawn(Arc::clone(positions).run(routed.clone()));
        tasks.spawn(async move {
            own.wait().await;
            shared.router.detach(Instant::now().into_std(), &shared.member);
            routed.cancel();
        });
    }

    /// The API with other settings, to be put in force by [`Events::replace`].
    ///
    /// # Errors
    /// The certificates or the address cannot be used.
    pub fn prepare(config: &config::Salesforce) -> Result<NextEvents, SetupError> {
        PubSub::new(config).map(|pubsub| NextEvents(Arc::new(pubsub)))
    }

    /// Puts other settings in force: each subscription uses them when it connects next. Its topics stay.
    pub fn replace(&self, next: NextEvents) {
        self.pubsub.store(next.0);
    }

    /// The present counts.
    #[must_use]
    pub fn snapshot(&self) -> Vec<TopicSnapshot> {
        self.topics.iter().map(|(name, topic, stats)| stats.snapshot(name, &topic.topic)).collect()
    }
}
