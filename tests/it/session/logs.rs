//! What an operator reads in the log: who registered and left, what was refused, and who was slowed down.

use serde_json::{Value, json};

use crate::support::frames::{CLOSE, RawSocket, TEXT, close_payload, frame};
use crate::support::{Broker, Peer, application, envelope, token_of};

/// Waits for a line that has all of these words, and returns how many there are then.
async fn lines_with(broker: &Broker, words: &[&str]) -> usize {
    let has_all = |line: &str| words.iter().all(|word| line.contains(word));
    broker.log_until(&format!("a line with {words:?}"), |log| log.lines().any(has_all)).await;
    broker.log().lines().filter(|line| has_all(line)).count()
}

async fn app(broker: &Broker, source: &str) -> (Peer, String) {
    let mut peer = broker.raw(source).await;
    let reply = peer.register(source, json!({"user": "alice"})).await;
    (peer, format!("session={}", reply["data"]["SessionId"].as_str().unwrap()))
}

/// Waits for the lines about a session that has left, with its reason.
async fn check_left(broker: &Broker, source: &str, session: &str, reason: &str, code: Option<u16>) {
    let source = format!("source=\"{source}\"");
    let who = ["INFO", &source, "user=\"alice\"", "address=127.0.0.1", session];
    assert_eq!(lines_with(broker, &[who.as_slice(), &[": registered "]].concat()).await, 1);
    let (reason, code) = (format!("reason=\"{reason}\""), code.map(|code| format!("code={code}")));
    let left = [": left ", &reason, "lasted=", code.as_deref().unwrap_or_default()];
    assert_eq!(lines_with(broker, &[who.as_slice(), &left].concat()).await, 1);
}

#[tokio::test]
async fn who_registered_and_who_left_is_logged_with_the_reason() {
    let mut broker = Broker::open_with("[limits]\nmalformed = 2").await;
    let (mut peer, session) = app(&broker, "a").await;
    peer.command("Application", "Unregister", Value::Null).await;
    check_left(&broker, "a", &session, "unregistered", None).await;
    let (peer, session) = app(&broker, "b").await;
    peer.close().await;
    check_left(&broker, "b", &session, "closed by the application", None).await;
    let (peer, session) = app(&broker, "c").await;
    peer.kill();
    check_left(&broker, "c", &session, "the connection was lost", None).await;
    let (mut peer, session) = app(&broker, "d").await;
    peer.send_text("{").await;
    peer.send_text("{").await;
    assert_eq!(peer.until_closed().await.1, 1008);
    check_left(&broker, "d", &session, "too many malformed messages in a row", Some(1008)).await;
    let (mut peer, session) = app(&broker, "e").await;
    broker.terminate().await;
    assert_eq!(peer.until_closed().await.1, 1012);
    check_left(&broker, "e", &session, "restarting: reconnect after ReconnectAfterMs", Some(1012)).await;
    broker.exit_code().await;
}

#[tokio::test]
async fn the_status_code_of_an_application_that_closes_is_logged() {
    let broker = Broker::start().await;
    let mut socket = RawSocket::registered(&broker, "polite").await;
    socket.write(&frame(CLOSE, &close_payload(4000, b"hunter2"))).await;
    assert_eq!(socket.close_code().await, 4000);
    lines_with(&broker, &["INFO", ": left ", "source=\"polite\"", "closed by the application", "code=4000"]).await;
    assert!(!broker.log().contains("hunter2"), "{}", broker.log());
}

/// A frame that RFC 6455 forbids ends the session too, and the log has the rule.
#[tokio::test]
async fn a_forbidden_frame_is_logged_with_the_rule() {
    let broker = Broker::start().await;
    let mut socket = RawSocket::registered(&broker, "crooked").await;
    socket.write(&frame(0x3, b"")).await;
    assert_eq!(socket.close_code().await, 1002);
    lines_with(&broker, &["INFO", ": left ", "source=\"crooked\"", "code=1002", "the opcode is reserved"]).await;
}

/// A loop without a pause fills no disk.
#[tokio::test]
async fn sessions_that_replace_each_other_on_one_connection_are_logged_up_to_a_limit() {
    let broker = Broker::start().await;
    let mut peer = broker.raw("loop").await;
    for _ in 0..200 {
        peer.register("loop", Value::Null).await;
        peer.handle("Cisco/Agent/Login").await;
        peer.command("Application", "Unregister", Value::Null).await;
    }
    peer.register("last", Value::Null).await;
    peer.fence().await;
    drop(broker.app("other").await);
    lines_with(&broker, &[": left ", "source=\"other\""]).await;
    let log = broker.log();
    let count =
        |words: &str| log.lines().filter(|line| line.contains(words) && line.contains("source=\"loop\"")).count();
    assert_eq!((count(": registered "), count(": left ")), (61, 61), "{log}");
    assert!(log.lines().all(|line| line.len() < 500), "{log}");
}

