//! Reload by SIGHUP: what it changes for sessions, and what it refuses.

use std::process::Stdio;

use serde_json::json;
use tokio::process::Command;

use crate::support::http::{HANDSHAKE, http};
use crate::support::{Broker, Peer, application, envelope, token_of, within};

/// Waits for the end of a session whose proof was removed.
async fn revoked(peer: &mut Peer) {
    peer.next_error("UNAUTHENTICATED").await;
    assert_eq!(peer.closed().await, 4401);
}

/// The same application with the hash of a token that nobody has.
fn with_another_token(application: &str) -> String {
    let line = |line: &str| match line.starts_with("token_sha256") {
        true => format!("token_sha256 = \"{}\"\n", "ab".repeat(32)),
        false => format!("{line}\n"),
    };
    application.lines().map(line).collect()
}

#[tokio::test]
async fn sessions_end_whose_row_token_user_or_kind_is_gone() {
    let alice = Some("alice");
    let staying = application("kept", alice, "");
    let before = ["removed", "token", "user"].map(|source| application(source, alice, "")).concat();
    let broker =
        Broker::with_config(&[&before, &application("kind", None, ""), &staying].map(String::as_str).concat()).await;
    let mut ending = Vec::new();
    for source in ["removed", "token", "user", "kind"] {
        let mut app = broker.app_by_token(source).await;
        app.subscribe("*/*/*").await;
        ending.push(app);
    }
    let mut kept = broker.app_by_token("kept").await;
    kept.subscribe("Phone/*/*").await;

    let after = [
        &with_another_token(&application("token", alice, "")),
        &application("user", Some("bob"), ""),
        &application("kind", alice, ""),
        &staying,
    ];
    broker.configure(&after.map(String::as_str).concat());
    let line = broker.reload().await;
    assert!(line.contains("changed=\"applications\" ended=4 rights=0"), "{line}");
    for app in &mut ending {
        revoked(app).await;
    }
    kept.publish("Phone/Call/Ringing", 1).await;
    kept.fence().await;
    let mut late = broker.raw("late").await;
    let reply = late.register("removed", json!({"token": token_of("removed")})).await;
    assert_eq!(reply["data"]["ErrorCode"], "UNAUTHENTICATED");
    let mut user = broker.raw("user").await;
    let reply = user.register("user", json!({"token": token_of("user")})).await;
    assert_eq!(reply["data"]["User"], "bob");
}

#[tokio::test]
async fn a_file_that_is_added_to_or_removed_from_the_folder_takes_effect() {
    let folder = tempfile::tempdir().unwrap();
    let file = |source: &str| folder.path().join(format!("{source}.toml"));
    std::fs::write(file("old"), application("old", Some("alice"), "")).unwrap();
    let broker = Broker::with_config(&format!("applications_dir = '{}'", folder.path().display())).await;
    let mut old = broker.app_by_token("old").await;
    std::fs::write(file("new"), application("new", Some("alice"), "")).unwrap();
    std::fs::remove_file(file("old")).unwrap();
    broker.reload().await;
    revoked(&mut old).await;
    drop(broker.app_by_token("new").await);
}

#[tokio::test]
async fn changed_rights_of_a_row_hold_for_its_live_sessions() {
    let rows = |handle: &str, request: &str, observe: &str| {
        [
            application("cti", None, handle),
            application("softphone", Some("alice"), request),
            application("wallboard", Some("bob"), observe),
        ]
        .concat()
    };
    let on = ("handle = [\"*/Agent/Login\"]", "request = [\"*/*/*\"]", "observe = true");
    let broker = Broker::with_config(&rows(on.0, on.1, on.2)).await;
    let (mut cti, mut softphone) = (broker.app_by_token("cti").await, broker.app_by_token("softphone").await);
    let mut wallboard = broker.app_by_token("wallboard").await;
    cti.handle("Cisco/*/*").await;
    softphone.ask("Cisco/Agent/Login", "1").await;
    let request = cti.next().await;
    cti.reply(&request, json!({"data": {"Success": true}})).await;
    softphone.next_answer("Cisco/Agent/Login", "1").await;

    broker.configure(&rows("", on.1, ""));
    let line = broker.reload().await;
    assert!(line.contains("ended=0 rights=2"), "{line}");
    softphone.ask("Cisco/Agent/Login", "2").await;
    softphone.next_failure("Cisco/Agent/Login", "NO_HANDLER").await;
    let code = wallboard.subscribe_refused("*/*/*", json!({"user": "alice"})).await;
    assert_eq!(code, "FORBIDDEN");

    broker.configure(&rows(on.0, "request = []", on.2));
    broker.reload().await;
    softphone.ask("Cisco/Agent/Login", "3").await;
    softphone.next_failure("Cisco/Agent/Login", "FORBIDDEN").await;
    wallboard.subscribe_with("*/*/*", json!({"user": "alice"})).await;
}

