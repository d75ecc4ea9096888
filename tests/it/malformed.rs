//! Messages that are no envelope: each is answered as the protocol says, quotes nothing, and the session lives on.

use serde_json::json;

use crate::support::{Broker, Peer, envelope};

/// Stands in every payload below; no error text may have it.
const SECRET: &str = "acq@123";

/// An envelope's text with a good triple and these members behind it.
fn with(members: &str) -> String {
    format!(r#"{{"channel":"Sales","topic":"Call","subtopic":"Ring","data":"{SECRET}",{members}}}"#)
}

fn nested(levels: usize) -> String {
    let inside = levels - 1;
    let (open, close) = ("[".repeat(inside), "]".repeat(inside));
    format!(r#"{{"channel":"Sales","topic":"Call","subtopic":"Ring","data":{open}{close}}}"#)
}

fn not_json() -> Vec<(&'static str, String)> {
    let good = with(r#""x":1"#);
    vec![
        ("nothing", String::new()),
        ("white space", " \n\t ".to_owned()),
        ("an object cut short", good[..good.len() - 1].to_owned()),
        ("a string cut short", good[..20].to_owned()),
        ("garbage behind", format!("{good} {SECRET}")),
        ("two objects", format!("{good}{good}")),
        ("two objects, two lines", format!("{good}\n{good}")),
        ("a NUL behind", format!("{good}\0")),
        ("a byte order mark", format!("\u{feff}{good}")),
        ("single quotes", good.replace('"', "'")),
        ("a bare key", good.replace("\"channel\"", "channel")),
        ("a comma too many", good.replace('}', ",}")),
        ("a comma missing", good.replace(r#"","topic""#, r#"" "topic""#)),
        ("a comment", good.replace('{', "{/* hello */")),
        ("NaN", with(r#""x":NaN"#)),
        ("a raw NUL in a string", with("\"x\":\"\0\"")),
        ("a raw line break in a string", with("\"x\":\"\n\"")),
        ("an unknown escape", with(r#""x":"\x41""#)),
        ("an escape cut short", with(r#""x":"\u00""#)),
        ("a leading zero", with(r#""x":01"#)),
        ("a plus", with(r#""x":+1"#)),
        ("a hexadecimal number", with(r#""x":0x10"#)),
        ("a literal cut short", with(r#""x":tru"#)),
        ("a number cut short", with(r#""x":1."#)),
        ("a lone quote", "\"".to_owned()),
        ("brackets crossed", with(r#""x":[{]}"#)),
    ]
}

fn no_envelope() -> Vec<(&'static str, String)> {
    let long = "n".repeat(129);
    let mut cases = vec![
        ("an array", format!("[{}]", with(r#""x":1"#))),
        ("a string", format!("\"{SECRET}\"")),
        ("a number", "42".to_owned()),
        ("null", "null".to_owned()),
        ("an empty object", "{}".to_owned()),
        ("no channel", format!(r#"{{"topic":"Call","subtopic":"Ring","data":"{SECRET}"}}"#)),
        ("no topic", format!(r#"{{"channel":"Sales","subtopic":"Ring","data":"{SECRET}"}}"#)),
        ("no subtopic", format!(r#"{{"channel":"Sales","topic":"Call","data":"{SECRET}"}}"#)),
        ("129 levels", nested(129)),
        ("100,000 levels", nested(100_000)),
        ("100,000 levels that never close", format!(r#"{{"channel":"Sales","data":{}"#, "[".repeat(100_000))),
    ];
    let wrong_parts = [
        ("a channel that is a number", r#""channel":7,"topic":"Call","subtopic":"Ring""#.to_owned()),
        ("a topic that is null", r#""channel":"Sales","topic":null,"subtopic":"Ring""#.to_owned()),
        ("a subtopic that is an array", r#""channel":"Sales","topic":"Call","subtopic":["Ring"]"#.to_owned()),
        ("an empty channel", r#""channel":"","topic":"Call","subtopic":"Ring""#.to_owned()),
        ("a topic of 129 bytes", format!(r#""channel":"Sales","topic":"{long}","subtopic":"Ring""#)),
        ("a control character", r#""channel":"Sales","topic":"Ca\u0007ll","subtopic":"Ring""#.to_owned()),
        ("an escaped NUL", r#""channel":"Sales\u0000","topic":"Call","subtopic":"Ring""#.to_owned()),
        ("a slash", r#""channel":"Sales","topic":"Call","subtopic":"Ring/x""#.to_owned()),
        ("an escaped slash", r#""channel":"Sales","topic":"Call","subtopic":"Ring\/x""#.to_owned()),
        ("a pattern for a value", r#""channel":"Sales","topic":"*","subtopic":"Ring""#.to_owned()),
        ("a lone surrogate in a part", r#""channel":"Sales","topic":"\ud800","subtopic":"Ring""#.to_owned()),
    ];
    cases.extend(wrong_parts.into_iter().map(|(name, members)| (name, format!("{{{members}}}"))));
    let members = [
        ("channel twice", r#""channel":"Sales""#),
        ("channel twice, once escaped", r#""ch\u0061nnel":"Other""#),
        ("subtopic twice, once escaped", r#""\u0073ubtopic":"Ring""#),
        ("data twice", r#""data":1"#),
        ("message twice", r#""message":1,"message":1"#),
        ("id twice", r#""id":"a","id":"b""#),
        ("user twice, once escaped", r#""user":"local","\u0075ser":"other""#),
        ("inReplyTo twice", r#""inReplyTo":"a","inReplyTo":"a""#),
        ("an id that is a number", r#""id":1"#),
        ("an empty id", r#""id":"""#),
        ("a lone surrogate in the id", r#""id":"\udc00""#),
        ("an inReplyTo that is an object", r#""inReplyTo":{}"#),
        ("a more that is a string", r#""more":"true""#),
        ("a user that is a number", r#""user":1"#),
        ("an empty user", r#""user":"""#),
        ("a target that is an array", r#""target":["a"]"#),
        ("an empty target", r#""target":"""#),
        ("a source that is null", r#""source":null"#),
        ("an empty source", r#""source":"""#),
        ("a timeout of zero", r#""timeout":0"#),
        ("a negative timeout", r#""timeout":-1"#),
        ("a fraction of a millisecond", r#""timeout":1.5"#),
        ("a timeout out of range", r#""timeout":1e400"#),
        ("a timeout that is a string", r#""timeout":"100""#),
        ("a gather that is a number", r#""gather":1"#),
        ("an idempotent that is a string", r#""idempotent":"yes""#),
        ("a retain that is an array", r#""retain":[]"#),
        ("a requestId", r#""requestId":"x""#),
        ("a seq", r#""seq":1"#),
        ("an offset", r#""offset":1"#),
        ("an epoch", r#""epoch":"x""#),
        ("a retained", r#""retained":true"#),
        ("an escaped retained", r#""ret\u0061ined":false"#),
    ];
    cases.extend(members.into_iter().map(|(name, members)| (name, with(members))));
    cases.push(("an id of 129 bytes", with(&format!(r#""id":"{long}""#))));
    cases.push(("a source of 129 bytes", with(&format!(r#""source":"{long}""#))));
    cases
}

/// Sends the text; the answer has to be this code, and the session alive.
async fn check(peer: &mut Peer, name: &str, text: &str, code: &str) {
    peer.send_text(text).await;
    let answer = peer.next_error(code).await;
    let words = answer["data"]["ErrorMessage"].as_str().unwrap();
    assert!(!words.contains(SECRET), "{name}: the error quotes the payload: {words}");
    if code == "INVALID_JSON" {
        assert!(words.contains("byte "), "{name}: the error says where: {words}");
    }
    peer.expect_nothing().await;
}

#[tokio::test]
async fn what_is_no_json_is_answered_with_the_offset() {
    let broker = Broker::start().await;
    let mut neighbour = broker.app("neighbour").await;
    neighbour.subscribe("*/*/*").await;
    let mut peer = broker.app("myapp").await;
    for (name, text) in not_json() {
        check(&mut peer, name, &text, "INVALID_JSON").await;
    }
    neighbour.expect_nothing().await;
}

#[tokio::test]
async fn what_is_no_envelope_is_answered_with_the_field() {
    let broker = Broker::start().await;
    let mut neighbour = broker.app("neighbour").await;
    neighbour.subscribe("*/*/*").await;
    let mut peer = broker.app("myapp").await;
    for (name, text) in no_envelope() {
        check(&mut peer, name, &text, "INVALID_ENVELOPE").await;
    }
    neighbour.expect_nothing().await;
}

#[tokio::test]
async fn a_binary_message_is_answered_with_what_to_send() {
    let broker = Broker::start().await;
    let mut peer = broker.app("myapp").await;
    peer.send_binary(br#"{"channel":"Sales","topic":"Call","subtopic":"Ring"}"#).await;
    let answer = peer.next_error("INVALID_ENVELOPE").await;
    assert!(answer["data"]["ErrorMessage"].as_str().unwrap().contains("send text messages"), "{answer}");
    peer.expect_nothing().await;
}

#[tokio::test]
async fn what_json_allows_in_a_payload_passes_byte_for_byte() {
    let broker = Broker::start().await;
    let mut receiver = broker.app("receiver").await;
    receiver.subscribe("Sales/*/*").await;
    let mut sender = broker.app("sender").await;
    let deep = format!("{}{}", "[".repeat(127), "]".repeat(127));
    let payloads = [
        r#""\ud800""#,
        "[1e999,-0,1E+2,0.10]",
        r#"{"a":1,"a":2,"channel":"Other","source":"trunk","id":7}"#,
        "{ \"space\" :\t[ 1 ,\r\n 2 ] }",
        r#""\u0061\/\"é☎\u260e𝄞""#,
        "18446744073709551616",
        deep.as_str(),
    ];
    for payload in payloads {
        sender.send_text(&format!(r#"{{"channel":"Sales","topic":"Call","subtopic":"Ring","data":{payload}}}"#)).await;
        let text = receiver.next_text().await;
        assert!(text.contains(&format!(r#""data":{payload}"#)), "{payload} became {text}");
    }
}

#[tokio::test]
async fn ten_malformed_messages_in_a_row_close_with_1008() {
    let broker = Broker::start().await;
    let mut peer = broker.app("myapp").await;
    let mut neighbour = broker.app("neighbour").await;
    for at in 0..10 {
        // Unreadable ones and binary ones count alike.
        match at % 3 {
            0 => peer.send_text("{").await,
            1 => peer.send_binary(b"\0").await,
            _ => peer.send_text("{}").await,
        }
    }
    let (answers, code) = peer.until_closed().await;
    assert_eq!(code, 1008);
    assert!(answers.len() >= 9, "each is answered: {answers:?}");
    neighbour.expect_nothing().await;
}

#[tokio::test]
async fn a_good_message_starts_the_count_of_malformed_ones_anew() {
    let broker = Broker::start().await;
    let mut peer = broker.app("myapp").await;
    for _ in 0..3 {
        for _ in 0..9 {
            peer.send_text("{").await;
            peer.next_error("INVALID_JSON").await;
        }
        peer.expect_nothing().await;
    }
}

#[tokio::test]
async fn refusals_are_not_malformed_messages() {
    let broker = Broker::start().await;
    let mut peer = broker.app("myapp").await;
    for _ in 0..30 {
        peer.send(envelope("Sales/Call/Ring", json!({"source": "another"}))).await;
        peer.next_error("SOURCE_MISMATCH").await;
    }
    peer.expect_nothing().await;
}
