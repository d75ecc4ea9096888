//! [`Client`]: calls the admin API. Finds its address and a token, and turns problem documents into errors.

use std::env;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::timeout;

use crate::cli::{Exit, Usage};
use crate::config::{Admin, Config, LoadOptions};
use crate::http::{self, BaseUrl, Failure, Options};
use crate::short_text;
use crate::store::read_secret_or_pipe;

/// Holds the token if there is no `--admin-token-file`.
const TOKEN_VARIABLE: &str = "SWITCHBOARD_ADMIN_TOKEN";

/// How long a call may take. The broker ends one after 30 s.
const CALL_TIME: Duration = Duration::from_secs(35);

/// The largest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// The arguments of every command that calls the admin API.
#[derive(Args)]
pub(crate) struct Arguments {
    // Not doc comments, which would be links.
    #[arg(
        long = "admin",
        value_name = "URL",
        help = "The address of the admin API; default: [admin] of --config, otherwise http://127.0.0.1:7421",
        help_heading = "Admin API"
    )]
    url: Option<String>,
    #[arg(
        long,
        value_name = "FILE",
        help = "A file with the admin token; default: SWITCHBOARD_ADMIN_TOKEN, otherwise admin.token in the data folder",
        help_heading = "Admin API"
    )]
    admin_token_file: Option<PathBuf>,
    /// The configuration file of the broker, which says where the admin API and the data folder are
    #[arg(long, value_name = "FILE", help_heading = "Admin API")]
    config: Option<PathBuf>,
    /// The data folder of the broker
    #[arg(long, value_name = "DIR", help_heading = "Admin API")]
    data_dir: Option<PathBuf>,
    /// A PEM file with further certificate authorities to trust for https://
    #[arg(long, value_name = "FILE", help_heading = "Admin API")]
    ca_file: Option<PathBuf>,
}

/// Why a call has no answer, or which error it has.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// Nothing could be reached at the address, or the connection was lost.
    #[error("could not reach the admin API at {url}: {reason}")]
    Unreachable {
        /// The address.
        url: String,
        /// The system's error.
        reason: String,
    },
    /// No answer in time.
    #[error("the admin API at {0} did not answer in time")]
    TimedOut(String),
    /// What answers is not an admin API.
    #[error("what answers at {0} is not an admin API: {1}")]
    Foreign(String, String),
    /// The broker refused the call.
    #[error("{code}: {detail}")]
    Refused {
        /// The code of the problem.
        code: String,
        /// What is wrong.
        detail: String,
    },
}

impl CallError {
    /// Returns how the program ends.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Unreachable { .. } | Self::Foreign(..) => Exit::Unreachable,
            Self::TimedOut(_) => Exit::TimedOut,
            Self::Refused { code, .. } => match code.as_str() {
                "INVALID_REQUEST" | "INVALID_JSON" | "INVALID_CONFIG" => Exit::Usage,
                "REQUEST_TIMEOUT" => Exit::TimedOut,
                _ => Exit::Refused,
            },
        }
    }

    /// Returns whether another attempt may succeed.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::TimedOut(_))
    }

    /// Returns what to do about it.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Unreachable { .. } => Some(
                "the broker prints 'admin on URL' when it starts; --admin gives another address, and the key admin.listen \
                 turns the admin API on",
            ),
            Self::Refused { code, .. } if code == "UNAUTHENTICATED" => Some(
                "the token comes from --admin-token-file, from SWITCHBOARD_ADMIN_TOKEN, or from admin.token in the data folder \
                 (--data-dir, or --config)",
            ),
            Self::TimedOut(_) | Self::Foreign(..) | Self::Refused { .. } => None,
        }
    }
}

/// Calls the admin API of one broker.
pub(crate) struct Client {
    http: http::Client,
    base: BaseUrl,
    token: Option<SecretString>,
}

/// An answer.
pub(crate) struct Answer {
    /// Its status code.
    pub(crate) status: u16,
    /// Its body; `null` if there is none.
    pub(crate) body: Value,
}

