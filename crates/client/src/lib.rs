//! The client of a switchboard broker.
//!
//! [`Client::builder`] connects and registers. A [`Client`] then publishes events ([`Client::publish`]), receives them
//! ([`Client::subscribe`], a `Stream`), sends requests ([`Client::request`]) and answers them ([`Client::serve`]).
//!
//! It reconnects by itself; [`Client::states`] reports that, and [`Client::reconnections`] what it means:
//!
//! - [`Reconnection::Resumed`]: the session continues. Nothing was missed or received twice, and operations that were pending
//!   still are.
//! - [`Reconnection::Recovered`]: the session is a new one, because the client was away for too long or the broker was
//!   restarted. Every subscription continues after the last event that the application has handled, which needs a channel
//!   with history.
//! - [`Reconnection::Lost`]: events may be missing.
//!
//! In a new session, an event with [`once`](Receipted::once) is sent again. Other operations that were pending fail with
//! [`Error::OutcomeUnknown`] if they were sent, and are not sent again. If the broker closed the connection because of a
//! message (1002, 1007, 1009), they fail with [`Error::Closed`] instead: do not repeat them. At the third such close within a
//! minute, the client stops. What an application publishes while there is no connection is kept ([`Builder::while_away`]); other
//! operations fail with [`Error::Disconnected`].
//!
//! ```no_run
//! # use futures_util::StreamExt;
//! # use switchboard_client::{Client, Reconnection};
//! # async fn run(client: Client) {
//! let mut reconnections = Box::pin(client.reconnections());
//! while let Some(reconnection) = reconnections.next().await {
//!     match reconnection {
//!         Reconnection::Resumed | Reconnection::Recovered => {}
//!         Reconnection::Lost { since } => println!("events since {since:?} may be missing; reload the data"),
//!     }
//! }
//! # }
//! ```
//!
//! If the proof of the session expires, and there is a [token provider](Builder::token_provider), it renews the session a
//! minute before that, so that nothing is interrupted.
//!
//! The feature `tls`, on by default, adds `wss://`.
//!
//! ```
//! use serde_json::{Value, json};
//! use switchboard_client::{Client, Triple};
//!
//! # use switchboard::{config::Config, server::Server};
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let listen = vec!["127.0.0.1:0".parse::<std::net::SocketAddr>()?.into()];
//! # let server = Server::bind(Config { listen, data_dir: folder.path().into(), ..Config::default() }, None)?;
//! # let url = format!("ws://{}/ws", server.addresses()[0]);
//! # tokio::spawn(server.run(std::future::pending()));
//! // The default address of a broker is ws://127.0.0.1:7420/ws.
//! let crm = Client::builder(&url).source("crm").connect().await?;
//! let _serving = crm
//!     .serve("Crm/Contact/Find".parse()?, async |request| {
//!         let number: String = request.data().unwrap_or_default();
//!         Ok(json!({ "Success": true, "Name": "Ada", "Number": number }).into())
//!     })
//!     .await?;
//!
//! let softphone = Client::builder(&url).source("softphone").connect().await?;
//! let mut calls = softphone.subscribe("Phone/Call/*".parse()?).await?;
//!
//! let reply = softphone.request(Triple::new("Crm", "Contact", "Find"), json!("+49 30 1234")).await?;
//! assert_eq!(reply.data::<Value>()?["Name"], "Ada");
//!
//! let ringing = Triple::new("Phone", "Call", "Ringing");
//! let receipt = crm.publish(ringing, json!({ "from": "+49 30 1234" })).receipt().await?;
//! assert_eq!(receipt.receivers, 1);
//! let call = calls.next().await.ok_or("the subscription has ended")?;
//! assert_eq!(call.source(), Some("crm"));
//!
//! softphone.close().await;
//! crm.close().await;
//! # Ok(())
//! # }
//! ```

mod away;
mod backoff;
mod builder;
mod connection;
mod endpoint;
mod error;
mod folding;
mod held;
mod message;
mod order;
mod outbox;
mod pace;
mod parking;
mod position;
mod publish;
mod reconnect;
mod reconnection;
mod register;
mod renew;
mod request;
mod resume;
mod serve;
mod session;
mod state;
mod subscription;
mod table;
mod tls;
mod token;
mod waiting;

pub use builder::{Builder, WhileAway};
pub use endpoint::{ByteStream, Endpoint};

pub use error::{Error, Failure};
pub use message::{Message, Payload};
pub use position::{Position, Recover};
pub use publish::{Publishing, Receipt, Receipted};
pub use reconnection::Reconnection;
pub use request::{Answers, FailedHandler, Gather, Gathered, Requesting, Summary};
pub use serve::{Reply, Request, Serve, Serving};
pub use state::{Session, State};
pub use subscription::{Subscribing, Subscription};

pub use wire::command::State as Activity;
pub use wire::{Pattern, Triple};

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::SystemTime;

use futures_util::Stream;
use futures_util::stream::unfold;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};
use tokio::time::timeout;

