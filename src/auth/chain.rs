//! [`Chain`]: static tokens first, then the verifiers of other tokens.

use super::{AuthError, Claim, TokenTable, Verification, Verifier, ready};

/// Looks a token up in a table; what the table does not know, another verifier is asked about.
pub struct Chain {
    tokens: TokenTable,
    rest: Box<dyn Verifier>,
}

impl Chain {
    /// `rest` has the last word, also on a token that is missing: its refusals have to say what the table offers too.
    #[must_use]
    pub fn new(tokens: TokenTable, rest: Box<dyn Verifier>) -> Self {
        Self { tokens, rest }
    }
}

impl Verifier for Chain {
    fn verify(&self, claim: Claim) -> Verification<'_> {
        match self.tokens.find(&claim) {
            // A certificate without a token is nobody's but the table's.
            Err(AuthError::Unauthenticated(_)) if claim.token.is_some() || claim.certificate.is_none() => {
                self.rest.verify(claim)
            }
            // A token of the table that is good for another source is nobody else's.
            known => ready(known),
        }
    }
}
