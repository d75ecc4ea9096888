//! The connection of a node to NATS: what arrives, what leaves, and what has happened.

use std::future::pending;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use async_nats::{Client, Event, Message, SubscribeError, Subscriber};
use futures_util::{FutureExt, StreamExt};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::connect::{RECONNECT, options, reach, unreachable};
use super::jetstream::JetStream;
use super::joining::Joining;
use super::plane::Plane;
use super::{ClusterError, date};
use crate::cluster::{BusEvent, Inbound, Incarnation, Keys, Outbound};
use crate::config::{self, Config};
use crate::router::{Lost, Router};

/// Messages of a subscription that the library keeps. What it drops beyond that, links send again.
const SUBSCRIPTION_MAX: usize = 16_384;

/// How long the library may take to accept a message. What it does not accept, the link sends again.
const PUBLISH_WAIT: Duration = Duration::from_millis(200);

/// A timer that waits for nothing.
const IDLE: Duration = Duration::from_secs(1);

/// How often others are told how busy handlers are, at most.
const LOADS_EVERY: Duration = Duration::from_millis(500);

/// How many messages, and how many bytes of them, are handled before the other direction has its turn. To seal or open this
/// much, and to deliver it, must take far less time than that after which a peer is lost, also on a slow machine.
const TURN: usize = 256;
const TURN_BYTES: usize = 128 << 10;

/// What a node needs to join.
pub(super) struct Joiner {
    pub(super) plane: Arc<Plane>,
    pub(super) router: Arc<Router>,
    pub(super) keys: Keys,
    pub(super) config: Config,
}

/// Who waits until the node has joined.
type Joined = SyncSender<Result<Arc<JetStream>, ClusterError>>;

/// Connects, joins the cluster, says so, and serves the links until `stop`. The storage is opened on a runtime of its own.
pub(super) async fn run(node: &Joiner, storage: &Handle, stop: &CancellationToken, joined: &Joined) {
    if let Err(error) = connect_and_serve(node, storage, stop, joined).await {
        // Nobody listens any more after the start.
        joined.send(Err(error)).ok();
    }
}

async fn connect_and_serve(
    node: &Joiner,
    storage: &Handle,
    stop: &CancellationToken,
    joined: &Joined,
) -> Result<(), ClusterError> {
    let Joiner { plane, router, keys, config } = node;
    let (changes, changed) = mpsc::channel(64);
    let client = connect(&config.cluster, plane, changes).await?;
    let open = {
        let (client, keys, config, storage) = (client.clone(), keys.clone(), config.clone(), storage.clone());
        move || storage.spawn(async move { JetStream::open(client, &keys, &config).await })
    };
    let joining = Joining::new(plane, Box::new(open));
    let node = Node::subscribe(client, plane, router, changed).await;
    node.map_err(|error| unreachable(&config.cluster, &error))?.serve(joining, stop, joined).await
}

/// Whether NATS is connected now.
enum Change {
    Connected,
    Disconnected,
}

async fn connect(
    settings: &config::Cluster,
    plane: &Plane,
    changes: mpsc::Sender<Change>,
) -> Result<Client, ClusterError> {
    let options = options(settings, plane.node().as_str())
        .subscription_capacity(SUBSCRIPTION_MAX)
        .retain_servers_order()
        .ignore_discovered_servers()
        .reconnect_delay_callback(|_| RECONNECT)
        .event_callback(move |event| {
            let changes = changes.clone();
            async move {
                let change = match event {
                    Event::Connected => Change::Connected,
                    Event::Disconnected | Event::Closed => Change::Disconnected,
                    other => return tracing::debug!(event = %other, "NATS says something"),
                };
                changes.send(change).await.ok();
            }
        });
    reach(settings, options).await
}

/// This node, connected.
struct Node<'a> {
    client: Client,
    plane: &'a Plane,
    router: &'a Arc<Router>,
    changed: mpsc::Receiver<Change>,
    beats: Subscriber,
    own: Subscriber,
    /// The incarnation whose messages `own` brings.
    incarnation: Incarnation,
    /// When the others are told next how busy handlers are.
    loads_due: Instant,
}

