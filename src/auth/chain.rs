//! [`Chain`]: the proofs in their order: static tokens, issuers of JWTs, Salesforce.

use secrecy::ExposeSecret;

use super::call::for_sessions_only;
use super::jwt::Named;
use super::{
    AuthError, CallClaim, CallError, CallVerification, Caller, Claim, Identity, Issuers, Proof, Proved, Review,
    TokenTable, Verification, Verifier,
};

/// Tries one proof after the other. The first that fits a token decides.
pub struct Chain {
    tokens: TokenTable,
    issuers: Issuers,
    rest: Option<Box<dyn Verifier>>,
}

impl Chain {
    /// `rest` has the last word, also on a token that is missing: its refusals have to say what the table offers too.
    #[must_use]
    pub fn new(tokens: TokenTable, issuers: Issuers, rest: Option<Box<dyn Verifier>>) -> Self {
        Self { tokens, issuers, rest }
    }

    async fn prove(&self, claim: Claim) -> Result<Identity, AuthError> {
        let unknown = match self.tokens.find(&claim) {
            Err(AuthError::Unauthenticated(why)) if claim.token.is_some() || claim.certificate.is_none() => why,
            // A token that the table has for another source is refused, and so is a certificate: nothing else is tried.
            known => return known,
        };
        let of_nobody = match &claim.token {
            Some(token) if !self.issuers.is_empty() => match self.issuers.find(token.expose_secret()) {
                Ok(found) => return self.issuers.verify(found, &claim.source).await,
                Err(why) => Some(why),
            },
            Some(_) | None => None,
        };
        let Some(rest) = &self.rest else {
            return Err(AuthError::Unauthenticated(of_nobody.map_or(unknown, Into::into)));
        };
        rest.verify(claim).await.map_err(|error| match (error, of_nobody) {
            (AuthError::Unauthenticated(theirs), Some(why)) => {
                AuthError::Unauthenticated(format!("{why}; {theirs}").into())
            }
            (error, _) => error,
        })
    }

    /// Only the table and issuers of JWTs have tokens that are good for calls: no other system is asked.
    async fn prove_call(&self, call: CallClaim) -> Result<Caller, CallError> {
        if let Some(caller) = self.tokens.find_caller(&call)? {
            return Ok(caller);
        }
        let found = self.issuers.find(call.token.expose_secret());
        let (issuer, jwt) = found.map_err(|why| AuthError::Unauthenticated(why.into()))?;
        if !issuer.over_http {
            return Err(for_sessions_only());
        }
        match issuer.claims.source_of_call(&jwt, call.source.as_deref())? {
            Named::Source(source) => {
                let identity = self.issuers.verify((issuer, jwt), &source).await?;
                Ok(Caller { source, identity })
            }
            Named::OneOf(source) => {
                // Only a good token gets to know that the envelope has to name one.
                self.issuers.verify((issuer, jwt), &source).await?;
                Err(CallError::SourceMissing)
            }
        }
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
