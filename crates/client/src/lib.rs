//! The Rust client: an application of a switchboard broker in a few lines.
//!
//! [`Client::builder`] connects and registers. A [`Client`] then publishes ([`Client::publish`]), hears
//! ([`Client::subscribe`], a `Stream`), asks ([`Client::request`]) and answers ([`Client::serve`]). It reconnects by
//! itself, registers and subscribes again; [`Client::states`] tells of it. What was pending when a connection was lost
//! fails with [`Error::Disconnected`] and is not sent again.
//!
//! ```
//! use serde_json::{Value, json};
//! use switchboard_client::{Client, Triple};
//!
//! # use switchboard::{config::Config, server::Server};
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let listen = vec!["127.0.0.1:0".parse()?];
//! # let server = Server::bind(Config { listen, data_dir: folder.path().into(), ..Config::default() }, None)?;
//! # let url = format!("ws://{}/ws", server.addresses()[0]);
//! # tokio::spawn(server.run(std::future::pending()));
//! // `url` is the broker's: ws://127.0.0.1:7420/ws, unless configured otherwise.
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

mod connection;
mod error;
mod message;
mod publish;
mod reconnect;
mod request;
mod serve;
mod subscription;
mod table;

pub use error::{Error, Failure};
pub use message::{Message, Payload};
pub use publish::{Publishing, Receipt, Receipted};
pub use request::{Answers, FailedHandler, Gather, Gathered, Requesting, Summary};
pub use serve::{Request, Serve, Serving};
pub use subscription::{Subscribing, Subscription};

pub use wire::command::State as Activity;
pub use wire::{Pattern, Triple};

use std::fmt;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::unfold;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::timeout;

use connection::{Bidirectional, Limits, Settings, establish};
use message::Outgoing;
use reconnect::{Backoff, Driver, Order};
use table::{Incoming, Waiting};
use wire::{check_name, notice};

/// Orders that wait for the driver; who orders more waits too.
const ORDERS: usize = 256;

/// A registered application. Cheap to clone; all clones are one session.
///
/// The connection ends when the last `Client`, [`Subscription`] and [`Serving`] of it is dropped.
/// [`close`](Self::close) ends it politely.
#[derive(Clone)]
pub struct Client {
    orders: mpsc::Sender<Order>,
    shared: Arc<Shared>,
}

/// What the clients and the driver of one connection share.
struct Shared {
    settings: Settings,
    states: watch::Sender<State>,
    /// Tells the driver that a queue was closed.
    sweep: Notify,
    ids: AtomicU64,
    /// Ids are never those of another client of this source: the broker takes an event with a known id for a repetition.
    id_prefix: u64,
}

impl Shared {
    fn next_id(&self) -> String {
        format!("{:x}-{}", self.id_prefix, self.ids.fetch_add(1, Ordering::Relaxed))
    }
}

/// What the broker said of the session.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Session {
    /// `SessionId`: another after each reconnect.
    pub id: String,
    /// Whose session it is; `None` for a service.
    pub user: Option<String>,
    /// Name and version of the broker.
    pub server: String,
    /// Time between two pings of the broker.
    pub heartbeat: Duration,
    /// The largest envelope that it takes, in bytes.
    pub message_bytes_max: usize,
}

/// How things stand between a client and its broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// A connection is being made.
    Connecting,
    /// Registered, and subscribed to everything that the client holds.
    Connected(Session),
    /// Lost; the next attempt comes after `retry_in`.
    Disconnected {
        /// Why.
        reason: String,
        /// How long until the next attempt.
        retry_in: Duration,
    },
    /// Ended for good.
    Closed {
        /// The code of the broker's Close frame, if that is what ended it.
        code: Option<u16>,
        /// Why.
        reason: String,
    },
}

/// A registered application, as [`Client::applications`] lists them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct Application {
    /// The name it is registered under.
    pub source: String,
    /// Its user; `None` for a service.
    pub user: Option<String>,
    /// When its first session registered (RFC 3339).
    pub since: String,
    /// How many sessions it has.
    pub sessions: u64,
    /// `active` or `asleep`.
    pub state: String,
}

