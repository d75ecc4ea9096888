//! [`Asked`]: asks the org about an access token, by introspection or userinfo. The only file of this folder that
//! waits.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use reqwest::Method;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use zeroize::Zeroizing;

use super::answer::{self, Doubt};
use super::known::Known;
use super::{Proven, SetupError, now};
use crate::auth::{AuthError, hash_token};
use crate::config::{self, IntrospectionProof, UserinfoProof};
use crate::http::{self, BaseUrl, Breaker, Failure, Outcome, Pass, encode};
use crate::salesforce::answer_fault::is_crowded;
use crate::salesforce::counted::{CountedCall, refused};
use crate::salesforce::fault::Fault;
use crate::salesforce::oauth::{read_secret, unconnectable};
use crate::salesforce::pause::pause_after;
use crate::salesforce::response::{LoginError, error_codes};
use crate::telemetry::metrics::{SalesforceCalls, SalesforceOperation, SalesforceOutcome};

/// Concurrent questions: an org allows few concurrent calls, and other callers need them too.
const QUESTIONS_MAX: usize = 8;

/// The largest answer that is read. Userinfo has about 3 KiB.
const BODY_BYTES_MAX: usize = 64 << 10;

/// The refusal while the org cannot be asked.
const DOWN: &str = "Salesforce cannot be asked about the token just now; try again in a moment";

const NOT_MY_DOMAIN: &str = "'host' is not the org's My Domain (Setup > Company Settings > My Domain)";

const APP_THAT_ASKS: &str = "Setup > Apps > External Client Apps > External Client App Manager > the app that asks > Settings > \
                             OAuth Settings > Consumer Key and Secret: the same as client_id and client_secret_file of \
                             auth.salesforce_introspection";

/// How the org is asked.
enum Way {
    Introspection { client_id: String, secret: SecretString, clients: Vec<String> },
    Userinfo,
}

/// One org and its answers.
pub(super) struct Asked {
    way: Way,
    org_id: String,
    address: String,
    http: http::Client,
    timeout: Duration,
    turns: Semaphore,
    /// Its own: what verifies users must not stop what fetches credentials, or the other way round.
    breaker: Mutex<Breaker<()>>,
    known: Known,
    calls: Arc<SalesforceCalls>,
}

/// How many failed questions in a row open the breaker, and for how long the first time.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    pub(super) failures: u32,
    pub(super) open: Duration,
}

impl Asked {
    /// Asks by introspection.
    pub(super) fn by_introspection(way: &IntrospectionProof, patience: Patience) -> Result<Self, SetupError> {
        const KEY: &str = "auth.salesforce_introspection.client_secret_file";
        let secret = read_secret(KEY, way.client_secret_file.as_deref().unwrap_or(Path::new("")))?;
        let client_id = way.client_id.clone().unwrap_or_default();
        let clients =
            if way.allowed_clients.is_empty() { vec![client_id.clone()] } else { way.allowed_clients.clone() };
        let keys = ("auth.salesforce_introspection.host", "auth.salesforce_introspection.ca_file");
        let introspection = Way::Introspection { client_id, secret, clients };
        let address = (way.proving.org_id.as_deref(), "/services/oauth2/introspect");
        Self::new(introspection, keys, &way.asked, address, patience)
    }

    /// Asks by userinfo.
    pub(super) fn by_userinfo(way: &UserinfoProof, patience: Patience) -> Result<Self, SetupError> {
        let keys = ("auth.salesforce_userinfo.host", "auth.salesforce_userinfo.ca_file");
        let address = (way.proving.org_id.as_deref(), "/services/oauth2/userinfo");
        Self::new(Way::Userinfo, keys, &way.asked, address, patience)
    }

