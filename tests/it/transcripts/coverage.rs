//! Every rule of docs/protocol.md has a transcript, and every transcript says which rule it shows and is played.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::transcript::list::{
    FOLDER, file_of, transcripts_for_everyone, transcripts_with_a_clock, transcripts_with_adapters,
};
use crate::support::transcript::{Names, Transcript};

/// The numbered rules: of each group its letter or number and how many there are.
const RULES: &[(&str, usize)] = &[("1", 5), ("2", 20), ("3", 3), ("4", 8), ("O", 6)];

/// The parts of the protocol without numbers that a transcript can show.
const TOPICS: &[&str] = &[
    "Envelope",
    "Errors",
    "Explain",
    "History",
    "Limits",
    "Lists",
    "Liveness",
    "Presence",
    "Pressure",
    "Publisher retry",
    "Register",
    "Renew",
    "Resume",
    "Retained values",
    "Scope",
    "Session",
    "Subscribe",
    "Unsubscribe",
    "Will",
];

macro_rules! names {
    ($($name:ident)*) => { &[$(stringify!($name)),*] };
}

const FOR_EVERYONE: &[&str] = transcripts_for_everyone!(names);
const WITH_A_CLOCK: &[&str] = transcripts_with_a_clock!(names);
const WITH_ADAPTERS: &[&str] = transcripts_with_adapters!(names);

fn read(name: &str) -> String {
    let file = file_of(name);
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Returns the numbers of the rules: `1.1`, `2.20`, `O.6`.
pub(crate) fn numbered_rules() -> impl Iterator<Item = String> {
    RULES.iter().flat_map(|(group, count)| (1..=*count).map(move |at| format!("{group}.{at}")))
}

/// Returns the subject of a transcript, from its first line: `# Rule 2.7: …` or `# Scope: …`.
pub(crate) fn subject_of(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let subject = line.strip_prefix("# ").and_then(|line| line.split_once(": ")).map(|(subject, _)| subject.to_owned());
    subject.unwrap_or_else(|| panic!("the first line of a transcript does not say what is shown: {line}"))
}

#[test]
fn every_rule_has_a_transcript() {
    let numbers = numbered_rules().map(|number| format!("Rule {number}"));
    let expected: BTreeSet<String> = numbers.chain(TOPICS.iter().map(|topic| (*topic).to_owned())).collect();
    let names = [FOR_EVERYONE, WITH_A_CLOCK, WITH_ADAPTERS].concat();
    let shown: BTreeSet<String> = names.iter().map(|name| subject_of(&read(name))).collect();
    let missing: Vec<&String> = expected.difference(&shown).collect();
    let unknown: Vec<&String> = shown.difference(&expected).collect();
    assert!(missing.is_empty(), "no transcript shows {missing:?}");
    assert!(unknown.is_empty(), "there is no rule or topic {unknown:?}");
}

#[test]
fn every_transcript_is_played() {
    for entry in std::fs::read_dir(FOLDER).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        let Some(name) = file.strip_suffix(".txt").map(|name| name.replace('-', "_")) else {
            continue;
        };
        let transcript = Transcript::read(&read(&name));
        let list = match (transcript.needs_a_clock(), transcript.needs_adapters) {
            (false, false) => FOR_EVERYONE,
            (true, false) => WITH_A_CLOCK,
            (false, true) => WITH_ADAPTERS,
            (true, true) => panic!("{file}: no player has both a clock and adapters"),
        };
        assert!(list.contains(&name.as_str()), "{file}: add it to the right list in list.rs");
    }
}

#[test]
fn a_message_that_differs_is_noticed() {
    let matches = |expected: Value, found: Value| Names::default().compare(&expected, &found).is_ok();
    let found = json!({"id": "r1", "data": {"Success": false, "ErrorCode": "NO_HANDLER", "ErrorMessage": "no 'crm'"}});
    for expected in [
        json!({"id": "<any>", "data": "<failure:NO_HANDLER>"}),
        json!({"id": "<id:r>", "data": "<failure:NO_HANDLER:crm>"}),
        json!({"data": {"ErrorCode": "NO_HANDLER", "...": "<any>"}, "...": "<any>"}),
        json!({"id": "r1", "data": {"ErrorMessage": "<has:crm>", "Success": false, "ErrorCode": "<any>"}}),
    ] {
        assert!(matches(expected.clone(), found.clone()), "{expected}");
    }
    for expected in [
        json!({"id": "r2", "data": "<any>"}),
        json!({"data": "<any>"}),
        json!({"id": "<any>", "data": "<any>", "user": "<any>"}),
        json!({"id": "<uuid>", "data": "<any>"}),
        json!({"id": "<time>", "data": "<any>"}),
        json!({"id": "$r", "data": "<any>"}),
        json!({"id": "<any>", "data": "<success>"}),
        json!({"id": "<any>", "data": "<failure:FORBIDDEN>"}),
        json!({"id": "<any>", "data": "<failure:NO_HANDLER:softphone>"}),
        json!({"id": "<any>", "data": {"Success": false, "ErrorCode": "NO_HANDLER"}}),
    ] {
        assert!(!matches(expected.clone(), found.clone()), "{expected}");
    }
    // A payload has its keys and items in their order, and what the broker makes has none.
    assert!(!matches(json!({"data": {"a": 1, "b": 2}}), json!({"data": {"b": 2, "a": 1}})));
    assert!(!matches(json!({"data": [1, 2]}), json!({"data": [2, 1]})));
    assert!(matches(
        json!({"data": {"Success": true, "Failed": [1, 2]}}),
        json!({"data": {"Failed": [2, 1], "Success": true}})
    ));
    assert!(!matches(
        json!({"data": {"Success": true, "Failed": [1, 2]}}),
        json!({"data": {"Success": true, "Failed": [1]}})
    ));
}
