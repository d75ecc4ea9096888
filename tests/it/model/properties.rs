//! Properties against naive models: the decoder against `serde_json`, what is spliced against what a JSON library would
//! build, the subscription index against a loop.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use proptest::prelude::*;
use serde_json::{Map, Value};
use switchboard::auth::{Identity, Permissions, Principal, Users};
use switchboard::config::{Channel, Config, Scope};
use switchboard::router::{Ids, Outbox, OutboxLimits, Policy, Registration, Router, Session};
use switchboard::websocket::Frame;
use wire::ErrorCode;
use wire::command::{Role, Subscribe};
use wire::{DecodeLimits, Field, Pattern, Splice, Triple, decode};

/// A member of an object as text: the key as it is written, and the value.
type Written = (String, String);

/// White space that JSON allows between two tokens.
fn spacing() -> impl Strategy<Value = &'static str> {
    prop_oneof![4 => Just(""), 1 => Just(" "), 1 => Just("\n\t "), 1 => Just("\r\n")]
}

/// A JSON value of any kind, with what a payload may have and a routing field may not.
fn payload() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        Just("1e999".to_owned()),
        Just(r#""\ud800""#.to_owned()),
        "[a-z\"\\\\/\u{1f600} ]{0,6}".prop_map(|text| serde_json::to_string(&text).unwrap()),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(" , "))),
            prop::collection::vec(inner, 0..4).prop_map(|items| {
                // A payload has a `channel` and a `source` of its own, and may have a key twice.
                let keys = ["channel", "source", "id", "id"];
                let members: Vec<_> = keys.iter().zip(items).map(|(key, item)| format!(r#""{key}" :{item}"#)).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

/// A key of the envelope's table, sometimes escaped.
fn written_key(key: &'static str) -> impl Strategy<Value = String> {
    let first = key.as_bytes()[0];
    prop_oneof![4 => Just(format!("\"{key}\"")), 1 => Just(format!("\"\\u{:04x}{}\"", first, &key[1..]))]
}

/// Optional members, each with a value that is right for it, or `null`, which means that it is absent.
fn members() -> impl Strategy<Value = Vec<Written>> {
    let name = "[a-zA-Z0-9 é.-]{1,12}".prop_map(|name| serde_json::to_string(&name).unwrap());
    let flag = prop_oneof![Just("true".to_owned()), Just("false".to_owned())];
    let member = |key, value: BoxedStrategy<String>| prop::option::of((written_key(key), value)).boxed();
    let nullable =
        |key, value: BoxedStrategy<String>| member(key, prop_oneof![6 => value, 1 => Just("null".to_owned())].boxed());
    let optional = vec![
        nullable("source", name.clone().boxed()),
        nullable("id", name.clone().boxed()),
        nullable("inReplyTo", name.clone().boxed()),
        nullable("user", name.clone().boxed()),
        nullable("target", name.boxed()),
        nullable("timeout", (1..u64::MAX).prop_map(|ms| ms.to_string()).boxed()),
        nullable("more", flag.clone().boxed()),
        nullable("gather", flag.boxed()),
        member("data", payload().boxed()),
        member("x-unknown", payload().boxed()),
        nullable("once", prop_oneof![Just("true".to_owned()), Just("false".to_owned())].boxed()),
        member("requestId", Just("null".to_owned()).boxed()),
    ];
    let triple =
        ["channel", "topic", "subtopic"].map(|key| (written_key(key), Just(format!("\"{key} value\""))).boxed());
    (optional, triple)
        .prop_map(|(optional, triple)| optional.into_iter().flatten().chain(triple).collect::<Vec<_>>())
        .prop_shuffle()
}

fn object(members: &[Written], space: &str) -> String {
    let members: Vec<_> =
        members.iter().map(|(key, value)| format!("{space}{key}{space}:{space}{value}{space}")).collect();
    format!("{space}{{{}}}{space}", members.join(","))
}

/// The members by their plain keys, values as text.
fn plain(members: &[Written]) -> Vec<(String, String)> {
    members.iter().map(|(key, value)| (serde_json::from_str(key).unwrap(), value.clone())).collect()
}

proptest! {
    // A failure prints its input, which then becomes a test of its own.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_decoder_reads_what_serde_json_reads(members in members(), space in spacing()) {
        let text = object(&members, space);
        let envelope = decode(&text, DecodeLimits::default()).map_err(|it| TestCaseError::fail(it.refusal.to_string()))?;
        let plain = plain(&members);
        let value = |key: &str| plain.iter().find(|(own, _)| own == key).map(|(_, value)| value.as_str());
        let set = |key| value(key).filter(|raw| *raw != "null");
        let string = |key| set(key).map(|raw| serde_json::from_str::<String>(raw).unwrap());
        prop_assert_eq!(&*envelope.triple().channel, "channel value");
        prop_assert_eq!(envelope.source().map(str::to_owned), string("source"));
        prop_assert_eq!(envelope.id().map(str::to_owned), string("id"));
        prop_assert_eq!(envelope.in_reply_to().map(str::to_owned), string("inReplyTo"));
        prop_assert_eq!(envelope.user().map(str::to_owned), string("user"));
        prop_assert_eq!(envelope.target().map(str::to_owned), string("target"));
        prop_assert_eq!(envelope.timeout_ms(), set("timeout").map(|raw| raw.parse().unwrap()));
        prop_assert_eq!(envelope.more(), value("more") == Some("true"));
        prop_assert_eq!(envelope.gather(), value("gather") == Some("true"));
        prop_assert_eq!(envelope.once(), value("once") == Some("true"));
        prop_assert_eq!(envelope.payload(), value("data"));
    }

    #[test]
    fn what_is_spliced_is_what_a_json_library_would_build(
        members in members(),
        space in spacing(),
        cuts in prop::sample::subsequence(vec!["id", "inReplyTo", "user", "timeout", "more"], 0..=5),
    ) {
        let text = object(&members, space);
        let envelope = decode(&text, DecodeLimits::default()).unwrap();
        let mut splice = Splice::new(&envelope);
        for cut in &cuts {
            splice = splice.cut(match *cut {
                "id" => Field::Id,
                "inReplyTo" => Field::InReplyTo,
                "user" => Field::User,
                "timeout" => Field::Timeout,
                _ => Field::More,
            });
        }
        let splice = splice.string("added", "a \"quoted\" \u{1} name").number("count", 7).flag("set");
        let frame = Frame::from(splice.string("requestId", "r1"));
        // Raw values compare byte for byte, also where a payload has what `Value` cannot hold.
        let read: Raw = serde_json::from_str(frame.text()).map_err(|it| TestCaseError::fail(format!("{it}: {}", frame.text())))?;
        let mut expected = plain(&members);
        // The broker's `requestId` replaces one that was `null`.
        expected.retain(|(key, _)| !cuts.contains(&key.as_str()) && key != "once" && key != "requestId");
        expected.push(("added".into(), r#""a \"quoted\" \u0001 name""#.into()));
        expected.push(("count".into(), "7".into()));
        expected.push(("set".into(), "true".into()));
        expected.push(("requestId".into(), r#""r1""#.into()));
        prop_assert_eq!(read.0, expected);
        prop_assert_eq!(frame.len(), frame.text().len());
    }

    #[test]
    fn the_decoder_accepts_only_json_and_never_panics(text in "[\\[\\]{}\",:a-z0-9\\\\ \u{0}\u{feff}]{0,60}") {
        let is_json = serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok();
        match decode(&text, DecodeLimits::default()) {
            Ok(_) => prop_assert!(is_json),
            Err(malformed) => prop_assert_eq!(malformed.refusal.code == ErrorCode::InvalidJson, !is_json, "{}", text),
        }
    }

    #[test]
    fn a_slip_of_the_pen_is_told_apart(
        members in members(),
        space in spacing(),
        at in any::<prop::sample::Index>(),
        slip in "[\\[\\]{}\",:a0\\\\ \u{0}é]?",
        cut in 0..2_usize,
    ) {
        let mut text = object(&members, space);
        text.push(' ');
        let places: Vec<usize> = text.char_indices().map(|(place, _)| place).collect();
        let place = places[at.index(places.len())];
        let end = text[place..].char_indices().nth(cut).map_or(text.len(), |(len, _)| place + len);
        text.replace_range(place..end, &slip);
        let is_json = serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok();
        match decode(&text, DecodeLimits::default()) {
            Ok(_) => prop_assert!(is_json, "{}", text),
            Err(malformed) => prop_assert_eq!(malformed.refusal.code == ErrorCode::InvalidJson, !is_json, "{}", text),
        }
    }

    #[test]
    fn depth_counts_brackets_outside_strings(depth in 120..136_usize, in_string in "[\\[{]{0,200}") {
        let data = format!("{}{}{}", "[".repeat(depth - 1), serde_json::to_string(&in_string).unwrap(), "]".repeat(depth - 1));
        let text = format!(r#"{{"channel":"A","topic":"B","subtopic":"C","data":{data}}}"#);
        prop_assert_eq!(decode(&text, DecodeLimits::default()).is_ok(), depth <= 128);
    }
}

/// An object's members in their order, values as they are written.
#[derive(Debug, PartialEq)]
struct Raw(Vec<(String, String)>);

impl<'de> serde::Deserialize<'de> for Raw {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> serde::de::Visitor<'de> for Members {
            type Value = Raw;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
                let mut members = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, &'de serde_json::value::RawValue>()? {
                    members.push((key, value.get().to_owned()));
                }
                Ok(Raw(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

#[test]
fn a_mistake_is_told_with_the_id_wherever_it_stands() {
    for text in [
        r#"{"id":"i","channel":"*","topic":"B","subtopic":"C"}"#,
        r#"{"channel":"*","topic":"B","subtopic":"C","id":"i"}"#,
        r#"{"channel":"A","topic":1,"retain":null,"subtopic":"C","\u0069d":"i"}"#,
        r#"{"id":"i","channel":"A","topic":"B"}"#,
    ] {
        assert_eq!(decode(text, DecodeLimits::default()).err().unwrap().id.as_deref(), Some("i"), "{text}");
    }
}

/// A router whose channels are one user's (`a`), shared (`b`) and folding (`c`).
struct Desk {
    router: Router,
    now: Instant,
}

impl Desk {
    #[expect(clippy::disallowed_methods, reason = "where the clock begins does not matter")]
    fn new() -> Self {
        let mut config = Config::default();
        config.channels.insert("b".into(), Channel { scope: Scope::Shared, ..Channel::default() });
        config.channels.insert("c".into(), Channel { fold_case: true, ..Channel::default() });
        let now = Instant::now();
        let router = Router::new(now, SystemTime::UNIX_EPOCH, Policy::new(&config), Ids::seeded(1), Vec::new());
        Self { router, now }
    }

    fn attach(&self, source: &str, user: Option<&str>) -> Arc<Session> {
        let limits = OutboxLimits { messages: 100_000, bytes: 1 << 30, refuses: false };
        let identity = Identity::unproved(
            user.map_or(Principal::Service, |user| Principal::User(user.into())),
            Permissions { observe: Users::nobody(), ..Permissions::all() },
        );
        let outbox = Outbox::new(limits);
        let registration =
            Registration { source: source.into(), identity, echo: false, address: None, outbox, will: None };
        self.router.attach(self.now, registration).unwrap()
    }

    fn subscribe(&self, member: &Arc<Session>, pattern: &Pattern) {
        let wanted = Subscribe::new(pattern.clone(), Role::Subscriber);
        self.router.subscribe(self.now, member, &wanted, |_| None).unwrap();
    }

    fn receivers(&self, sender: &Arc<Session>, triple: &Triple<'_>) -> usize {
        let Triple { channel, topic, subtopic } = triple;
        let text = Value::Object(Map::from_iter([
            ("channel".into(), channel.to_string().into()),
            ("topic".into(), topic.to_string().into()),
            ("subtopic".into(), subtopic.to_string().into()),
        ]));
        let text = text.to_string();
        let envelope = decode(&text, DecodeLimits::default()).unwrap();
        self.router.route(self.now, sender, &envelope).unwrap().receipt.unwrap().receivers
    }
}

/// Every three of these parts.
fn triples<'p>(parts: &'p [&'p str]) -> impl Iterator<Item = [&'p str; 3]> {
    let many = parts.len();
    (0..many.pow(3)).map(move |n| [parts[n / many / many], parts[n / many % many], parts[n % many]])
}

#[test]
fn the_index_matches_what_a_loop_matches() {
    let patterns: Vec<Pattern> =
        triples(&["a", "b", "c", "A", "*"]).map(|[x, y, z]| format!("{x}/{y}/{z}").parse().unwrap()).collect();
    let desk = Desk::new();
    // One session a pattern for alice, for bob and as a service, and one for each with all patterns at once.
    let mut sessions = Vec::new();
    for (at, user) in [Some("alice"), Some("bob"), None].into_iter().enumerate() {
        let all = desk.attach(&format!("all-{at}"), user);
        for (number, pattern) in patterns.iter().enumerate() {
            let one = desk.attach(&format!("one-{at}-{number}"), user);
            desk.subscribe(&one, pattern);
            desk.subscribe(&all, pattern);
            sessions.push((user, vec![pattern.clone()]));
        }
        sessions.push((user, patterns.clone()));
    }
    let sender = desk.attach("sender", Some("alice"));
    for [x, y, z] in triples(&["a", "b", "c", "A"]) {
        let triple = Triple::new(x, y, z);
        let matches = |pattern: &Pattern| match x {
            // A folding channel's own name is compared as it is written.
            "c" => pattern.matches_any_case(&triple) && pattern.channel.as_deref().is_none_or(|own| own == "c"),
            _ => pattern.matches(&triple),
        };
        let may_hear = |user: Option<&str>| user != Some("bob") || x == "b";
        let expected = sessions.iter().filter(|(user, held)| may_hear(*user) && held.iter().any(matches)).count();
        assert_eq!(desk.receivers(&sender, &triple), expected, "{triple}");
    }
}
