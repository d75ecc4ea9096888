//! `switchboard sub`.

use super::*;

#[tokio::test]
async fn one_envelope_is_one_line_whatever_its_payload() {
    let broker = Broker::start().await;
    let mut sub = Beside::start(&url(&broker), "log", &["sub", "Phone", "--count", "2"]).await;
    let payload = "{\n  \"from\": \"+49\",\r\n  \"tags\": [1,\n2]\n}";
    let publish = command(&["pub", "Phone", "Call", "Ringing", "-", "--source", "shell", "--url", &url(&broker)]);
    run_with(publish, payload).await.has(0, "");
    run(&url(&broker), &["pub", "Crm", "Contact", "Changed"]).await.has(0, "");
    run(&url(&broker), &["pub", "Phone", "Call", "Ended"]).await.has(0, "");
    let first: Value = serde_json::from_str(&sub.line().await).unwrap();
    assert_eq!(first["data"], json!({ "from": "+49", "tags": [1, 2] }));
    assert_eq!((&first["channel"], &first["source"]), (&json!("Phone"), &json!("shell")));
    let second: Value = serde_json::from_str(&sub.line().await).unwrap();
    assert_eq!((&second["subtopic"], second.get("data")), (&json!("Ended"), None));
    assert_eq!(sub.code().await, Some(0));
}

/// A broker in open mode lets every session observe. If the broker refuses, the command subscribes without that.
#[tokio::test]
async fn without_a_user_or_a_token_it_prints_the_events_of_all_users() {
    let broker = FakeBroker::start().await;
    for (more, expected) in
        [(&[][..], json!("*")), (&["--user", "alice"], json!(null)), (&["--observe", "bob"], json!("bob"))]
    {
        let _sub = Beside::spawn(&broker.url(), "log", &[&["sub", "Phone"], more].concat());
        let (mut peer, _) = broker.session().await;
        assert_eq!(peer.grant().await["user"], expected, "{more:?}");
    }
    let mut with_token = command(&["sub", "Phone", "--source", "log", "--url", &broker.url()]);
    let _sub = with_token.env("SWITCHBOARD_TOKEN", "secret").spawn().unwrap();
    let (mut peer, _) = broker.session().await;
    assert_eq!(peer.grant().await["user"], json!(null));

    let mut refused = Beside::spawn(&broker.url(), "log", &["sub", "Phone"]);
    let (mut peer, _) = broker.session().await;
    let subscribe = peer.next().await;
    let data = json!({ "Success": false, "ErrorCode": "FORBIDDEN", "ErrorMessage": "no permission to observe" });
    peer.answer(&subscribe, data).await;
    assert_eq!(peer.grant().await, json!({ "channel": "Phone", "topic": "*", "subtopic": "*", "retained": true }));
    assert_eq!(refused.told().await, "subscribed to Phone/*/*");
}

#[tokio::test]
async fn an_operators_close_is_reported_as_kicked() {
    let broker = FakeBroker::start().await;
    let mut sub = Beside::spawn(&broker.url(), "log", &["sub"]);
    let (mut peer, _) = broker.session().await;
    peer.grant().await;
    sub.told().await;
    peer.close(4410, "maintenance").await;
    assert_eq!((sub.told().await.as_str(), sub.code().await), ("KICKED: maintenance", Some(1)));
}

#[tokio::test]
async fn a_signal_ends_it_with_exit_code_0() {
    let broker = Broker::start().await;
    for signal in ["-INT", "-TERM", "-HUP"] {
        let mut sub = Beside::start(&url(&broker), "log", &["sub"]).await;
        sub.signal(signal).await;
        assert_eq!(sub.code().await, Some(0), "{signal}");
    }
    assert!(!broker.log().contains("WARN"), "{}", broker.log());
}

/// As started by `nohup`.
#[tokio::test]
async fn a_hangup_that_is_ignored_does_not_end_it() {
    let broker = Broker::start().await;
    let mut nohup = Command::new("sh");
    nohup.args(["-c", "trap '' HUP; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_switchboard"), "sub", "Phone"]);
    nohup.args(["--source", "log", "--count", "1", "--url", &url(&broker)]).env_remove("SWITCHBOARD_TOKEN");
    nohup.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = nohup.spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
    within("readiness", stderr.next_line()).await.unwrap();
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-HUP", &pid]).status().await.unwrap().success());
    run(&url(&broker), &["pub", "Phone", "Call", "Ringing"]).await.has(0, "");
    let output = within("its end", child.wait_with_output()).await.unwrap();
    assert!(output.status.success() && !output.stdout.is_empty(), "{output:?}");
}

#[tokio::test]
async fn a_closed_pipe_is_not_an_error() {
    let broker = Broker::start().await;
    let Beside { mut child, stdout, mut stderr } = Beside::start(&url(&broker), "log", &["sub"]).await;
    drop(stdout);
    run(&url(&broker), &["pub", "Phone", "Call", "Ringing"]).await.has(0, "");
    assert_eq!(within("its end", child.wait()).await.unwrap().code(), Some(0));
    assert_eq!(within("its last words", stderr.next_line()).await.unwrap(), None);
}

#[tokio::test]
async fn it_reconnects_and_reports_that() {
    let broker = FakeBroker::start().await;
    let mut sub = Beside::spawn(&broker.url(), "log", &["sub", "Phone", "--count", "1"]);
    let (mut peer, register) = broker.session().await;
    assert_eq!(register["source"], "log");
    assert_eq!(
        peer.grant().await,
        json!({ "channel": "Phone", "topic": "*", "subtopic": "*", "user": "*", "retained": true })
    );
    assert_eq!(sub.told().await, "subscribed to Phone/*/*");
    drop(peer);
    let told = sub.told().await;
    assert!(told.starts_with("the connection to the broker was lost; next attempt in "), "{told}");
    let (mut peer, _) = broker.session().await;
    peer.grant().await;
    let report = sub.told().await;
    assert!(report.starts_with("connected again; events since ") && report.ends_with("Z may be missing"), "{report}");
    peer.say(event("Phone/Call/Ringing", json!(1))).await;
    assert!(sub.line().await.contains("Ringing"));
    peer.expect("Broker/Application/Unregister").await;
    assert!(peer.is_closed().await);
    assert_eq!(sub.code().await, Some(0));
}

