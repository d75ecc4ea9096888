//! What an audit record says of a request.

use crate::adapter::{Given, Refused};
use crate::audit::{Entry, Event};

impl Given {
    /// A record of this request that says who requested what, and that it succeeded.
    #[must_use]
    pub fn audited(&self, event: Event) -> Entry<'_> {
        Entry {
            source: Some(&self.source),
            user: self.user.as_deref(),
            session: Some(self.session.to_string()),
            address: self.address,
            target: Some(self.triple.to_string().into()),
            ..Entry::new(event)
        }
    }
}

impl Refused<'_> {
    /// A record of this request that says who requested what, and why it was refused.
    #[must_use]
    pub fn audited(&self, event: Event) -> Entry<'_> {
        Entry {
            outcome: Some(self.refusal.code),
            source: Some(self.source),
            user: self.user,
            session: self.session.map(|session| session.to_string()),
            address: self.address,
            target: Some(self.triple.to_string().into()),
            ..Entry::new(event)
        }
    }
}
