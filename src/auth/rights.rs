//! [`Rights`]: the general rights of a session, by patterns that allow and patterns that deny. Denied patterns win. Patterns
//! are compared without regard to ASCII case.

use std::fmt;
use std::sync::Arc;

use wire::{Pattern, Triple};

use super::Rules;

/// What a session may publish, subscribe to, request and handle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    /// Events, wills, and commands that have no answer.
    pub publish: Right,
    /// Subscriptions, except those of handlers.
    pub subscribe: Right,
    /// Requests.
    pub request: Right,
    /// Subscriptions of handlers.
    pub handle: Right,
}

/// One right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Right {
    /// Patterns that allow.
    pub allow: Rules,
    /// Patterns that deny.
    pub deny: Rules,
    /// Where the right is configured, as refusals name it: `role 'agent'`.
    pub from: Arc<str>,
}

/// One pattern of a right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What it is for.
    pub pattern: Pattern,
    /// Where it is configured, as refusals name it: `role 'agent'`.
    pub from: Arc<str>,
}

/// Why a right does not allow something. It prints as the end of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why<'r> {
    /// This rule denies it.
    Denied(&'r Rule),
    /// No pattern allows it; `from` is where patterns are configured.
    NotAllowed {
        /// As refusals name it: `role 'agent'`.
        from: &'r str,
    },
}

impl fmt::Display for Why<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(rule) => write!(f, "the pattern {} in 'deny' of {} denies it", rule.pattern, rule.from),
            Self::NotAllowed { from } => write!(f, "no pattern of {from} allows it"),
        }
    }
}

impl Right {
    /// Checks one triple.
    ///
    /// # Errors
    /// The rule that decided.
    pub fn check(&self, triple: &Triple<'_>) -> Result<(), Why<'_>> {
        if let Some(rule) = self.deny.first_match(triple) {
            return Err(Why::Denied(rule));
        }
        match self.allow.first_match(triple).is_some() {
            true => Ok(()),
            false => Err(Why::NotAllowed { from: &self.from }),
        }
    }

    /// Checks that every triple of a pattern is allowed. Several patterns together allow no more than one of them does: a
    /// part that is `*` has more values than they can name.
    ///
    /// # Errors
    /// The rule that decided.
    pub fn check_whole(&self, wanted: &Pattern) -> Result<(), Why<'_>> {
        if let Some(rule) = self.deny.iter().find(|rule| rule.pattern.overlaps_any_case(wanted)) {
            return Err(Why::Denied(rule));
        }
        match self.allow.iter().any(|rule| rule.pattern.covers_any_case(wanted)) {
            true => Ok(()),
            false => Err(Why::NotAllowed { from: &self.from }),
        }
    }

    /// Checks that some triple of a pattern is allowed.
    ///
    /// # Errors
    /// The rule that decided.
    pub fn check_some(&self, wanted: &Pattern) -> Result<(), Why<'_>> {
        let mut denied = None;
        for rule in self.allow.iter().filter(|rule| rule.pattern.overlaps_any_case(wanted)) {
            // What is left of this pattern is denied whole if one rule covers the part that both have.
            let common = rule.pattern.common(wanted);
            match self.deny.iter().find(|deny| common.as_ref().is_some_and(|it| deny.pattern.covers_any_case(it))) {
                Some(rule) => denied = Some(rule),
                None => return Ok(()),
            }
        }
        Err(denied.map_or(Why::NotAllowed { from: &self.from }, Why::Denied))
    }

    /// Returns whether `other` does not allow everything of a pattern that this allows.
    #[must_use]
    pub fn loses(&self, other: &Self, of: &Pattern) -> bool {
        // As in `check_whole`, what several patterns cover together, one of them covers.
        let denies = |part: &Pattern| self.deny.iter().any(|rule| rule.pattern.covers_any_case(part));
        let parts = self.allow.iter().filter_map(|rule| rule.pattern.common(of));
        parts.filter(|part| !denies(part)).any(|part| {
            let denied = || other.deny.iter().filter_map(|rule| rule.pattern.common(&part));
            !other.allow.iter().any(|rule| rule.pattern.covers_any_case(&part)) || denied().any(|part| !denies(&part))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(patterns: &[&str]) -> Rules {
        let rule = |it: &&str| Rule { pattern: it.parse().unwrap(), from: "role 'agent'".into() };
        patterns.iter().map(rule).collect()
    }

    fn right(allow: &[&str], deny: &[&str]) -> Right {
        Right { allow: rules(allow), deny: rules(deny), from: "role 'agent'".into() }
    }

    #[test]
    fn denied_patterns_win_and_case_does_not_count() {
        let right = right(&["Phone/*/*"], &["phone/Admin/*"]);
        let check = |triple: [&'static str; 3]| {
            right.check(&Triple::new(triple[0], triple[1], triple[2])).map_err(|why| why.to_string())
        };
        assert_eq!(check(["PHONE", "Call", "Start"]), Ok(()));
        let denied = "the pattern phone/Admin/* in 'deny' of role 'agent' denies it".to_owned();
        assert_eq!(check(["Phone", "admin", "Reset"]), Err(denied));
        assert_eq!(check(["Payroll", "Run", "Start"]), Err("no pattern of role 'agent' allows it".to_owned()));
    }

    #[test]
    fn a_pattern_is_allowed_whole_or_in_part_or_not_at_all() {
        let right = right(&["Phone/*/*", "Desk/Lamp/*"], &["Phone/Admin/*", "Desk/*/Off"]);
        let check = |pattern: &str| {
            let pattern = pattern.parse().unwrap();
            (right.check_whole(&pattern).is_ok(), right.check_some(&pattern).is_ok())
        };
        assert_eq!(check("Phone/Call/*"), (true, true));
        assert_eq!(check("Phone/*/*"), (false, true));
        assert_eq!(check("*/*/*"), (false, true));
        assert_eq!(check("phone/admin/Reset"), (false, false));
        assert_eq!(check("*/Admin/*"), (false, false));
        assert_eq!(check("Desk/Lamp/Off"), (false, false));
        assert_eq!(check("Payroll/*/*"), (false, false));
    }

    #[test]
    fn a_right_loses_what_another_one_does_not_allow() {
        let before = right(&["Phone/*/*", "Desk/Lamp/*"], &["Phone/Admin/*"]);
        let loses = |allow: &[&str], deny: &[&str], of: &str| before.loses(&right(allow, deny), &of.parse().unwrap());
        assert!(!loses(&["*/*/*"], &[], "*/*/*"));
        assert!(!loses(&["phone/*/*", "Desk/*/*"], &["Phone/admin/*"], "*/*/*"));
        assert!(!loses(&["*/*/*"], &["Phone/Admin/Reset", "Payroll/*/*"], "*/*/*"));
        assert!(loses(&["Phone/Call/*", "Desk/*/*"], &[], "*/*/*"));
        assert!(!loses(&["Phone/Call/*"], &[], "Phone/Call/*"));
        assert!(loses(&["*/*/*"], &["*/*/Reset"], "Phone/*/*"));
        assert!(!loses(&["*/*/*"], &["Desk/*/*"], "Phone/*/*"));
        assert!(loses(&[], &[], "Desk/Lamp/On"));
        assert!(!loses(&[], &[], "Payroll/*/*"));
    }
}