/// A problem document.
#[derive(Deserialize)]
struct Problem {
    code: String,
    detail: String,
}

impl Client {
    /// A client with the token that the arguments, the environment or the data folder have.
    ///
    /// # Errors
    /// Mistakes in the arguments or in the configuration, and an unreadable file.
    pub(crate) fn open(arguments: &Arguments) -> anyhow::Result<Self> {
        let mut client = Self::without_token(arguments)?;
        client.token = arguments.token()?;
        Ok(client)
    }

    /// A client for calls that need no token.
    ///
    /// # Errors
    /// Mistakes in the arguments or in the configuration.
    pub(crate) fn without_token(arguments: &Arguments) -> anyhow::Result<Self> {
        let base = arguments.base()?;
        let options = Options { server: &base, ca_file: arguments.ca_file.as_deref(), insecure_http: !base.https };
        let http = http::Client::new(options).map_err(|error| Usage::new(format!("--ca-file: {error}")))?;
        Ok(Self { http, base, token: None })
    }

    /// Returns the address of the admin API, without a slash at the end.
    pub(crate) fn url(&self) -> String {
        self.base.to_string()
    }

    /// Makes a call. Any status that is not an error is an answer; `also` is a further one.
    ///
    /// # Errors
    /// Nothing answered in time, or the answer is an error.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        also: Option<u16>,
    ) -> Result<Answer, CallError> {
        self.in_time(async {
            let answer = self.send(method, path, body).await?;
            let (url, status) = (self.base.to_string(), answer.status());
            if !(200..300).contains(&status) && also != Some(status) {
                return Err(self.refusal(answer).await);
            }
            let text = answer.body(ANSWER_BYTES_MAX).await.map_err(|failure| failed(&url, failure))?;
            let text: &[u8] = if text.is_empty() { b"null" } else { &text };
            let body = serde_json::from_slice(text).map_err(|error| CallError::Foreign(url, error.to_string()))?;
            Ok(Answer { status, body })
        })
        .await
    }

    /// Makes a call whose answer is Server-Sent Events.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub(crate) async fn stream(&self, path: &str) -> Result<Events, CallError> {
        let answer = self.in_time(self.send(Method::GET, path, None)).await?;
        match answer.status() {
            200 => Ok(Events { answer, url: self.base.to_string(), read: Vec::new() }),
            _ => Err(self.refusal(answer).await),
        }
    }

    /// Waits for [`CALL_TIME`] at most.
    async fn in_time<T>(&self, answer: impl Future<Output = Result<T, CallError>>) -> Result<T, CallError> {
        timeout(CALL_TIME, answer).await.unwrap_or_else(|_| Err(CallError::TimedOut(self.base.to_string())))
    }

    /// Sends a call, and reads the head of the answer.
    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<http::Answer, CallError> {
        let url = self.base.to_string();
        let mut request = self.http.request(method, format!("{url}{path}"));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose_secret());
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        http::send(request).await.map_err(|failure| failed(&url, failure))
    }

    /// The error that an answer is.
    async fn refusal(&self, answer: http::Answer) -> CallError {
        let (url, status) = (self.base.to_string(), answer.status());
        let text = match answer.body(ANSWER_BYTES_MAX).await {
            Ok(text) => text,
            Err(failure) => return failed(&url, failure),
        };
        match serde_json::from_slice(&text) {
            Ok(Problem { code, detail }) => CallError::Refused { code, detail },
            Err(_) => CallError::Foreign(url, format!("it answered {status}")),
        }
    }
}

fn failed(url: &str, failure: Failure) -> CallError {
    let reason = match failure {
        Failure::TooLarge => "the answer is too large".to_owned(),
        Failure::Tls(why) | Failure::Unconnected(why) | Failure::Broken(why) => why,
    };
    CallError::Unreachable { url: url.to_owned(), reason }
}

/// The largest event that is read.
const EVENT_BYTES_MAX: usize = 1 << 20;

