//! [`Builder`]: the options of a connection.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::Duration;

use secrecy::SecretString;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, broadcast, mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::backoff::{Backoff, can_retry};
use super::connection::{Limits, Link, Settings, establish};
use super::endpoint::{ByteStream, Dial, Endpoint};
use super::reconnect::Driver;
use super::reconnection::system_now;
use super::resume::Resume;
use super::token::Token;
use super::{Client, Error, ORDERS, Shared, State};
use wire::check_name;

/// How many reports of reconnections are kept for a stream that is not read.
const REPORTS: usize = 64;

/// The longest of the waits that an application can set. A longer one would end beyond what a clock can show.
const WAIT_MAX: Duration = Duration::from_hours(24);

/// The default of [`Builder::while_away`].
const KEPT_WHILE_AWAY: usize = 1000;

/// What happens to events that an application publishes while there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhileAway {
    /// Up to this many, and 8 MiB, are kept, and sent in order once there is a connection. Further ones are refused.
    Keep(usize),
    /// They are refused at once, with [`Error::Disconnected`].
    Refuse,
}

/// The options of a connection; [`connect`](Self::connect) makes it.
#[must_use = "nothing is connected until `connect` is awaited"]
pub struct Builder {
    url: String,
    ca_file: Option<PathBuf>,
    source: String,
    token: Token,
    user: Option<String>,
    echo: bool,
    resume: bool,
    recover: bool,
    while_away: WhileAway,
    dial: Option<Dial>,
    limits: Limits,
    /// The first and the last ceiling of the wait between attempts.
    backoff: (Duration, Duration),
    /// How long `connect` makes attempts; `None`: one attempt.
    wait: Option<Duration>,
}

impl Builder {
    pub(super) fn new(url: String) -> Self {
        let second = Duration::from_secs(1);
        Self {
            url,
            ca_file: None,
            source: String::new(),
            token: Token::None,
            user: None,
            echo: false,
            resume: true,
            recover: true,
            while_away: WhileAway::Keep(KEPT_WHILE_AWAY),
            dial: None,
            limits: Limits { token: 30 * second, connect: 10 * second, register: 10 * second, command: 10 * second },
            backoff: (Duration::from_millis(100), 30 * second),
            wait: None,
        }
    }

    /// Sets the name to register. Required.
    pub fn source(mut self, source: impl Into<String>) -> Self {
        self.source = source.into();
        self
    }

    /// Sets a token that is the same for every registration.
    pub fn token(mut self, token: SecretString) -> Self {
        self.token = Token::Fixed(token);
        self
    }

