//! `switchboard apps`, and the arguments that all client commands share.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use super::*;

#[tokio::test]
async fn applications_are_listed() {
    let broker = Broker::start().await;
    let _one = broker.app("softphone").await;
    let _two = broker.app("softphone").await;
    let table = run(&url(&broker), &["apps"]).await;
    table.has(0, "");
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "[time]");
    settings.bind(|| {
        insta::assert_snapshot!(table.stdout, @r"
        SOURCE     USER   SESSIONS  STATE   SINCE
        shell      local  1         active  [time]
        softphone  local  2         active  [time]
        ");
    });
    let list = run(&url(&broker), &["apps", "--json"]).await;
    assert_eq!(list.values()[0][1]["Sessions"], 2);
}

#[tokio::test]
async fn a_token_comes_from_a_file_or_the_environment_and_is_never_shown() {
    let broker = Broker::with_config(&application("shell", Some("alice"), "")).await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| secret_file(&folder, name, text);
    let token = token_of("shell");
    for (name, text) in
        [("plain", token.clone()), ("line", format!("{token}\n")), ("bom", format!("\u{feff}{token}\r\n"))]
    {
        run(&url(&broker), &["apps", "--token-file", &file(name, &text)]).await.has(0, "");
    }

    let outcome = run(&url(&broker), &["apps", "--token-file", &file("bad", "not-the-token")]).await;
    outcome.has(1, "hint: --token-file or SWITCHBOARD_TOKEN");
    assert!(outcome.stderr.starts_with("UNAUTHENTICATED: "), "{outcome:?}");
    assert!(!outcome.stderr.contains("not-the-token"), "{outcome:?}");

    run(&url(&broker), &["apps"]).await.has(1, "UNAUTHENTICATED: ");
    run(&url(&broker), &["apps", "--token-file", &file("empty", " \n")]).await.has(2, "is empty");
    run(&url(&broker), &["apps", "--token-file", "/nowhere"]).await.has(2, "the token file /nowhere: ");
    let shared = file("shared", &token);
    std::fs::set_permissions(&shared, Permissions::from_mode(0o640)).unwrap();
    run(&url(&broker), &["apps", "--token-file", &shared]).await.has(2, "open to other users");
    run(&url(&broker), &["apps", "--token", &token_of("shell")]).await.has(2, "--token");
}

/// Another program may replace the file at any time.
#[tokio::test]
async fn a_token_file_is_read_again_and_a_refused_token_that_was_not_replaced_ends_the_command() {
    let broker = FakeBroker::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = secret_file(&folder, "token", "old\n");
    let mut sub = Beside::spawn(&broker.url(), "shell", &["sub", "Phone", "--token-file", &file]);
    let (mut peer, register) = broker.session().await;
    assert_eq!(register["data"]["token"], "old");
    peer.grant().await;
    std::fs::write(&file, "new\n").unwrap();
    peer.say(event("Broker/Connection/Expiring", json!({ "ExpiresInSeconds": 60 }))).await;
    let renew = peer.expect("Broker/Application/Renew").await;
    assert_eq!(renew["data"]["token"], "new");
    peer.answer(&renew, json!({ "Success": true, "ErrorMessage": null, "ExpiresInSeconds": 3600 })).await;

    std::fs::write(&file, "newer").unwrap();
    peer.close(4401, "the proof of identity has expired").await;
    let (peer, register) = broker.session().await;
    assert_eq!(register["data"]["token"], "newer");
    peer.close(4401, "the proof of identity has expired").await;
    assert_eq!(sub.code().await, Some(1));
}

#[tokio::test]
async fn url_source_and_user_come_from_the_environment() {
    let broker = Broker::start().await;
    let mut apps = command(&["apps", "--json"]);
    apps.env("SWITCHBOARD_URL", url(&broker)).env("SWITCHBOARD_SOURCE", "shell").env("SWITCHBOARD_USER", "alice");
    let outcome = run_with(apps, "").await;
    assert_eq!(
        (&outcome.values()[0][0]["Source"], &outcome.values()[0][0]["User"]),
        (&json!("shell"), &json!("alice"))
    );
}

#[tokio::test]
async fn no_broker_is_exit_code_3() {
    let outcome = run("ws://127.0.0.1:1/ws", &["apps"]).await;
    outcome.has(3, "hint: no broker is listening there");
    assert!(outcome.stderr.starts_with("error: could not connect to 127.0.0.1:1: "), "{outcome:?}");
}

#[tokio::test]
async fn a_refused_handshake_is_exit_code_3() {
    let broker = Broker::start().await;
    for (path, status) in [("", 200), ("/", 200), ("/elsewhere", 404)] {
        let outcome = run(&format!("ws://{}{path}", broker.address()), &["apps"]).await;
        outcome.has(3, &format!("HTTP status {status}"));
        outcome.has(3, "hint: the WebSocket is at /ws;");
    }
}

#[tokio::test]
async fn wrong_usage_is_exit_code_2() {
    for line in [
        &["nonsense"][..],
        &["pub", "Phone", "Call", "Ringing"],
        &["pub", "Phone", "Call", "--source", "shell"],
        &["pub", "Phone", "*", "Ringing", "--source", "shell"],
        &["pub", "Broker", "Call", "Ringing", "--source", "shell"],
        &["sub", "Phone/Call", "--source", "shell"],
        &["sub", "--count", "0", "--source", "shell"],
        &["request", "Crm", "Contact", "Find", "--timeout", "10", "--source", "shell"],
        &["request", "Crm", "Contact", "Find", "--timeout", "0s", "--source", "shell"],
        &["handle", "Crm", "Contact", "Find", "--source", "shell"],
        &["handle", "Crm", "Contact", "Find", "--source", "shell", "--reply", "1", "--exec", "true"],
        &["apps", "--source", "shell", "--url", "https://127.0.0.1/ws"],
        &["apps", "--source", "shell", "--ca-file", "/nowhere"],
        &["apps", "--source", "shell", "--url", "wss://127.0.0.1/ws", "--ca-file", "/nowhere"],
        &["pub", "Phone", "Call", "Ringing", "--source", "shell", "--id", ""],
        &["pub", "Phone", "Call", "Ringing", "--source", "shell", "--once"],
        &["handle", "Crm", "Contact", "Find", "--source", "shell", "--reply", "1", "--replies", "Contact/Found"],
        &["apps", "--source", ""],
    ] {
        let outcome = run_with(command(line), "").await;
        assert_eq!(outcome.code, Some(2), "{line:?}: {outcome:?}");
        assert!(outcome.stdout.is_empty(), "{line:?}: {outcome:?}");
    }
}
