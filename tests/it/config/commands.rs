//! `switchboard check` and `switchboard token`, as a script sees them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use secrecy::SecretString;
use serde_json::Value;

/// Runs the program; gives its exit code and its standard output.
fn run(arguments: &[&str], variables: &[(&str, &str)], folder: &Path) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
    let output = command.args(arguments).envs(variables.iter().copied()).current_dir(folder).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn check_prints_each_mistake_with_its_line_and_ends_with_2() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("f.toml"), "[limits]\n  raet = 1\nburst = 0\n").unwrap();
    let variables = &[("SWITCHBOARD__LIMITS__RATE", "x")];
    let (code, text) = run(&["check", "--config", "f.toml"], variables, folder.path());
    let expected = "f.toml:2: limits.raet: unknown key\n  hint: did you mean limits.rate?\n\
                    f.toml:3: limits.burst: must be at least 1\n\
                    environment: SWITCHBOARD__LIMITS__RATE: must be a whole number\n3 mistakes\n";
    assert_eq!((code, text.as_str()), (2, expected));

    let (code, text) = run(&["check", "--config", "f.toml", "--json"], variables, folder.path());
    let told: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &told["ok"]), (2, &Value::Bool(false)));
    let expected = serde_json::json!({
        "file": "f.toml", "line": 2, "column": 3, "variable": null, "key": "limits.raet",
        "message": "unknown key", "nearest": "limits.rate",
    });
    assert_eq!(told["mistakes"][0], expected);
    assert_eq!(told["mistakes"][2]["variable"], "SWITCHBOARD__LIMITS__RATE");
    assert_eq!(told["mistakes"][2]["file"], Value::Null);
}

#[test]
fn check_without_mistakes_ends_with_0() {
    let folder = tempfile::tempdir().unwrap();
    let (code, text) = run(&["check"], &[], folder.path());
    assert!(code == 0 && text.ends_with("no mistakes\n"), "{text}");
    let (code, text) = run(&["check", "--json"], &[], folder.path());
    assert_eq!((code, text.as_str()), (0, "{\"ok\":true,\"mistakes\":[],\"warnings\":[]}\n"));
}

#[test]
fn check_prints_warnings_and_refuses_them_if_it_is_strict() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("f.toml"), "limits.burst = 1\nlimits.outbound_bytes = 1\n").unwrap();
    let check = |more: &[&str]| run(&[&["check", "--config", "f.toml"], more].concat(), &[], folder.path());
    let (code, text) = check(&[]);
    assert!(code == 0 && text.starts_with("warning: ") && text.ends_with("no mistakes\n"), "{text}");
    let (code, text) = check(&["--strict"]);
    assert!(code == 2 && text.ends_with("3 warnings\n"), "{text}");
    for (arguments, code, ok) in [(["--json"].as_slice(), 0, true), (&["--json", "--strict"], 2, false)] {
        let (found, text) = check(arguments);
        let told: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((found, &told["ok"], &told["mistakes"]), (code, &Value::Bool(ok), &serde_json::json!([])));
        let warnings: Vec<&str> =
            told["warnings"].as_array().unwrap().iter().map(|it| it["message"].as_str().unwrap()).collect();
        assert!(warnings.len() == 3 && warnings.iter().any(|it| it.contains("limits.outbound_bytes")), "{warnings:?}");
    }
    let (code, _) = run(&["check", "--strict"], &[], folder.path());
    assert_eq!(code, 0, "nothing to warn about");
}

#[test]
fn token_new_prints_a_token_and_its_hash() {
    let folder = tempfile::tempdir().unwrap();
    let mut tokens = BTreeSet::new();
    for _ in 0..4 {
        let (code, text) = run(&["token", "new", "--json"], &[], folder.path());
        let told: Value = serde_json::from_str(&text).unwrap();
        let token = told["token"].as_str().unwrap().to_owned();
        assert!(token.len() == 43 && token.bytes().all(|it| it.is_ascii_alphanumeric() || b"-_".contains(&it)));
        let hash = hex::encode(switchboard::auth::hash_token(&SecretString::from(token.as_str())));
        assert_eq!((code, told["token_sha256"].as_str()), (0, Some(hash.as_str())));
        tokens.insert(token);
    }
    assert_eq!(tokens.len(), 4, "tokens repeat");
    let (code, text) = run(&["token", "new"], &[], folder.path());
    let words: Vec<&str> = text.split_whitespace().collect();
    assert_eq!((code, words.len(), words[0], words[2]), (0, 4, "token:", "token_sha256:"));
}
