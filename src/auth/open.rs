//! [`Open`]: the development mode, which takes everybody's word. The server refuses it beyond loopback.

use std::sync::Arc;

use super::{Claim, Identity, Permissions, Principal, Proved, Review, Verification, Verifier, ready};

/// The user of a session that names none.
const NOBODY_NAMED: &str = "local";

/// Believes `data.user` of Register.
#[derive(Debug, Default)]
pub struct Open;

impl Verifier for Open {
    fn verify(&self, claim: Claim) -> Verification<'_> {
        let user = Principal::User(Arc::from(claim.user.as_deref().unwrap_or(NOBODY_NAMED)));
        ready(Ok(Identity::unproved(user, Permissions::all())))
    }

    fn review(&self, _: &Proved<'_>) -> Review {
        Review::Same
    }
}