#[tokio::test]
async fn a_refused_token_is_logged_once_a_minute_with_its_source() {
    let broker = Broker::with_config(&application("softphone", Some("alice"), "")).await;
    for source in ["softphone", "softphone", "other"] {
        let mut peer = broker.raw(source).await;
        peer.register(source, json!({"token": "wrong-and-secret"})).await;
        assert_eq!(peer.closed().await, 4401);
    }
    // Another code has a line of its own.
    let mut peer = broker.raw("thief").await;
    peer.register("thief", json!({"token": token_of("softphone")})).await;
    assert_eq!(peer.closed().await, 4403);
    lines_with(&broker, &["INFO", "a registration was refused", "source=\"thief\"", "code=\"FORBIDDEN\""]).await;
    let refused =
        ["INFO", "a registration was refused", "source=\"softphone\"", "address=127.0.0.1", "code=\"UNAUTHENTICATED\""];
    assert_eq!(lines_with(&broker, &refused).await, 1);
    let log = broker.log();
    assert_eq!(log.matches("a registration was refused").count(), 2, "{log}");
    assert!(!log.contains("wrong-and-secret"), "{log}");
}

#[tokio::test]
async fn an_application_over_its_rate_is_logged_once_a_minute() {
    let broker = Broker::open_with("[limits]\nrate = 100\nburst = 10").await;
    let mut fast = broker.app_of("fast", "alice").await;
    for number in 0..40 {
        fast.publish("Sales/Call/Ring", number).await;
    }
    fast.fence().await;
    let line = ["INFO", "is over its rate", "source=\"fast\"", "user=\"alice\"", "key=\"limits.rate\""];
    assert_eq!(lines_with(&broker, &line).await, 1);
}

#[tokio::test]
async fn a_wait_for_a_slow_receiver_is_logged_once_a_minute() {
    let broker = Broker::open_with("[limits]\noutbound_messages = 64").await;
    let mut slow = RawSocket::registered(&broker, "slow").await;
    let subscribe = envelope("Broker/Subscription/Subscribe", json!({"data": {"channel": "Big"}}));
    slow.write(&frame(TEXT, subscribe.to_string().as_bytes())).await;
    slow.read_message().await.unwrap();
    let mut sender = broker.app("sender").await;
    for number in 0..60 {
        sender.publish("Big/Data/X", format!("{number} {}", "x".repeat(256 * 1024))).await;
    }
    let line = ["INFO", "the queue of a receiver is over half full", "source=\"sender\"", "receiver=\"slow\""];
    assert_eq!(lines_with(&broker, &line).await, 1);
}

