//! The list of sessions.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use super::Filter;
use crate::auth::Proof;
use crate::router::session::{Role, Session};
use crate::router::{ApplicationState, Router, SessionId};

/// One registered session.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionRow {
    /// Its name on the wire.
    pub id: SessionId,
    /// Its registered name.
    pub source: String,
    /// `None` for a service.
    pub user: Option<String>,
    /// Whether it works.
    pub state: ApplicationState,
    /// When it registered.
    pub since: SystemTime,
    /// Since when it has had no connection.
    pub away_since: Option<SystemTime>,
    /// The address of its peer, or of the last one.
    pub address: Option<IpAddr>,
    /// What proved its identity: `token`, `certificate`, `open`, or the table of the configuration.
    pub proof: String,
    /// Whether it can outlive its connection.
    pub resumable: bool,
    /// Subscriptions that receive events.
    pub subscriptions: usize,
    /// Subscriptions that handle requests.
    pub handlers: usize,
    /// What waits to be sent to it.
    pub queue: QueueDepth,
    /// How many messages it has sent.
    pub received: u64,
    /// How many messages a second it has sent lately.
    pub rate: f64,
    /// How many events its full queue has lost.
    pub dropped: u64,
    /// Requests that it sent and that are not answered.
    pub asked: usize,
    /// Requests that it was given and has not answered.
    pub given: usize,
}

/// What waits to be sent to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueDepth {
    /// Messages.
    pub messages: usize,
    /// Bytes of text.
    pub bytes: usize,
}

/// What the sessions are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionSort {
    /// The one first that registered first.
    Since,
    /// The longest queue first, in messages.
    Queue,
    /// The one first that sends most messages a second.
    Rate,
    /// The one first that has lost most events.
    Dropped,
}

impl Router {
    /// The first `limit` sessions of those that a filter allows, sorted.
    pub fn top_sessions(&self, filter: &Filter, sort: SessionSort, limit: usize) -> Vec<Arc<Session>> {
        let mut found: Vec<_> = self
            .list_sessions(filter)
            .into_iter()
            .map(|session| {
                let key = match sort {
                    SessionSort::Since => u64::MAX - session.number,
                    SessionSort::Queue => u64::try_from(session.outbox().depth().messages).unwrap_or(u64::MAX),
                    SessionSort::Rate => session.activity.rate_millis(),
                    SessionSort::Dropped => session.outbox().dropped(),
                };
                (Reverse(key), session.number, session)
            })
            .collect();
        found.sort_unstable_by_key(|(key, number, _)| (*key, *number));
        found.truncate(limit);
        found.into_iter().map(|(_, _, session)| session).collect()
    }

    /// The registered session with this id.
    pub fn find_session(&self, id: &str) -> Option<Arc<Session>> {
        let mut found = None;
        self.presence.each(|session| {
            if found.is_none() && session.id.to_string() == id {
                found = Some(Arc::clone(session));
            }
        });
        found
    }

    /// The registered sessions that a filter allows, in no order.
    pub fn list_sessions(&self, filter: &Filter) -> Vec<Arc<Session>> {
        let mut found = self.sessions_of(filter);
        found.retain(|session| {
            filter.allows_state(ApplicationState::of_session(session).as_str()) && filter.allows_subscriptions(session)
        });
        found
    }

    /// What an operator sees of a session.
    pub fn session_row(&self, session: &Session) -> SessionRow {
        let depth = session.outbox().depth();
        let (subscriptions, handlers, asked) = {
            let holds = session.holds.lock();
            let handlers = holds.subscriptions.iter().filter(|it| it.is_handler()).count();
            (holds.subscriptions.len() - handlers, handlers, holds.asked.len())
        };
        SessionRow {
            id: session.id,
            source: session.source.to_string(),
            user: session.user().map(str::to_owned),
            state: ApplicationState::of_session(session),
            since: session.since,
            away_since: session.away_since(),
            address: session.address(),
            proof: proof_text(session),
            resumable: session.is_resumable(),
            subscriptions,
            handlers,
            queue: QueueDepth { messages: depth.messages, bytes: depth.bytes },
            received: session.activity.received(),
            #[expect(clippy::cast_precision_loss, reason = "for people")]
            rate: session.activity.rate_millis() as f64 / 1000.0,
            dropped: session.outbox().dropped(),
            asked,
            given: session.busy(),
        }
    }
}

fn proof_text(session: &Session) -> String {
    match session.proof() {
        Proof::Nothing if session.role == Role::Adapter => "inside".to_owned(),
        Proof::Nothing => "open".to_owned(),
        Proof::Token(_) => "token".to_owned(),
        Proof::Certificate(_) => "certificate".to_owned(),
        Proof::Issuer(name) => format!("auth.jwt.{name}"),
        Proof::Salesforce(table) => table.to_owned(),
    }
}
