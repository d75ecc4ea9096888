//! JSON Web Tokens (RFC 7519). [`Jwt`] is a token that was taken apart and is not verified, [`JwtRules`] verify it with
//! [`Keys`]. [`Issuers`] are those that are configured: their [`ClaimRules`] turn claims into an identity.
//!
//! The crate `jsonwebtoken` verifies the signature and the claims `exp`, `nbf`, `iss` and `aud`; `provider` lends it ring.
//! What the library leaves open is checked here: before it, the length and the algorithm; after it, on the bytes that it
//! verified, everything else (`object`: no key twice). No key is ever found by `jku`, `jwk`, `x5u` or `x5c` of a token.

mod claims;
mod der;
mod issuer;
mod key;
mod object;
mod provider;

pub(super) use claims::Named;
pub use claims::{ClaimRules, Roles};
pub use issuer::{Issuer, IssuerKeys, Issuers, RowSources};
pub use key::Keys;
pub(super) use key::{KeyKind, VerifyingKey};
pub use object::ClaimPath;
pub(super) use object::parse as parse_unrepeated;

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation};
use serde_json::Value;
use zeroize::Zeroizing;

use super::AuthError;
use crate::telemetry::metrics::AuthOutcome;
use object::Object;

/// Longer tokens are not looked at.
const TOKEN_BYTES_MAX: usize = 8192;

/// The types that a token may have, if it has one.
const TYPES: [&str; 2] = ["JWT", "at+jwt"];

const SHAPE: &str = "the token is not a JWT: three parts in base64url without '=', with a dot between each two";

/// A token in its parts, none of which is verified.
pub struct Jwt<'t> {
    token: &'t str,
    header: Object,
    claims: &'t str,
}

impl<'t> Jwt<'t> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// Why it is not a JWT that could be accepted.
    pub fn read(token: &'t str) -> Result<Self, &'static str> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err("the token is too long: a JWT may have 8192 bytes");
        }
        let parts: Vec<&str> = token.split('.').collect();
        let [header, claims, signature] = parts[..] else { return Err(SHAPE) };
        let (header, _) = decode(header).zip(decode(signature)).ok_or(SHAPE)?;
        let header =
            serde_json::from_slice(&header).map_err(|_| "the JWT's header is not a JSON object, or has a key twice")?;
        Ok(Self { token, header, claims })
    }

    /// Returns a text of the header.
    #[must_use]
    pub fn header_text(&self, name: &str) -> Option<&str> {
        self.header.get(name)?.as_str()
    }

    /// Returns the `iss`, unverified.
    ///
    /// # Errors
    /// It is missing or not a text.
    pub fn issuer(&self) -> Result<String, &'static str> {
        self.unverified_claims()?
            .get("iss")
            .and_then(Value::as_str)
            .map(str::to_owned)
            .ok_or("the JWT's 'iss' is missing, or is not a text")
    }

    /// Returns the claims, unverified.
    fn unverified_claims(&self) -> Result<Object, &'static str> {
        let claims = decode(self.claims).ok_or(SHAPE)?;
        serde_json::from_slice(&claims).map_err(|_| "the JWT's claims are not a JSON object, or have a key twice")
    }

    /// Returns the id of the key that signed it.
    fn key_id(&self) -> Result<Option<&str>, AuthError> {
        match self.header.get("kid") {
            None => Ok(None),
            Some(id) => id.as_str().map(Some).ok_or_else(|| refuse("the JWT's 'kid' is not a text")),
        }
    }

    /// Returns its algorithm; `None` if there is none of its name.
    fn algorithm(&self) -> Option<Algorithm> {
        self.header_text("alg")?.parse().ok()
    }
}

fn decode(part: &str) -> Option<Zeroizing<Vec<u8>>> {
    URL_SAFE_NO_PAD.decode(part).map(Zeroizing::new).ok()
}

/// What a JWT has to be, to be accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtRules {
    /// The algorithms that may have signed it.
    pub algorithms: Vec<Algorithm>,
    /// What `iss` may be.
    pub issuers: Vec<String>,
    /// What `aud` has to be, or to contain one of.
    pub audience: Vec<String>,
    /// How far the issuer's clock may be off. Counts in whole seconds.
    pub leeway: Duration,
    /// How long it may be valid.
    pub lifetime: Duration,
}

impl JwtRules {
    /// Returns the claims of a token that one of the keys has signed; `now` since 1970.
    ///
    /// # Errors
    /// The first rule that it breaks, in words that never quote it.
    pub fn check(&self, now: Duration, token: &str, keys: &Keys) -> Result<Claims, AuthError> {
        let jwt = Jwt::read(token).map_err(refuse)?;
        let algorithm = self.algorithm(&jwt)?;
        self.check_with(now, &jwt, algorithm, &keys.fitting(algorithm)).map_err(|broken| refuse(broken.1))
    }

    /// Returns the algorithm of a token, if it is a configured one.
    fn algorithm(&self, jwt: &Jwt<'_>) -> Result<Algorithm, AuthError> {
        jwt.algorithm().filter(|algorithm| self.algorithms.contains(algorithm)).ok_or_else(|| {
            refuse("the JWT's 'alg' is not among the configured algorithms; an unsigned token is never accepted")
        })
    }

