//! What an operator does to sessions and to what is kept: closes sessions, and removes retained values.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use wire::{Refusal, Triple, notice};

use crate::router::backplane::message::Question;
use crate::router::backplane::{Answered, Answers};
use crate::router::commit::To;
use crate::router::outbox::{End, OnFull, Outbox};
use crate::router::session::Session;
use crate::router::{CommitTicket, Router, spread};

/// The longest reason for which an operator closes sessions: a Close frame has room for 123 bytes (RFC 6455, section 5.5).
pub const CLOSED_BECAUSE_BYTES_MAX: usize = 120;

/// Which sessions an operator means: those that have all of this. At least one is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sessions {
    /// Of this source.
    pub source: Option<String>,
    /// Of this user.
    pub user: Option<String>,
    /// With this id.
    pub id: Option<String>,
}

/// Which sessions an operator closes, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// Which.
    pub which: Sessions,
    /// Why, for the application and its user; at most [`CLOSED_BECAUSE_BYTES_MAX`].
    pub reason: String,
    /// Their clients are to connect again, at times that are spread. Otherwise they end, without a grace.
    pub reconnect: bool,
}

/// The sessions that were closed on all nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Closed {
    /// How many are known to be.
    pub sessions: u64,
    /// The nodes that did not answer in time, in the order of their names. Each closes its sessions as soon as it gets the order,
    /// unless its link breaks.
    pub silent: Vec<String>,
}

/// How long other nodes may take to close sessions. One that does not answer for so long is lost.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

/// What becomes of retained values that an operator removes.
pub enum Removal {
    /// They are removed: their number.
    Removed(usize),
    /// Their removal has to be on disk first. The receipt then has their number as its receivers.
    Waits(CommitTicket),
}

impl Router {
    /// Closes sessions of all nodes of a cluster, or of this one if there is none. `told` is called when all have answered, or
    /// the time is over.
    pub fn close_everywhere(&self, now: Instant, close: &Close, told: impl FnOnce(Closed) + Send + 'static) {
        let here = self.close_here(now, close);
        let Close { which, reason, reconnect } = close;
        let question = Question::Close {
            source: which.source.as_deref(),
            user: which.user.as_deref(),
            session: which.id.as_deref(),
            reason,
            reconnect: *reconnect,
        };
        let questions = self.all_peers().into_iter().map(|peer| (peer, question.clone()));
        self.ask_peers(now, CLOSE_WAIT, questions, move |_, _, answers: Answers| {
            let elsewhere = answers.told.iter().map(|(_, answer)| match answer {
                Answered::Closed(sessions) => *sessions,
                Answered::Explained(_) => 0,
            });
            told(Closed { sessions: elsewhere.fold(here, u64::saturating_add), silent: answers.silent });
        });
    }

    /// Closes sessions of this node. Returns how many.
    pub(super) fn close_here(&self, now: Instant, close: &Close) -> u64 {
        let closed = match close.reconnect {
            false => self.kick(now, &close.which, &close.reason),
            true => self.send_away(now, &close.which, &close.reason, spread),
        };
        u64::try_from(closed).unwrap_or(u64::MAX)
    }

    /// Ends sessions at once: their connections close with 4410 and this reason, and they have no grace. Returns how many.
    pub fn kick(&self, now: Instant, which: &Sessions, reason: &str) -> usize {
        let reason: Arc<str> = Arc::from(reason);
        let sessions = self.meant(which);
        for session in &sessions {
            session.holds.lock().kicked = Some(Arc::clone(&reason));
            session.outbox().end(End::Kicked);
        }
        // Those that are away have no connection that would end them.
        self.look_at_ended(now);
        sessions.len()
    }

    /// Closes the connections of sessions with 1012, so that their clients return: each is told when, as in a drain.
    /// `spread` says when each of this many returns. Sessions without a connection are left alone. Returns how many.
    pub fn send_away(
        &self,
        now: Instant,
        which: &Sessions,
        reason: &str,
        spread: impl Fn(usize) -> Vec<Duration>,
    ) -> usize {
        let reason: Arc<str> = Arc::from(reason);
        let mut sessions = self.meant(which);
        sessions.retain(|session| !session.is_away());
        for (session, after) in sessions.iter().zip(spread(sessions.len())) {
            let draining = notice::draining(u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
            session.holds.lock().kicked = Some(Arc::clone(&reason));
            session.outbox().push(now, draining.into(), OnFull::Close).ok();
            session.outbox().send_away();
        }
        sessions.len()
    }

    /// The registered sessions that are meant, oldest first, without those that are ending.
    fn meant(&self, which: &Sessions) -> Vec<Arc<Session>> {
        let is =
            |wanted: &Option<String>, own: Option<&str>| wanted.as_deref().is_none_or(|wanted| Some(wanted) == own);
        let mut found = Vec::new();
        self.presence.each(|session| {
            let is_meant = is(&which.source, Some(&session.source))
                && is(&which.user, session.user())
                && which.id.as_deref().is_none_or(|id| session.id.to_string() == id);
            if is_meant && session.outbox().ended().is_none() {
                found.push(Arc::clone(session));
            }
        });
        found.sort_unstable_by_key(|session| session.number);
        found
    }

    /// Removes the retained values of a triple, for all targets. Nobody is told. `user`: to whom they belong; `None` on a
    /// shared channel.
    ///
    /// # Errors
    /// `STORAGE_UNAVAILABLE`.
    pub fn remove_retained(&self, now: Instant, user: Option<&str>, triple: &Triple<'_>) -> Result<Removal, Refusal> {
        let facts = self.policy.facts(triple);
        if !facts.retains_durably || self.commits.is_none() {
            return Ok(Removal::Removed(self.retained.remove(user, &facts.canonical)));
        }
        let operator = self.attach_adapter(now, Outbox::refusing());
        let Triple { channel, topic, subtopic } = triple;
        let text = json!({ "channel": channel, "topic": topic, "subtopic": subtopic, "retain": true, "data": null });
        let to = To::Removed(user.map(Box::from));
        let ticket = self.commit_text(now, &operator, text.to_string().into(), to)?;
        Ok(Removal::Waits(ticket))
    }
}

impl Session {
    /// Why an operator has closed it.
    pub fn kicked_because(&self) -> Option<Arc<str>> {
        self.holds.lock().kicked.clone()
    }
}
