//! [`Judge`]: what a reload makes of live sessions.

use std::time::Duration;

use crate::auth::{Claim, Proof, Proved, Review, Verification, Verifier};

/// Keys of `[auth.salesforce_*]` that decide whom a proof is for. When they change, the sessions of the table may be of
/// users whom it does not prove now.
const NAMES_USERS: &[&str] =
    &["org_id", "user", "username_claim", "federation_id_claim", "issuer", "audience", "allowed_clients"];

/// The tables of which such a key has changed.
pub(super) fn renamed_tables(changed: &[String]) -> Vec<&str> {
    let parts = changed.iter().filter_map(|key| key.rsplit_once('.'));
    parts.filter(|(_, key)| NAMES_USERS.contains(key)).map(|(table, _)| table).collect()
}

/// How long the proof of a session is valid after its issuer has changed, so that the application can renew it.
const RENEWED_WITHIN: Duration = Duration::from_mins(1);

/// Judges live sessions by the verifier in force, except those of tables that name users in another way now, and of issuers
/// whose tokens prove something else now.
pub(super) struct Judge<'a> {
    pub(super) verifier: &'a dyn Verifier,
    pub(super) renamed: Vec<&'a str>,
    /// The names of issuers.
    pub(super) changed_issuers: Vec<String>,
}

impl Verifier for Judge<'_> {
    fn verify(&self, claim: Claim) -> Verification<'_> {
        self.verifier.verify(claim)
    }

    fn review(&self, proved: &Proved<'_>) -> Review {
        match proved.proof {
            Proof::Salesforce(table) if self.renamed.contains(table) => Review::End,
            Proof::Issuer(name) if self.changed_issuers.iter().any(|changed| **changed == **name) => {
                match self.verifier.review(proved) {
                    Review::Keep(permissions) => Review::KeepFor { permissions, longest: RENEWED_WITHIN },
                    review => review,
                }
            }
            _ => self.verifier.review(proved),
        }
    }
}
