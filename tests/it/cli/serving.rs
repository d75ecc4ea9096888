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
    for (filter, word) in [("verbose", "verbose"), ("info,switchboard::ruter=debug", "switchboard::ruter")] {
        let outcome = serve(&["--log", filter]).await;
        outcome.has(2, &format!("error: '{word}' in the log filter"));
        assert_eq!(outcome.stdout, "");
    }
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

#[tokio::test]
async fn a_json_log_is_nothing_but_json() {
    let broker = Broker::launch(None, &["--log-format", "json"]).await;
    let _app = broker.app("softphone").await;
    broker.log_until("a registration", |log| log.contains("softphone")).await;
    let failed = serve(&["--log-format", "json", "--config", "/nowhere"]).await;
    failed.has(2, "");
    let unknown = serve(&["--log-format", "json", "--log", "verbose"]).await;
    unknown.has(2, "verbose");
    for log in [broker.log(), failed.stderr, unknown.stderr] {
        for line in log.lines() {
            let line: Result<Value, _> = serde_json::from_str(line);
            assert!(line.is_ok_and(|line| line["level"].is_string()), "{log}");
        }
    }
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