impl Client {
    /// Begins a connection to a broker, such as `ws://127.0.0.1:7420/ws`.
    pub fn builder(url: impl Into<String>) -> Builder {
        let second = Duration::from_secs(1);
        Builder {
            settings: Settings {
                url: url.into(),
                source: String::new(),
                token: None,
                user: None,
                echo: false,
                dial: None,
                limits: Limits { connect: 10 * second, register: 10 * second, command: 10 * second },
            },
            backoff: (Duration::from_millis(100), 30 * second),
        }
    }

    /// Publishes an event: options, then `.await`.
    pub fn publish<'c>(&'c self, triple: Triple<'c>, payload: impl Into<Payload>) -> Publishing<'c> {
        Publishing::new(self, triple, payload.into())
    }

    /// Subscribes to events: options, then `.await`.
    pub fn subscribe(&self, pattern: Pattern) -> Subscribing<'_> {
        Subscribing::new(self, pattern)
    }

    /// Asks a handler: options, then `.await` for its answer.
    pub fn request<'c>(&'c self, triple: Triple<'c>, payload: impl Into<Payload>) -> Requesting<'c> {
        Requesting::new(self, triple, payload.into())
    }

    /// Answers the requests that a pattern matches: options, then `.await`. The closure gets a [`Request`] and gives
    /// the payload of the answer, or a [`Failure`]. Of several patterns that match, the narrowest one's closure is
    /// called.
    pub fn serve<H, F>(&self, pattern: Pattern, handler: H) -> Serve<'_, H>
    where
        H: Fn(Request) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Payload, Failure>> + Send + 'static,
    {
        Serve::new(self, pattern, handler)
    }

    /// The applications that are connected: one's own user's and the services'; all, for services and observers.
    pub async fn applications(&self) -> Result<Vec<Application>, Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct List {
            applications: Vec<Application>,
        }
        let answer = self.command("Application", "List", &Payload::default()).await?;
        let list: Result<List, _> = answer.data();
        list.map(|list| list.applications)
            .map_err(|_| Error::Protocol("the answer to Application/List has no list".into()))
    }

    /// Says whether the application works or sleeps; a handler that is asleep is asked last.
    pub async fn set_activity(&self, activity: Activity) -> Result<(), Error> {
        self.command("Application", "SetState", &json!({ "state": activity.as_str() }).into()).await.map(drop)
    }

    /// How things stand now.
    #[must_use]
    pub fn state(&self) -> State {
        self.shared.states.borrow().clone()
    }

    /// How things stand, now and after each change. Who looks seldom sees the latest state, not every one before it.
    /// The stream ends after [`State::Closed`].
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

    /// The name this application is registered under.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.shared.settings.source
    }

    /// Unregisters and closes; what was published before is sent first. All clones end with it.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.orders.send(Order::Close(done)).await.is_ok() {
            // An error says that the driver has ended, which is what was wanted.
            closed.await.ok();
        }
    }

    /// Sends a command to the broker and waits for its answer.
    async fn command(&self, topic: &'static str, subtopic: &'static str, data: &Payload) -> Result<Message, Error> {
        self.check_connected()?;
        let triple = notice::triple(topic, subtopic);
        let id = self.shared.next_id();
        let text = Outgoing { id: Some(&id), ..Outgoing::new(&triple, self.source(), data) }.text()?;
        let (queue, answer) = oneshot::channel();
        self.order(Order::Ask { id, text, waiting: Waiting::Once(queue) }).await?;
        self.answer(subtopic, answer).await
    }

    /// Waits for the broker's answer, for as long as a command may take.
    async fn answer(&self, to: &'static str, queue: oneshot::Receiver<Incoming>) -> Result<Message, Error> {
        let message = match timeout(self.shared.settings.limits.command, queue).await {
            Ok(Ok(incoming)) => incoming?,
            Ok(Err(_)) => return Err(Error::Disconnected),
            Err(_) => return Err(Error::TimedOut(to)),
        };
        match message.failure() {
            Some(failure) => Err(failure.into()),
            None => Ok(message),
        }
    }

    async fn order(&self, order: Order) -> Result<(), Error> {
        self.orders.send(order).await.map_err(|_| self.why_closed())
    }

    /// Orders without waiting for room.
    fn try_order(&self, order: Order) {
        self.orders.try_send(order).ok();
    }

    /// Fails at once while there is no connection: an order that waits for one might be sent when nobody wants it.
    fn check_connected(&self) -> Result<(), Error> {
        match &*self.shared.states.borrow() {
            State::Connected(_) => Ok(()),
            State::Closed { code, reason } => Err(Error::Closed { code: *code, reason: reason.clone() }),
            State::Connecting | State::Disconnected { .. } => Err(Error::Disconnected),
        }
    }

    /// Refuses what the broker would close the connection for.
    fn check_size(&self, text: String) -> Result<String, Error> {
        match &*self.shared.states.borrow() {
            State::Connected(session) if text.len() > session.message_bytes_max => Err(Error::Invalid(format!(
                "the envelope has {} bytes, and the broker takes {} at most",
                text.len(),
                session.message_bytes_max
            ))),
            _ => Ok(text),
        }
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

/// A connection in the making.
#[must_use = "nothing is connected until `connect` is awaited"]
pub struct Builder {
    settings: Settings,
    /// The first ceiling of the wait between attempts, and the last.
    backoff: (Duration, Duration),
}

impl Builder {
    /// The name to register under; required.
    pub fn source(mut self, source: impl Into<String>) -> Self {
        self.settings.source = source.into();
        self
    }

    /// What proves who this is.
    pub fn token(mut self, token: SecretString) -> Self {
        self.settings.token = Some(token);
        self
    }

    /// Whose session this is; believed by a broker in open mode only.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.settings.user = Some(user.into());
        self
    }

    /// Whether to hear one's own events.
    pub fn echo(mut self, echo: bool) -> Self {
        self.settings.echo = echo;
        self
    }

    /// The waits between attempts to reconnect (default 100 ms and 30 s): each is any time below a ceiling that doubles
    /// from the first to the last.
    pub fn backoff(mut self, first: Duration, last: Duration) -> Self {
        self.backoff = (first, last);
        self
    }

    /// How long to wait for the broker's answer to a command (default 10 s).
    pub fn command_timeout(mut self, timeout: Duration) -> Self {
        self.settings.limits.command = timeout;
        self
    }

    /// Opens the stream to the broker in another way than by TCP to the URL's host: a tunnel, TLS, memory in a test.
    pub fn dial<D, F, S>(mut self, dial: D) -> Self
    where
        D: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = io::Result<S>> + Send + 'static,
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        self.settings.dial = Some(Arc::new(move || {
            let stream = dial();
            Box::pin(async move { Ok(Box::new(stream.await?) as Box<dyn Bidirectional>) })
        }));
        self
    }

    /// Connects and registers, once: only a connection that has stood is made again by itself.
    pub async fn connect(self) -> Result<Client, Error> {
        let Self { settings, backoff: (first, last) } = self;
        for (what, name) in [("source", Some(&settings.source)), ("user", settings.user.as_ref())] {
            let fault = name.and_then(|name| check_name(name).err());
            if let Some(fault) = fault {
                return Err(Error::Invalid(format!("the {what} {fault}")));
            }
        }
        let link = establish(&settings).await?;
        let (orders, receiver) = mpsc::channel(ORDERS);
        let shared = Arc::new(Shared {
            states: watch::Sender::new(State::Connected(link.session.clone())),
            settings,
            sweep: Notify::new(),
            ids: AtomicU64::new(1),
            id_prefix: rand::random(),
        });
        let driver = Driver::new(Arc::clone(&shared), receiver, Backoff::new(first, last));
        #[expect(clippy::disallowed_methods, reason = "a library has no task tracker; ends with the last Client")]
        tokio::spawn(driver.run(link));
        Ok(Client { orders, shared })
    }
}
