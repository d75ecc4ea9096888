//! Whatever is written: nothing panics the loader, and no value is quoted.

use proptest::prelude::*;
use switchboard::config::{Row, rows};

use super::table::file_of;
use super::{Given, load, told};

/// Pieces of which texts are made that come near to a configuration.
const PIECES: &str = "[ ] [[ ]] { } = , . ' \" \"\"\" # \\u 0x 1 - 1e9 true nan 1979-05-27 limits rate burst applications \
                      source user token_sha256 role roles permissions deny publish channels Queue scope listen 127.0.0.1:1 auth mode open http allowed_origins \
                      https:// * protected patterns a/b/c requests timeout 10s 999999999999999999999y \u{feff} \0 ä";
fn piece() -> impl Strategy<Value = &'static str> {
    prop::sample::select(PIECES.split(' ').chain(["\n", " "]).collect::<Vec<_>>())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_panics_the_loader(text in "\\PC{0,200}") {
        drop(load(&Given { file: Some(&text), ..Given::default() }));
    }

    #[test]
    fn no_pieces_of_a_configuration_panic_the_loader(pieces in prop::collection::vec(piece(), 0..80)) {
        drop(load(&Given { file: Some(&pieces.concat()), ..Given::default() }));
    }

    #[test]
    fn no_value_of_a_variable_panics_the_loader(at in 0..30_usize, text in "[^\0]{0,60}") {
        let rows = rows();
        let variable = rows[at].variable.clone().unwrap();
        drop(load(&Given { variables: &[(variable.as_str(), &text), ("SWITCHBOARD__Ä", &text)], ..Given::default() }));
    }

    #[test]
    fn no_message_quotes_a_value(before in "[a-z:/@. ]{0,9}", after in "[a-z:/@.,\\]' ]{0,9}") {
        let value = format!("{before}hunter2-SECRET{after}");
        let toml = toml::Value::String(value.clone()).to_string();
        let rows = rows();
        let lists = |row: &Row| if row.kind.starts_with("list") { format!("[{toml}]") } else { toml.clone() };
        let application: String = rows.iter().filter_map(|row| {
            row.key.strip_prefix("applications[].").map(|key| format!("{key} = {}\n", lists(row)))
        }).collect();
        let channel: String = rows.iter().filter_map(|row| {
            row.key.strip_prefix("channels.NAME.").map(|key| format!("{key} = {}\n", lists(row)))
        }).collect();
        let role: String = rows.iter().filter_map(|row| {
            row.key.strip_prefix("roles.NAME.").map(|key| format!("{key} = {}\n", lists(row)))
        }).collect();
        let once = file_of(&rows, |row| (row.kind != "path").then(|| lists(row)));
        let broken = format!("password = {toml} {value}\n");
        let file = format!("{broken}{once}[[applications]]\npassword = {toml}\n{application}[channels.Q]\n{channel}[roles.R]\n{role}");
        let variables: Vec<(&str, &str)> =
            rows.iter().filter_map(|row| row.variable.as_deref()).map(|name| (name, value.as_str())).collect();
        let outcome = load(&Given { file: Some(&file), variables: &variables, ..Given::default() });
        let told = told(&outcome);
        prop_assert!(!told.contains("hunter2"), "{}", told);
        let inside = format!("{:?}", outcome.unwrap_err());
        prop_assert!(!inside.contains("hunter2"), "{}", inside);
    }
}
