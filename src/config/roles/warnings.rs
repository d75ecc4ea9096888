//! Warnings about rights that contradict each other, or that change nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::row::OWN;
use super::{Role, each_right};
use crate::auth::{Permission, Right, Rights, Rule};
use crate::config::rules::{is_protected, is_shared};
use crate::config::{Application, AuthMode, Config, quoted};
use wire::Pattern;

/// Returns the warnings. `name` names the row of this number.
pub(crate) fn warnings(config: &Config, name: impl Fn(usize) -> String) -> Vec<String> {
    let of_roles = config.roles.0.iter().flat_map(|(name, role)| of_role(config, &quoted(name), role));
    let of_rows = config.applications.iter().enumerate().flat_map(|(at, row)| of_row(config, &name(at), row));
    of_roles.chain(of_rows).chain(unused(config)).collect()
}

fn of_role(config: &Config, name: &str, role: &Role) -> Vec<String> {
    let mut warnings = Vec::new();
    for (key, right) in each_right(&role.rights) {
        warnings.extend(contradictions(&format!("roles.{name}"), key, right, |_| true));
    }
    let grants = [
        ("protected_request", role.protected_request.as_ref(), "request", "protected triples"),
        ("protected_handle", Some(&role.protected_handle), "handle", "protected triples and shared channels"),
    ];
    for (key, grant, right, scope) in grants {
        let Some(Permission::Patterns(patterns)) = grant else { continue };
        let of_scope =
            |pattern: &Pattern| is_protected(config, pattern) || right == "handle" && is_shared(config, pattern);
        for (at, pattern) in patterns.iter().enumerate() {
            let own = format!("roles.{name}.{key}[{at}]");
            if !of_scope(pattern) {
                warnings.push(format!("{own} has no effect: it is about {scope} only"));
            } else if !allows_some(&role.rights, right, pattern) {
                warnings.push(format!("{own} has no effect: '{right}' of the role allows none of it"));
            }
        }
    }
    if !role.observe.is_nobody() && role.rights.subscribe.allow.is_empty() {
        warnings.push(format!("roles.{name}.observe has no effect: 'subscribe' of the role allows nothing"));
    }
    warnings
}

/// The warnings about the row's own patterns: those of a role are reported with the role.
fn of_row(config: &Config, name: &str, row: &Application) -> Vec<String> {
    let mut warnings = Vec::new();
    if row.permissions.users.is_nobody() {
        let nothing = "the service receives nothing on channels that are not shared";
        warnings.push(format!("{name}.users is empty: {nothing}"));
    }
    let Some(rights) = &row.permissions.rights else { return warnings };
    let role = row.role.as_ref().and_then(|role| config.roles.0.get(role));
    // Thousands of rows may share the rights of one role.
    let has_own = !role.is_some_and(|role| Arc::ptr_eq(&role.rights, rights));
    for (key, right) in each_right(rights).into_iter().filter(|_| has_own) {
        let is_own = |rule: &Rule| &*rule.from == OWN;
        warnings.extend(contradictions(&format!("{name}.permissions"), key, right, is_own));
    }
    let grants = [("handle", row.handle.as_slice()), ("request", row.request.as_deref().unwrap_or_default())];
    for (key, patterns) in grants {
        for (number, _) in patterns.iter().enumerate().filter(|(_, pattern)| !allows_some(rights, key, pattern)) {
            let reason = format!("the general right '{key}' of the application allows none of it");
            warnings.push(format!("{name}.{key}[{number}] has no effect: {reason}"));
        }
    }
    warnings
}

/// Patterns of a right that allow nothing or deny nothing. Pairs of two patterns that were both inherited are left out.
fn contradictions(place: &str, key: &str, right: &Right, is_own: impl Fn(&Rule) -> bool) -> Vec<String> {
    let mut warnings = Vec::new();
    for allowed in &*right.allow {
        let mut denying = right.deny.iter().filter(|denied| is_own(allowed) || is_own(denied));
        if let Some(denied) = denying.find(|denied| denied.pattern.covers_any_case(&allowed.pattern)) {
            let (allowed, denied) = (&allowed.pattern, &denied.pattern);
            let why = format!("because the denied pattern {denied} covers it");
            warnings.push(format!("{place}.{key}: the pattern {allowed} allows nothing, {why}"));
        }
    }
    for denied in right.deny.iter().filter(|denied| is_own(denied)) {
        if !right.allow.iter().any(|allowed| allowed.pattern.overlaps_any_case(&denied.pattern)) {
            let denied = &denied.pattern;
            let why = "because no allowed pattern overlaps it";
            warnings.push(format!("{place}.deny.{key}: the pattern {denied} denies nothing, {why}"));
        }
    }
    warnings
}

/// Returns whether the general right allows some triple of a grant.
fn allows_some(rights: &Rights, right: &str, grant: &Pattern) -> bool {
    each_right(rights).into_iter().any(|(key, it)| key == right && it.check_some(grant).is_ok())
}

/// Warns about roles that neither an application nor an issuer has.
fn unused(config: &Config) -> Vec<String> {
    if config.auth == AuthMode::Open {
        return Vec::new();
    }
    let claims = || config.issuers.iter().map(|issuer| &issuer.claims);
    if claims().any(|claims| claims.roles.is_some()) {
        // A token can name any role.
        return Vec::new();
    }
    let of_rows = config.applications.iter().filter_map(|row| row.role.as_deref());
    let used: BTreeSet<&str> = of_rows.chain(claims().filter_map(|claims| claims.role.as_deref())).collect();
    let unused = config.roles.names().filter(|name| !used.contains(name));
    unused
        .map(|name| format!("roles.{} is not used: no application and no issuer has this role", quoted(name)))
        .collect()
}