/// An answer that need not end: Server-Sent Events, each of which has JSON as its data.
pub(crate) struct Events {
    answer: http::Answer,
    url: String,
    /// What was read and is not a whole event yet.
    read: Vec<u8>,
}

impl Events {
    /// The next event with its data; `None` at the end.
    ///
    /// # Errors
    /// The connection was lost, or what was sent is not an event.
    pub(crate) async fn next(&mut self) -> Result<Option<(String, Value)>, CallError> {
        loop {
            while let Some(end) = self.read.windows(2).position(|it| it == b"\n\n") {
                let text: Vec<u8> = self.read.drain(..end + 2).collect();
                let text = String::from_utf8_lossy(&text);
                let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
                // Without data it is a comment.
                if let (Some(event), Some(data)) = (field("event: "), field("data: ")) {
                    let data = serde_json::from_str(data);
                    let data = data.map_err(|error| CallError::Foreign(self.url.clone(), error.to_string()))?;
                    return Ok(Some((event.to_owned(), data)));
                }
            }
            if self.read.len() > EVENT_BYTES_MAX {
                return Err(failed(&self.url, Failure::TooLarge));
            }
            match self.answer.chunk().await.map_err(|failure| failed(&self.url, failure))? {
                Some(chunk) => self.read.extend_from_slice(&chunk),
                None => return Ok(None),
            }
        }
    }
}

impl Arguments {
    /// Returns where the admin API is.
    fn base(&self) -> anyhow::Result<BaseUrl> {
        let Some(url) = &self.url else {
            let admin = self.load()?.admin;
            let address = admin.listen.first().ok_or_else(|| {
                Usage::new("the configuration has no admin listener")
                    .hint("set the key admin.listen, or give --admin URL")
            })?;
            return url_of(&admin, *address);
        };
        Ok(BaseUrl::parse(url).map_err(|why| Usage::new(format!("--admin {why}")))?)
    }

    /// Returns the token, if there is one.
    fn token(&self) -> anyhow::Result<Option<SecretString>> {
        if let Some(path) = &self.admin_token_file {
            return Ok(Some(read_token(path)?));
        }
        match env::var(TOKEN_VARIABLE) {
            Ok(token) if token.trim().is_empty() => return Err(Usage::new(format!("{TOKEN_VARIABLE} is empty")).into()),
            Ok(token) => return Ok(Some(SecretString::from(short_text::trim(&token)))),
            Err(env::VarError::NotPresent) => {}
            Err(env::VarError::NotUnicode(_)) => {
                return Err(Usage::new(format!("{TOKEN_VARIABLE} is not UTF-8")).into());
            }
        }
        let folder = match &self.data_dir {
            Some(folder) => folder.clone(),
            None => self.load()?.data_dir,
        };
        // Without it, the broker says what is missing.
        let path = folder.join("admin.token");
        if path.exists() { Ok(Some(read_token(&path)?)) } else { Ok(None) }
    }

    /// Loads the configuration of the broker.
    pub(super) fn load(&self) -> anyhow::Result<Config> {
        Ok(Config::load(LoadOptions::from_process(self.config.clone()))?)
    }
}

fn read_token(path: &Path) -> Result<SecretString, Usage> {
    let wrong = |why: &dyn std::fmt::Display| Usage::new(format!("the token file {}: {why}", path.display()));
    let text = read_secret_or_pipe(path).map_err(|error| wrong(&error))?;
    if text.trim().is_empty() {
        return Err(wrong(&"the file is empty"));
    }
    Ok(SecretString::from(text.as_str()))
}

/// Returns the URL of a listener.
fn url_of(admin: &Admin, address: SocketAddr) -> anyhow::Result<BaseUrl> {
    if address.port() == 0 {
        let hint = "the broker prints the port when it starts: 'admin on URL'; give that URL as --admin";
        return Err(Usage::new("the port of admin.listen is 0, so it is not known").hint(hint).into());
    }
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    Ok(BaseUrl { https: admin.tls, host: ip.to_string(), port: Some(address.port()) })
}
