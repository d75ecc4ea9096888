//! [`Chain`]: the proofs in their order: static tokens, issuers of JWTs, Salesforce.

use std::sync::Arc;

use secrecy::ExposeSecret;

use super::call::for_sessions_only;
use super::jwt::Named;
use super::{
    AuthError, CallClaim, CallError, CallVerification, Caller, Claim, Identity, Issuer, Issuers, Jwt, Proof, Proved,
    Review, TokenTable, Verification, Verifier,
};
use crate::telemetry::metrics::{AuthOutcome, CERTIFICATE, NamedCounters, OTHER, SALESFORCE, STATIC};

/// Tries one proof after the other. The first that fits a token decides.
pub struct Chain {
    tokens: TokenTable,
    issuers: Issuers,
    rest: Option<Box<dyn Verifier>>,
    counters: Option<Arc<NamedCounters<AuthOutcome>>>,
}

impl Chain {
    /// `rest` has the last word, also on a token that is missing: its refusals have to say what the table offers too.
    #[must_use]
    pub fn new(tokens: TokenTable, issuers: Issuers, rest: Option<Box<dyn Verifier>>) -> Self {
        Self { tokens, issuers, rest, counters: None }
    }

    /// Counts proofs here.
    #[must_use]
    pub fn counting(self, counters: &Arc<NamedCounters<AuthOutcome>>) -> Self {
        Self { counters: Some(Arc::clone(counters)), ..self }
    }

    fn count(&self, issuer: &str, outcome: AuthOutcome) {
        if let Some(counters) = &self.counters {
            counters.count(issuer, outcome);
        }
    }

    async fn prove(&self, claim: Claim) -> Result<Identity, AuthError> {
        let has_token = claim.token.is_some();
        let unknown = match self.tokens.find(&claim) {
            Err(AuthError::Unauthenticated(why)) if has_token || claim.certificate.is_none() => why,
            // A token that the table has for another source is refused, and so is a certificate: nothing else is tried.
            known => {
                self.count(if has_token { STATIC } else { CERTIFICATE }, outcome_of(&known));
                return known;
            }
        };
        let of_nobody = match &claim.token {
            Some(token) if !self.issuers.is_empty() => match self.issuers.find(token.expose_secret()) {
                Ok(found) => return self.verify_by_issuer(found, &claim.source).await,
                Err(why) => Some(why),
            },
            Some(_) | None => None,
        };
        let Some(rest) = &self.rest else {
            if has_token {
                self.count(OTHER, AuthOutcome::Key);
            }
            return Err(AuthError::Unauthenticated(of_nobody.map_or(unknown, Into::into)));
        };
        let proved = rest.verify(claim).await;
        if has_token {
            self.count(SALESFORCE, outcome_of(&proved));
        }
        proved.map_err(|error| match (error, of_nobody) {
            (AuthError::Unauthenticated(theirs), Some(why)) => {
                AuthError::Unauthenticated(format!("{why}; {theirs}").into())
            }
            (error, _) => error,
        })
    }

    async fn verify_by_issuer(&self, found: (&Issuer, Jwt<'_>), source: &str) -> Result<Identity, AuthError> {
        let name = Arc::clone(&found.0.name);
        let proved = self.issuers.verify(found, source).await;
        self.count(&name, proved.as_ref().map_or_else(|(outcome, _)| *outcome, |_| AuthOutcome::Ok));
        proved.map_err(|(_, error)| error)
    }

    /// Only the table and issuers of JWTs have tokens that are good for calls: no other system is asked.
    async fn prove_call(&self, call: CallClaim) -> Result<Caller, CallError> {
        if let Some(caller) = self.tokens.find_caller(&call)? {
            self.count(STATIC, AuthOutcome::Ok);
            return Ok(caller);
        }
        let found = self.issuers.find(call.token.expose_secret());
        let (issuer, jwt) = found.map_err(|why| AuthError::Unauthenticated(why.into()))?;
        if !issuer.over_http {
            return Err(for_sessions_only());
        }
        match issuer.claims.source_of_call(&jwt, call.source.as_deref())? {
            Named::Source(source) => {
                let identity = self.verify_by_issuer((issuer, jwt), &source).await?;
                Ok(Caller { source, identity })
            }
            Named::OneOf(source) => {
                // Only a good token gets to know that the envelope has to name one.
                self.verify_by_issuer((issuer, jwt), &source).await?;
                Err(CallError::SourceMissing)
            }
        }
    }
}

/// What a proof is counted as of which no more is known.
fn outcome_of(proved: &Result<Identity, AuthError>) -> AuthOutcome {
    match proved {
        Ok(_) => AuthOutcome::Ok,
        Err(AuthError::Unauthenticated(_)) => AuthOutcome::Signature,
        Err(AuthError::Forbidden(_)) => AuthOutcome::Claims,
        Err(AuthError::Unavailable(_)) => AuthOutcome::Unavailable,
    }
}

impl Verifier for Chain {
    fn verify(&self, claim: Claim) -> Verification<'_> {
        Box::pin(self.prove(claim))
    }

    fn verify_call(&self, call: CallClaim) -> CallVerification<'_> {
        Box::pin(self.prove_call(call))
    }

    fn review(&self, proved: &Proved<'_>) -> Review {
        match proved.proof {
            Proof::Token(_) | Proof::Certificate(_) => self.tokens.review(proved),
            Proof::Issuer(name) => self.issuers.review(name, proved),
            Proof::Nothing | Proof::Salesforce(_) => self.rest.as_ref().map_or(Review::End, |rest| rest.review(proved)),
        }
    }
}
