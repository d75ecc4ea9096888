//! The table of keys, the loader, the defaults and docs/configuration.md agree.

use std::collections::BTreeSet;
use std::fs;

use switchboard::config::{Config, Limits, Row, document, rows};

use super::{Given, load, told};

/// A TOML text of every single key, with the value that `value` gives it.
pub(super) fn file_of(rows: &[Row], value: impl Fn(&Row) -> Option<String>) -> String {
    let once = rows.iter().filter(|row| row.variable.is_some());
    once.filter_map(|row| value(row).map(|value| format!("{} = {value}\n", row.key))).collect()
}

/// A value of the row's type that is not its default, if there is one.
pub(super) fn other(row: &Row) -> Option<String> {
    if row.key.starts_with("auth.salesforce_") && row.kind == "text" {
        return Some(needed(row).unwrap_or("'else'").to_owned());
    }
    Some(match row.kind.as_str() {
        // Alone they would be mistakes.
        _ if row.key.starts_with("tls.") && row.key != "tls.client_required" => return None,
        _ if row.key.starts_with("cluster.") => return None,
        // It needs a certificate, and the next one another address than the other listeners.
        _ if row.key == "admin.tls" => return None,
        _ if row.key == "admin.listen" => "['127.0.0.1:78']".to_owned(),
        _ if row.key == "admin.ready_requires" => "['history']".to_owned(),
        // At most the size after registration.
        _ if row.key == "limits.registration_bytes" => "76".to_owned(),
        // It names a folder that exists.
        _ if row.key == "applications_dir" => return None,
        "whole number" => "77".to_owned(),
        "duration" => "'77s'".to_owned(),
        "path" => "'elsewhere'".to_owned(),
        "list of patterns" => "['a/b/c']".to_owned(),
        "table of `size`, `ttl` and `durable`" => "{ size = 77, ttl = '77s' }".to_owned(),
        "`\"durable\"`" => "'durable'".to_owned(),
        "list of addresses and networks" => "['10.0.0.0/8']".to_owned(),
        "`\"x-forwarded-for\"` or `\"forwarded\"`" => "'forwarded'".to_owned(),
        "list of `HOST:PORT`" | "list of `HOST:PORT` or `unix:PATH`" => "['127.0.0.1:77']".to_owned(),
        // Alone they would be mistakes, and so would the other words of two more.
        _ if ["salesforce.insecure_http", "salesforce.variables.states"].contains(&row.key.as_str()) => return None,
        "list of texts" => "['null']".to_owned(),
        "`\"open\"` or `\"tokens\"`" => "'tokens'".to_owned(),
        "`true` or `false`" => (row.default != "true").to_string(),
        "`\"user_id\"` or `\"username\"` or `\"federation_id\"` or `\"email\"`" => "'email'".to_owned(),
        "`\"user_id\"` or `\"username\"` or `\"federation_id\"`" => "'username'".to_owned(),
        "`\"directory\"` or `\"salesforce\"`" | "`\"query\"` or `\"external_id\"` or `\"apex\"`" | "text" => {
            return None;
        }
        kind => panic!("{}: no other value for {kind}", row.key),
    })
}

/// What a table that proves users cannot do without.
pub(super) fn needed(row: &Row) -> Option<&'static str> {
    let key = row.key.strip_prefix("auth.salesforce_")?.rsplit('.').next()?;
    Some(match key {
        "org_id" => "'00D000000000007'",
        "host" => "'https://127.0.0.1:7'",
        "audience" | "client_id" | "certificate_file" | "client_secret_file" => "'needed'",
        _ => return None,
    })
}

fn is_value(row: &Row) -> bool {
    toml::from_str::<toml::Table>(&format!("it = {}", row.default)).is_ok()
}

#[test]
fn the_defaults_in_the_table_are_the_defaults_of_the_program() {
    // Any key of a table that proves users turns it on, and a key of [cluster] needs others.
    let alone = |row: &Row| !row.key.starts_with("auth.salesforce_") && !row.key.starts_with("cluster.");
    let always = |row: &Row| is_value(row) && alone(row);
    let file = file_of(&rows(), |row| always(row).then(|| row.default.to_owned()));
    assert_eq!(file.lines().count(), 102, "other defaults are words:\n{file}");
    let loaded = load(&Given { file: Some(&file), ..Given::default() }).unwrap();
    let default = Config::default();
    assert_eq!(loaded, Config { listen_is_default: false, data_dir: loaded.data_dir.clone(), ..default });
}

#[test]
fn the_defaults_of_a_table_that_proves_users_are_those_of_the_program() {
    let rows: Vec<Row> = rows().into_iter().filter(|row| row.key.starts_with("auth.salesforce_")).collect();
    let short = file_of(&rows, |row| needed(row).map(str::to_owned));
    let long =
        file_of(&rows, |row| needed(row).map(str::to_owned).or_else(|| is_value(row).then(|| row.default.to_owned())));
    assert_eq!((short.lines().count(), long.lines().count()), (9, 22), "{long}");
    let loaded = |file: &str| load(&Given { file: Some(file), ..Given::default() });
    assert_eq!(loaded(&short).unwrap(), loaded(&long).unwrap());
    assert_eq!(loaded(&short).unwrap().proofs.each().len(), 3);
}

#[test]
fn file_and_environment_take_the_same_keys() {
    let rows = rows();
    let all = load(&Given { file: Some(&file_of(&rows, other)), ..Given::default() }).unwrap();
    for row in rows.iter().filter(|row| row.variable.is_some()) {
        let Some(value) = other(row).filter(|_| needed(row).is_none()) else { continue };
        let text = value.trim_matches(['[', ']', '\'']);
        let file = file_of(&rows, |it| if it == row { None } else { other(it) });
        let variable = row.variable.as_deref().unwrap();
        let without = load(&Given { file: Some(&file), ..Given::default() }).unwrap();
        let with = load(&Given { file: Some(&file), variables: &[(variable, text)], ..Given::default() }).unwrap();
        assert_eq!(with, all, "{}", row.key);
        assert!(without != all || row.key == "auth.mode", "{} decides nothing", row.key);
    }
}

#[test]
fn every_limit_has_a_key() {
    let limits = format!("{:?}", Limits::default());
    let inside = limits.trim_start_matches("Limits { ").trim_end_matches(" }");
    let fields: BTreeSet<String> =
        inside.split(", ").map(|field| format!("limits.{}", field.split(':').next().unwrap())).collect();
    let keys: BTreeSet<String> =
        rows().into_iter().map(|row| row.key).filter(|key| key.starts_with("limits.")).collect();
    assert_eq!(fields, keys);
}

#[test]
fn the_page_is_the_one_that_the_program_prints() {
    let page = fs::read_to_string("docs/configuration.md").unwrap_or_default();
    let hint = "run: cargo run -- check --print-reference > docs/configuration.md";
    assert!(page == document(), "docs/configuration.md is stale; {hint}");
    for row in rows() {
        assert!(!row.meaning.contains("  "), "{}: a line of its meaning does not end in a backslash", row.key);
        assert!(
            page.contains(&format!("| `{}` |", row.key.trim_start_matches("it."))),
            "{} is not in the page",
            row.key
        );
    }
}

#[test]
fn every_example_of_the_page_loads() {
    let page = document();
    let examples: Vec<&str> = page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(examples.len() >= 3);
    for example in examples {
        let outcome = load(&Given { file: Some(example), ..Given::default() });
        assert!(outcome.is_ok(), "{}\n{example}", told(&outcome));
    }
}
