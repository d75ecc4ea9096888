//! [`Sessions`]: the access tokens that are out, whose they are and when they end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::seed::User;

/// As many tokens at once; above it those that have ended are forgotten.
const TOKENS_MAX: usize = 10_000;

/// The tokens that are out.
#[derive(Default)]
pub(super) struct Sessions {
    by_token: HashMap<String, Session>,
}

/// What a token stands for.
#[derive(Clone)]
pub(super) struct Session {
    pub(super) user: Arc<User>,
    pub(super) client_id: String,
    pub(super) scope: String,
    pub(super) issued: Duration,
    pub(super) ends: Duration,
}

impl Sessions {
    /// Gives out a token.
    pub(super) fn open(&mut self, org_id: &str, session: Session) -> String {
        if self.by_token.len() >= TOKENS_MAX {
            self.by_token.retain(|_, it| it.ends > session.issued);
        }
        let short = org_id.get(..15).unwrap_or(org_id);
        let token = format!("{short}!AQ{}", hex::encode(rand::random::<[u8; 32]>()));
        self.by_token.insert(token.clone(), session);
        token
    }

    /// Whose a token is. Using it puts its end off.
    pub(super) fn find(&mut self, now: Duration, lifetime: Duration, token: &str) -> Option<Session> {
        let session = self.by_token.get_mut(token).filter(|it| it.ends > now)?;
        session.ends = now + lifetime;
        Some(session.clone())
    }

    /// Whose a token is, without using it.
    pub(super) fn look(&self, now: Duration, token: &str) -> Option<&Session> {
        self.by_token.get(token).filter(|it| it.ends > now)
    }

    /// Ends one token.
    pub(super) fn end(&mut self, token: &str) {
        self.by_token.remove(token);
    }

    /// Ends them all.
    pub(super) fn end_all(&mut self) {
        self.by_token.clear();
    }
}
