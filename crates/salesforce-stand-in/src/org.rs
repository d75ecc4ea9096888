//! [`State`]: one org and its dispatch. Plain and synchronous: time and faults are arguments.

use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::AUTHORIZATION;

use super::apex::{self, Resource};
use super::call::Call;
use super::caller::Caller;
use super::faults::{Effects, limit_exceeded};
use super::gadget::Signer;
use super::pubsub::Change;
use super::query::{self, Cursors};
use super::reply::{Refusal, Reply};
use super::schema::Schema;
use super::seed::{Client, Grown, Organization, User};
use super::sessions::{Session, Sessions};
use super::store::Store;
use super::{collections, composite, introspection, limits, sobjects, token, userinfo, versions};

/// Longer addresses are refused.
const URI_MAX: usize = 16_384;

/// An org.
pub(super) struct State {
    pub(super) organization: Organization,
    pub(super) clients: Vec<Client>,
    pub(super) users: Vec<Arc<User>>,
    pub(super) schema: Arc<Schema>,
    pub(super) store: Store,
    pub(super) apex: Vec<Resource>,
    pub(super) signer: Arc<Signer>,
    pub(super) sessions: Sessions,
    pub(super) cursors: Cursors,
    /// The changes of the present call that are not published yet.
    pub(super) changes: Vec<Change>,
    pub(super) calls_used: u64,
    pub(super) logins: u64,
}

impl State {
    /// An org with the content of its seed.
    pub(super) fn new(grown: Grown, signer: Arc<Signer>) -> Self {
        Self {
            organization: grown.organization,
            clients: grown.clients,
            users: grown.users,
            schema: grown.schema,
            store: grown.store,
            apex: grown.apex,
            signer,
            sessions: Sessions::default(),
            cursors: Cursors::default(),
            changes: Vec::new(),
            calls_used: 0,
            logins: 0,
        }
    }

    /// How long an unused token lasts.
    pub(super) fn lifetime(&self) -> Duration {
        Duration::from_secs(self.organization.session_seconds)
    }

    /// Answers a call.
    pub(super) fn answer(&mut self, now: Duration, call: &Call, effects: Effects) -> Reply {
        let segments: Vec<&str> = call.segments.iter().map(String::as_str).collect();
        let counted = matches!(segments.as_slice(), ["services", "data", _, ..] | ["services", "apexrest", ..]);
        self.calls_used += u64::from(counted);
        let used_up = effects.limit_used_up;
        let reply = match (&effects.reply, segments.as_slice()) {
            (Some(reply), _) => reply.clone(),
            (None, _) if call.uri_bytes > URI_MAX => Reply::of(StatusCode::URI_TOO_LONG, "text/html", "URI Too Long"),
            (None, ["services", "oauth2", "token"]) => token::answer(now, self, call, &effects),
            (None, ["services", "oauth2", "revoke"]) => token::revoke(self, call),
            (None, ["services", "oauth2", "introspect"]) => introspection::answer(now, self, call),
            (None, ["services", "oauth2", "userinfo"]) => userinfo::answer(now, self, call),
            (None, ["id", org, user]) => userinfo::identity(now, self, call, (org, user)),
            (None, ["services", "data"]) => versions::all(),
            (None, ["services", "data", version, below @ ..]) => {
                self.data(now, call, effects, version, below).unwrap_or_else(Reply::from)
            }
            (None, ["services", "apexrest", below @ ..]) => self
                .admitted(now, call)
                .and_then(|session| apex::answer(now, self, &session, call, below))
                .unwrap_or_else(Reply::from),
            _ => Refusal::not_found().into(),
        };
        if counted { limits::marked(self, used_up, reply) } else { reply }
    }

    fn data(
        &mut self,
        now: Duration,
        call: &Call,
        effects: Effects,
        version: &str,
        below: &[&str],
    ) -> Result<Reply, Refusal> {
        let version = versions::number(version)?;
        let session = self.admitted(now, call)?;
        let caller = Caller { user: session.user, effects, version, now };
        resource(self, &caller, call, below)
    }

    /// The user of a call, if the org accepts calls of this user today.
    fn admitted(&mut self, now: Duration, call: &Call) -> Result<Session, Refusal> {
        let unauthorized = |message| Refusal::new(StatusCode::UNAUTHORIZED, "INVALID_SESSION_ID", message);
        let invalid = || unauthorized("Session expired or invalid");
        let token = match (call.token(), call.headers.contains_key(AUTHORIZATION)) {
            (Some(token), _) => token,
            (None, false) => return Err(invalid()),
            (None, true) => {
                return Err(Refusal::new(StatusCode::UNAUTHORIZED, "INVALID_AUTH_HEADER", "INVALID_HEADER_TYPE"));
            }
        };
        let lifetime = self.lifetime();
        let session = self.sessions.find(now, lifetime, token);
        let session = session.ok_or_else(invalid)?;
        if !session.user.api_enabled {
            let message = "The REST API is not enabled for this User";
            return Err(Refusal::new(StatusCode::FORBIDDEN, "API_CURRENTLY_DISABLED", message));
        }
        if self.calls_used > self.organization.daily_api_requests {
            return Err(limit_exceeded("TotalRequests Limit exceeded."));
        }
        Ok(session)
    }
}

/// Answers a call below `/services/data/vNN.0`.
pub(super) fn resource(state: &mut State, caller: &Caller, call: &Call, below: &[&str]) -> Result<Reply, Refusal> {
    match below {
        [] => Ok(versions::resources(state, call, caller.version, &caller.user)),
        ["limits"] => Ok(limits::answer(state)),
        // Deleted rows are not kept, so both find the same.
        ["query" | "queryAll", below @ ..] => query::answer(state, caller, call, below),
        ["sobjects", below @ ..] => sobjects::answer(state, caller, call, below),
        ["composite", "sobjects"] => collections::answer(state, caller, call),
        ["composite"] => composite::answer(state, caller, call),
        _ => Err(Refusal::not_found()),
    }
}