    fn new(
        way: Way,
        (host_key, ca_key): (&'static str, &'static str),
        asked: &config::Asked,
        (org_id, path): (Option<&str>, &str),
        patience: Patience,
    ) -> Result<Self, SetupError> {
        let host = BaseUrl::parse(asked.host.as_deref().unwrap_or_default());
        let host = host.map_err(|fault| SetupError::new(host_key, fault))?;
        if !(host.https || asked.insecure_http && host.is_loopback()) {
            return Err(SetupError::new(host_key, "must begin with https://"));
        }
        let ca_file = asked.ca_file.as_deref();
        let http = http::Client::new(http::Options { server: &host, ca_file, insecure_http: asked.insecure_http })
            .map_err(|error| unconnectable(ca_key, ca_file, &error))?;
        Ok(Self {
            way,
            org_id: org_id.unwrap_or_default().to_owned(),
            address: format!("{host}{path}"),
            http,
            timeout: asked.timeout,
            turns: Semaphore::new(QUESTIONS_MAX),
            breaker: Mutex::new(Breaker::new(patience.failures, patience.open)),
            known: Known::new(asked.cache),
            calls: Arc::default(),
        })
    }

    /// Counts its calls here.
    pub(super) fn count_in(&mut self, calls: &Arc<SalesforceCalls>) {
        self.calls = Arc::clone(calls);
    }

    /// Returns whether it asks about tokens of this org, given the first 15 characters of the org's id.
    pub(super) fn is_of(&self, org: Option<&str>) -> bool {
        org.is_none_or(|org| self.org_id.get(..15) == Some(org))
    }

    /// The URL it asks.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Returns whom the token proves.
    pub(super) async fn prove(&self, token: &SecretString) -> Result<Proven, AuthError> {
        let hash = hash_token(token);
        let ask = async {
            let proven = self.ask(token).await?;
            self.known.keep(now(), hash, &proven);
            Ok(proven)
        };
        timeout(self.timeout, self.known.find(hash, ask)).await.unwrap_or_else(|_| {
            self.tell("no answer in time: status.salesforce.com, or a firewall or proxy on the way");
            Err(AuthError::Unavailable(
                "Salesforce takes too long to say whose the token is; try again in a moment".into(),
            ))
        })
    }

    async fn ask(&self, token: &SecretString) -> Result<Proven, AuthError> {
        let Ok(_turn) = self.turns.acquire().await else { return Err(unavailable()) };
        let admitted = self.breaker.lock().admit(Instant::now().into_std());
        let pass = admitted.map_err(|()| {
            self.calls.calls.count((SalesforceOperation::Introspect, SalesforceOutcome::Shed));
            unavailable()
        })?;
        let mut question = Question { asked: self, pass, begun: Instant::now(), outcome: None };
        let answer = match self.exchange(token).await {
            // An idle connection may have been closed while the question was sent. It is repeated once, on a new
            // connection.
            Err(Failure::Unconnected(_) | Failure::Broken(_)) => self.exchange(token).await,
            other => other,
        };
        let proven = self.judge(&answer);
        let limit = answer.as_ref().ok().and_then(Received::limit);
        question.outcome = Some(match (limit, &proven) {
            (Some(limit), _) if limit.is_crowd() => Outcome::Unknown,
            (Some(_), _) => Outcome::Exhausted(()),
            (None, Err(AuthError::Unavailable(_))) => Outcome::Failed(()),
            (None, Ok(_) | Err(_)) => Outcome::Answered,
        });
        proven
    }