use connection::Settings;
use message::Outgoing;
use order::Order;
use waiting::{Incoming, Waiting};
use wire::notice;

/// The capacity of the queue of orders for the driver. If it is full, an operation waits.
const ORDERS: usize = 256;

/// A registered application. Cheap to clone; all clones are one session.
///
/// The connection ends when the last `Client`, [`Subscription`] and [`Serving`] of it is dropped.
/// [`close`](Self::close) also unregisters.
#[derive(Clone)]
pub struct Client {
    orders: mpsc::Sender<Order>,
    shared: Arc<Shared>,
}

/// The state that the clients and the driver of one connection share.
struct Shared {
    settings: Settings,
    states: watch::Sender<State>,
    reconnections: broadcast::Sender<Reconnection>,
    /// When the client connected first.
    since: SystemTime,
    /// Wakes the driver after a queue was dropped.
    sweep: Notify,
    ids: AtomicU64,
    /// The size of the largest message that the broker takes, by the latest registration.
    message_bytes_max: AtomicUsize,
    /// Makes ids differ from those of other clients of this source: in a channel with history, the broker treats an
    /// event with a known id as a repetition.
    id_prefix: u64,
}

impl Shared {
    /// Returns whether [`next_id`](Self::next_id) made an id. Those of the application may occur more than once.
    fn is_own(&self, id: &str) -> bool {
        id.split_once('-').is_some_and(|(prefix, _)| u64::from_str_radix(prefix, 16) == Ok(self.id_prefix))
    }

    fn next_id(&self) -> String {
        format!("{:x}-{}", self.id_prefix, self.ids.fetch_add(1, Ordering::Relaxed))
    }
}

/// A registered application, as [`Client::applications`] lists them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct Application {
    /// Its registered name.
    pub source: String,
    /// Its user; `None` for a service.
    pub user: Option<String>,
    /// When its earliest session registered (RFC 3339).
    pub since: String,
    /// The number of its sessions.
    pub sessions: u64,
    /// `active`, `asleep` or `away`.
    pub state: String,
}

impl Client {
    /// Returns a builder for a connection to a broker, such as `ws://127.0.0.1:7420/ws` or `wss://…`.
    pub fn builder(url: impl Into<String>) -> Builder {
        Builder::new(url.into())
    }

    /// Prepares an event; set its options, then `.await` it.
    pub fn publish<'c>(&'c self, triple: Triple<'c>, payload: impl Into<Payload>) -> Publishing<'c> {
        Publishing::new(self, triple, payload.into())
    }

