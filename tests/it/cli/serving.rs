//! `switchboard serve`: its exit codes, its signals and its log.

use super::*;

async fn serve(arguments: &[&str]) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let mut command = command(&[&["serve", "--listen", "127.0.0.1:0"], arguments].concat());
    command.arg("--data-dir").arg(folder.path().join("data"));
    run_with(command, "").await
}

#[tokio::test]
async fn an_unknown_word_in_the_log_filter_is_exit_code_2() {
    for (filter, word) in [("warning", "warning"), ("info,switchboard::ruter=debug", "switchboard::ruter")] {
        let outcome = serve(&["--log", filter]).await;
        outcome.has(2, &format!("error: '{word}' in the log filter"));
        outcome.has(2, "off, error, warn, info, debug, trace");
        assert_eq!(outcome.stdout, "");
    }
    serve(&["--log", "hyper=debug"]).await.has(2, "info,hyper=debug");
    let mut by_variable = command(&["serve", "--listen", "127.0.0.1:0"]);
    by_variable.env("SWITCHBOARD_LOG", "warning");
    run_with(by_variable, "").await.has(2, "error: 'warning' in the log filter");
}

#[tokio::test]
async fn an_address_in_use_and_a_wrong_configuration_are_exit_code_2() {
    let broker = Broker::start().await;
    serve(&["--listen", &broker.address().to_string()]).await.has(2, "is in use");
    serve(&["--config", "/nowhere"]).await.has(2, "error: ");
}

#[tokio::test]
async fn a_hangup_is_logged_and_nothing_else() {
    let broker = Broker::start().await;
    let mut app = broker.app("softphone").await;
    broker.signal("HUP").await;
    broker.log_until("the line about SIGHUP", |log| log.contains("INFO") && log.contains("SIGHUP")).await;
    app.fence().await;
    let _another = broker.app("another").await;
}

#[track_caller]
fn assert_json(log: &str) {
    assert!(!log.is_empty());
    for line in log.lines() {
        let line: Result<Value, _> = serde_json::from_str(line);
        assert!(line.is_ok_and(|line| line["level"].is_string() && line["timestamp"].is_string()), "{log}");
    }
}

#[tokio::test]
async fn a_json_log_is_nothing_but_json_for_a_whole_run() {
    // Warnings at start: open mode, and a burst below the rate.
    let toml = "auth.mode = 'open'\nlimits = { rate = 10, burst = 1 }";
    let mut broker = Broker::launch(Some(toml), &["--log-format", "json", "--log", "debug"]).await;
    drop(broker.app("softphone").await);
    broker.log_until("a registration", |log| log.contains("softphone")).await;
    broker.signal("HUP").await;
    broker.log_until("the line about SIGHUP", |log| log.contains("SIGHUP")).await;
    broker.terminate().await;
    assert_eq!(broker.exit_code().await, Some(0));
    let log = broker.log();
    assert!(log.contains("open mode trusts") && log.contains("limits.burst is below limits.rate"), "{log}");
    assert_json(&log);
}

#[tokio::test]
async fn a_json_log_is_nothing_but_json_if_the_broker_does_not_start() {
    let broker = Broker::start().await;
    let address = broker.address().to_string();
    for (arguments, expected) in [
        (["--config", "/nowhere"].as_slice(), "/nowhere"),
        (&["--config", "/nowhere", "--log", "off"], "/nowhere"),
        (&["--log", "warning"], "warning"),
        (&["--listen", &address], "is in use"),
        (&["--no-such-option"], "--no-such-option"),
        (&["--listen"], "--listen"),
    ] {
        let outcome = serve(&[&["--log-format", "json"], arguments].concat()).await;
        outcome.has(2, expected);
        assert_json(&outcome.stderr);
        let outcome = serve(&[arguments, &["--log-format=json"]].concat()).await;
        assert!(expected == "--listen" || outcome.stderr.contains(expected), "{outcome:?}");
        assert_json(&outcome.stderr);
    }
    let mut by_variable = command(&["--no-such-option"]);
    by_variable.env("SWITCHBOARD_LOG_FORMAT", "json");
    let outcome = run_with(by_variable, "").await;
    outcome.has(2, "--no-such-option");
    assert_json(&outcome.stderr);
}

#[tokio::test]
async fn warnings_about_the_configuration_are_printed_at_start() {
    let broker = Broker::with_config("limits = { rate = 10, burst = 1 }").await;
    let log = broker.log();
    assert!(log.contains("warning: limits.burst is below limits.rate") && log.contains("nobody can register"), "{log}");
}

/// The first line of the banner works in open mode, where an application is of the user that it names.
#[tokio::test]
async fn the_subscriber_of_the_banner_sees_the_events_of_every_user() {
    let broker = Broker::start().await;
    let log = broker.log();
    let line = log.lines().find(|line| line.contains(" sub ")).unwrap_or_else(|| panic!("no example: {log}"));
    let mut spy = Beside::of(command(&line.split_whitespace().skip(1).collect::<Vec<_>>()));
    let told = spy.told().await;
    assert!(told.starts_with("subscribed to */*/*"), "{told}");
    let mut app = broker.app_of("myapp", "alice").await;
    app.publish("Phone/Call/Ringing", 1).await;
    let event: Value = serde_json::from_str(&spy.line().await).unwrap();
    assert_eq!((&event["source"], &event["user"]), (&json!("myapp"), &json!("alice")));
}
