//! Permissions with general rights, for tests of the router.

use std::sync::Arc;

use switchboard::auth::{Permissions, Right, Rights, Rule, Rules};

/// The name that refusals give.
const FROM: &str = "role 'agent'";

/// Permissions with the rights of a text such as `publish Phone/*/* Desk/*/*; subscribe */*/*; deny publish Phone/Admin/*`.
/// A right that is not named allows nothing. Everything else is as for an application without a role.
pub(crate) fn permissions(text: &str) -> Permissions {
    Permissions { rights: Some(Arc::new(rights(text))), ..Permissions::default() }
}

pub(crate) fn rights(text: &str) -> Rights {
    let mut rights = [(); 4].map(|()| Right { allow: Rules::default(), deny: Rules::default(), from: FROM.into() });
    for clause in text.split(';') {
        let mut words = clause.split_whitespace().peekable();
        let denies = words.next_if_eq(&"deny").is_some();
        let Some(name) = words.next() else { continue };
        let at = ["publish", "subscribe", "request", "handle"].iter().position(|it| *it == name).unwrap();
        let rules = words.map(|pattern| Rule { pattern: pattern.parse().unwrap(), from: FROM.into() }).collect();
        *(if denies { &mut rights[at].deny } else { &mut rights[at].allow }) = rules;
    }
    let [publish, subscribe, request, handle] = rights;
    Rights { publish, subscribe, request, handle }
}
