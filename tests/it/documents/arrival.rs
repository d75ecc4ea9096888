//! docs/guides/it-does-not-arrive.md: what it quotes is what the broker answers and logs.

use serde_json::{Value, json};

use crate::support::http::http;
use crate::support::{Broker, Peer, application, envelope};

const ALICE: &str = "alice@example.com";
const RINGING: &str = "Phone/Call/Ringing";
const DIAL: &str = "Phone/Call/Dial";

/// The page, and a broker whose answers it explains.
struct Guide {
    text: String,
    broker: Broker,
}

impl Guide {
    async fn with(config: Option<&str>) -> Self {
        let text = std::fs::read_to_string("docs/guides/it-does-not-arrive.md").unwrap();
        Self { text, broker: Broker::launch(config, &["--log", "debug"]).await }
    }

    /// Asserts that the page quotes this, and that it was answered.
    fn quotes(&self, quoted: &str, answer: &str) {
        assert!(self.text.contains(quoted), "the page does not have '{quoted}'");
        assert!(answer.contains(quoted), "the broker does not say '{quoted}' in {answer}");
    }

    fn quotes_answer(&self, quoted: &[&str], answer: &Value) {
        for quoted in quoted {
            self.quotes(quoted, &answer.to_string());
        }
    }

    /// Asserts that the page quotes this, and waits until it is logged at a level.
    async fn logs(&self, level: &str, quoted: &str) {
        assert!(self.text.contains(quoted), "the page does not have '{quoted}'");
        let wanted = |log: &str| log.lines().any(|line| line.contains(level) && line.contains(quoted));
        self.broker.log_until(quoted, wanted).await;
    }

    async fn app(&self, source: &str, user: &str) -> Peer {
        self.broker.app_of(source, user).await
    }
}

/// Sends an envelope with an `id`, and returns the answer or receipt.
async fn send(peer: &mut Peer, triple: &str, mut more: Value) -> Value {
    more["id"] = json!("e");
    peer.send(envelope(triple, more)).await;
    peer.next().await
}

#[tokio::test]
async fn connections_that_are_refused_or_closed_are_explained() {
    let config = "[limits]\nregistration = \"500ms\"\n[auth]\nmode = \"tokens\"\n";
    let config = format!("{config}{}", application("screen", Some(ALICE), ""));
    let guide = Guide::with(Some(&config)).await;
    for (path, header, status, quoted, reason) in [
        ("/ws", "Origin: https://crm.example.com", 403, "this Origin may not connect", "reason=\"origin\""),
        ("/ws", "Host: elsewhere.example.com", 421, "this Host is not served", "reason=\"host\""),
        ("/other", "Accept: */*", 404, "the WebSocket is at /ws", "reason=\"path\""),
        ("/ws?token=secret", "Accept: */*", 400, "a token must not be in the URL", "reason=\"query\""),
    ] {
        let host = if header.starts_with("Host") { "" } else { "Host: localhost\r\n" };
        let head = format!("GET {path} HTTP/1.1\r\n{host}{header}\r\n\r\n");
        let response = http(guide.broker.address(), &head).await;
        assert_eq!(response.status, status);
        guide.quotes(quoted, &response.body);
        assert!(guide.text.contains(&format!("| {status} `{quoted}` |")), "the page has no row '{status} {quoted}'");
        guide.logs("INFO", reason).await;
    }
    let mut early = guide.broker.raw("early").await;
    assert_eq!(early.closed().await, 4406);
    guide.logs("DEBUG", "not registered in time").await;

    let mut guessing = guide.broker.raw("guessing").await;
    let reply = guessing.register("screen", json!({"token": "wrong"})).await;
    guide.quotes_answer(&["UNAUTHENTICATED"], &reply);
    assert_eq!(guessing.closed().await, 4401);
    guide.logs("INFO", "a registration was refused").await;
}

#[tokio::test]
async fn events_that_do_not_arrive_are_explained() {
    let guide = Guide::with(None).await;
    let mut screen = guide.app("screen", ALICE).await;
    screen.subscribe(RINGING).await;
    let (mut phone, mut bobs) = (guide.app("softphone", ALICE).await, guide.app("softphone", "bob@example.com").await);

    phone.publish("Phone/Call/ringing", json!({})).await;
    phone.expect_nothing().await;
    let receipt = send(&mut phone, "Phone/Call/ringing", json!({})).await;
    guide.quotes_answer(&["\"Receivers\":0", "did you mean Phone/Call/Ringing?"], &receipt);
    guide.logs("INFO", "a similar one is named").await;
    let receipt = send(&mut bobs, RINGING, json!({})).await;
    guide.quotes_answer(&["\"Receivers\":0", "sessions of other users subscribe to this triple"], &receipt);
    for (triple, more) in [("Other/Thing/Happened", json!({})), (RINGING, json!({"target": "nobody"}))] {
        let receipt = send(&mut phone, triple, more).await;
        assert_eq!((&receipt["data"]["Receivers"], receipt["data"].get("Hint")), (&json!(0), None), "{receipt}");
    }
    phone.send(envelope(RINGING, json!({"id": 1}))).await;
    guide.quotes_answer(&["INVALID_ENVELOPE", "the field 'id' must be a string, not a number"], &phone.next().await);

    let unknown = phone.command("Subscription", "Subscribe", json!({"Channel": "Phone"})).await;
    guide.quotes_answer(&["unknown option 'Channel'; did you mean 'channel'?"], &unknown);
    let wildcard = phone.command("Subscription", "Subscribe", json!({"channel": "Phone", "topic": "#"})).await;
    guide.quotes_answer(&["the topic '#' matches only itself"], &wildcard);

    let mut early = guide.broker.raw("early").await;
    guide.quotes_answer(&["NOT_REGISTERED"], &send(&mut early, RINGING, json!({})).await);
}