    /// Prepares a subscription; set its options, then `.await` it.
    pub fn subscribe(&self, pattern: Pattern) -> Subscribing<'_> {
        Subscribing::new(self, pattern)
    }

    /// Prepares a request to a handler; set its options, then `.await` the answer.
    pub fn request<'c>(&'c self, triple: Triple<'c>, payload: impl Into<Payload>) -> Requesting<'c> {
        Requesting::new(self, triple, payload.into())
    }

    /// Prepares a handler of the requests that a pattern matches; set its options, then `.await` it. The closure gets a
    /// [`Request`] and returns a [`Reply`] or a [`Failure`]. If several patterns match, the closure of the narrowest is
    /// called.
    pub fn serve<H, F>(&self, pattern: Pattern, handler: H) -> Serve<'_, H>
    where
        H: Fn(Request) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Reply, Failure>> + Send + 'static,
    {
        Serve::new(self, pattern, handler)
    }

    /// Returns the connected applications: those of this session's user, and services. A service or an observer gets
    /// all.
    pub async fn applications(&self) -> Result<Vec<Application>, Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct List {
            applications: Vec<Application>,
        }
        let answer = self.command("Application", "List", &Payload::default()).await?;
        let list: Result<List, _> = answer.data();
        list.map(|list| list.applications)
            .map_err(|_| Error::Protocol("the reply to Application/List has no list".into()))
    }

    /// Tells the broker whether the application is active or asleep. A sleeping handler gets requests only if there is no
    /// other.
    pub async fn set_activity(&self, activity: Activity) -> Result<(), Error> {
        self.command("Application", "SetState", &json!({ "state": activity.as_str() }).into()).await.map(drop)
    }

    /// Returns the current state.
    #[must_use]
    pub fn state(&self) -> State {
        self.shared.states.borrow().clone()
    }

    /// Returns a stream of the current state and each later one. States that follow each other quickly can be skipped,
    /// never the latest. The stream ends after [`State::Closed`].
    pub fn states(&self) -> impl Stream<Item = State> + Send + use<> {
        let mut receiver = self.shared.states.subscribe();
        receiver.mark_changed();
        unfold((receiver, false), async |(mut receiver, ended)| {
            if ended {
                return None;
            }
            receiver.changed().await.ok()?;
            let state = receiver.borrow_and_update().clone();
            let ended = matches!(state, State::Closed { .. });
            Some((state, (receiver, ended)))
        })
    }

    /// Returns a stream of what each reconnection from now on means, once its subscriptions are confirmed. A stream that is not
    /// read for more than 64 reconnections continues with [`Reconnection::Lost`]. It ends with the client.
    pub fn reconnections(&self) -> impl Stream<Item = Reconnection> + Send + use<> {
        let (receiver, since) = (self.shared.reconnections.subscribe(), self.shared.since);
        let states = self.shared.states.subscribe();
        unfold((receiver, states, since), async |(mut receiver, mut states, since)| {
            let outcome = tokio::select! {
                biased;
                outcome = receiver.recv() => match outcome {
                    Ok(reconnection) => reconnection,
                    Err(RecvError::Lagged(_)) => Reconnection::Lost { since },
                    Err(RecvError::Closed) => return None,
                },
                _ = states.wait_for(|state| matches!(state, State::Closed { .. })) => return None,
            };
            Some((outcome, (receiver, states, since)))
        })
    }

    /// The registered name of this application.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.shared.settings.source
    }

    /// Sends what was published before, unregisters and closes the connection. This ends all clones too. If there is no
    /// connection, what was kept is dropped.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.orders.send(Order::Close(done)).await.is_ok() {
            // An error means that the driver has already ended.
            closed.await.ok();
        }
    }

    /// Sends a command to the broker and waits for the reply.
    async fn command(&self, topic: &'static str, subtopic: &'static str, data: &Payload) -> Result<Message, Error> {
        self.check_connected()?;
        let triple = notice::triple(topic, subtopic);
        let id = self.shared.next_id();
        let text = Outgoing { id: Some(&id), ..Outgoing::new(&triple, self.source(), data) }.text()?;
        let (queue, answer) = oneshot::channel();
        self.order(Order::Ask { id, text, waiting: Waiting::Once(queue) }).await?;
        self.answer(subtopic, answer).await
    }

    /// Waits for the broker's answer, within the time limit of a command.
    async fn answer(&self, to: &'static str, queue: oneshot::Receiver<Incoming>) -> Result<Message, Error> {
        let message = match timeout(self.shared.settings.limits.command, queue).await {
            Ok(Ok(incoming)) => incoming?,
            Ok(Err(_)) => return Err(self.why_closed()),
            Err(_) => return Err(Error::TimedOut(to)),
        };
        match message.failure() {
            Some(failure) => Err(failure.into()),
            None => Ok(message),
        }
    }

    /// Waits for the receipt of an event. The time limit rests while there is no connection.
    async fn receipt(&self, mut queue: oneshot::Receiver<Incoming>) -> Result<Message, Error> {
        loop {
            let message = match timeout(self.shared.settings.limits.command, &mut queue).await {
                Ok(Ok(incoming)) => incoming?,
                Ok(Err(_)) => return Err(self.why_closed()),
                Err(_) if matches!(self.state(), State::Connected(_)) => {
                    return Err(Error::TimedOut("the publication"));
                }
                Err(_) => continue,
            };
            return message.failure().map_or(Ok(message), |failure| Err(failure.into()));
        }
    }

    async fn order(&self, order: Order) -> Result<(), Error> {
        self.orders.send(order).await.map_err(|_| self.why_closed())
    }

    /// Queues an order if there is room.
    fn try_order(&self, order: Order) {
        self.orders.try_send(order).ok();
    }

    /// Fails unless the client is connected. An order that was queued for the next connection could be sent long after its
    /// caller has given up.
    fn check_connected(&self) -> Result<(), Error> {
        match &*self.shared.states.borrow() {
            State::Connected(_) => Ok(()),
            State::Closed { code, reason } => Err(Error::Closed { code: *code, reason: reason.clone() }),
            State::Connecting | State::Disconnected { .. } => Err(Error::Disconnected),
        }
    }

    /// As [`check_connected`](Self::check_connected), but succeeds if events are kept while the client is away. Returns
    /// whether it is connected.
    fn check_may_publish(&self) -> Result<bool, Error> {
        match self.check_connected() {
            Ok(()) => Ok(true),
            Err(Error::Disconnected) if self.shared.settings.while_away != WhileAway::Refuse => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Refuses a message that is over the broker's limit. The broker would close the connection because of it.
    fn check_size(&self, text: String) -> Result<String, Error> {
        let (len, max) = (text.len(), self.shared.message_bytes_max.load(Ordering::Relaxed));
        if len > max {
            return Err(Error::Invalid(format!("the envelope has {len} bytes, and the broker takes {max} at most")));
        }
        Ok(text)
    }

    fn why_closed(&self) -> Error {
        match &*self.shared.states.borrow() {
            State::Closed { code, reason } => Error::Closed { code: *code, reason: reason.clone() },
            State::Connecting | State::Connected(_) | State::Disconnected { .. } => Error::Disconnected,
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("source", &self.source()).field("state", &self.state()).finish_non_exhaustive()
    }
}