    async fn exchange(&self, token: &SecretString) -> Result<Received, Failure> {
        let token = token.expose_secret();
        let request = match &self.way {
            Way::Introspection { client_id, secret, .. } => {
                let secret = Zeroizing::new(encode(secret.expose_secret()));
                let (token, client_id) = (Zeroizing::new(encode(token)), encode(client_id));
                let form = format!(
                    "token={}&token_type_hint=access_token&client_id={client_id}&client_secret={}",
                    *token, *secret
                );
                let form = Bytes::from_owner(Zeroizing::new(form.into_bytes()));
                self.http
                    .request(Method::POST, self.address.clone())
                    .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(form)
            }
            Way::Userinfo => {
                let bearer = Bytes::from_owner(Zeroizing::new(format!("Bearer {token}").into_bytes()));
                let mut bearer = HeaderValue::from_maybe_shared(bearer).unwrap_or(HeaderValue::from_static(""));
                bearer.set_sensitive(true);
                self.http.request(Method::GET, self.address.clone()).header(AUTHORIZATION, bearer)
            }
        };
        let counted = CountedCall::begin(&self.calls, SalesforceOperation::Introspect);
        let received = receive(request).await;
        counted.end(match &received {
            Ok(Received { status: 200..=299, .. }) => SalesforceOutcome::Ok,
            Ok(Received { status, body, .. }) => refused(*status, body),
            Err(_) => SalesforceOutcome::Network,
        });
        received
    }

    /// Asks about a made-up token to find out whether the org is reachable and answers. Returns what was found, or what
    /// to change.
    pub(super) async fn probe(&self) -> Result<String, String> {
        let made_up = SecretString::from(format!("{}!switchboard.check", self.org_id.get(..15).unwrap_or_default()));
        let answer = match timeout(self.timeout, self.exchange(&made_up)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(Failure::Tls(cause))) => {
                return Err(format!(
                    "TLS failed ({cause}): a proxy that looks into TLS needs its certificate in 'ca_file' of this table; \
                     else the name in 'host' is wrong"
                ));
            }
            Ok(Err(Failure::Unconnected(cause) | Failure::Broken(cause))) => {
                return Err(format!(
                    "{cause}: name resolution, a firewall or a proxy (HTTPS_PROXY) on the way to 'host'"
                ));
            }
            Ok(Err(Failure::TooLarge)) => {
                return Err(format!("the answer is not one that an org gives: {NOT_MY_DOMAIN}"));
            }
            Err(_) => {
                return Err("no answer in time: a firewall or proxy on the way, or status.salesforce.com".to_owned());
            }
        };
        if let Some(limit) = answer.limit() {
            return Err(limit.operator().to_owned());
        }
        let Received { status, body, .. } = answer;
        let LoginError { error, .. } = LoginError::read(&body);
        match (&self.way, status) {
            (_, 300..=399 | 404) => Err(format!("HTTP {status}: {NOT_MY_DOMAIN}")),
            (Way::Introspection { client_id, clients, .. }, 200) => match answer::is_inactive(&body) {
                true if clients.iter().all(|it| it == client_id) => Ok("tells the app about its tokens".to_owned()),
                true => Ok(
                    "takes the app's questions; about tokens of allowed_clients it answers if the app has 'Introspect \
                            All Tokens'"
                        .to_owned(),
                ),
                false => Err(format!("the answer is not one that an org gives: {NOT_MY_DOMAIN}")),
            },
            (Way::Introspection { .. }, 400 | 401 | 403) => {
                Err(format!("HTTP {status} {error}: the org refuses the app that asks. {APP_THAT_ASKS}"))
            }
            (Way::Userinfo, 401 | 403) => Ok("answers, and refuses a token that nobody was given".to_owned()),
            (Way::Userinfo, 200) => Err(format!("it believes a token that nobody was given: {NOT_MY_DOMAIN}")),
            _ => Err(format!("HTTP {status}: maintenance (status.salesforce.com), or {NOT_MY_DOMAIN}")),
        }
    }

    fn judge(&self, answer: &Result<Received, Failure>) -> Result<Proven, AuthError> {
        let answer = match answer {
            Ok(answer) => answer,
            Err(Failure::TooLarge) => return Err(self.unreadable()),
            Err(Failure::Tls(cause) | Failure::Unconnected(cause) | Failure::Broken(cause)) => {
                self.tell(&format!("{cause}: network, TLS (ca_file) or the name in 'host'"));
                return Err(unavailable());
            }
        };
        self.pause(answer);
        if let Some(limit) = answer.limit() {
            self.tell(limit.operator());
            return Err(unavailable());
        }
        let Received { status, body, .. } = answer;
        let outcome = match (&self.way, *status) {
            (Way::Introspection { clients, .. }, 200) => answer::introspected(now(), body, &self.org_id, clients),
            (Way::Userinfo, 200) => answer::told(body, &self.org_id),
            // The refusal is plain text: Bad_OAuth_Token.
            (Way::Userinfo, 401 | 403) => Err(Doubt::Refused(
                "Salesforce does not know the token: it has expired, was revoked, or has no scope that may ask who one is",
            )),
            (Way::Introspection { .. }, 400 | 401 | 403) => {
                self.tell(&format!("HTTP {status}: the org refuses the app that asks. {APP_THAT_ASKS}"));
                return Err(AuthError::Unavailable(
                    "Salesforce refuses to tell the broker about tokens; tell an administrator: the broker's log says more"
                        .into(),
                ));
            }
            _ => {
                self.tell(&format!("HTTP {status}: maintenance (status.salesforce.com), or {NOT_MY_DOMAIN}"));
                return Err(unavailable());
            }
        };
        match outcome {
            Err(Doubt::Unreadable) => Err(self.unreadable()),
            Ok(_) | Err(Doubt::Refused(_)) => outcome.map_err(AuthError::from),
        }
    }

    /// Asks nothing for as long as the org wants to be left alone.
    fn pause(&self, answer: &Received) {
        let crowded = answer.limit().is_some_and(|limit| limit.is_crowd());
        let span = pause_after(answer.status, crowded, answer.retry_after, &mut rand::rng());
        let Some(span) = span else { return };
        if self.breaker.lock().pause(Instant::now().into_std(), span, ()) {
            tracing::warn!(address = self.address, "questions about tokens pause, because Salesforce asks for it");
        }
    }

    fn unreadable(&self) -> AuthError {
        self.tell("the answer is not one that an org gives: maintenance, a proxy, or 'host' is another server's");
        Doubt::Unreadable.into()
    }

    /// Logs one line for the operator.
    fn tell(&self, hint: &str) {
        tracing::warn!(address = self.address, hint, "Salesforce could not verify a token");
    }
}

