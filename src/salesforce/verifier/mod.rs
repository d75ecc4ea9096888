//! [`SalesforceVerifier`]: proves users by a JWT that code of the org signed, or by an access token of the org.
//!
//! `form` tells the two apart. `signed` verifies a JWT without asking anybody. `asked` asks the org about an access
//! token, `answer` reads the answer, and `known` caches it. `admission` turns the proved user into an identity. A token
//! is sent to the configured host or nowhere.

mod admission;
mod answer;
mod asked;
mod form;
mod known;
mod signed;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use secrecy::ExposeSecret;

use super::diagnosis::{Outcome, Step};
use super::oauth::SetupError;
use crate::auth::{AuthError, Claim, Proved, Review, Verification, Verifier};
use crate::config::{Config, Proofs};
use crate::telemetry::metrics::SalesforceCalls;

use admission::Admission;
use asked::{Asked, Patience};
use form::Form;
use signed::Signed;

/// A proved user of an org.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Proven {
    /// The record id in 18 characters.
    user_id: String,
    username: Option<String>,
    federation_id: Option<String>,
    /// When the proof expires, since 1970.
    ends: Option<Duration>,
}

/// All keys of the configuration whose values cannot be used; never empty.
#[derive(Debug)]
pub struct SetupErrors(Vec<SetupError>);

impl SetupErrors {
    /// The errors.
    #[must_use]
    pub fn list(&self) -> &[SetupError] {
        &self.0
    }
}

impl fmt::Display for SetupErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.0.iter().enumerate() {
            write!(f, "{}{error}", if at == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for SetupErrors {}

/// Verifies in the ways that are configured.
pub struct SalesforceVerifier {
    signed: Option<(Signed, Admission)>,
    introspection: Option<(Asked, Admission)>,
    userinfo: Option<(Asked, Admission)>,
    /// The accepted tokens, for the refusal of others.
    ways: String,
}

impl SalesforceVerifier {
    /// Reads certificates and secrets. Sends nothing.
    ///
    /// # Errors
    /// Lists every file that cannot be used.
    pub fn open(config: &Config) -> Result<Self, SetupErrors> {
        let Proofs { jwt, introspection, userinfo, .. } = &config.proofs;
        let mut errors = Vec::new();
        let mut note = |error| errors.push(error);
        let org = &config.salesforce;
        let patience = Patience { failures: org.breaker_failures, open: org.breaker_open };
        let signed = jwt.as_ref().and_then(|way| {
            Some((Signed::open(way).map_err(&mut note).ok()?, Admission::new(config, Proofs::TABLES[0], &way.proving)))
        });
        let introspection = introspection.as_ref().and_then(|way| {
            let asked = Asked::by_introspection(way, patience).map_err(&mut note).ok()?;
            Some((asked, Admission::new(config, Proofs::TABLES[1], &way.proving)))
        });
        let userinfo = userinfo.as_ref().and_then(|way| {
            let asked = Asked::by_userinfo(way, patience).map_err(&mut note).ok()?;
            Some((asked, Admission::new(config, Proofs::TABLES[2], &way.proving)))
        });
        if !errors.is_empty() {
            return Err(SetupErrors(errors));
        }
        let ways = [
            signed.as_ref().map(|_| "a JWT that the org's code signed ([auth.salesforce_jwt])"),
            introspection.as_ref().map(|_| "an access token of the org ([auth.salesforce_introspection])"),
            userinfo.as_ref().map(|_| "an access token of the org ([auth.salesforce_userinfo])"),
        ];
        let ways = ways.into_iter().flatten().collect::<Vec<_>>().join(", or ");
        Ok(Self { signed, introspection, userinfo, ways })
    }

    /// Counts its calls here.
    #[must_use]
    pub fn with_calls(mut self, calls: &Arc<SalesforceCalls>) -> Self {
        for (asked, _) in [&mut self.introspection, &mut self.userinfo].into_iter().flatten() {
            asked.count_in(calls);
        }
        self
    }

    /// Checks that the orgs that are asked about access tokens are reachable and answer; one step for each.
    pub async fn diagnose(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for (step, way) in [("introspection", &self.introspection), ("userinfo", &self.userinfo)] {
            let Some((asked, _)) = way else { continue };
            let (outcome, told) = match asked.probe().await {
                Ok(told) => (Outcome::Passed, told),
                Err(told) => (Outcome::Failed, told),
            };
            steps.push(Step { step, outcome, detail: format!("{}: {told}", asked.address()) });
        }
        steps
    }

    async fn prove(&self, claim: Claim) -> Result<crate::auth::Identity, AuthError> {
        let refuse = |why: Cow<'static, str>| Err(AuthError::Unauthenticated(why));
        let ways = &self.ways;
        let Some(token) = &claim.token else {
            return refuse(format!("data.token is missing: send a token of [[applications]], or {ways}").into());
        };
        match Form::of(token.expose_secret()) {
            Form::Jwt => {
                let Some((signed, admission)) = &self.signed else {
                    return refuse("the token looks like a JWT, and [auth.salesforce_jwt] is not on".into());
                };
                admission.admit(&claim.source, &signed.prove(now(), token.expose_secret())?)
            }
            Form::AccessToken { org } => {
                let asked = [&self.introspection, &self.userinfo].into_iter().flatten();
                // Introspection comes first, and its refusal is final, because it knows which app a token belongs to.
                let Some((asked, admission)) = asked.clone().find(|(it, _)| it.is_of(org)) else {
                    return match asked.count() {
                        0 => refuse("the token looks like an access token of Salesforce, for which [auth.salesforce_introspection] \
                                     or [auth.salesforce_userinfo] has to be on"
                            .into()),
                        _ => refuse(answer::OTHER_ORG.into()),
                    };
                };
                admission.admit(&claim.source, &asked.prove(token).await?)
            }
            Form::Other => refuse(
                format!(
                    "the token is not known: its hash is not a token_sha256 of [[applications]], and it is not {ways}"
                )
                .into(),
            ),
        }
    }
}

impl Verifier for SalesforceVerifier {
    fn verify(&self, claim: Claim) -> Verification<'_> {
        Box::pin(self.prove(claim))
    }

    fn review(&self, proved: &Proved<'_>) -> Review {
        let admissions = [
            self.signed.as_ref().map(|(_, admission)| admission),
            self.introspection.as_ref().map(|(_, admission)| admission),
            self.userinfo.as_ref().map(|(_, admission)| admission),
        ];
        admissions.into_iter().flatten().find_map(|admission| admission.review(proved)).unwrap_or(Review::End)
    }
}

/// The time since 1970.
fn now() -> Duration {
    #[expect(clippy::disallowed_methods, reason = "what is signed says by the calendar until when it is good")]
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