#[tokio::test]
async fn debug_shows_subscriptions_and_every_refusal() {
    let broker = Broker::launch(None, &["--log", "debug"]).await;
    let mut peer = broker.app("softphone").await;
    let id = peer.subscribe_with("Phone/Call/*", json!({"group": "g", "user": "bob"})).await;
    let subscribed = ["DEBUG", ": subscribed ", "source=\"softphone\"", "pattern=Phone/Call/*", "role=\"subscriber\""];
    lines_with(&broker, &[subscribed.as_slice(), &["group=\"g\"", "user=\"bob\"", &id]].concat()).await;
    peer.handle("Phone/Call/Dial").await;
    lines_with(&broker, &["DEBUG", ": subscribed ", "pattern=Phone/Call/Dial", "role=\"handler\""]).await;
    peer.command("Subscription", "Unsubscribe", json!({"SubscriptionId": id})).await;
    lines_with(&broker, &["DEBUG", ": unsubscribed ", &id]).await;
    peer.command("Subscription", "Unsubscribe", envelope("Phone/Call/Dial", json!({"role": "handler"}))).await;
    lines_with(&broker, &["DEBUG", ": unsubscribed ", "pattern=Phone/Call/Dial", "role=\"handler\""]).await;

    let refused = |code: &str, triple: &str| {
        let code = format!("code=\"{code}\"");
        let words = ["DEBUG", ": refused ", &code, triple].map(str::to_owned);
        let broker = &broker;
        async move { lines_with(broker, &words.each_ref().map(String::as_str)).await }
    };
    let mut early = broker.raw("early").await;
    early.send(envelope("Sales/Call/Early", json!({}))).await;
    refused("NOT_REGISTERED", "triple=Sales/Call/Early").await;
    peer.send_text("{").await;
    peer.next_error("INVALID_JSON").await;
    refused("INVALID_JSON", "source=\"softphone\"").await;
    peer.send(envelope("Broker/Coffee/Brew", json!({}))).await;
    peer.next_error("UNKNOWN_COMMAND").await;
    refused("UNKNOWN_COMMAND", "triple=Broker/Coffee/Brew").await;
    peer.command("Application", "SetState", json!({"state": "drowsy"})).await;
    refused("INVALID_ENVELOPE", "triple=Broker/Application/SetState").await;
    peer.send(envelope("Sales/Call/Ring", json!({"source": "boss"}))).await;
    peer.next_error("SOURCE_MISMATCH").await;
    refused("SOURCE_MISMATCH", "triple=Sales/Call/Ring").await;
    peer.send(envelope("Phone/Call/Dial", json!({"id": "r", "timeout": 1000}))).await;
    peer.next_failure("Phone/Call/Dial", "NO_HANDLER").await;
    refused("NO_HANDLER", "triple=Phone/Call/Dial").await;

    let mut crm = broker.app("crm").await;
    crm.handle("Crm/Contact/Get").await;
    peer.send(envelope("Crm/Contact/Get", json!({"id": "t", "timeout": 1}))).await;
    peer.next_failure("Crm/Contact/Get", "REQUEST_TIMEOUT").await;
    let failed = ["DEBUG", "a request failed", "source=\"softphone\"", "triple=Crm/Contact/Get", "handler=\"crm\""];
    lines_with(&broker, &[failed.as_slice(), &["code=\"REQUEST_TIMEOUT\""]].concat()).await;
}

#[tokio::test]
async fn trace_shows_one_line_for_each_message_and_no_payload() {
    let broker = Broker::launch(None, &["--log", "trace"]).await;
    let (mut crm, mut gadget) = (broker.app("crm").await, broker.app("gadget").await);
    crm.subscribe("Sales/*/*").await;
    crm.handle("Crm/Contact/Get").await;
    crm.handle("Cisco/Agent/Login").await;
    let text = r#"{"channel":"Sales","topic":"Call","subtopic":"Ring","data":"hunter2"}"#;
    gadget.send_text(text).await;
    crm.next_on("Sales/Call/Ring").await;
    let bytes = format!("bytes={}", text.len());
    let event = ["TRACE", "a message", "kind=\"event\"", "triple=Sales/Call/Ring", "source=\"gadget\"", "receivers=1"];
    assert_eq!(lines_with(&broker, &[event.as_slice(), &[&bytes]].concat()).await, 1);

    for triple in ["Crm/Contact/Get", "Cisco/Agent/Login"] {
        gadget.send(envelope(triple, json!({"id": "r", "data": {"hunter2": "hunter2"}}))).await;
        let request = crm.next_on(triple).await;
        crm.reply(&request, json!({"data": "hunter2"})).await;
        gadget.next_answer(triple, "r").await;
        // A late reply, on another triple.
        crm.send(envelope("Cisco/Agent/LoginSuccess", json!({"inReplyTo": request["id"], "data": "hunter2"}))).await;
        crm.next_error("NO_SUCH_REQUEST").await;
        for (kind, source) in [("request", "gadget"), ("reply", "crm")] {
            let (kind, triple) = (format!("kind=\"{kind}\""), format!("triple={triple}"));
            let source = format!("source=\"{source}\"");
            assert_eq!(lines_with(&broker, &["TRACE", "a message", &kind, &triple, &source, "receivers=1"]).await, 1);
        }
    }
    gadget.send(envelope("Sales/Call/Ring", json!({"user": "bob"}))).await;
    lines_with(&broker, &["TRACE", "a message", "kind=\"refused\"", "receivers=0", "code=\"FORBIDDEN\""]).await;
    let log = broker.log();
    assert!(!log.contains("hunter2"), "{log}");
    let login = log.lines().filter(|line| line.contains("a message") && line.contains("Cisco/Agent/Login"));
    assert!(login.clone().count() == 4 && login.clone().all(|line| !line.contains("bytes=")), "{log}");
}
