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

    /// The row with this text in its first column. It is looked up before its case is played.
    fn row(&self, seen: &'static str) -> Row<'_> {
        let rows = self.text.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" | "));
        let logs: Vec<_> = rows.filter(|(first, _)| *first == seen).map(|(_, others)| others).collect();
        let [others] = logs[..] else { panic!("the page has {} rows '{seen}'", logs.len()) };
        let (log, _) = others.split_once(" | ").unwrap();
        Row { broker: &self.broker, seen, log, before: self.broker.log().len() }
    }

    async fn app(&self, source: &str, user: &str) -> Peer {
        self.broker.app_of(source, user).await
    }
}

/// A row of the page.
struct Row<'g> {
    broker: &'g Broker,
    seen: &'static str,
    /// What its column says of the log.
    log: &'g str,
    /// The length of the log before the case is played.
    before: usize,
}

impl Row<'_> {
    /// Asserts that an answer has what the row quotes, and the log what its column says.
    async fn explains(&self, answer: &Value) {
        let answer = answer.to_string();
        for quoted in quoted(self.seen) {
            assert!(answer.contains(quoted), "the broker does not say '{quoted}' in {answer}");
        }
        self.is_logged().await;
    }

    /// Waits for a line of the level and with all quotes of the column. Where that is a dash, asserts that there is no line:
    /// those of a session are written before it is answered.
    async fn is_logged(&self) {
        let Some((level, text)) = self.log.split_once(": ") else {
            assert_eq!(self.log, "-", "the log column of '{}'", self.seen);
            let log = self.broker.log();
            let lines: Vec<_> = log[self.before..].lines().filter(|line| !line.contains(": a command ")).collect();
            assert!(lines.is_empty(), "the page has a dash for '{}', and the log has {lines:#?}", self.seen);
            return;
        };
        let level = format!(" {} ", level.to_uppercase());
        let wanted = |line: &str| line.contains(&level) && quoted(text).all(|quoted| line.contains(quoted));
        let what = format!("a line for '{}': {}", self.seen, self.log);
        self.broker.log_until(&what, |log| log[self.before..].lines().any(wanted)).await;
    }
}

/// The parts of a text that are in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Sends an envelope with an `id`, and returns the answer or receipt.
async fn send(peer: &mut Peer, triple: &str, mut more: Value) -> Value {
    more["id"] = json!("e");
    peer.send(envelope(triple, more)).await;
    peer.next().await
}

#[tokio::test]
async fn connections_that_are_refused_or_closed_are_explained() {
    let config = "[limits]\nregistration = \"500ms\"\nmessage_bytes = 20000\n[auth]\nmode = \"tokens\"\n";
    let config = format!("{config}{}", application("screen", Some(ALICE), ""));
    let guide = Guide::with(Some(&config)).await;
    for (seen, path, header) in [
        ("403 `this Origin may not connect`", "/ws", "Origin: https://crm.example.com"),
        ("421 `this Host is not served`", "/ws", "Host: elsewhere.example.com"),
        ("404 `the WebSocket is at /ws`", "/other", "Accept: */*"),
        ("400 `a token must not be in the URL`", "/ws?token=secret", "Accept: */*"),
    ] {
        let row = guide.row(seen);
        let response = http(guide.broker.address(), &handshake(path, header)).await;
        assert!(seen.starts_with(&response.status.to_string()), "{seen}: {}", response.status);
        row.explains(&json!(response.body)).await;
    }
    let row = guide.row("close 4406, after 10 s");
    let mut early = guide.broker.raw("early").await;
    assert_eq!(early.closed().await, 4406);
    row.is_logged().await;

    let row = guide.row("`UNAUTHENTICATED`, then close 4401");
    let mut guessing = guide.broker.raw("guessing").await;
    let reply = guessing.register("screen", json!({"token": "wrong"})).await;
    assert_eq!(reply["data"]["ErrorCode"], "UNAUTHENTICATED", "{reply}");
    assert_eq!(guessing.closed().await, 4401);
    row.is_logged().await;

    let row = guide.row("close 1009");
    let mut screen = guide.broker.app_by_token("screen").await;
    screen.send_text(&"x".repeat(20_001)).await;
    assert_eq!(screen.closed().await, 1009);
    row.is_logged().await;
}

