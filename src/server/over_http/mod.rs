//! `POST /v1/publish` and `POST /v1/request`: one envelope without a WebSocket, for programs that cannot keep one open.
//!
//! The checks of the head are those of every request (`handshake`). [`serve`] has the rest, in this order: the token, the media
//! type, the body, the rate, the envelope. Then the caller is a session of the router until it has its answer.
//!
//! `post` is the request as the listener hands it over, `body` reads it, `applications` counts what the calls of one
//! application use, `session` is the caller in the router, `pressure` waits for slow receivers, `answer` writes.
//! hyper reads the head only: neither the envelope nor the answer is ever in a buffer that is not wiped.

mod answer;
mod applications;
mod body;
mod post;
mod pressure;
mod session;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::time::Duration;

use secrecy::SecretString;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until, timeout};
use wire::{DecodeLimits, Envelope, ErrorCode, Refusal, decode};
use zeroize::Zeroizing;

pub(super) use self::applications::Applications;
pub(super) use self::post::{Endpoint, Head, Post};

use self::answer::Answer;
use self::body::BodyError;
use self::session::CallSession;
use super::Broker;
use super::problem::{Code, Problem};
use crate::audit::{Entry, Event};
use crate::auth::{AuthError, CallClaim, CallError, Caller, Verifier};
use crate::connection::UnregisteredGuard;

/// How long a body may take.
const BODY_TIME: Duration = Duration::from_secs(30);

/// How long an address that failed too often waits for its answer.
const DELAY: Duration = Duration::from_secs(1);

/// How long such an address should wait: failures count for a minute.
const RETRY_AFTER_FAILURES: Duration = Duration::from_mins(1);

/// Serves a call to its end, and returns the stream, whose peer has yet to read the answer. `None`: the caller has hung up, or
/// the broker ends. `unregistered` counts the connection until its token is known to be good.
pub(super) async fn serve<S>(broker: &Broker, post: Post<S>, unregistered: UnregisteredGuard) -> Option<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Post { mut stream, ahead, head } = post;
    let outcome = tokio::select! {
        outcome = Box::pin(call(broker, &head, &mut stream, ahead, unregistered)) => outcome?,
        () = broker.ended.cancelled() => return None,
    };
    let answer = outcome.unwrap_or_else(|refused| refused.answer());
    answer.write(&mut stream).await.then_some(stream)
}

/// Why a call is refused.
enum Refused {
    /// By a rule of the protocol.
    Code(Refusal),
    /// The same; the caller may try again after this time.
    Later(Refusal, Duration),
    /// By a rule of HTTP, with a code that the wire does not have.
    Http(Code, Refusal),
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self::Code(refusal)
    }
}

impl Refused {
    fn refusal(&self) -> &Refusal {
        match self {
            Self::Code(refusal) | Self::Later(refusal, _) | Self::Http(_, refusal) => refusal,
        }
    }

    fn answer(&self) -> Answer {
        let problem = Problem::of(self.refusal());
        match self {
            Self::Code(_) => Answer::problem(&problem, None),
            Self::Later(_, after) => Answer::problem(&problem, Some(*after)),
            Self::Http(code, _) => Answer::problem(&problem.with_code(*code), None),
        }
    }
}

/// The whole call. `None`: there is nobody to answer.
async fn call<S>(
    broker: &Broker,
    head: &Head,
    stream: &mut S,
    ahead: Zeroizing<Vec<u8>>,
    unregistered: UnregisteredGuard,
) -> Option<Result<Answer, Refused>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // Until the token is known to be good, a drain ends the call.
    let proved = tokio::select! {
        proved = prove(broker, head, None) => proved,
        () = broker.closing.cancelled() => return None,
    };
    let proved = match proved {
        Ok(proved) => proved,
        Err(refused) => return Some(Err(refused)),
    };
    drop(unregistered);
    if !head.is_json {
        let words = "the Content-Type must be application/json: the body is one envelope";
        let refusal = Refusal::new(ErrorCode::InvalidEnvelope, words);
        return Some(Err(Refused::Http(Code::UnsupportedMediaType, refusal)));
    }
    let most = broker.settings.limits().message_bytes;
    let read = timeout(BODY_TIME, body::read(stream, head, ahead, most));
    let body = tokio::select! {
        body = read => body.unwrap_or(Err(BodyError::Late)),
        () = broker.closing.cancelled() => return None,
    };
    let body = match body {
        Ok(body) => body,
        Err(BodyError::Lost) => return None,
        Err(BodyError::Refused(refusal)) => return Some(Err(refusal.into())),
        Err(BodyError::Late) => {
            let refusal = Refusal::new(ErrorCode::InvalidEnvelope, "the body must be complete within 30 s");
            return Some(Err(Refused::Http(Code::BodyTimeout, refusal)));
        }
    };
    let Ok(text) = str::from_utf8(&body) else {
        return Some(Err(Refusal::new(ErrorCode::InvalidJson, "the body is not UTF-8").into()));
    };
    let depth = broker.settings.limits().json_depth;
    match decode(text, DecodeLimits::client(depth)) {
        Ok(envelope) => send(broker, head, stream, &envelope, proved).await,
        Err(malformed) => Some(Err(malformed.refusal.into())),
    }
}

