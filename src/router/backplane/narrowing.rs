//! [`Narrowing`]: the permissions that narrow what a session receives by its memberships of groups. Its node announces them,
//! so that the node that chooses a member of a group chooses one that may receive the event.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wire::Pattern;

use super::Cluster;
use super::announce::is_chosen;
use super::message::{Change, Id};
use crate::auth::{Permission, Permissions, Right, Rights, Rule, Rules, Users};
use crate::router::Router;
use crate::router::session::Session;

/// Where a refusal would say that these rights are configured.
const FROM: &str = "its node";

/// The permissions of a session of another node, as far as others choose by them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::router) struct Narrowing<'a> {
    /// The right to subscribe; `None`: to everything.
    #[serde(borrow)]
    subscribe: Option<SentRight<'a>>,
    /// The users whose envelopes a service receives; `None`: everybody's.
    users: Option<Vec<&'a str>>,
    /// The users whom a user's session may observe; `None`: everybody.
    observe: Option<Vec<&'a str>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SentRight<'a> {
    #[serde(borrow)]
    allow: Vec<SentPattern<'a>>,
    deny: Vec<SentPattern<'a>>,
}

/// Channel, topic and subtopic; `None`: all.
type SentPattern<'a> = [Option<&'a str>; 3];

impl<'a> Narrowing<'a> {
    pub(super) fn of(permissions: &'a Permissions) -> Self {
        let right = permissions.rights.as_deref().map(|rights| &rights.subscribe);
        Self {
            subscribe: right.map(|it| SentRight { allow: sent(&it.allow), deny: sent(&it.deny) }),
            users: names(&permissions.users),
            observe: names(&permissions.observe),
        }
    }

    /// The permissions of the stand-in. What is not narrowed is allowed: its own node checks it.
    pub(super) fn permissions(&self) -> Permissions {
        let rights = self.subscribe.as_ref().map(|right| {
            let everything = || right_of(&[[None; 3]], &[]);
            Arc::new(Rights {
                publish: everything(),
                subscribe: right_of(&right.allow, &right.deny),
                request: everything(),
                handle: everything(),
            })
        });
        Permissions {
            rights,
            users: users(self.users.as_deref()),
            observe: users(self.observe.as_deref()),
            ..everything_elsewhere()
        }
    }
}

/// The permissions of a stand-in for which nothing was announced.
pub(super) fn everything_elsewhere() -> Permissions {
    Permissions { handle: Permission::All, request: Permission::All, ..Permissions::default() }
}

fn sent(rules: &Rules) -> Vec<SentPattern<'_>> {
    rules.iter().map(|rule| parts_of(&rule.pattern)).collect()
}

fn parts_of(Pattern { channel, topic, subtopic }: &Pattern) -> SentPattern<'_> {
    [channel.as_deref(), topic.as_deref(), subtopic.as_deref()]
}

fn right_of(allow: &[SentPattern<'_>], deny: &[SentPattern<'_>]) -> Right {
    let from: Arc<str> = Arc::from(FROM);
    let rules = |patterns: &[SentPattern<'_>]| -> Rules {
        let rule = |parts: &SentPattern<'_>| {
            let [channel, topic, subtopic] = parts.map(|part| part.map(Box::from));
            Rule { pattern: Pattern { channel, topic, subtopic }, from: Arc::clone(&from) }
        };
        patterns.iter().map(rule).collect()
    };
    Right { allow: rules(allow), deny: rules(deny), from: Arc::clone(&from) }
}

fn names(users: &Users) -> Option<Vec<&str>> {
    match users {
        Users::All => None,
        Users::Listed(entries) => Some(entries.iter().map(|entry| &**entry).collect()),
    }
}

fn users(names: Option<&[&str]>) -> Users {
    names.map_or(Users::All, |names| Users::Listed(names.iter().copied().map(Box::from).collect()))
}

impl Cluster {
    /// Tells every peer what narrows the subscriptions of a session. The caller holds what this node announces.
    pub(super) fn tell_narrowing(&self, session: &Arc<Session>) {
        let permissions = session.permissions();
        let session_id: Id = *session.id.as_bytes();
        self.tell_all(None, Change::Narrowed { session: session_id, narrowing: Narrowing::of(&permissions) });
    }
}

impl Router {
    /// The permissions of a session have changed.
    pub(in crate::router) fn announce_permissions(&self, session: &Arc<Session>) {
        let Some(cluster) = &self.cluster else { return };
        if session.holds.lock().subscriptions.iter().any(|it| is_chosen(it)) {
            cluster.announced.if_announced(session, || cluster.tell_narrowing(session));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_announced_allows_the_same() {
        let own = |allow: &[&str], deny: &[&str]| {
            let rules = |of: &[&str]| -> Rules {
                of.iter().map(|it| Rule { pattern: it.parse().unwrap(), from: Arc::from(FROM) }).collect()
            };
            Right { allow: rules(allow), deny: rules(deny), from: Arc::from(FROM) }
        };
        let rights = Rights {
            publish: own(&["*/*/*"], &[]),
            subscribe: own(&["Calls/*/*", "Desk/Lamp/*"], &["Calls/Admin/*"]),
            request: own(&["*/*/*"], &[]),
            handle: own(&["*/*/*"], &[]),
        };
        let permissions = Permissions {
            rights: Some(Arc::new(rights)),
            users: Users::of(["*@site-a", "bob"]),
            observe: Users::nobody(),
            ..everything_elsewhere()
        };
        let bytes = postcard::to_allocvec(&Narrowing::of(&permissions)).unwrap();
        assert_eq!(postcard::from_bytes::<Narrowing<'_>>(&bytes).unwrap().permissions(), permissions);
        let everything = everything_elsewhere();
        let bytes = postcard::to_allocvec(&Narrowing::of(&everything)).unwrap();
        assert_eq!(postcard::from_bytes::<Narrowing<'_>>(&bytes).unwrap().permissions(), everything);
    }
}
