//! Configuration: the layers, and which one counts. The rest, a topic a file, uses the same `check`.

mod admin;
mod changes;
mod cluster;
mod commands;
mod folder;
mod hints;
mod issuers;
mod keys;
mod origins;
mod permissions;
mod proof;
mod rights;
mod rights_model;
mod roles;
mod salesforce;
mod salesforce_objects;
mod same_user;
mod table;
mod texts;
mod tls;
mod tokens;
mod trial;

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use switchboard::config::{Config, LoadOptions, Mistakes};

const HASH: &str = "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";

/// What a configuration is made from, in a test.
#[derive(Default)]
struct Given<'a> {
    file: Option<&'a str>,
    variables: &'a [(&'a str, &'a str)],
    listen: &'a [&'a str],
    data_dir: Option<&'a str>,
}

fn load(given: &Given<'_>) -> Result<Config, Mistakes> {
    let folder = tempfile::tempdir().unwrap();
    let file = given.file.map(|text| {
        let path = folder.path().join("f.toml");
        fs::write(&path, text).unwrap();
        path
    });
    Config::load(LoadOptions {
        file,
        environment: given.variables.iter().map(|(name, value)| (name.into(), value.into())).collect(),
        listen: given.listen.iter().map(ToString::to_string).collect(),
        data_dir: given.data_dir.map(PathBuf::from),
    })
}

/// What the operator reads: the mistakes, or warnings and summary. The folder of the file is left out, as is the data
/// folder of this machine and what every summary has.
fn told(outcome: &Result<Config, Mistakes>) -> String {
    match outcome {
        Err(mistakes) => mistakes.to_string().lines().fold(String::new(), |mut text, line| {
            let line = line.split_once("/f.toml:").map_or(line, |(_, rest)| rest);
            writeln!(text, "{line}").unwrap();
            text
        }),
        Ok(config) => {
            let warnings = config.warnings.iter().map(|warning| format!("warning: {warning}"));
            let summary = config.summary().into_iter().filter(|line| {
                !(line.starts_with("data: ") && line.ends_with("/switchboard"))
                    && *line
                        != "protected: */User/FetchCredentials, */Agent/SetUserInfo, */Connection/ReInit, */Agent/Login"
            });
            warnings.chain(summary).fold(String::new(), |mut text, line| {
                writeln!(text, "{line}").unwrap();
                text
            })
        }
    }
}

#[track_caller]
fn check(given: &Given<'_>, expected: &str) {
    let expected: String = expected.lines().map(|line| line.trim().to_owned() + "\n").collect();
    let told: String = told(&load(given)).lines().map(|line| line.trim().to_owned() + "\n").collect();
    assert_eq!(told.trim(), expected.trim());
}

#[track_caller]
fn check_file(file: &str, expected: &str) {
    check(&Given { file: Some(file), ..Given::default() }, expected);
}

#[track_caller]
fn check_variables(variables: &[(&str, &str)], expected: &str) {
    check(&Given { variables, ..Given::default() }, expected);
}

#[test]
fn nothing_at_all_is_open_on_both_loopback_families() {
    check(
        &Given::default(),
        "mode: open, for development: no token is asked
         listen: 127.0.0.1:7420, [::1]:7420",
    );
    assert!(load(&Given::default()).unwrap().listen_is_default);
    assert!(load(&Given::default()).unwrap().data_dir.ends_with("switchboard"));
}

#[test]
fn a_file_asks_for_tokens_unless_it_says_otherwise() {
    check_file(
        "",
        "warning: auth.mode is \"tokens\" and [[applications]] lists none: nobody can register
         mode: tokens
         listen: 127.0.0.1:7420, [::1]:7420
         applications: 0, services among them: 0",
    );
    check_file(
        "auth.mode = 'open'",
        "mode: open, for development: no token is asked
         listen: 127.0.0.1:7420, [::1]:7420",
    );
}