    /// Sets a function that returns the token. It is called before every attempt to connect, so each registration has a
    /// new token, and when the proof of the session expires in a minute. It has 30 s to answer. It may return a token that
    /// it returned before; if that one expires within a minute too, it is called again every few seconds.
    ///
    /// ```
    /// # use switchboard_client::Client;
    /// let path = std::path::PathBuf::from("softphone.token");
    /// let builder = Client::builder("wss://switchboard.example.com/ws").source("softphone").token_provider(move || {
    ///     let path = path.clone();
    ///     async move { tokio::fs::read_to_string(path).await.map(Into::into) }
    /// });
    /// ```
    ///
    /// If it fails, [`connect`](Self::connect) fails with [`Error::Token`], unless it
    /// [waits](Self::wait_for_broker); a later connection is tried again.
    pub fn token_provider<P, F, E>(mut self, provider: P) -> Self
    where
        P: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = Result<SecretString, E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.token = Token::provider(provider);
        self
    }

    /// Sets a function that returns the token as it is now, such as the content of a file. It is called when a
    /// [token provider](Self::token_provider) is. In the last minute of a token, it is called every few seconds, and the
    /// session is renewed once it returns another one. If the broker refuses the token and the function still returns the same
    /// one, the client stops, as with a [fixed token](Self::token).
    pub fn token_reader<P, F, E>(mut self, read: P) -> Self
    where
        P: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = Result<SecretString, E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.token = Token::reader(read);
        self
    }

    /// Sets the user of the session. Only a broker in open mode accepts it without a proof.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// Sets whether this application receives its own events.
    pub fn echo(mut self, echo: bool) -> Self {
        self.echo = echo;
        self
    }

    /// Sets whether the session can continue on another connection (the default), if the broker allows it. It keeps a lost
    /// session for its `resume.grace`, and for as long others see this application.
    pub fn resume(mut self, resume: bool) -> Self {
        self.resume = resume;
        self
    }

    /// Sets whether subscriptions to channels with history continue in a new session where the application is (the default).
    pub fn recover(mut self, recover: bool) -> Self {
        self.recover = recover;
        self
    }

    /// Sets what happens to events that the application publishes while there is no connection (default: 1,000 are kept).
    pub fn while_away(mut self, while_away: WhileAway) -> Self {
        self.while_away = while_away;
        self
    }

    /// Adds the certificates in a PEM file to those that are trusted for `wss://`.
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(path.into());
        self
    }

    /// Sets the waits between attempts to reconnect (default 100 ms and 30 s). Each wait is a random time below a
    /// ceiling, which doubles from the first value to the last. Values over a day count as a day.
    pub fn backoff(mut self, first: Duration, last: Duration) -> Self {
        self.backoff = (first.min(WAIT_MAX), last.min(WAIT_MAX));
        self
    }

    /// Sets how long to wait for the broker's reply to a command (default 10 s, at most a day).
    pub fn command_timeout(mut self, timeout: Duration) -> Self {
        self.limits.command = timeout.min(WAIT_MAX);
        self
    }

    /// Sets a function that opens the stream to the broker, such as a tunnel, in place of TCP to the URL's host. For
    /// `wss://`, TLS runs on this stream.
    pub fn dial<D, F, S>(mut self, dial: D) -> Self
    where
        D: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = io::Result<S>> + Send + 'static,
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        self.dial = Some(Arc::new(move || {
            let stream = dial();
            Box::pin(async move { Ok(Box::new(stream.await?) as Box<dyn ByteStream>) })
        }));
        self
    }

    /// Lets [`connect`](Self::connect) make further attempts for this long, as after a lost connection, for a program
    /// that starts before the broker. Use [`Duration::MAX`] for no limit. By default there is one attempt.
    ///
    /// The reason why an attempt failed is logged with `tracing` at level info. Without a subscriber, nothing shows why the
    /// program waits. With a [token provider](Self::token_provider), it also makes further attempts after a refused token.
    pub fn wait_for_broker(mut self, limit: Duration) -> Self {
        self.wait = Some(limit);
        self
    }

    /// Connects and registers. If this succeeds, the client reconnects by itself from then on.
    pub async fn connect(self) -> Result<Client, Error> {
        let Self { url, ca_file, source, token, user, echo, resume, recover, while_away, dial, limits, .. } = self;
        let ((first, last), wait) = (self.backoff, self.wait);
        for (what, name) in [("source", Some(&source)), ("user", user.as_ref())] {
            let fault = name.and_then(|name| check_name(name).err());
            if let Some(fault) = fault {
                return Err(Error::Invalid(format!("the {what} {fault}")));
            }
        }
        let endpoint = Endpoint::new(&url, ca_file.as_deref())?;
        let settings = Settings { endpoint, source, token, user, echo, resume, recover, while_away, dial, limits };
        let link = match wait {
            Some(limit) => establish_within(limit, &settings, Backoff::new(first, last)).await?,
            None => establish(&settings, &Resume::new(resume)).await?,
        };
        let (orders, receiver) = mpsc::channel(ORDERS);
        let shared = Arc::new(Shared {
            message_bytes_max: AtomicUsize::new(link.session.message_bytes_max),
            states: watch::Sender::new(State::Connected(link.session.clone())),
            reconnections: broadcast::Sender::new(REPORTS),
            since: system_now(),
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

/// Makes the first connection, in several attempts if need be. Fails with the error of the last attempt.
async fn establish_within(limit: Duration, settings: &Settings, mut backoff: Backoff) -> Result<Link, Error> {
    let mut last = Error::TimedOut("the connection");
    let attempts = async {
        loop {
            let error = match establish(settings, &Resume::new(settings.resume)).await {
                Ok(link) => return Ok(link),
                Err(error) => error,
            };
            if !can_retry(&error, settings, true).await {
                return Err(error);
            }
            let wait = backoff.next();
            tracing::info!(%error, ?wait, "not connected yet");
            last = error;
            sleep_until(Instant::now() + wait).await;
        }
    };
    match timeout(limit, attempts).await {
        Ok(outcome) => outcome,
        Err(_) => Err(last),
    }
}