#[tokio::test]
async fn a_close_without_a_reason_is_reported_in_words() {
    let broker = FakeBroker::start().await;
    let mut sub = Beside::spawn(&broker.url(), "log", &["sub"]);
    for (code, expected) in [
        (None, "the connection is closed: the broker gave no reason; next attempt in "),
        (
            Some(1008),
            "the broker closed the connection with 1008: too many malformed messages in a row; next attempt in ",
        ),
        (Some(4404), "the broker closed the connection with 4404: source in use; next attempt in "),
        (Some(3999), "the broker closed the connection with 3999: no reason given; next attempt in "),
    ] {
        let (mut peer, _) = broker.session().await;
        peer.grant().await;
        let _connected = sub.told().await;
        match code {
            Some(code) => peer.close(code, "").await,
            None => peer.close_without_code().await,
        }
        let told = sub.told().await;
        assert!(told.starts_with(expected), "{told}");
    }
}

#[tokio::test]
async fn a_final_close_is_exit_code_1() {
    let broker = FakeBroker::start().await;
    let mut sub = Beside::spawn(&broker.url(), "log", &["sub"]);
    let (mut peer, _) = broker.session().await;
    peer.grant().await;
    sub.told().await;
    peer.close(4403, "source not allowed").await;
    assert_eq!(sub.told().await, "error: the broker closed the connection with 4403: source not allowed");
    assert_eq!(sub.code().await, Some(1));
}

#[tokio::test]
async fn a_wildcard_of_another_broker_gets_a_hint() {
    let broker = Broker::start().await;
    for arguments in [&["sub", "Phone", "#"][..], &["handle", "Phone", "Call", ">", "--reply", "1"]] {
        let mut beside = Beside::spawn(&url(&broker), "log", arguments);
        let told = beside.told().await;
        assert!(told.contains("hint: the ") && told.contains("the one wildcard is '*'"), "{told}");
    }
    run(&url(&broker), &["sub", "Pho*"]).await.has(2, "the channel");
}

#[tokio::test]
async fn with_resume_nothing_is_missed() {
    let broker = FakeBroker::start().await;
    let mut sub = Beside::spawn(&broker.url(), "log", &["sub", "Phone", "--user", "alice", "--resume"]);
    let mut peer = broker.connection().await;
    let register = peer.register_with("session-1", json!({ "Resumed": false, "ResumeToken": "one" })).await;
    assert_eq!(register["data"]["resume"], true);
    peer.grant().await;
    assert_eq!(sub.told().await, "subscribed to Phone/*/*");
    drop(peer);
    let mut peer = broker.connection().await;
    let more = json!({ "Resumed": true, "ResumeToken": "two", "Replayed": 1, "Received": 1 });
    let register = peer.register_with("session-1", more).await;
    assert_eq!(register["data"]["resume"], json!({ "token": "one", "received": 1 }));
    peer.say(event("Phone/Call/Ringing", json!("meanwhile"))).await;
    assert_eq!(serde_json::from_str::<Value>(&sub.line().await).unwrap()["data"], "meanwhile");
    assert!(sub.told().await.starts_with("the connection to the broker was lost"));
    assert_eq!(sub.told().await, "connected again; nothing was missed");
}

#[tokio::test]
async fn it_begins_with_kept_events() {
    let broker = FakeBroker::start().await;
    for (recover, expected) in [("last:2", json!({ "last": 2 })), ("a:7", json!({ "epoch": "a", "offset": 7 }))] {
        let mut sub = Beside::spawn(&broker.url(), "log", &["sub", "Phone", "--recover", recover, "--count", "1"]);
        let (mut peer, register) = broker.session().await;
        assert_eq!(register["data"].get("resume"), None);
        let granted = json!({ "Epoch": "a", "Offset": 8, "Recovered": true, "Replayed": 1 });
        let data = peer.grant_with(granted).await;
        // Not for all users, of whom there is no log.
        assert_eq!((&data["recover"], data.get("user")), (&expected, None));
        let mut kept = event("Phone/Call/Ringing", json!("kept"));
        (kept["offset"], kept["epoch"], kept["replayed"]) = (8.into(), "a".into(), true.into());
        peer.say(kept).await;
        let line: Value = serde_json::from_str(&sub.line().await).unwrap();
        assert_eq!((&line["data"], &line["offset"]), (&json!("kept"), &json!(8)));
    }
    for wrong in ["50", "last:0", "a:b"] {
        run(&broker.url(), &["sub", "Phone", "--recover", wrong]).await.has(2, "--recover");
    }
}

#[tokio::test]
async fn it_says_why_kept_events_are_missing() {
    let broker = FakeBroker::start().await;
    let mut sub = Beside::spawn(&broker.url(), "log", &["sub", "Phone", "--recover", "a:7"]);
    let (mut peer, _) = broker.session().await;
    let granted = json!({ "Epoch": "a", "Offset": 8, "Recovered": false, "RecoverReason": "TOO_OLD" });
    peer.grant_with(granted).await;
    sub.told().await;
    let expected = "no kept events are printed, because the broker cannot replay them: TOO_OLD";
    assert_eq!(sub.told().await, expected);
}