async fn receive(request: reqwest::RequestBuilder) -> Result<Received, Failure> {
    let answer = http::send(request.header(ACCEPT, "application/json")).await?;
    let (status, retry_after) = (answer.status(), answer.retry_after());
    Ok(Received { status, retry_after, body: answer.body(BODY_BYTES_MAX).await? })
}

/// An answer that was read.
struct Received {
    status: u16,
    body: Zeroizing<Vec<u8>>,
    /// How long the org asks to be left alone.
    retry_after: Option<Duration>,
}

impl Received {
    /// The limit of the org that was exceeded.
    fn limit(&self) -> Option<Fault> {
        let errors = if self.status == 200 { Vec::new() } else { error_codes(&self.body) };
        let limit = errors.iter().find(|error| error.code == "REQUEST_LIMIT_EXCEEDED")?;
        Some(if is_crowded(&limit.message) { Fault::crowded() } else { Fault::limit() })
    }
}

/// Reports the outcome of a question to the breaker, even if it is cut short.
struct Question<'a> {
    asked: &'a Asked,
    pass: Pass,
    begun: Instant,
    /// `None`: it was cut short.
    outcome: Option<Outcome<()>>,
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        // Cut short by the deadline, or by an application that went away, which says nothing about the org.
        let silent = self.begun.elapsed() >= self.asked.timeout / 2;
        let outcome = match self.outcome.take() {
            Some(outcome) => outcome,
            None if silent => Outcome::Failed(()),
            None => Outcome::Unknown,
        };
        let opened = self.asked.breaker.lock().end(Instant::now().into_std(), self.pass, outcome);
        if let Some(span) = opened {
            let address = &self.asked.address;
            tracing::warn!(address, ?span, "the circuit breaker is open: tokens cannot be verified");
        }
    }
}

fn unavailable() -> AuthError {
    AuthError::Unavailable(DOWN.into())
}
