//! Rights by random roles and rows, against a model that knows only lists of patterns.

use std::fmt::Write as _;

use proptest::collection::vec;
use proptest::prelude::*;
use switchboard::auth::{Permissions, Principal, Right};
use switchboard::config::Config;
use wire::{Pattern, Triple};

use super::{Given, HASH, load};

const RIGHTS: [&str; 4] = ["publish", "subscribe", "request", "handle"];

/// Allowed and denied patterns for each of the four rights.
type Lists = [(Vec<String>, Vec<String>); 4];

/// What a row writes into `permissions`; the allowed patterns of a right may be left out.
type Own = [(Option<Vec<String>>, Vec<String>); 4];

fn pattern() -> impl Strategy<Value = String> {
    ("[PQ*]", "[Xx*]", "[YZ*]").prop_map(|(channel, topic, subtopic)| format!("{channel}/{topic}/{subtopic}"))
}

fn lists() -> impl Strategy<Value = Lists> {
    let list = || vec(pattern(), 0..3);
    std::array::from_fn(|_| (list(), list()))
}

fn own() -> impl Strategy<Value = Own> {
    std::array::from_fn(|_| (prop::option::of(vec(pattern(), 0..3)), vec(pattern(), 0..2)))
}

/// Whether some pattern is a set that the triple is in, whatever the letter case.
fn matched(patterns: &[String], triple: [&str; 3]) -> bool {
    patterns.iter().any(|pattern| {
        pattern.split('/').zip(triple).all(|(part, value)| part == "*" || part.eq_ignore_ascii_case(value))
    })
}

fn triples() -> impl Iterator<Item = [&'static str; 3]> {
    let parts = ["p", "Q", "R"].into_iter().flat_map(|channel| ["x", "W"].map(|topic| (channel, topic)));
    parts.flat_map(|(channel, topic)| ["Y", "z"].map(|subtopic| [channel, topic, subtopic]))
}

/// A file with these roles, and rows that have them.
fn file(roles: &[Lists], own: &Own) -> String {
    let mut text = String::new();
    let inline = |denied: &mut dyn Iterator<Item = (&str, &Vec<String>)>| {
        let lists: Vec<_> = denied.map(|(right, patterns)| format!("{right} = {patterns:?}")).collect();
        format!("{{ {} }}", lists.join(", "))
    };
    for (number, lists) in roles.iter().enumerate() {
        writeln!(text, "[roles.r{number}]").unwrap();
        for (right, (allowed, _)) in RIGHTS.iter().zip(lists) {
            writeln!(text, "{right} = {allowed:?}").unwrap();
        }
        let mut denied = RIGHTS.into_iter().zip(lists.iter().map(|(_, denied)| denied));
        writeln!(text, "deny = {}", inline(&mut denied)).unwrap();
    }
    writeln!(text, "[[applications]]\nsource = 'a'\nuser = 'u'\ntoken_sha256 = '{HASH}'\nrole = 'r0'").unwrap();
    writeln!(text, "[applications.permissions]").unwrap();
    for (right, (allowed, _)) in RIGHTS.iter().zip(own) {
        if let Some(allowed) = allowed {
            writeln!(text, "{right} = {allowed:?}").unwrap();
        }
    }
    let mut denied = RIGHTS.into_iter().zip(own.iter().map(|(_, denied)| denied));
    writeln!(text, "deny = {}", inline(&mut denied)).unwrap();
    text
}

fn rights(permissions: &Permissions) -> [&Right; 4] {
    let rights = permissions.rights.as_ref().unwrap();
    [&rights.publish, &rights.subscribe, &rights.request, &rights.handle]
}

fn config(roles: &[Lists], own: &Own) -> Config {
    let file = file(roles, own);
    load(&Given { file: Some(&file), ..Given::default() }).unwrap_or_else(|mistakes| panic!("{mistakes}\n{file}"))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn several_roles_allow_what_one_of_them_allows_and_none_denies(roles in vec(lists(), 1..4), own in own()) {
        let config = config(&roles, &own);
        let names: Vec<String> = (0..roles.len()).map(|number| format!("r{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let permissions = config.roles.permissions(&names, &Principal::User("u".into())).unwrap();
        for (number, right) in rights(&permissions).into_iter().enumerate() {
            for triple in triples() {
                let allowed = roles.iter().any(|lists| matched(&lists[number].0, triple));
                let denied = roles.iter().any(|lists| matched(&lists[number].1, triple));
                let [channel, topic, subtopic] = triple;
                let found = right.check(&Triple::new(channel, topic, subtopic)).is_ok();
                prop_assert_eq!(found, allowed && !denied, "{} of {:?}", RIGHTS[number], triple);
            }
        }
    }

    #[test]
    fn a_row_replaces_the_allowed_patterns_of_its_role_and_adds_denied_ones(role in lists(), own in own()) {
        let config = config(std::slice::from_ref(&role), &own);
        let permissions = &config.applications[0].permissions;
        for (number, right) in rights(permissions).into_iter().enumerate() {
            let allow = own[number].0.as_ref().unwrap_or(&role[number].0);
            for triple in triples() {
                let denied = matched(&role[number].1, triple) || matched(&own[number].1, triple);
                let [channel, topic, subtopic] = triple;
                let found = right.check(&Triple::new(channel, topic, subtopic)).is_ok();
                prop_assert_eq!(found, matched(allow, triple) && !denied, "{} of {:?}", RIGHTS[number], triple);
                // A handler of one triple needs no more than that triple.
                let exactly = Pattern::exactly(&Triple::new(channel, topic, subtopic));
                prop_assert_eq!(right.check_whole(&exactly).is_ok(), found);
            }
        }
    }
}