/// What a token proves before the envelope is known.
enum Proved {
    /// An application.
    Caller(Box<Caller>, u64),
    /// Nothing without the `source` of the envelope.
    OneOf,
}

/// Sends the envelope as a session of its caller.
async fn send<S>(
    broker: &Broker,
    head: &Head,
    stream: &mut S,
    envelope: &Envelope<'_>,
    mut proved: Proved,
) -> Option<Result<Answer, Refused>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let session = loop {
        let (caller, reloads) = match proved {
            Proved::Caller(caller, reloads) => (*caller, reloads),
            Proved::OneOf => match prove(broker, head, envelope.source()).await {
                Ok(Proved::Caller(caller, reloads)) => (*caller, reloads),
                Ok(Proved::OneOf) => return Some(Err(source_missing().into())),
                Err(refused) => return Some(Err(refused)),
            },
        };
        match CallSession::begin(broker, head, envelope, caller, reloads) {
            Ok(Some(session)) => break session,
            // There was a reload: the token is judged again.
            Ok(None) => proved = Proved::OneOf,
            Err(refused) => return Some(Err(refused)),
        }
    };
    let outcome = match head.endpoint {
        Endpoint::Publish => session.publish(broker, envelope).await,
        Endpoint::Request => session.request(broker, envelope, stream).await?,
    };
    session.log(head.endpoint, outcome.as_ref().map_err(Refused::refusal));
    Some(outcome)
}

/// Verifies the token of a call. `source`: what its envelope names, if that is known.
async fn prove(broker: &Broker, head: &Head, source: Option<&str>) -> Result<Proved, Refused> {
    let Some(token) = &head.token else {
        let words = "the header Authorization is missing: a call needs a token, as 'Bearer TOKEN'";
        return Err(fail(broker, head, source, Refusal::new(ErrorCode::Unauthenticated, words)).await);
    };
    let reloads = broker.router.reloads();
    let claim = CallClaim { token: SecretString::clone(token), source: source.map(str::to_owned) };
    match broker.in_force.verify_call(claim).await {
        Ok(caller) => Ok(Proved::Caller(Box::new(caller), reloads)),
        Err(CallError::SourceMissing) => Ok(Proved::OneOf),
        Err(CallError::SourceMismatch) => {
            let words = "the token is good for other sources than the 'source' of the envelope; see [[applications]]";
            Err(Refusal::new(ErrorCode::SourceMismatch, words).into())
        }
        Err(CallError::Auth(AuthError::Unavailable(why))) => {
            Err(Refusal::new(ErrorCode::UpstreamUnavailable, why).into())
        }
        Err(CallError::Auth(AuthError::Forbidden(why))) => {
            let refusal = Refusal::new(ErrorCode::Forbidden, why);
            record(broker, head, source, &refusal);
            Err(refusal.into())
        }
        Err(CallError::Auth(AuthError::Unauthenticated(why))) => {
            Err(fail(broker, head, source, Refusal::new(ErrorCode::Unauthenticated, why)).await)
        }
    }
}

/// Counts a token that proves nobody, as a failed registration of its address.
async fn fail(broker: &Broker, head: &Head, source: Option<&str>, refusal: Refusal) -> Refused {
    let is_beyond = broker.settings.failed_login(Instant::now().into_std(), head.address);
    if !is_beyond {
        record(broker, head, source, &refusal);
        return refusal.into();
    }
    let words = "too many failed registrations from this address in the last minute; check the token, then try again later \
                 (limits.failed_registrations)";
    let refusal = Refusal::new(ErrorCode::RateLimited, words);
    record(broker, head, source, &refusal);
    sleep_until(Instant::now() + DELAY).await;
    Refused::Later(refusal, RETRY_AFTER_FAILURES)
}

/// Records that a call was refused before its caller was known.
fn record(broker: &Broker, head: &Head, source: Option<&str>, refusal: &Refusal) {
    log_refused(head.address, head.endpoint, refusal);
    broker.adapters.audit().record_unregistered(&Entry {
        outcome: Some(refusal.code),
        source,
        address: Some(head.address),
        target: Some(head.endpoint.path().into()),
        ..Entry::new(Event::RegistrationRefused)
    });
}

fn log_refused(address: IpAddr, endpoint: Endpoint, refusal: &Refusal) {
    let (code, reason) = (refusal.code.as_str(), &*refusal.message);
    tracing::debug!(%address, path = endpoint.path(), code, reason, "a call was refused");
}

fn source_missing() -> Refusal {
    Refusal::new(
        ErrorCode::InvalidEnvelope,
        "the field 'source' is missing: the token is good for several sources, and the envelope has to name one",
    )
}
