//! `switchboard pub`.

use super::*;

#[tokio::test]
async fn data_comes_from_an_argument_a_file_or_standard_input() {
    let broker = Broker::start().await;
    let mut hearer = broker.app("hearer").await;
    hearer.subscribe("Phone/*/*").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("data.json");
    std::fs::write(&file, "\u{feff}[\"file\"]\n").unwrap();
    let file = format!("@{}", file.display());
    for (data, expected) in [("-1", "-1"), ("\"text\"", "\"text\""), (&file, "[\"file\"]"), ("-", "{\"in\":1}")] {
        let line = ["pub", "Phone", "Call", "Ringing", data, "--source", "shell", "--url", &url(&broker)];
        run_with(command(&line), "{\"in\":1}\n").await.has(0, "");
        assert_eq!(hearer.next_on("Phone/Call/Ringing").await["data"].to_string(), expected);
    }
}

#[tokio::test]
async fn options_are_fields_of_the_envelope() {
    let broker = FakeBroker::start().await;
    let url = broker.url();
    let line =
        ["pub", "Phone", "Call", "Ringing", "1", "--id", "e1", "--once", "--message", "--target", "crm", "--json"];
    let peer = async {
        let (mut peer, _) = broker.session().await;
        let event = peer.next().await;
        let fields = [&event["id"], &event["once"], &event["message"], &event["target"], &event["data"]];
        assert_eq!(fields, [&json!("e1"), &json!(true), &json!(1), &json!("crm"), &Value::Null]);
        let data = json!({ "Success": true, "ErrorMessage": null, "Receivers": 2, "Duplicate": true, "Offset": 7,
            "Epoch": "a" });
        let receipt =
            json!({ "channel": "Broker", "topic": "Message", "subtopic": "Receipt", "inReplyTo": "e1", "data": data });
        peer.say(receipt).await;
        peer.expect("Broker/Application/Unregister").await;
        assert!(peer.is_closed().await);
    };
    let line = [&line[..], &["--receipt"]].concat();
    let (outcome, ()) = tokio::join!(run(&url, &line), peer);
    outcome.has(0, "");
    assert_eq!(outcome.values(), [json!({ "Receivers": 2, "Offset": 7, "Epoch": "a", "Duplicate": true })]);
}

#[tokio::test]
async fn a_payload_that_is_not_json_is_wrong_usage() {
    // Found before anything is connected to.
    let outcome = run("ws://127.0.0.1:1/ws", &["pub", "Phone", "Call", "Ringing", "hello"]).await;
    insta::assert_snapshot!(outcome.stderr, @r#"
    error: DATA is not JSON (line 1, column 1)
    hint: a string needs its quotes: '"text"'
    "#);
    outcome.has(2, "");
    run("ws://127.0.0.1:1/ws", &["pub", "Phone", "Call", "Ringing", "@/nowhere"]).await.has(2, "cannot read /nowhere");
}

#[tokio::test]
async fn a_receipt_is_printed_on_request() {
    let broker = Broker::start().await;
    let mut hearer = broker.app("hearer").await;
    hearer.subscribe("Phone/*/*").await;
    let outcome = run(&url(&broker), &["pub", "Phone", "Call", "Ringing", "--receipt"]).await;
    outcome.has(0, "");
    assert_eq!(outcome.values(), [json!({ "Receivers": 1 })]);
    let quiet = run(&url(&broker), &["pub", "Phone", "Call", "Ringing"]).await;
    assert_eq!((quiet.code, quiet.stdout.as_str(), quiet.stderr.as_str()), (Some(0), "", ""));
}

#[tokio::test]
async fn a_retained_value_lasts_until_it_is_cleared() {
    let broker = Broker::start().await;
    run(&url(&broker), &["pub", "Phone", "Agent", "State", "\"ready\"", "--retain"]).await.has(0, "");
    let sub = run(&url(&broker), &["sub", "Phone", "--count", "1"]).await;
    assert_eq!((&sub.values()[0]["data"], &sub.values()[0]["retained"]), (&json!("ready"), &json!(true)));
    run(&url(&broker), &["pub", "Phone", "Agent", "State", "null", "--retain"]).await.has(0, "");
    let mut later = broker.app("later").await;
    later.subscribe("Phone/*/*").await;
    later.expect_nothing().await;
}

#[tokio::test]
async fn a_refused_event_is_exit_code_1_with_its_code() {
    let broker = Broker::with_config(&application("shell", None, "")).await;
    let publish = async |more: &[&str]| {
        let line = ["pub", "Phone", "Call", "Ringing", "--source", "shell", "--url", &url(&broker)];
        let mut command = command(&[&line, more].concat());
        command.env("SWITCHBOARD_TOKEN", token_of("shell"));
        run_with(command, "").await
    };
    let refused = publish(&[]).await;
    refused.has(1, "");
    assert!(refused.stderr.starts_with("USER_REQUIRED: "), "{refused:?}");
    publish(&["--for", "alice"]).await.has(0, "");
}

#[tokio::test]
async fn the_token_variable_may_end_in_a_line_end() {
    let broker = Broker::with_config(&application("shell", Some("alice"), "")).await;
    for (before, after) in [("", ""), ("", "\n"), ("\u{feff}", "\r\n")] {
        let mut command = command(&["pub", "Phone", "Call", "Ringing", "--source", "shell", "--url", &url(&broker)]);
        command.env("SWITCHBOARD_TOKEN", format!("{before}{}{after}", token_of("shell")));
        run_with(command, "").await.has(0, "");
    }
}

#[tokio::test]
async fn a_receipt_has_the_hint_of_the_broker() {
    let broker = Broker::start().await;
    let mut crm = broker.app("crm").await;
    crm.handle("Crm/Contact/Find").await;
    let outcome = run(&url(&broker), &["pub", "Crm", "Contact", "find", "--receipt"]).await;
    outcome.has(0, "hint: ");
    let receipt = &outcome.values()[0];
    assert_eq!(receipt["Receivers"], 0);
    assert!(receipt["Hint"].as_str().unwrap().contains("Crm/Contact/Find"), "{receipt}");
}
