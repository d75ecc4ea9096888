//! [`Size`]: what a router holds, for the operator.

use crate::router::Router;

/// What a router holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Registered sessions.
    pub sessions: usize,
    /// Calls over HTTP that are being served. They are not sessions of applications.
    pub calls: usize,
    /// The registered sessions that have no connection.
    pub away: usize,
    /// Sessions whose tokens are known.
    pub resumable: usize,
    /// Messages that are kept for resumable sessions, once for each session.
    pub kept: usize,
    /// The memory that they use, in bytes.
    pub kept_bytes: usize,
    /// Pending requests; a gather counts once for each handler.
    pub requests: usize,
    /// Requests that registered sessions asked and that are not answered.
    pub asked: usize,
    /// Requests that registered sessions were given and have not answered.
    pub given: usize,
    /// Turns of ordered handlers, late replies included.
    pub turns: usize,
    /// Requests that wait for a turn, once for each handler.
    pub waiting: usize,
    /// Subscriptions to events, each counted once for each key of the index.
    pub subscribers: usize,
    /// Handler subscriptions, counted likewise.
    pub handlers: usize,
    /// Subscriptions whose triple a hint can name.
    pub hints: usize,
    /// Retained values.
    pub retained_values: usize,
    /// The memory that they use, in bytes.
    pub retained_bytes: usize,
    /// Logs of channels with history.
    pub logs: usize,
    /// Events in them, those included that are too old and not yet dropped.
    pub log_entries: usize,
    /// The memory that they use, in bytes.
    pub log_bytes: usize,
    /// Ids of events with `once` that are known.
    pub known_ids: usize,
}

impl Router {
    /// What the router holds, for the operator. Walks the whole index, and takes every session's locks, one after the
    /// other.
    pub fn size(&self) -> Size {
        let (retained_values, retained_bytes) = self.retained.size();
        let (logs, log_entries, log_bytes, known_ids) = self.history.size();
        self.count_kept();
        let mut size = Size {
            requests: self.requests.len(),
            calls: self.calls.len(),
            subscribers: self.events.len(),
            handlers: self.handlers.len(),
            hints: self.hints.len(),
            retained_values,
            retained_bytes,
            resumable: self.resumes.len(),
            kept: self.resumes.kept().entries(),
            kept_bytes: self.resumes.kept().bytes(),
            logs,
            log_entries,
            log_bytes,
            known_ids,
            ..Size::default()
        };
        self.presence.each(|session| {
            size.sessions += 1;
            size.away += usize::from(session.is_away());
            size.asked += session.holds.lock().asked.len();
            size.given += session.busy();
            size.turns += session.turns.len();
            size.waiting += session.turns.waiting();
        });
        size
    }
}
