//! The life of a session: registering in its ways, what is refused and how it ends (protocol.md, Life of a session).

use serde_json::{Value, json};

use crate::support::frames::{CONTINUATION, PING, PONG, RawSocket, TEXT, frame, part};
use crate::support::{Broker, application, envelope, token_of, within};

const FETCH: &str = "Salesforce/User/FetchCredentials";

#[tokio::test]
async fn a_token_proves_the_user_whatever_the_client_says() {
    let broker = Broker::with_config(&application("softphone", Some("alice@example.com"), "")).await;
    let mut peer = broker.raw("softphone").await;
    let options = json!({"token": token_of("softphone"), "user": "mallory"});
    let reply = peer.register("softphone", options).await;
    let keys: Vec<&str> = reply["data"].as_object().unwrap().keys().map(String::as_str).collect();
    let documented = [
        "Success",
        "ErrorMessage",
        "SessionId",
        "User",
        "Protocol",
        "Server",
        "HeartbeatSeconds",
        "MaxMessageBytes",
        "ExpiresInSeconds",
    ];
    assert_eq!(keys, documented);
    assert_eq!(reply["data"]["User"], "alice@example.com");
    assert!(reply["data"]["Server"].as_str().unwrap().starts_with("switchboard/"), "{reply}");
}

#[tokio::test]
async fn a_service_has_no_user() {
    let broker = Broker::with_config(&application("cti", None, "")).await;
    let mut peer = broker.raw("cti").await;
    let reply = peer.register("cti", json!({"token": token_of("cti")})).await;
    assert_eq!(reply["data"]["User"], Value::Null, "{reply}");
}

#[tokio::test]
async fn a_missing_or_unknown_token_is_answered_and_closed_with_4401() {
    let broker = Broker::with_config(&application("softphone", Some("alice"), "")).await;
    for options in [json!({}), json!({"token": "guess"}), json!({"token": null}), json!({"token": ""})] {
        let mut peer = broker.raw("guesser").await;
        let reply = peer.register("softphone", options).await;
        assert_eq!(reply["subtopic"], "Register");
        assert_eq!(reply["data"]["ErrorCode"], "UNAUTHENTICATED", "{reply}");
        assert!(!reply.to_string().contains("guess"), "a token is never quoted: {reply}");
        assert_eq!(peer.closed().await, 4401);
    }
}

#[tokio::test]
async fn a_token_of_another_source_is_answered_and_closed_with_4403() {
    let broker = Broker::with_config(&application("softphone", Some("alice"), "")).await;
    for source in ["crm", "Softphone"] {
        let mut peer = broker.raw("thief").await;
        let reply = peer.register(source, json!({"token": token_of("softphone")})).await;
        assert_eq!(reply["data"]["ErrorCode"], "FORBIDDEN", "{reply}");
        assert_eq!(peer.closed().await, 4403);
    }
}

#[tokio::test]
async fn the_source_of_the_broker_itself_is_reserved() {
    let broker = Broker::start().await;
    let mut peer = broker.raw("impostor").await;
    let reply = peer.register("switchboard", json!({})).await;
    assert_eq!(reply["data"]["ErrorCode"], "FORBIDDEN", "{reply}");
    assert_eq!(peer.closed().await, 4403);
}

#[tokio::test]
async fn an_exclusive_source_has_one_session_a_user() {
    let broker = Broker::with_config(&application("softphone", Some("alice"), "exclusive = true")).await;
    let _first = broker.app_by_token("softphone").await;
    let mut second = broker.raw("second").await;
    let reply = second.register("softphone", json!({"token": token_of("softphone")})).await;
    assert_eq!(reply["data"]["ErrorCode"], "SOURCE_IN_USE", "{reply}");
    let words = reply["data"]["ErrorMessage"].as_str().unwrap();
    assert!(words.contains("20"), "it names when the other came: {words}");
    assert_eq!(second.closed().await, 4404);
}

