//! What a session needs of its logs that moves to another node: which they are, and where each node is in them.

use std::collections::BTreeSet;
use std::time::Instant;

use super::ends::Fill;
use super::{LogName, Position, name_of};
use crate::router::Router;
use crate::router::index::{Audience, Subscription, audiences};
use crate::router::session::Session;

impl Router {
    /// The keys of the logs whose events a session can receive in their order.
    pub(in crate::router) fn logs_of(&self, session: &Session) -> BTreeSet<Box<str>> {
        let mut logs = BTreeSet::new();
        let channels = self.policy.channels_with_history();
        let subscriptions = session.holds.lock().subscriptions.clone();
        for subscription in subscriptions.iter().filter(|it| is_of_logs(it)) {
            let wanted = subscription.pattern.channel.as_deref();
            for channel in channels.iter().filter(|channel| wanted.is_none_or(|wanted| wanted == **channel)) {
                let mut add = |owner: Option<&str>| {
                    if owner.is_none() == self.policy.is_shared(channel) {
                        logs.insert(LogName { channel, owner }.key().into());
                    }
                };
                for audience in audiences(&self.policy, subscription) {
                    match audience {
                        Audience::User(user) => add(Some(user)),
                        Audience::Everyone => add(None),
                        Audience::Observes(user) => {
                            add(Some(user));
                            add(None);
                        }
                        Audience::Services | Audience::ObservesAll => {
                            add(None);
                            for user in self.history.users(channel) {
                                add(Some(&user));
                            }
                        }
                        Audience::Adapters => {}
                    }
                }
            }
        }
        logs
    }

    /// The last event of a log that this node has delivered, if it follows the log.
    pub(in crate::router) fn log_cursor(&self, key: &str) -> Option<Position> {
        let log = self.history.find(&name_of(key))?;
        let state = log.state.lock();
        state.arrivals.cursor().filter(|_| !state.is_removed).cloned()
    }

    /// A session that has arrived from another node reads a log: this node follows it, from where that node was (`known`) if
    /// it does not follow it yet. Returns where this node is.
    pub(in crate::router) fn follow_from(&self, now: Instant, key: &str, known: Option<&Position>) -> Option<Position> {
        let name = name_of(key);
        let mut done = Vec::new();
        let (cursor, missing, is_another) = self.history.with(&name, |log| {
            self.keep_cursor(log);
            let is_another = match (log.state.arrivals.cursor(), known) {
                (Some(cursor), Some(known)) => cursor.epoch != known.epoch,
                (Some(_) | None, _) => false,
            };
            let missing = known.filter(|_| !is_another).and_then(|known| log.state.arrivals.begin(known));
            let cursor = log.state.arrivals.cursor().cloned();
            if let Some(bounds) = self.policy.history(name.channel) {
                self.settle(now, (&mut *log, bounds), &mut done);
            }
            self.has_subscribed(log);
            (cursor, missing, is_another)
        });
        self.finish_arrived(now, done);
        match (missing, &cursor) {
            (Some(offsets), Some(cursor)) => self.fill(now, &name, cursor.epoch.clone(), offsets, Fill::Missed),
            // One of the nodes does not know yet that the log has begun anew.
            _ if is_another => self.check_log(&name),
            _ => {}
        }
        cursor
    }

    /// Checks logs in which this node is behind another one.
    pub(in crate::router) fn check_behind(&self, others: &[(Box<str>, Position)]) {
        for (key, _) in others.iter().filter(|(key, position)| !self.is_past(key, position)) {
            self.check_log(&name_of(key));
        }
    }

    /// Whether this node has delivered the events of a log up to this one, as far as it follows the log.
    pub(in crate::router) fn is_past(&self, key: &str, position: &Position) -> bool {
        self.log_cursor(key).is_none_or(|cursor| cursor.epoch != position.epoch || cursor.offset >= position.offset)
    }
}

/// Whether events of logs come by a subscription in their order. The members of groups are chosen at the publisher's node.
fn is_of_logs(subscription: &Subscription) -> bool {
    !subscription.is_handler() && subscription.group.is_none()
}
