//! What an audit record says of a request.

use crate::adapter::{Given, Refused};
use crate::audit::{Audit, Entry, Event};

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
    /// Records who requested what, and why it was refused.
    pub fn record(&self, event: Event, audit: &Audit) {
        let entry = Entry {
            outcome: Some(self.refusal.code),
            source: Some(self.source),
            user: self.user,
            session: self.session.map(|session| session.to_string()),
            address: self.address,
            target: Some(self.triple.to_string().into()),
            ..Entry::new(event)
        };
        match self.session {
            Some(_) => audit.record(&entry),
            None => audit.record_unregistered(&entry),
        }
    }
}