/// A page that is loaded again leaves with a Close frame, or without one.
#[tokio::test]
async fn an_exclusive_source_is_free_again_when_its_session_has_gone() {
    let broker = Broker::with_config(&application("softphone", Some("alice"), "exclusive = true")).await;
    let mut page = broker.app_by_token("softphone").await;
    for with_close in [true, false] {
        if with_close {
            page.close().await;
        } else {
            page.kill();
        }
        let mut often = tokio::time::interval(std::time::Duration::from_millis(20));
        page = within("a free source", async {
            loop {
                often.tick().await;
                let mut next = broker.raw("next").await;
                let reply = next.register("softphone", json!({"token": token_of("softphone")})).await;
                if reply["data"]["Success"] == true {
                    return next;
                }
                assert_eq!(reply["data"]["ErrorCode"], "SOURCE_IN_USE");
            }
        })
        .await;
    }
}

#[tokio::test]
async fn an_exclusive_source_excludes_nobody_of_another_user() {
    let alice = application("softphone", Some("alice"), "exclusive = true");
    // The same source with a token of its own.
    let bob = application("bob", Some("bob"), "exclusive = true").replace("source = \"bob\"", "source = \"softphone\"");
    let broker = Broker::with_config(&[alice, bob].concat()).await;
    let _first = broker.app_by_token("softphone").await;
    let _second = broker.app_with("softphone", json!({"token": token_of("bob")})).await;
}

#[tokio::test]
async fn several_sessions_may_register_one_source() {
    let broker = Broker::start().await;
    let (mut one, mut two) = (broker.app("tab").await, broker.app("tab").await);
    one.subscribe("Sales/*/*").await;
    two.publish("Sales/Call/Ring", 1).await;
    assert_eq!(one.next().await["source"], "tab");
}

#[tokio::test]
async fn after_ten_failures_guessing_is_refused_and_a_good_token_passes() {
    let broker = Broker::with_config(&application("softphone", Some("alice"), "")).await;
    for at in 0..12 {
        let mut peer = broker.raw("guesser").await;
        let reply = peer.register("softphone", json!({"token": format!("guess {at}")})).await;
        let expected = if at < 10 { "UNAUTHENTICATED" } else { "RATE_LIMITED" };
        assert_eq!(reply["data"]["ErrorCode"], expected, "failure {}: {reply}", at + 1);
        assert_eq!(peer.closed().await, 4401);
    }
    broker.app_by_token("softphone").await;
}

#[tokio::test]
async fn failed_renewals_count_as_failed_registrations_and_a_good_token_passes() {
    let broker = Broker::with_config(&application("softphone", Some("alice"), "")).await;
    let mut peer = broker.app_by_token("softphone").await;
    for at in 0..11 {
        let reply = peer.command("Application", "Renew", json!({"token": format!("guess {at}")})).await;
        let expected = if at < 10 { "UNAUTHENTICATED" } else { "RATE_LIMITED" };
        assert_eq!(reply["data"]["ErrorCode"], expected, "failure {}: {reply}", at + 1);
        assert!(!reply.to_string().contains("guess"), "a token is never quoted: {reply}");
    }
    let mut guesser = broker.raw("guesser").await;
    let reply = guesser.register("softphone", json!({"token": "guess"})).await;
    assert_eq!(reply["data"]["ErrorCode"], "RATE_LIMITED", "{reply}");
    let reply = peer.command("Application", "Renew", json!({"token": token_of("softphone")})).await;
    assert_eq!(reply["data"], json!({"Success": true, "ErrorMessage": null, "ExpiresInSeconds": null}));
    assert!(!broker.log().contains("guess "), "{}", broker.log());
}

#[tokio::test]
async fn a_malformed_register_is_answered_and_the_session_lives_on() {
    let broker = Broker::start().await;
    let mut peer = broker.raw("clumsy").await;
    let wrong = [json!({"echo": "yes"}), json!({"echoes": true}), json!("text")];
    for options in wrong {
        let reply = peer.register("myapp", options.clone()).await;
        assert_eq!(reply["data"]["ErrorCode"], "INVALID_ENVELOPE", "{options}: {reply}");
        assert_eq!(reply["subtopic"], "Register", "a command's failure comes on its own triple");
        peer.expect_nothing().await;
    }
    peer.send(envelope("Broker/Application/Register", json!({}))).await;
    assert_eq!(peer.next().await["data"]["ErrorCode"], "INVALID_ENVELOPE", "no source");
    let absent = json!({"echo": null, "resume": null, "will": null, "user": null, "token": null});
    assert_eq!(peer.register("myapp", absent).await["data"]["Success"], true);
}

