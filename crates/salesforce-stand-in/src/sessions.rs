//! [`Sessions`]: the issued access tokens, their users and expiry.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::seed::User;

/// The most tokens at once; beyond it, expired ones are removed.
const TOKENS_MAX: usize = 10_000;

/// The issued tokens.
#[derive(Default)]
pub(super) struct Sessions {
    by_token: HashMap<String, Session>,
}

/// The session of a token.
#[derive(Clone)]
pub(super) struct Session {
    pub(super) user: Arc<User>,
    pub(super) client_id: String,
    pub(super) scope: String,
    pub(super) issued: Duration,
    pub(super) ends: Duration,
}

impl Sessions {
    /// Issues a token.
    pub(super) fn open(&mut self, org_id: &str, session: Session) -> String {
        if self.by_token.len() >= TOKENS_MAX {
            self.by_token.retain(|_, it| it.ends > session.issued);
        }
        let short = org_id.get(..15).unwrap_or(org_id);
        let token = format!("{short}!AQ{}", hex::encode(rand::random::<[u8; 32]>()));
        self.by_token.insert(token.clone(), session);
        token
    }

    /// The session of a token. Using it extends its life.
    pub(super) fn find(&mut self, now: Duration, lifetime: Duration, token: &str) -> Option<Session> {
        let session = self.by_token.get_mut(token).filter(|it| it.ends > now)?;
        session.ends = now + lifetime;
        Some(session.clone())
    }

    /// The session of a token, without using it.
    pub(super) fn look(&self, now: Duration, token: &str) -> Option<&Session> {
        self.by_token.get(token).filter(|it| it.ends > now)
    }

    /// Revokes a token.
    pub(super) fn end(&mut self, token: &str) {
        self.by_token.remove(token);
    }

    /// Expires all tokens.
    pub(super) fn end_all(&mut self) {
        self.by_token.clear();
    }
}