fn handshake(path: &str, header: &str) -> String {
    let host = if header.starts_with("Host") { "" } else { "Host: localhost\r\n" };
    format!("GET {path} HTTP/1.1\r\n{host}{header}\r\n\r\n")
}

#[tokio::test]
async fn the_pages_say_how_often_a_refused_origin_is_logged() {
    let guide = Guide::with(None).await;
    let refused = async |header| {
        let response = http(guide.broker.address(), &handshake("/ws", header)).await;
        assert_ne!(response.status, 101);
    };
    refused("Origin: https://first.example.com").await;
    refused("Origin: https://second.example.com").await;
    refused("Host: third.example.com").await;
    guide.broker.log_until("the last refusal", |log| log.contains("third.example.com")).await;
    let log = guide.broker.log();
    assert_eq!(["first", "second"].map(|it| log.contains(&format!("https://{it}.example.com"))), [true, false]);
    for (page, words) in [
        ("docs/guides/it-does-not-arrive.md", "at most once a minute for each reason and address"),
        ("docs/guides/first-gadget.md", "at most once a minute for each address"),
    ] {
        assert!(std::fs::read_to_string(page).unwrap().contains(words), "{page} does not say '{words}'");
    }
}

#[tokio::test]
async fn events_that_do_not_arrive_are_explained() {
    let guide = Guide::with(None).await;
    let (mut phone, mut bobs) = (guide.app("softphone", ALICE).await, guide.app("softphone", "bob@example.com").await);
    let mut screen = guide.app("screen", ALICE).await;
    let row = guide.row("events, but not those from before it subscribed");
    assert_eq!(send(&mut phone, RINGING, json!({})).await["data"]["Receivers"], 0);
    row.is_logged().await;
    let row = guide.row("`\"Receivers\":1` or more, but not at your application");
    screen.subscribe(RINGING).await;
    row.explains(&send(&mut phone, RINGING, json!({})).await).await;
    assert_eq!(screen.next().await["subtopic"], "Ringing");
    screen.expect_nothing().await;

    let row = guide.row("no receipt, no error");
    phone.publish("Other/Thing/Happened", json!({})).await;
    phone.expect_nothing().await;
    row.is_logged().await;
    let row = guide.row("`\"Receivers\":0` and the hint `did you mean Phone/Call/Ringing?`");
    row.explains(&send(&mut phone, "Phone/Call/ringing", json!({})).await).await;
    let row = guide.row("`\"Receivers\":0` and the hint `sessions of other users subscribe to this triple`");
    row.explains(&send(&mut bobs, RINGING, json!({})).await).await;
    for (triple, more) in [("Other/Thing/Happened", json!({})), (RINGING, json!({"target": "nobody"}))] {
        let row = guide.row("`\"Receivers\":0` without a hint");
        let receipt = send(&mut phone, triple, more).await;
        assert_eq!(receipt["data"].get("Hint"), None, "{receipt}");
        row.explains(&receipt).await;
    }
    let row = guide.row("`INVALID_ENVELOPE`, `the field 'id' must be a string, not a number`");
    phone.send(envelope(RINGING, json!({"id": 1}))).await;
    row.explains(&phone.next().await).await;

    let row = guide.row("`unknown option 'Channel'; did you mean 'channel'?`");
    row.explains(&phone.command("Subscription", "Subscribe", json!({"Channel": "Phone"})).await).await;
    let row = guide.row("the hint `the topic '#' matches only itself`");
    row.explains(&phone.command("Subscription", "Subscribe", json!({"channel": "Phone", "topic": "#"})).await).await;

    let mut early = guide.broker.raw("early").await;
    let row = guide.row("`NOT_REGISTERED`");
    row.explains(&send(&mut early, RINGING, json!({})).await).await;
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
    let mut dialler = guide.app("dialler", ALICE).await;
    let row = guide.row("a receipt with `Receivers`, or nothing");
    let receipt = send(&mut phone, DIAL, json!({})).await;
    assert_eq!((&receipt["subtopic"], &receipt["data"]["Receivers"]), (&json!("Receipt"), &json!(0)));
    row.explains(&receipt).await;
    // Its role is not "handler".
    let row = guide.row("no request");
    dialler.subscribe(DIAL).await;
    row.is_logged().await;
    let row = guide.row("`NO_HANDLER`");
    row.explains(&send(&mut phone, DIAL, json!({"timeout": 1000})).await).await;
    dialler.expect_nothing().await;

    dialler.handle(DIAL).await;
    let row = guide.row("`NO_HANDLER` and the hint `did you mean Phone/Call/Dial?`");
    row.explains(&send(&mut phone, "Phone/Call/dial", json!({"timeout": 1000})).await).await;
    let row = guide.row("`NO_HANDLER` and the hint `sessions of other users subscribe to this triple`");
    row.explains(&send(&mut bobs, DIAL, json!({"timeout": 1000})).await).await;

    let failed = guide.row("`REQUEST_TIMEOUT`, `'dialler' did not answer within 600 ms`");
    phone.send(envelope(DIAL, json!({"id": "late", "timeout": 600}))).await;
    let request = dialler.next().await;
    let row = guide.row("its answer is never delivered");
    dialler.publish(DIAL, json!("an answer without inReplyTo")).await;
    row.is_logged().await;
    failed.explains(&phone.next_answer(DIAL, "late").await).await;
    let row = guide.row("`NO_SUCH_REQUEST`");
    dialler.reply(&request, json!({"data": "too late"})).await;
    row.explains(&dialler.next().await).await;

    let row = guide.row("`HANDLER_GONE`, `'dialler' left before it answered`");
    phone.send(envelope(DIAL, json!({"id": "gone", "timeout": 8000}))).await;
    dialler.next_on(DIAL).await;
    dialler.kill();
    row.explains(&phone.next_answer(DIAL, "gone").await).await;

    let row = guide.row("`CREDENTIALS_NOT_FOUND`");
    let answer = send(&mut phone, "Salesforce/User/FetchCredentials", json!({})).await;
    row.explains(&answer).await;
    assert!(answer["data"]["ErrorMessage"].as_str().unwrap().contains(ALICE), "the message names the user: {answer}");
}

