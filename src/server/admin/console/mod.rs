//! The console: pages for a browser, and how they sign in.
//!
//! `switchboard console` gets a code, which works once and for a minute, and opens a page with it. The page exchanges it for
//! a key. There is no cookie: a cookie is not bound to a port, so every other server on this host would receive it.
//! `sign_in` has the codes and keys, `files` the pages. docs/operate.md explains the rest.

mod files;
mod sign_in;

use axum::Extension;
use axum::extract::{FromRequest as _, Request, State};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::json;
use tokio::time::Instant;
use utoipa::ToSchema;
use wire::ErrorCode;

pub(super) use self::files::{files, is_file};
pub(super) use self::sign_in::SignIns;

use self::sign_in::{CODE_TIME, KEY_TIME, Owner};
use super::Shared;
use super::access::Caller;
use super::acts::{self, Act};
use super::problem::{Code as ProblemCode, Problem};
use super::request::{Body, SecretAnswer};
use crate::auth::hash_token;

/// The call that exchanges a code, as audit records name it.
const EXCHANGE: &str = "POST /v1/console/session";

/// A code for a page of the console.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ConsoleCode)]
pub(super) struct Code {
    /// The code. It can be exchanged once.
    #[serde(serialize_with = "exposed")]
    #[schema(value_type = String)]
    code: SecretString,
    /// For how long.
    expires_in_seconds: u64,
}

/// A code that is to be exchanged.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ConsoleExchange)]
pub(super) struct Exchange {
    /// The code of `POST /v1/console/code`.
    #[serde(deserialize_with = "secret")]
    #[schema(value_type = String)]
    code: SecretString,
}

/// A key for a page of the console.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ConsoleSession)]
pub(super) struct Session {
    /// The key, which is sent as a token is.
    #[serde(serialize_with = "exposed")]
    #[schema(value_type = String)]
    key: SecretString,
    /// For how long it is valid, unless its token is removed before.
    expires_in_seconds: u64,
    /// The name of the token that the code was made with.
    token: String,
    /// What the key allows: `read`, `act` or `payloads`.
    may: &'static str,
}

/// Make a code for a page of the console
///
/// It works once, and for 60 s. The key that it is exchanged for allows what the token of this call does.
#[utoipa::path(
    post,
    path = "/v1/console/code",
    responses((status = 200, description = "The code.", body = Code))
)]
pub(super) async fn code(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
) -> Result<SecretAnswer<Code>, Problem> {
    // Otherwise a page could stay signed in for ever.
    if caller.is_page {
        return Err(Problem::new(ErrorCode::Forbidden, "a key of the console cannot make codes; use a token"));
    }
    let owner = Owner { name: caller.name, may: caller.may, token_hash: caller.token_hash };
    let code = shared.sign_ins.new_code(Instant::now().into_std(), owner).map_err(|error| no_random(&error))?;
    Ok(SecretAnswer(Code { code, expires_in_seconds: CODE_TIME.as_secs() }))
}

/// Exchange a code for a key
///
/// The key is valid for 8 hours, and no longer than the token that the code was made with.
#[utoipa::path(
    post,
    path = "/v1/console/session",
    request_body = Exchange,
    responses((status = 200, description = "The key.", body = Session))
)]
pub(super) async fn session(State(shared): State<Shared>, request: Request) -> Result<SecretAnswer<Session>, Problem> {
    let address = shared.client(&request);
    let Body(Exchange { code }) = Body::from_request(request, &()).await?;
    let hash = hash_token(&code);
    let exchanged = shared.sign_ins.exchange(Instant::now().into_std(), &hash).map_err(|error| no_random(&error))?;
    let refused = match exchanged {
        Ok((key, owner)) => {
            return Ok(SecretAnswer(Session {
                key,
                expires_in_seconds: KEY_TIME.as_secs(),
                token: owner.name.to_string(),
                may: owner.may.as_str(),
            }));
        }
        Err(refused) => refused,
    };
    // Beyond the limit there is no record: this call needs no token, and could push others out of the log.
    if let Some(limited) = shared.limit(address) {
        return Err(limited);
    }
    let (act, code) = (Act::default(), ErrorCode::Unauthenticated);
    act.note(&json!({ "code": refused.why.as_str() }));
    let name = refused.owner.as_ref().map(|owner| &*owner.name);
    acts::record_of(&shared.broker.adapters.audit(), name, address, EXCHANGE, &act, Some(code.as_str()));
    let why = format!("the code {}; run `switchboard console` again", refused.why.words());
    Err(Problem::new(code, why))
}

fn no_random(error: &std::io::Error) -> Problem {
    tracing::error!(%error, "the system has no random numbers for a code or key of the console");
    Problem::new(ProblemCode::Unavailable, "the system has no random numbers; the log says more")
}

/// Writes a secret into the answer, which is wiped.
fn exposed<S: Serializer>(secret: &SecretString, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(secret.expose_secret())
}

fn secret<'de, D: Deserializer<'de>>(from: D) -> Result<SecretString, D::Error> {
    String::deserialize(from).map(SecretString::from)
}

#[cfg(test)]
mod tests {
    use std::fmt::{Debug, Display};

    use super::*;

    /// Does not compile if one of the types implements the trait: then both implementations of `Ambiguous` fit.
    macro_rules! assert_not {
        ($printable:ident: $($type:ty),+) => {$(
            const _: fn() = || {
                trait Ambiguous<A> {
                    fn item() {}
                }
                impl<T> Ambiguous<()> for T {}
                impl<T: $printable> Ambiguous<u8> for T {}
                let _ = <$type as Ambiguous<_>>::item;
            };
        )+};
    }

    assert_not!(Debug: Code, Exchange, Session, Body<Exchange>, SecretAnswer<Code>, SecretAnswer<Session>);
    assert_not!(Display: Code, Exchange, Session, SecretString);

    #[test]
    fn a_secret_is_in_the_answer_and_in_nothing_that_is_printed() {
        let Exchange { code } = serde_json::from_str(r#"{"code":"very-secret"}"#).unwrap();
        assert!(!format!("{code:?}").contains("very"));
        let text = serde_json::to_value(Code { code, expires_in_seconds: 60 }).unwrap();
        assert_eq!(text, json!({ "code": "very-secret", "expiresInSeconds": 60 }));
    }
}