#[tokio::test]
async fn before_it_is_registered_a_session_may_only_register_or_ping() {
    let broker = Broker::start().await;
    let mut spy = broker.app("spy").await;
    spy.subscribe("*/*/*").await;
    let mut peer = broker.raw("early").await;
    peer.expect_nothing().await;
    peer.send(envelope("Sales/Call/Ring", json!({"id": "e"}))).await;
    assert_eq!(peer.next_error("NOT_REGISTERED").await["inReplyTo"], "e");
    for (topic, subtopic) in [("Subscription", "Subscribe"), ("Application", "List"), ("Application", "Unregister")] {
        let reply = peer.command(topic, subtopic, json!({"channel": "Sales"})).await;
        assert_eq!(reply["data"]["ErrorCode"], "NOT_REGISTERED", "{reply}");
    }
    // On a protected triple the refusal is on the triple, with the keys that its failures bear.
    peer.send(envelope(FETCH, json!({"id": "f"}))).await;
    let refusal = peer.next_failure(FETCH, "NOT_REGISTERED").await;
    assert_eq!(refusal["inReplyTo"], "f");
    let keys: Vec<&str> = refusal["data"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["Username", "Password", "Extension", "ADFSUsername", "Success", "ErrorMessage", "ErrorCode"]);
    peer.send(envelope("Cisco/Agent/Login", json!({"id": "l"}))).await;
    peer.next_failure("Cisco/Agent/Login", "NOT_REGISTERED").await;
    spy.expect_nothing().await;
    assert_eq!(peer.register("early", json!({})).await["data"]["Success"], true);
}

#[tokio::test]
async fn a_connection_that_does_not_register_in_time_is_closed_with_4406() {
    let broker = Broker::open_with("[limits]\nregistration = \"300ms\"").await;
    let mut silent = broker.raw("silent").await;
    assert_eq!(silent.closed().await, 4406);
    // Pings do not count as registering.
    let mut chatty = broker.raw("chatty").await;
    chatty.expect_nothing().await;
    assert_eq!(chatty.closed().await, 4406);
    // After Unregister the deadline starts anew.
    let mut leaver = broker.app("leaver").await;
    leaver.command("Application", "Unregister", json!({})).await;
    assert_eq!(leaver.closed().await, 4406);
}

#[tokio::test]
async fn unregister_ends_the_session_and_the_connection_may_register_again() {
    let broker = Broker::start().await;
    let mut sender = broker.app("sender").await;
    let mut peer = broker.raw("peer").await;
    let first = peer.register("one", json!({})).await["data"]["SessionId"].clone();
    peer.subscribe("Sales/*/*").await;
    assert_eq!(peer.command("Application", "Unregister", json!({})).await["data"]["Success"], true);
    sender.send(envelope("Sales/Call/Ring", json!({"id": "e"}))).await;
    assert_eq!(sender.next_receipt("e").await, 0, "its subscriptions have gone");
    peer.publish("Sales/Call/Ring", 1).await;
    peer.next_error("NOT_REGISTERED").await;
    let reply = peer.register("two", json!({"user": "other"})).await;
    assert_eq!(reply["data"]["User"], "other");
    assert_ne!(reply["data"]["SessionId"], first);
    let list = peer.command("Subscription", "List", Value::Null).await;
    assert_eq!(list["data"]["Subscriptions"], json!([]), "nothing is left of the first session");
}

#[tokio::test]
async fn registering_twice_is_refused_and_changes_nothing() {
    let broker = Broker::start().await;
    let mut peer = broker.app("one").await;
    let reply = peer.register("two", json!({})).await;
    assert_eq!(reply["data"]["ErrorCode"], "ALREADY_REGISTERED", "{reply}");
    let mut receiver = broker.app("receiver").await;
    receiver.subscribe("Sales/*/*").await;
    peer.publish("Sales/Call/Ring", 1).await;
    assert_eq!(receiver.next().await["source"], "one");
}

