//! What the broker puts into an envelope and cuts out of it: wherever a field is, however its key is written, and
//! without touching a byte of the rest.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::support::{Broker, Peer, application, envelope};

/// A payload that a JSON library would write otherwise.
const PAYLOAD: &str = r#"{ "id":"\u0069d" ,"user" : 1E+2, "a":1,"a":2,"é":"\ud83d\ude00\/",  "source":[ ] }"#;

/// The envelope's members as they stand, doubles included.
#[derive(Debug)]
struct Members(Vec<(String, String)>);

impl Members {
    fn of(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// The raw values of a key.
    fn all(&self, key: &str) -> Vec<&str> {
        self.0.iter().filter(|(name, _)| name == key).map(|(_, value)| value.as_str()).collect()
    }

    /// The raw value of a key that has to stand once.
    fn one(&self, key: &str) -> &str {
        match self.all(key)[..] {
            [value] => value,
            ref other => panic!("'{key}' occurs {} times in {self:?}", other.len()),
        }
    }

    /// Everything but these keys, in its order.
    fn without(&self, keys: &[&str]) -> Vec<&(String, String)> {
        self.0.iter().filter(|(name, _)| !keys.contains(&name.as_str())).collect()
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    members.push((key, value.get().to_owned()));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(All)
    }
}

/// The same envelope with one member more: at every place, with its key written in every way, in every spacing.
fn every_way(triple: &str, key: &str, value: &str) -> Vec<String> {
    let parts: Vec<String> = triple.split('/').map(|part| format!("\"{part}\"")).collect();
    let base = [
        ("channel", parts[0].as_str()),
        ("topic", parts[1].as_str()),
        ("subtopic", parts[2].as_str()),
        ("x-custom", r#""\u0078 untouched""#),
        ("data", PAYLOAD),
    ];
    let first = key.chars().next().unwrap();
    let escaped_first = format!("\\u{:04x}{}", u32::from(first), &key[first.len_utf8()..]);
    let escaped: Vec<String> = key.chars().map(|ch| format!("\\u{:04X}", u32::from(ch))).collect();
    let escaped_all = escaped.concat();
    let mut ways = Vec::new();
    for spelling in [key, &escaped_first, &escaped_all] {
        for place in 0..=base.len() {
            let mut members = base.to_vec();
            members.insert(place, (spelling, value));
            for (colon, comma, open, close) in
                [(":", ",", "{", "}"), (" : ", "\t,\n ", " \r\n{\t", "\n}\n"), (":", ", ", "{ ", " }")]
            {
                let members: Vec<String> =
                    members.iter().map(|(key, value)| format!("\"{key}\"{colon}{value}")).collect();
                ways.push(format!("{open}{}{close}", members.join(comma)));
            }
        }
    }
    ways
}

/// What the sender wrote and the broker does not set arrives as it was written, in its order.
fn assert_untouched(sent: &str, received: &str, set_by_broker: &[&str]) {
    let (sent_members, received_members) = (Members::of(sent), Members::of(received));
    assert_eq!(
        sent_members.without(set_by_broker),
        received_members.without(set_by_broker),
        "\n  sent     {sent}\n  received {received}"
    );
    assert!(received.contains(PAYLOAD), "the payload was touched: {received}");
}

const SET_ON_REQUESTS: &[&str] = &["id", "requestId", "source", "user", "timeout"];

#[tokio::test]
async fn a_request_leaves_with_the_brokers_fields_in_place_of_its_own() {
    let broker = Broker::start().await;
    let (mut asker, mut handler) = (broker.app("asker").await, broker.app("handler").await);
    handler.handle("Phone/Call/Dial").await;
    let own = [("id", r#""o\u0077n""#), ("timeout", "9000"), ("user", r#""local""#), ("source", r#""ask\u0065r""#)];
    for (key, value) in own {
        for sent in every_way("Phone/Call/Dial", key, value) {
            asker.send_text(&sent).await;
            let received = handler.next_text().await;
            assert_untouched(&sent, &received, SET_ON_REQUESTS);
            let members = Members::of(&received);
            let request: Value = serde_json::from_str(&received).unwrap();
            assert_ne!(members.one("id"), r#""own""#);
            assert_eq!(request["source"], "asker");
            assert_eq!(members.all("source").len(), 1, "{received}");
            assert_eq!(members.one("user"), r#""local""#);
            let timeout: u64 = members.one("timeout").parse().unwrap();
            assert!((1..=if key == "timeout" { 9000 } else { 10_000 }).contains(&timeout), "{timeout}");
            let asked_with: Option<&str> = (key == "id").then_some("own");
            assert_eq!(request.get("requestId").and_then(Value::as_str), asked_with, "{received}");
            handler.reply(&request, json!({})).await;
            let answer = asker.next_on("Phone/Call/Dial").await;
            assert_eq!(answer.get("inReplyTo").and_then(Value::as_str), asked_with);
        }
    }
}

#[tokio::test]
async fn a_reply_leaves_as_its_handler_wrote_it_but_for_whom_it_answers() {
    let broker = Broker::start().await;
    let (mut asker, mut handler) = (broker.app("asker").await, broker.app("handler").await);
    handler.handle("Phone/Call/Dial").await;
    for at in 0..every_way("Phone/Call/Dial", "inReplyTo", "0").len() {
        // With an id of its own, the asker finds it again; without one, no field is left.
        for id in [Some("own \"id\" \\ é"), None] {
            let request = id.map_or(json!({}), |id| json!({ "id": id }));
            asker.send(envelope("Phone/Call/Dial", request)).await;
            let delivered = handler.next().await["id"].to_string();
            let sent = every_way("Phone/Call/Dial", "inReplyTo", &delivered).swap_remove(at);
            handler.send_text(&sent).await;
            let received = asker.next_text().await;
            assert_untouched(&sent, &received, &["inReplyTo"]);
            let answer: Value = serde_json::from_str(&received).unwrap();
            assert_eq!(answer.get("inReplyTo").and_then(Value::as_str), id);
            assert_eq!(Members::of(&received).all("inReplyTo").len(), usize::from(id.is_some()));
        }
    }
}

#[tokio::test]
async fn an_event_reaches_a_service_with_one_user_and_one_source() {
    let applications = [application("phone", Some("alice"), ""), application("recorder", None, "")].concat();
    let broker = Broker::with_config(&applications).await;
    let (mut phone, mut recorder) = (broker.app_by_token("phone").await, broker.app_by_token("recorder").await);
    recorder.subscribe("Phone/*/*").await;
    for (key, value) in [("user", r#""alice""#), ("source", r#""phon\u0065""#), ("id", r#""e1""#), ("retain", "false")]
    {
        for sent in every_way("Phone/Call/Ringing", key, value) {
            phone.send_text(&sent).await;
            let received = recorder.next_text().await;
            assert_untouched(&sent, &received, &["user", "source"]);
            let members = Members::of(&received);
            assert_eq!(members.one("user"), r#""alice""#);
            members.one("source");
            if key == "id" {
                phone.next_receipt("e1").await;
            }
        }
    }
}

#[tokio::test]
async fn a_gathered_reply_has_one_more() {
    let broker = Broker::start().await;
    let (mut asker, mut handler) = (broker.app("asker").await, broker.app("handler").await);
    handler.handle("Phone/Call/Dial").await;
    for value in ["false", "true"] {
        for at in 0..every_way("Phone/Call/Dial", "more", value).len() {
            asker.send(envelope("Phone/Call/Dial", json!({"id": "g", "gather": true}))).await;
            let delivered = handler.next().await["id"].to_string();
            let sent = every_way("Phone/Call/Dial", "more", value).swap_remove(at);
            // The reply's own field goes behind the brace; where that is depends on the spacing.
            let sent = sent.replacen('{', &format!("{{\"inReplyTo\":{delivered},"), 1);
            handler.send_text(&sent).await;
            let received = asker.next_text().await;
            assert_untouched(&sent, &received, &["inReplyTo", "more"]);
            let members = Members::of(&received);
            assert_eq!((members.one("more"), members.one("inReplyTo")), ("true", "\"g\""));
            if value == "true" {
                handler
                    .send(json!({"channel": "Phone", "topic": "Call", "subtopic": "Dial",
                    "inReplyTo": delivered.trim_matches('"')}))
                    .await;
                asker.next().await;
            }
            assert_eq!(asker.next().await["data"]["Answered"], 1);
        }
    }
}

#[tokio::test]
async fn a_retained_event_is_marked_once_and_otherwise_untouched() {
    let broker = Broker::start().await;
    let mut phone = broker.app("phone").await;
    for sent in every_way("Phone/Agent/State", "retain", "true") {
        phone.send_text(&sent).await;
        phone.fence().await;
        let mut late: Peer = broker.app("late").await;
        late.subscribe("Phone/*/*").await;
        let received = late.next_text().await;
        assert_untouched(&sent, &received, &["source", "retained"]);
        let members = Members::of(&received);
        assert_eq!((members.one("retained"), members.one("source")), ("true", "\"phone\""));
    }
}

#[tokio::test]
async fn an_envelope_of_empty_looking_members_stays_what_it_is() {
    let broker = Broker::start().await;
    let (mut sender, mut other) = (broker.app("sender").await, broker.app("receiver").await);
    other.subscribe("Sales/*/*").await;
    let odd = [
        r#"{"":"","channel":"Sales","topic":"Call","subtopic":"Ring"}"#,
        r#"{"channel":"Sales","topic":"Call","subtopic":"Ring","}":"{","{":"}"}"#,
        r#"{"\\":"\\","channel":"Sales","\"":"\"","topic":"Call","subtopic":"Ring","data":"\\"}"#,
        r#"{"channels":"x","channel":"Sales","topic":"Call","subtopic":"Ring","target":null,"da ta":2,"data":[1e999,"\ud800"]}"#,
        r#"{"channel":"Sales","topic":"Call","subtopic":"Ring","data":[1e400,-0,1.10,-0.0e0,"\udc00\ud800"]}"#,
        r#"{"\ud800":1,"channel":"S\u0061les","topic":"\u0043all","subtopic":"Ring","x":1,"x":2}"#,
    ];
    for sent in odd {
        sender.send_text(sent).await;
        let received = other.next_text().await;
        let rest = sent.trim_end_matches('}');
        assert!(received.starts_with(rest), "\n  sent     {sent}\n  received {received}");
        assert!(received.contains("\"source\":\"sender\""), "{received}");
    }
}