#[tokio::test]
async fn a_blocked_ordered_handler_is_explained() {
    let guide = Guide::with(Some("[requests]\nblocked = \"200ms\"\n[auth]\nmode = \"open\"\n")).await;
    let mut phone = guide.app("softphone", ALICE).await;
    let mut dialler = guide.app("dialler", ALICE).await;
    let row = guide.row("one request, and then no more");
    dialler.subscribe_with(DIAL, json!({"role": "handler", "ordered": true})).await;
    assert_eq!(send(&mut phone, DIAL, json!({"timeout": 100})).await["data"]["ErrorCode"], "REQUEST_TIMEOUT");
    phone.send(envelope(DIAL, json!({"id": "waits", "timeout": 8000}))).await;
    row.is_logged().await;
}

#[tokio::test]
async fn what_permissions_refuse_is_explained() {
    let tokens = [application("gadget", Some(ALICE), ""), application("cti", None, "")].concat();
    let queue = "[channels.Queue]\nscope = \"shared\"\npublish = \"services\"\n";
    let guide = Guide::with(Some(&format!("[auth]\nmode = \"tokens\"\n{queue}{tokens}"))).await;
    let (mut gadget, mut cti) = (guide.broker.app_by_token("gadget").await, guide.broker.app_by_token("cti").await);
    let row = guide.row("`USER_REQUIRED`");
    row.explains(&send(&mut cti, RINGING, json!({})).await).await;
    let refused = [
        (
            "`FORBIDDEN` for its subscription",
            "handle",
            json!({"channel": "Cisco", "topic": "Agent", "subtopic": "Login", "role": "handler"}),
        ),
        ("`FORBIDDEN` for its subscription", "handle", json!({"channel": "Queue", "role": "handler"})),
        ("`FORBIDDEN`", "observe", json!({"channel": "Phone", "user": "bob@example.com"})),
    ];
    for (seen, key, wanted) in refused {
        let row = guide.row(seen);
        let answer = gadget.command("Subscription", "Subscribe", wanted).await;
        row.explains(&answer).await;
        assert!(answer["data"]["ErrorMessage"].as_str().unwrap().contains(key), "the message names '{key}': {answer}");
    }
    let row = guide.row("`FORBIDDEN`");
    let answer = send(&mut gadget, "Queue/Stats/Waiting", json!({})).await;
    row.explains(&answer).await;
    assert!(answer["data"]["ErrorMessage"].as_str().unwrap().contains("publish"), "{answer}");
}