#[tokio::test]
async fn commands_echo_their_id_and_unknown_ones_are_named() {
    let broker = Broker::start().await;
    let mut peer = broker.app("peer").await;
    for triple in ["Broker/Coffee/Brew", "Broker/application/List", "Broker/Subscription/subscribe"] {
        peer.send(envelope(triple, json!({"id": "c"}))).await;
        assert_eq!(peer.next_error("UNKNOWN_COMMAND").await["inReplyTo"], "c");
    }
    for (topic, subtopic) in [("Application", "List"), ("Subscription", "List"), ("Connection", "Ping")] {
        let reply = peer.command(topic, subtopic, Value::Null).await;
        assert_eq!((&reply["data"]["Success"], &reply["data"]["ErrorMessage"]), (&true.into(), &Value::Null));
        peer.send(json!({"channel": "Broker", "topic": topic, "subtopic": subtopic})).await;
        assert_eq!(peer.next().await.get("inReplyTo"), None, "no id, no field");
    }
    let reply = peer.command("Application", "SetState", json!({"state": "drowsy"})).await;
    assert_eq!(reply["data"]["ErrorCode"], "INVALID_ENVELOPE", "{reply}");
}

#[tokio::test]
async fn a_subscription_is_the_same_by_pattern_role_group_and_user() {
    let broker = Broker::start().await;
    let mut peer = broker.app("peer").await;
    let plain = peer.subscribe("Sales/Call/*").await;
    let handler = peer.handle("Sales/Call/*").await;
    let group = peer.subscribe_with("Sales/Call/*", json!({"group": "g"})).await;
    let other = peer.subscribe_with("Sales/Call/*", json!({"group": "h"})).await;
    let mut ids = vec![plain.clone(), handler.clone(), group.clone(), other];
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 4, "four subscriptions");
    assert_eq!(peer.subscribe("Sales/Call/*").await, plain);
    assert_eq!(peer.handle("Sales/Call/*").await, handler);
    assert_eq!(peer.subscribe_with("Sales/Call/*", json!({"group": "g"})).await, group);
    let list = peer.command("Subscription", "List", Value::Null).await;
    let rows = list["data"]["Subscriptions"].as_array().unwrap();
    assert_eq!(rows.len(), 4, "{list}");
    let keys: Vec<&str> = rows[0].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["SubscriptionId", "Channel", "Topic", "Subtopic", "Role", "Group"]);
    // By the same pattern, as well as by its id.
    let reply = peer.command("Subscription", "Unsubscribe", envelope("Sales/Call/*", json!({"group": "g"}))).await;
    assert_eq!(reply["data"]["Success"], true, "{reply}");
    let reply = peer.command("Subscription", "Unsubscribe", json!({"SubscriptionId": group})).await;
    assert_eq!(reply["data"]["ErrorCode"], "NO_SUCH_SUBSCRIPTION", "{reply}");
    let mut stranger = broker.app("peer").await;
    let reply = stranger.command("Subscription", "Unsubscribe", json!({"SubscriptionId": plain})).await;
    assert_eq!(reply["data"]["ErrorCode"], "NO_SUCH_SUBSCRIPTION", "another session's: {reply}");
}

#[tokio::test]
async fn unsubscribing_by_pattern_ends_every_subscription_that_fits() {
    let broker = Broker::start().await;
    let mut peer = broker.app("peer").await;
    peer.subscribe("Sales/Lead/*").await;
    let everything = |peer: &Value| peer["data"]["Subscriptions"].as_array().map(Vec::len);
    for (narrow, left) in [(json!({}), 1), (json!({"role": "handler"}), 3), (json!({"group": "g"}), 3)] {
        peer.subscribe("Sales/Call/*").await;
        peer.handle("Sales/Call/*").await;
        peer.subscribe_with("Sales/Call/*", json!({"group": "g"})).await;
        let reply = peer.command("Subscription", "Unsubscribe", envelope("Sales/Call/*", narrow.clone())).await;
        assert_eq!(reply["data"]["Success"], true, "{narrow}: {reply}");
        let list = peer.command("Subscription", "List", Value::Null).await;
        assert_eq!(everything(&list), Some(left), "{narrow}: {list}");
        let reply = peer.command("Subscription", "Unsubscribe", envelope("Sales/Call/*", narrow.clone())).await;
        assert_eq!(reply["data"]["ErrorCode"], "NO_SUCH_SUBSCRIPTION", "{narrow}: {reply}");
    }
}