    /// The same with keys that fit the token's algorithm.
    fn check_with(
        &self,
        now: Duration,
        jwt: &Jwt<'_>,
        algorithm: Algorithm,
        keys: &[&VerifyingKey],
    ) -> Result<Claims, Broken> {
        provider::install();
        let validation = self.validation(algorithm);
        let mut outcome = Err((AuthOutcome::Signature, WRONG_SIGNATURE));
        for key in keys {
            outcome = jsonwebtoken::decode::<Object>(jwt.token, key.decoding(), &validation)
                .map_err(|error| explain(error.kind()));
            if !matches!(outcome, Err((_, WRONG_SIGNATURE))) {
                break;
            }
        }
        let claims = Claims(outcome?.claims);
        let checked = check_header(&jwt.header).and_then(|()| self.check_claims(now, &claims));
        checked.map_err(|why| (AuthOutcome::Claims, why))?;
        Ok(claims)
    }

    /// What the library checks.
    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.set_issuer(&self.issuers);
        validation.set_audience(&self.audience);
        validation.leeway = self.leeway.as_secs();
        validation.validate_nbf = true;
        validation
    }

    /// What the library leaves open about claims.
    fn check_claims(&self, now: Duration, claims: &Claims) -> Result<(), &'static str> {
        if claims.0.get("cnf").is_some() {
            return Err("the JWT has 'cnf': it is bound to a key, and the broker cannot check who has the key");
        }
        if !claims.0.get("iss").is_some_and(Value::is_string) {
            return Err("the JWT's 'iss' is not a text");
        }
        let (expires, issued) = (claims.time("exp")?.unwrap_or_default(), claims.time("iat")?);
        claims.time("nbf")?;
        let latest = now.saturating_add(self.leeway);
        if issued.is_some_and(|issued| issued > latest) {
            return Err("the JWT's 'iat' is in the future: the broker's clock, or the issuer's, is wrong");
        }
        let life = issued.map_or(Duration::ZERO, |issued| expires.saturating_sub(issued));
        if life > self.lifetime || expires > latest.saturating_add(self.lifetime) {
            return Err("the JWT is valid for too long: 'exp' must be within the configured lifetime");
        }
        Ok(())
    }
}

/// A rule that a token breaks: what that is counted as, and why the token is refused.
type Broken = (AuthOutcome, &'static str);

/// What the library leaves open about the header.
fn check_header(header: &Object) -> Result<(), &'static str> {
    if ["crit", "b64"].iter().any(|name| header.get(name).is_some()) {
        return Err("the JWT's header has 'crit' or 'b64', which ask for something that the broker does not do");
    }
    match header.get("typ") {
        Some(kind) if !kind.as_str().is_some_and(|kind| TYPES.contains(&kind)) => {
            Err("the JWT's 'typ' is neither JWT nor at+jwt: it is another kind of token")
        }
        Some(_) | None => Ok(()),
    }
}

fn refuse(why: &'static str) -> AuthError {
    AuthError::Unauthenticated(why.into())
}

const WRONG_SIGNATURE: &str =
    "the JWT's signature fits no configured key: another key signed it, or it was changed on its way";

/// Says what the library found wrong.
fn explain(error: &ErrorKind) -> Broken {
    let outcome = match error {
        ErrorKind::InvalidSignature => AuthOutcome::Signature,
        ErrorKind::ExpiredSignature | ErrorKind::ImmatureSignature => AuthOutcome::Expired,
        _ => AuthOutcome::Claims,
    };
    (outcome, why(error))
}

fn why(error: &ErrorKind) -> &'static str {
    match error {
        ErrorKind::InvalidSignature => WRONG_SIGNATURE,
        ErrorKind::ExpiredSignature => {
            "the JWT has expired: get a new one for each connection; if it is new, a clock is wrong"
        }
        ErrorKind::ImmatureSignature => {
            "the JWT is not valid yet ('nbf'): the broker's clock, or the issuer's, is wrong"
        }
        ErrorKind::InvalidIssuer => "the JWT's 'iss' is not the configured issuer",
        ErrorKind::InvalidAudience => "the JWT's 'aud' is not the configured one: it is for another application",
        ErrorKind::MissingRequiredClaim(claim) | ErrorKind::InvalidClaimFormat(claim) => match claim.as_str() {
            "exp" => "the JWT's 'exp' is missing, or is not a number of seconds since 1970",
            "nbf" => "the JWT's 'nbf' is not a number of seconds since 1970",
            "iss" => "the JWT's 'iss' is missing, or is not a text",
            "aud" => "the JWT's 'aud' is missing, or is not a text or a list of texts",
            _ => "a claim of the JWT is missing, or of the wrong type",
        },
        ErrorKind::Json(_) | ErrorKind::Utf8(_) | ErrorKind::Base64(_) => {
            "the JWT's header or claims are not a JSON object in base64url, or have a key twice"
        }
        ErrorKind::InvalidToken => {
            "the JWT's header has 'crit' or 'b64', which ask for something that the broker does not do"
        }
        _ => "the JWT cannot be verified with the configured key",
    }
}

/// The claims of a token that was verified.
pub struct Claims(Object);

impl Claims {
    /// Returns a claim that is a text, and not an empty one.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str().filter(|text| !text.is_empty())
    }

    /// Returns when the token expires.
    #[must_use]
    pub fn expires(&self) -> SystemTime {
        let since_1970 = self.time("exp").ok().flatten().unwrap_or_default();
        SystemTime::UNIX_EPOCH.checked_add(since_1970).unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// A claim that is a time since 1970; an error if it is something else.
    fn time(&self, name: &str) -> Result<Option<Duration>, &'static str> {
        let Some(value) = self.0.get(name) else { return Ok(None) };
        let time = value.as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        time.map(Some).ok_or("a time of the JWT ('exp', 'nbf', 'iat') is not a number of seconds since 1970")
    }
}