#[test]
fn flags_lie_over_the_environment_over_the_file() {
    let file = "listen = ['127.0.0.1:1']\ndata_dir = 'a'\nlimits = { rate = 1, burst = 7 }\nauth.mode = 'open'";
    let variables = &[
        ("SWITCHBOARD__LISTEN", "127.0.0.1:2, [::1]:2"),
        ("SWITCHBOARD__DATA_DIR", "b"),
        ("SWITCHBOARD__LIMITS__RATE", "2"),
        ("SWITCHBOARD_TOKEN", "not a key"),
        ("SWITCHBOARD_CREDENTIALS_KEY", "not a key"),
    ];
    let mode = "mode: open, for development: no token is asked\n";
    let expected = "listen: 127.0.0.1:1\ndata: a\nnot default: limits.rate = 1, limits.burst = 7";
    check_file(file, &format!("{mode}{expected}"));
    let expected = "listen: 127.0.0.1:2, [::1]:2\ndata: b\nnot default: limits.rate = 2, limits.burst = 7";
    check(&Given { file: Some(file), variables, ..Given::default() }, &format!("{mode}{expected}"));
    let expected = "listen: 127.0.0.1:3, [::1]:0\ndata: c\nnot default: limits.rate = 2, limits.burst = 7";
    let flags = Given { file: Some(file), variables, listen: &["127.0.0.1:3", "[::1]:0"], data_dir: Some("c") };
    check(&flags, &format!("{mode}{expected}"));
    assert!(!load(&flags).unwrap().listen_is_default);
}

#[test]
fn a_list_in_a_variable_has_commas_or_is_toml() {
    for list in ["null,https://a.example", " null , https://a.example, ", "[\"null\", 'https://a.example']"] {
        let config = load(&Given { variables: &[("SWITCHBOARD__HTTP__ALLOWED_ORIGINS", list)], ..Given::default() });
        assert_eq!(config.unwrap().http.allowed_origins, ["null", "https://a.example"], "{list}");
    }
    for list in ["", "[]", "[ ]"] {
        let config = load(&Given { variables: &[("SWITCHBOARD__PROTECTED__PATTERNS", list)], ..Given::default() });
        assert_eq!(config.unwrap().protected, [], "{list}");
    }
}

#[test]
fn a_mistaken_variable_is_told_by_its_name() {
    check_variables(
        &[
            ("SWITCHBOARD__LIMITS__RAET", "1"),
            ("SWITCHBOARD__limits__burst", "1"),
            ("SWITCHBOARD__BURST", "1"),
            ("SWITCHBOARD__NOTHING_LIKE_IT", "1"),
            ("SWITCHBOARD__CHANNELS__QUEUE__SCOPE", "shared"),
            ("SWITCHBOARD__APPLICATIONS", "[]"),
            ("SWITCHBOARD__ROLES__AGENT__PUBLISH", "a/b/c"),
            ("SWITCHBOARD__SALESFORCE__TIMEOUT", "8"),
            ("SWITCHBOARD__SALESFORCE__OBJECTS__TASK__UPDATE", "true"),
            ("SWITCHBOARD__SALESFORCE__EVENTS__TOPICS__NOTICE__TOPIC", "/event/A__e"),
            ("SWITCHBOARD__LIMITS__RATE", "fast"),
            ("SWITCHBOARD__LIMITS__DRAIN", "5"),
            ("SWITCHBOARD__LISTEN", "127.0.0.1:1,here"),
        ],
        "environment: SWITCHBOARD__APPLICATIONS: applications and channels can be set in the file only
         environment: SWITCHBOARD__BURST: unknown variable
           hint: did you mean SWITCHBOARD__LIMITS__BURST?
         environment: SWITCHBOARD__CHANNELS__QUEUE__SCOPE: applications and channels can be set in the file only
         environment: SWITCHBOARD__LIMITS__DRAIN: must be a duration with a unit in quotes, such as \"250ms\" or \"10s\"
         environment: SWITCHBOARD__LIMITS__RAET: unknown variable
           hint: did you mean SWITCHBOARD__LIMITS__RATE?
         environment: SWITCHBOARD__LIMITS__RATE: must be a whole number
         environment: SWITCHBOARD__LISTEN: must be HOST:PORT with an address as HOST, such as 127.0.0.1:7420 or [::1]:7420
         environment: SWITCHBOARD__NOTHING_LIKE_IT: unknown variable
         environment: SWITCHBOARD__ROLES__AGENT__PUBLISH: roles can be set in the file only
         environment: SWITCHBOARD__SALESFORCE__EVENTS__TOPICS__NOTICE__TOPIC: salesforce.events.topics can be set in the file only
         environment: SWITCHBOARD__SALESFORCE__OBJECTS__TASK__UPDATE: salesforce.objects can be set in the file only
         environment: SWITCHBOARD__SALESFORCE__TIMEOUT: must be a duration with a unit in quotes, such as \"250ms\" or \"10s\"
         environment: SWITCHBOARD__limits__burst: unknown variable
           hint: did you mean SWITCHBOARD__LIMITS__BURST?",
    );
}
