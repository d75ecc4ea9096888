//! The configuration of a running broker: what is in force, and how it is reloaded.

use super::*;
use crate::support::application;

const ADMIN: &str = "[admin]\nlisten = ['127.0.0.1:0']\n";

/// Returns a key of `/v1/config`.
fn key<'a>(keys: &'a Value, name: &str) -> &'a Value {
    keys["keys"].as_array().unwrap().iter().find(|key| key["key"] == name).unwrap_or_else(|| panic!("no {name}"))
}

#[tokio::test]
async fn every_key_in_force_says_where_it_was_set_and_no_secret_is_shown() {
    let toml = format!(
        "{}\n[limits]\nrate = 7\n[channels.Queue]\nscope = 'shared'\nhistory = {{ size = 5, ttl = '1m' }}\n\
         [roles.agent]\npublish = ['Phone/*/*']\nsubscribe = []\nrequest = []\nhandle = []\n{ADMIN}{TOKENS}",
        application("phone", Some("alice"), "")
    );
    let site = Site::with(&toml).await;
    let answer = site.call("reader", "GET", "/v1/config", None).await;
    let keys = answer.json();
    let line = |text: &str| toml.lines().position(|line| line.starts_with(text)).unwrap() + 1;
    let at = |text: &str| {
        let folder = site.broker.data_dir().parent().unwrap().to_owned();
        json!(format!("{}:{}", folder.join("switchboard.toml").display(), line(text)))
    };
    for (name, value, set) in [
        ("limits.rate", json!(7), at("rate")),
        ("limits.burst", json!(2000), json!("default")),
        ("requests.timeout", json!("10s"), json!("default")),
        ("auth.mode", json!("tokens"), json!("default")),
        ("listen", json!(["127.0.0.1:0"]), json!("--listen")),
        ("data_dir", json!(site.broker.data_dir().to_str().unwrap()), json!("--data-dir")),
        (
            "protected.patterns",
            json!(["*/User/FetchCredentials", "*/Agent/SetUserInfo", "*/Connection/ReInit", "*/Agent/Login"]),
            json!("default"),
        ),
        ("channels.Queue.scope", json!("shared"), at("scope")),
        ("channels.Queue.history", json!({"size": 5, "ttl": "1m"}), at("history")),
        ("roles.agent.publish", json!(["Phone/*/*"]), at("publish")),
        ("admin.tokens[0].name", json!("reader"), at("name")),
        ("admin.tokens[0].token_sha256", json!("set"), at("token_sha256 = \"3")),
        ("applications", json!(1), json!("default")),
    ] {
        let found = key(&keys, name);
        assert_eq!(found["value"], value, "{name}");
        assert_eq!(found["set"], set, "{name}");
    }
    for single in switchboard::config::rows().iter().filter(|row| row.variable.is_some()) {
        key(&keys, &single.key);
    }
    let hashes = toml.lines().filter_map(|line| line.strip_prefix("token_sha256 = "));
    for hash in hashes {
        assert!(!answer.text.contains(hash.trim_matches(['"', '\''])), "{hash}");
    }
}

#[tokio::test]
async fn a_reload_puts_all_in_force_or_nothing_and_a_dry_run_nothing() {
    let with = |more: &str| format!("auth.mode = 'open'\n{more}\n{ADMIN}{TOKENS}");
    let site = Site::with(&with("")).await;
    let reload = async |query: &str, body: Option<Value>| {
        site.call("actor", "POST", &format!("/v1/reload{query}"), body.as_ref()).await
    };
    let rate = async || key(&site.get("/v1/config").await, "limits.rate")["value"].clone();
    let answer = reload("", None).await.json();
    let unchanged =
        json!({"applied": true, "number": 1, "changed": [], "restart": [], "ended": 0, "warnings": answer["warnings"]});
    assert_eq!(answer, unchanged);

    site.broker.configure(&with("limits.rate = 7"));
    let dry = reload("?dry_run=true", None).await.json();
    assert_eq!((&dry["applied"], &dry["changed"]), (&json!(false), &json!(["limits.rate"])), "{dry}");
    assert_eq!(rate().await, 1000);
    let answer = reload("", None).await.json();
    assert_eq!((&answer["changed"], &answer["number"]), (&json!(["limits.rate"]), &json!(2)), "{answer}");
    assert_eq!(rate().await, 7);

    site.broker.configure(&with("limits.rate = 'x'\nlimits.burst = 0"));
    let refused = reload("", None).await;
    refused.is_problem(422, "INVALID_CONFIG");
    assert!(refused.text.contains("limits.rate") && refused.text.contains("limits.burst"), "{refused:?}");

    site.broker.configure(&with("limits.rate = 8\ncredentials.audit_required = false"));
    let dry = reload("?dry_run=true", None).await.json();
    assert_eq!(dry["changed"], json!(["limits.rate"]));
    assert_eq!(dry["restart"], json!(["credentials.audit_required"]));
    let refused = reload("", None).await;
    refused.is_problem(409, "RESTART_NEEDED");
    assert!(refused.text.contains("credentials.audit_required"), "{refused:?}");
    assert_eq!(rate().await, 7);
    let answer = reload("", Some(json!({"restart_keys": "ignore"}))).await.json();
    assert_eq!((&answer["applied"], &answer["changed"]), (&json!(true), &json!(["limits.rate"])), "{answer}");
    assert_eq!(answer["restart"], json!(["credentials.audit_required"]));
    assert_eq!(rate().await, 8);
    assert_eq!(key(&site.get("/v1/config").await, "credentials.audit_required")["value"], json!(true));
    // It still differs.
    reload("", None).await.is_problem(409, "RESTART_NEEDED");

    for (query, body) in [
        ("?dry_run=maybe", None),
        ("?dry=true", None),
        ("", Some(json!({"restart_keys": "keep"}))),
        ("", Some(json!({"restartKeys": "ignore"}))),
    ] {
        reload(query, body).await.is_problem(400, "INVALID_REQUEST");
    }
    let first = &site.records_of(1).await[0];
    assert_eq!(
        (&first["target"], &first["arguments"]),
        (&json!("POST /v1/reload"), &json!({"dry_run": false, "restart_keys": "refuse", "cluster": false}))
    );
}

#[tokio::test]
async fn a_planned_change_never_holds_up_a_revocation() {
    let with = |more: &str| format!("{more}\n{ADMIN}{TOKENS}");
    let (phone, log) = (application("phone", Some("alice"), ""), application("log", Some("alice"), ""));
    let site = Site::with(&with(&format!("{phone}{log}"))).await;
    let mut stolen = site.broker.app_by_token("phone").await;
    let mut good = site.broker.app_by_token("log").await;
    site.broker.configure(&with(&format!("credentials.audit_required = false\n{log}")));
    let body = json!({"restart_keys": "ignore"});
    let answer = site.call("actor", "POST", "/v1/reload", Some(&body)).await.json();
    assert_eq!((&answer["ended"], &answer["changed"]), (&json!(1), &json!(["applications"])), "{answer}");
    assert_eq!(stolen.until_closed().await.1, 4401);
    good.fence().await;
}

#[tokio::test]
async fn without_a_configuration_file_there_is_nothing_to_reload() {
    let broker = Broker::without_a_file_with_admin().await;
    let token = std::fs::read_to_string(broker.data_dir().join("admin.token")).unwrap();
    let site = Site::of(broker).await;
    let answer = site.call(token.trim_end(), "POST", "/v1/reload", None).await;
    answer.is_problem(409, "NO_CONFIG_FILE");
}