/// What one turn of the loop brought.
enum Turn {
    /// Something from NATS, and on which subscription.
    Arrived(Inbound, Option<Message>),
    Changed(Option<Change>),
    /// The storage was opened, or cannot be.
    Opened(Result<(), ClusterError>),
    Woken,
    Due,
    Stop,
}

impl<'a> Node<'a> {
    async fn subscribe(
        client: Client,
        plane: &'a Plane,
        router: &'a Arc<Router>,
        changed: mpsc::Receiver<Change>,
    ) -> Result<Self, SubscribeError> {
        plane.set_largest(client.max_payload());
        let (own, beats, incarnation) = plane.subjects();
        let (beats, own) = (client.subscribe(beats).await?, client.subscribe(own).await?);
        let node = Self { client, plane, router, changed, beats, own, incarnation, loads_due: Instant::now() };
        node.connected();
        Ok(node)
    }

    /// Serves the links, also while this node joins.
    async fn serve(mut self, joining: Joining, stop: &CancellationToken, joined: &Joined) -> Result<(), ClusterError> {
        let mut joining = Some(joining);
        loop {
            let turn = self.turn(stop, joining.as_mut()).await;
            match turn {
                Turn::Stop => return Ok(()),
                Turn::Arrived(_, None) | Turn::Changed(None) => {
                    self.ended();
                    return Ok(());
                }
                Turn::Arrived(from, Some(message)) => self.arrived(from, &message),
                Turn::Changed(Some(Change::Connected)) => self.connected(),
                Turn::Changed(Some(Change::Disconnected)) => self.disconnected(),
                Turn::Opened(Err(error)) => return Err(error),
                Turn::Opened(Ok(())) | Turn::Woken | Turn::Due => {}
            }
            // What has arrived already comes before the timers: it may be what they wait for.
            self.plane.timeout();
            while let Some(event) = self.plane.event() {
                if let Some(why) = joining.as_ref().and_then(|joining| joining.look(self.plane, &event)) {
                    return Err(why);
                }
                self.happened(event).await;
            }
            self.announce_loads();
            self.transmit().await;
            // The library reads and writes on this thread, too.
            yield_now().await;
            if let Some(storage) = joining.as_mut().map(|it| it.outcome(self.plane)).transpose()?.flatten() {
                joining = None;
                self.plane.say_live();
                joined.send(Ok(storage)).ok();
            }
        }
    }

    async fn turn(&mut self, stop: &CancellationToken, joining: Option<&mut Joining>) -> Turn {
        let due = self.plane.sleep().unwrap_or(IDLE);
        let due = joining.as_ref().map_or(due, |joining| joining.sleep(self.plane).min(due));
        let opened = async {
            match joining {
                Some(joining) => joining.opened().await,
                None => pending().await,
            }
        };
        let own = Inbound::Node(self.incarnation);
        tokio::select! {
            biased;
            () = stop.cancelled() => Turn::Stop,
            change = self.changed.recv() => Turn::Changed(change),
            message = self.beats.next() => Turn::Arrived(Inbound::Beats, message),
            message = self.own.next() => Turn::Arrived(own, message),
            () = self.plane.woken() => Turn::Woken,
            outcome = opened => Turn::Opened(outcome),
            () = sleep_until(Instant::now() + due) => Turn::Due,
        }
    }

    /// Takes a message, and others that are there already.
    fn arrived(&mut self, from: Inbound, message: &Message) {
        self.plane.receive(from, &message.payload);
        let own = Inbound::Node(self.incarnation);
        let mut bytes = message.payload.len();
        for (from, subscriber) in [(Inbound::Beats, &mut self.beats), (own, &mut self.own)] {
            for _ in 0..TURN {
                if bytes >= TURN_BYTES && from != Inbound::Beats {
                    break;
                }
                let Some(Some(message)) = subscriber.next().now_or_never() else { break };
                bytes += message.payload.len();
                self.plane.receive(from, &message.payload);
            }
        }
    }

    /// Tells the others how busy handlers are, when it is time. The beats of links let this look often enough.
    fn announce_loads(&mut self) {
        let now = Instant::now();
        if now >= self.loads_due {
            self.loads_due = now + LOADS_EVERY;
            self.router.announce_loads();
        }
    }