#[tokio::test]
async fn a_reload_applies_all_or_nothing() {
    let row = application("softphone", Some("alice"), "");
    let broker = Broker::with_config(&row).await;
    let mut app = broker.app_by_token("softphone").await;
    for (toml, expected) in [
        ("limits = { rate = 'fast' }", "switchboard.toml:1: limits.rate: must be a whole number"),
        (
            "data_dir = '/else'\nlisten = ['127.0.0.1:1']\n[http]\nallowed_hosts = ['b']\n[credentials]\naudit_required = false",
            "these keys have changed and need a restart: credentials.audit_required",
        ),
        ("applications_dir = '/nowhere'", "names a folder that cannot be read"),
    ] {
        // Without the row, and with an origin.
        broker.configure(&format!("{toml}\n"));
        let line = broker.reload().await;
        assert!(line.contains("ERROR") && line.contains("the reload was refused"), "{line}");
        assert!(broker.log().contains(expected), "{}", broker.log());
        app.fence().await;
        drop(broker.app_by_token("softphone").await);
    }
    broker.configure(&row);
    let line = broker.reload().await;
    assert!(line.contains("number=1") && line.contains("changed=\"\""), "{line}");
    app.fence().await;
}

#[tokio::test]
async fn origins_and_hosts_hold_for_new_connections() {
    let broker = Broker::with_config(&application("softphone", Some("alice"), "")).await;
    let head = HANDSHAKE.replace("Host: localhost", "Host: switchboard.example\r\nOrigin: https://crm.example");
    assert_eq!(http(broker.address(), &head).await.status, 421);
    let mut app = broker.app_by_token("softphone").await;
    let hosts = "http = { allowed_hosts = ['switchboard.example'], allowed_origins = ['https://crm.example'] }\n";
    broker.configure(&format!("{hosts}{}", application("softphone", Some("alice"), "")));
    let line = broker.reload().await;
    assert!(line.contains("changed=\"http.allowed_origins, http.allowed_hosts\""), "{line}");
    assert_eq!(http(broker.address(), &head).await.status, 101);
    app.fence().await;
}

#[tokio::test]
async fn the_outcome_names_keys_and_never_values() {
    let broker = Broker::with_config("").await;
    let row = application("softphone", Some("alice"), "");
    broker.configure(&format!("http.allowed_origins = ['https://secret.example']\n{row}"));
    let line = broker.reload().await;
    assert!(line.contains("changed=\"http.allowed_origins, applications\""), "{line}");
    let log = broker.log();
    let value = |it: &str| log.lines().any(|line| line.contains("reload") && line.contains(it));
    assert!(!["secret.example", "softphone", "alice"].into_iter().any(value), "{log}");
}

#[tokio::test]
async fn limits_hold_for_live_sessions() {
    let row = application("softphone", Some("alice"), "");
    let broker = Broker::with_config(&row).await;
    let (mut app, mut other) = (broker.app_by_token("softphone").await, broker.app_by_token("softphone").await);
    app.subscribe("Phone/*/*").await;
    broker.configure(&format!("limits = {{ subscriptions = 1, malformed = 1, connections = 2 }}\n{row}"));
    let line = broker.reload().await;
    assert!(line.contains("changed=\"limits.subscriptions, limits.connections, limits.malformed\""), "{line}");
    assert_eq!(app.subscribe_refused("Desk/*/*", json!({})).await, "TOO_MANY_SUBSCRIPTIONS");
    assert_eq!(http(broker.address(), HANDSHAKE).await.status, 503);
    other.send_text("not JSON").await;
    other.next_error("INVALID_JSON").await;
    assert_eq!(other.closed().await, 1008);
}

