//! [`Users`]: a list of users, or of endings of their names.

use std::sync::Arc;

/// Some users. Letter case counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Users {
    /// Everybody.
    All,
    /// Those of the list: names, or endings such as `*@example.com`.
    Listed(Arc<[Box<str>]>),
}

impl Users {
    /// Nobody at all.
    #[must_use]
    pub fn nobody() -> Self {
        Self::Listed(Arc::default())
    }

    /// Reads a list as the configuration has it. `*` alone is everybody.
    #[must_use]
    pub fn of<'a>(entries: impl IntoIterator<Item = &'a str>) -> Self {
        let entries: Vec<Box<str>> = entries.into_iter().map(Box::from).collect();
        if entries.iter().any(|entry| &**entry == "*") { Self::All } else { Self::Listed(Arc::from(entries)) }
    }

    /// Returns whether this user is one of them.
    #[must_use]
    pub fn contains(&self, user: &str) -> bool {
        let matches = |entry: &str| match entry.strip_prefix('*') {
            Some(ending) => user.ends_with(ending),
            None => entry == user,
        };
        match self {
            Self::All => true,
            Self::Listed(entries) => entries.iter().any(|entry| matches(entry)),
        }
    }

    /// Returns whether it is nobody.
    #[must_use]
    pub fn is_nobody(&self) -> bool {
        matches!(self, Self::Listed(entries) if entries.is_empty())
    }

    /// Returns whether every user of `other` is one of them.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let covers = |entry: &str, other: &str| match (entry.strip_prefix('*'), other.strip_prefix('*')) {
            (Some(ending), _) => other.ends_with(ending),
            (None, Some(_)) => false,
            (None, None) => entry == other,
        };
        match (self, other) {
            (Self::All, _) => true,
            (Self::Listed(_), Self::All) => false,
            (Self::Listed(own), Self::Listed(others)) => {
                others.iter().all(|other| own.iter().any(|entry| covers(entry, other)))
            }
        }
    }

    /// Returns the users of both lists.
    #[must_use]
    pub fn joined(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::All, _) | (_, Self::All) => Self::All,
            (Self::Listed(own), Self::Listed(others)) => Self::Listed(own.iter().chain(&**others).cloned().collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_name_or_an_ending() {
        let users = Users::of(["alice@example.com", "*@team-a.example"]);
        let contained = ["alice@example.com", "bob@team-a.example", "Alice@example.com", "bob@Team-a.example", "bob"]
            .map(|user| users.contains(user));
        assert_eq!(contained, [true, true, false, false, false]);
        assert!(Users::of(["a", "*"]).contains("anybody"));
        assert!(!Users::nobody().contains("") && Users::nobody().is_nobody());
        assert!(users.joined(&Users::of(["bob"])).contains("bob"));
    }

    #[test]
    fn a_list_covers_another_one() {
        let covers =
            |own: &[&str], other: &[&str]| Users::of(own.iter().copied()).covers(&Users::of(other.iter().copied()));
        assert!(covers(&["*@a.example", "bob"], &["alice@a.example", "*-x@a.example", "bob"]));
        assert!(covers(&["*"], &["*"]) && covers(&[], &[]) && covers(&["*"], &["bob"]));
        assert!(!covers(&["*@a.example"], &["*"]) && !covers(&["bob"], &["*bob"]) && !covers(&["bob"], &["Bob"]));
    }
}