    /// Gives NATS what there is to send.
    async fn transmit(&self) {
        let mut bytes = 0;
        for _ in 0..TURN {
            if bytes >= TURN_BYTES {
                break;
            }
            let Some(Outbound { subject, payload }) = self.plane.transmit() else { return };
            bytes += payload.len();
            match timeout(PUBLISH_WAIT, self.client.publish(subject, payload.into())).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "NATS did not take a message, which is sent again"),
                Err(_) => return tracing::debug!("NATS takes no messages"),
            }
        }
        // The rest follows after what has arrived.
        self.plane.wake();
    }

    fn connected(&self) {
        let info = self.client.server_info();
        let address = format!("{}:{}", info.host, info.port);
        // The library tells of the first connection, too.
        if self.plane.set_connected(Some(info.server_name.clone())) {
            tracing::info!(server = info.server_name, address, "NATS is connected");
        }
    }

    fn disconnected(&self) {
        if self.plane.set_connected(None) {
            tracing::warn!("NATS is not connected");
        }
    }

    /// The library gave up, which it never does by itself.
    fn ended(&self) {
        self.disconnected();
        tracing::error!("the connection to NATS has ended and does not come again; restart this node");
    }

    async fn happened(&mut self, event: BusEvent) {
        let (plane, router) = (self.plane, self.router);
        let now = Instant::now().into_std();
        let lost = |since: std::time::Instant| Lost { since: date(plane.now().saturating_duration_since(since)) };
        match event {
            BusEvent::PeerFound { node, incarnation, .. } => {
                tracing::info!(%node, %incarnation, "found another node of the cluster");
            }
            BusEvent::PeerChanged { node, live, .. } => tracing::debug!(%node, live, "another node has changed"),
            BusEvent::SnapshotWanted { node } => router.peer_linked(now, node.as_str()),
            BusEvent::Snapshot { node, message } | BusEvent::Message { node, message } => {
                if !router.peer_says(now, node.as_str(), &message) {
                    tracing::warn!(%node, "another node sent what this one does not understand");
                }
            }
            BusEvent::Acknowledged { node, number } => {
                router.peer_acknowledged(node.as_str(), number.0);
                router.peer_window_moved(now, node.as_str());
            }
            BusEvent::Broken { node, why, since } => {
                tracing::warn!(%node, ?why, "the link to another node is broken: what was under way is lost");
                router.peer_broken(now, node.as_str(), lost(since));
            }
            BusEvent::Lost { node, why, since } => {
                tracing::warn!(%node, ?why, "another node is lost");
                router.peer_lost(now, node.as_str(), lost(since));
            }
            BusEvent::Paused { since } => {
                tracing::warn!("this node stood still for a while: it begins anew with all others");
                router.all_peers_lost(now, lost(since));
                self.subscribe_again().await;
            }
            BusEvent::CutOff => {
                tracing::error!("this node is cut off from the cluster: it does not receive its own beats");
                plane.set_cut_off(true);
                router.set_cut_off(now, true);
            }
            BusEvent::Restored => {
                tracing::info!("this node receives its own beats again");
                plane.set_cut_off(false);
                router.set_cut_off(now, false);
            }
            BusEvent::NameShared { incarnation } => tracing::error!(
                node = %plane.node(),
                %incarnation,
                "another live node has the name of this one, because they could not reach each other at start: stop one of them"
            ),
            BusEvent::KeysApart { incarnation, node } => tracing::error!(
                %incarnation,
                node = node.as_ref().map(tracing::field::display),
                "the keys of another node and of this one do not match (cluster.key_file): they have no link, and applications of one \
                 do not reach those of the other"
            ),
            BusEvent::Refused(refusal) => tracing::error!(?refusal, "this node is refused by the cluster"),
        }
    }

    /// Listens to the subject of a new incarnation.
    async fn subscribe_again(&mut self) {
        let (own, _, incarnation) = self.plane.subjects();
        match self.client.subscribe(own).await {
            Ok(subscriber) => (self.own, self.incarnation) = (subscriber, incarnation),
            Err(error) => tracing::error!(%error, "NATS refuses a subscription; restart this node"),
        }
    }
}
