//! The list of pending requests.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::{Filter, Load};
use crate::router::request::pending::{Pending, State};
use crate::router::{RequestId, Router, SessionId};

/// One pending request, or one handler's part of a gather.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestRow {
    /// Names the row.
    pub key: String,
    /// The broker's id; the parts of a gather share one.
    pub id: RequestId,
    /// The requester's own id.
    pub request_id: Option<String>,
    /// The first part of its triple.
    pub channel: String,
    /// The second part.
    pub topic: String,
    /// The third part.
    pub subtopic: String,
    /// The source of the requester.
    pub source: String,
    /// For which user.
    pub user: Option<String>,
    /// The requester.
    pub session: SessionId,
    /// Where it is.
    pub state: RequestState,
    /// The handler that has it: its source and session.
    pub handler: Option<(String, SessionId)>,
    /// When it was sent.
    pub since: SystemTime,
    /// How much of its time is left.
    pub remaining: Duration,
    /// It is a part of a gather.
    pub gather: bool,
    /// How busy its requester is.
    pub load: Load,
}

/// Where a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestState {
    /// No handler has it yet.
    Seeking,
    /// It waits for the turn of an ordered handler.
    Waiting,
    /// A handler has it.
    Given,
}

impl RequestState {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Seeking => "seeking",
            Self::Waiting => "waiting",
            Self::Given => "given",
        }
    }
}

impl Router {
    /// The pending requests that a filter allows, in no order. Its source and user are the requester's.
    pub fn list_requests(&self, now: Instant, filter: &Filter) -> Vec<RequestRow> {
        let is_wanted = |pending: &Arc<Pending>| {
            filter.allows_triple(&pending.triple)
                && filter.allows_source(&pending.asker.source)
                && filter.allows_user(pending.user.as_deref())
        };
        let row = |pending: Arc<Pending>| self.request_row(now, &pending);
        let rows = self.requests.all().into_iter().filter(is_wanted).filter_map(row);
        rows.filter(|row| filter.allows_state(row.state.as_str())).collect()
    }

    fn request_row(&self, now: Instant, pending: &Pending) -> Option<RequestRow> {
        let (state, handler, deadline) = pending.place()?;
        Some(RequestRow {
            // The parts of a gather share an id, so their place in the order of all requests is added.
            key: format!("{} {:016x}", pending.id, pending.serial.number()),
            id: pending.id,
            request_id: pending.asker_id.as_deref().map(str::to_owned),
            channel: pending.triple.channel.to_string(),
            topic: pending.triple.topic.to_string(),
            subtopic: pending.triple.subtopic.to_string(),
            source: pending.asker.source.to_string(),
            user: pending.user.as_deref().map(str::to_owned),
            session: pending.asker.id,
            state,
            handler,
            since: self.date(pending.opened),
            remaining: deadline.saturating_duration_since(now),
            gather: pending.gather.is_some(),
            load: Load::of(&pending.asker),
        })
    }
}

/// Where a request is, which handler has it (its source and session), and when its time is over.
type Place = (RequestState, Option<(String, SessionId)>, Instant);

impl Pending {
    /// Returns its place; `None` if it has ended.
    fn place(&self) -> Option<Place> {
        self.look(|state, deadline| match state {
            State::Seeking => Some((RequestState::Seeking, None, deadline)),
            State::Waiting(_) => Some((RequestState::Waiting, None, deadline)),
            State::Given(handler) => {
                let session = &handler.session;
                Some((RequestState::Given, Some((session.source.to_string(), session.id)), deadline))
            }
            State::Ended => None,
        })
    }
}