#[tokio::test]
async fn a_wildcard_of_another_broker_gets_a_hint() {
    let broker = Broker::start().await;
    let mut peer = broker.app("peer").await;
    for (pattern, hinted) in [("Sales/#/x", true), ("Sales/Call/*", false)] {
        let reply = peer.command("Subscription", "Subscribe", envelope(pattern, json!({}))).await;
        assert_eq!(reply["data"].get("Hint").is_some(), hinted, "{reply}");
    }
}

#[tokio::test]
async fn a_peer_that_answers_no_ping_is_closed_with_4408() {
    let broker = Broker::open_with("[limits]\nheartbeat = \"200ms\"").await;
    let mut dead = RawSocket::registered(&broker, "dead").await;
    assert_eq!(dead.close_code().await, 4408);
}

#[tokio::test]
async fn pongs_or_any_other_frame_keep_a_session_alive() {
    let broker = Broker::open_with("[limits]\nheartbeat = \"200ms\"").await;
    for with_pongs in [true, false] {
        let mut socket = RawSocket::registered(&broker, "alive").await;
        let mut pings = 0;
        while pings < 8 {
            let ping = socket.read().await.expect("a living connection");
            assert_eq!(ping.opcode, PING, "{ping:?}");
            pings += 1;
            if with_pongs {
                socket.write(&frame(PONG, &ping.payload)).await;
            } else {
                socket.write(&frame(TEXT, br#"{"channel":"Sales","topic":"Call","subtopic":"Ring"}"#)).await;
            }
        }
    }
}

/// Any inbound bytes are a sign of life, also of a frame or a message that is not complete yet.
#[tokio::test]
async fn a_slow_upload_keeps_a_session_alive() {
    let broker = Broker::open_with("[limits]\nheartbeat = \"1s\"").await;
    let text =
        format!(r#"{{"channel":"Sales","topic":"Call","subtopic":"Ring","id":"slow","data":"{}"}}"#, "x".repeat(40));
    let frames: Vec<Vec<u8>> = text
        .as_bytes()
        .chunks(4)
        .enumerate()
        .map(|(at, piece)| match (at, (at + 1) * 4 >= text.len()) {
            (0, _) => part(TEXT, piece),
            (_, false) => part(CONTINUATION, piece),
            (_, true) => frame(CONTINUATION, piece),
        })
        .collect();
    let bytes = frame(TEXT, text.as_bytes()).chunks(4).map(<[u8]>::to_vec).collect();
    let upload = |pieces: Vec<Vec<u8>>| {
        let broker = &broker;
        async move {
            let mut socket = RawSocket::registered(broker, "slow").await;
            // More than four heartbeats in all, and several pieces in each.
            let mut pace = tokio::time::interval(std::time::Duration::from_millis(200));
            assert!(pieces.len() > 25);
            for piece in pieces {
                pace.tick().await;
                socket.write(&piece).await;
            }
            assert!(socket.read_message().await.expect("a receipt").text().contains("\"Receivers\":0"));
        }
    };
    tokio::join!(upload(frames), upload(bytes));
}

#[tokio::test]
async fn subscriptions_beyond_the_limit_are_refused() {
    let broker = Broker::open_with("[limits]\nsubscriptions = 3").await;
    let mut peer = broker.app("peer").await;
    let mut first = String::new();
    for at in 0..3 {
        first = peer.subscribe(&format!("Sales/Call/{at}")).await;
    }
    assert_eq!(peer.subscribe_refused("Sales/Call/3", json!({})).await, "TOO_MANY_SUBSCRIPTIONS");
    assert_eq!(peer.subscribe("Sales/Call/2").await, first, "the same again is not another one");
    peer.command("Subscription", "Unsubscribe", json!({"SubscriptionId": first})).await;
    peer.subscribe("Sales/Call/3").await;
    let mut other = broker.app("other").await;
    other.subscribe("Sales/Call/0").await;
}