#[tokio::test]
async fn a_retained_value_is_gone_after_a_restart() {
    let mut guide = Guide::with(None).await;
    let mut phone = guide.app("softphone", ALICE).await;
    send(&mut phone, RINGING, json!({"retain": true, "data": 1})).await;
    let mut screen = guide.app("screen", ALICE).await;
    screen.subscribe(RINGING).await;
    assert_eq!(screen.next().await["retained"], true);
    drop((phone, screen));
    guide.broker.terminate().await;
    guide.broker.exit_code().await;
    let successor = guide.broker.successor().await;
    let mut screen = successor.app_of("screen", ALICE).await;
    screen.subscribe(RINGING).await;
    screen.expect_nothing().await;
}

#[tokio::test]
async fn requests_without_the_right_answer_are_explained() {
    let guide = Guide::with(None).await;
    let mut phone = guide.app("softphone", ALICE).await;
    let mut bobs = guide.app("softphone", "bob@example.com").await;
    // Without a handler and a `timeout`, it is an event.
    let receipt = send(&mut phone, DIAL, json!({})).await;
    assert_eq!((&receipt["subtopic"], &receipt["data"]["Receivers"]), (&json!("Receipt"), &json!(0)));
    guide.quotes_answer(&["NO_HANDLER"], &send(&mut phone, DIAL, json!({"timeout": 1000})).await);

    let mut dialler = guide.app("dialler", ALICE).await;
    dialler.handle(DIAL).await;
    let answer = send(&mut phone, "Phone/Call/dial", json!({"timeout": 1000})).await;
    guide.quotes_answer(&["NO_HANDLER", "did you mean Phone/Call/Dial?"], &answer);
    let answer = send(&mut bobs, DIAL, json!({"timeout": 1000})).await;
    guide.quotes_answer(&["NO_HANDLER", "sessions of other users subscribe to this triple"], &answer);

    phone.send(envelope(DIAL, json!({"id": "late", "timeout": 600}))).await;
    let request = dialler.next().await;
    dialler.publish(DIAL, json!("an answer without inReplyTo")).await;
    guide.logs("INFO", "an answer needs 'inReplyTo'").await;
    let answer = phone.next_answer(DIAL, "late").await;
    guide.quotes_answer(&["REQUEST_TIMEOUT", "'dialler' did not answer within 600 ms"], &answer);
    dialler.reply(&request, json!({"data": "too late"})).await;
    guide.quotes_answer(&["NO_SUCH_REQUEST"], &dialler.next().await);

    phone.send(envelope(DIAL, json!({"id": "gone", "timeout": 8000}))).await;
    dialler.next_on(DIAL).await;
    dialler.kill();
    let answer = phone.next_answer(DIAL, "gone").await;
    guide.quotes_answer(&["HANDLER_GONE", "'dialler' left before it answered"], &answer);
    guide.logs("DEBUG", "the connection has ended").await;

    let answer = send(&mut phone, "Salesforce/User/FetchCredentials", json!({})).await;
    guide.quotes_answer(&["CREDENTIALS_NOT_FOUND"], &answer);
    assert!(answer["data"]["ErrorMessage"].as_str().unwrap().contains(ALICE), "the message names the user: {answer}");
}

#[tokio::test]
async fn what_permissions_refuse_is_explained() {
    let tokens = [application("gadget", Some(ALICE), ""), application("cti", None, "")].concat();
    let guide = Guide::with(Some(&format!("[auth]\nmode = \"tokens\"\n{tokens}"))).await;
    let (mut gadget, mut cti) = (guide.broker.app_by_token("gadget").await, guide.broker.app_by_token("cti").await);
    guide.quotes_answer(&["USER_REQUIRED"], &send(&mut cti, RINGING, json!({})).await);
    let handler = json!({"channel": "Cisco", "topic": "Agent", "subtopic": "Login", "role": "handler"});
    let refused = gadget.command("Subscription", "Subscribe", handler).await;
    guide.quotes_answer(&["FORBIDDEN", "handle"], &refused);
    let observing = json!({"channel": "Phone", "user": "bob@example.com"});
    let refused = gadget.command("Subscription", "Subscribe", observing).await;
    guide.quotes_answer(&["FORBIDDEN", "observe"], &refused);
}