#[tokio::test]
async fn requests_and_channels_follow_the_new_configuration() {
    let rows = [application("softphone", Some("alice"), ""), application("board", Some("bob"), "")].concat();
    let channel = "[channels.Queue]\nscope = 'shared'\n".to_owned();
    let broker = Broker::with_config(&format!("{channel}{rows}")).await;
    let mut app = broker.app_by_token("softphone").await;
    let mut board = broker.app_by_token("board").await;
    board.subscribe("Queue/*/*").await;
    app.publish("Queue/Stats/Now", 1).await;
    board.next_on("Queue/Stats/Now").await;

    let only = "requests = { only = ['Phone/Call/Dial'] }\n";
    broker.configure(&format!("{only}{channel}publish = 'services'\n{rows}"));
    let line = broker.reload().await;
    assert!(line.contains("changed=\"requests.only, channels.Queue.publish\""), "{line}");
    app.publish("Queue/Stats/Now", 2).await;
    app.next_error("FORBIDDEN").await;
    app.ask("Phone/Call/Dial", "1").await;
    app.next_failure("Phone/Call/Dial", "NO_HANDLER").await;
    board.expect_nothing_from(&mut app).await;

    broker.configure(&format!("{channel}retain = 'durable'\n{rows}"));
    let line = broker.reload().await;
    assert!(line.contains("need a restart: channels.Queue.retain"), "{line}");
    app.ask("Phone/Call/Dial", "2").await;
    app.next_failure("Phone/Call/Dial", "NO_HANDLER").await;
}

#[tokio::test]
async fn a_triple_that_becomes_protected_is_shown_to_nobody() {
    let rows = application("softphone", Some("alice"), "");
    let broker = Broker::with_config(&rows).await;
    let mut app = broker.app_by_token("softphone").await;
    for triple in ["Phone/Pin/Set", "Phone/Call/State"] {
        app.send(envelope(triple, json!({"retain": true, "data": 1}))).await;
    }
    app.fence().await;
    broker.configure(&format!("protected.patterns = ['*/Pin/*']\n{rows}"));
    broker.reload().await;
    let mut late = broker.app_by_token("softphone").await;
    late.subscribe("Phone/*/*").await;
    assert_eq!(late.next().await["topic"], "Call");
    late.expect_nothing_from(&mut app).await;
    app.publish("Phone/Pin/Set", 2).await;
    app.next_failure("Phone/Pin/Set", "NO_HANDLER").await;
    late.expect_nothing().await;
}

#[tokio::test]
async fn without_a_configuration_file_a_hangup_is_only_logged() {
    let broker = Broker::start().await;
    let mut app = broker.app("softphone").await;
    broker.signal("HUP").await;
    broker.log_until("the line about SIGHUP", |log| log.contains("there is no configuration file")).await;
    app.fence().await;
}

#[tokio::test]
async fn the_warnings_of_a_new_configuration_are_logged() {
    let row = application("softphone", Some("alice"), "");
    let broker = Broker::with_config(&row).await;
    broker.configure(&format!("http.same_user = false\n{row}"));
    let line = broker.reload().await;
    assert!(line.contains("changed=\"http.same_user\""), "{line}");
    let log = broker.log();
    let is_warning =
        |line: &str| line.contains("WARN") && line.contains("programs of every user of this host can connect");
    assert!(log.lines().any(is_warning), "{log}");
}

/// A service manager may send it as soon as the process runs.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_hangup_during_the_start_does_not_end_the_broker() {
    let folder = tempfile::tempdir().unwrap();
    let rows: String = (0..2000).map(|number| application(&format!("app{number}"), Some("alice"), "")).collect();
    std::fs::write(folder.path().join("switchboard.toml"), rows).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--config"]).arg(folder.path().join("switchboard.toml"));
    command.arg("--data-dir").arg(folder.path().join("data")).kill_on_drop(true);
    let log = std::fs::File::create(folder.path().join("log")).unwrap();
    let mut broker = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
    let id = broker.id().unwrap();
    // From the moment that it holds the signal (bit 0 of the mask).
    let holds = || {
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
        mask.is_some_and(|mask| u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask & 1 == 1))
    };
    within("a start that holds SIGHUP", async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let sent = Command::new("kill").args(["-HUP", &id.to_string()]).status().await.unwrap();
    assert!(sent.success());
    let mut line = String::new();
    let mut stdout = tokio::io::BufReader::new(broker.stdout.take().unwrap());
    within("its line", tokio::io::AsyncBufReadExt::read_line(&mut stdout, &mut line)).await.unwrap();
    assert!(line.starts_with("listening on"), "{line}");
    // What arrived meanwhile is a reload.
    within("a reload", async {
        while !std::fs::read_to_string(folder.path().join("log")).unwrap().contains("the configuration was reloaded") {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
