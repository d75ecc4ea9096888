//! The rules of docs/protocol.md, "Envelope", for texts that a client sends.

#![expect(clippy::panic, reason = "helpers of tests fail loudly")]

use switchboard_wire::ErrorCode::{self, InvalidEnvelope, InvalidJson, ReservedChannel};
use switchboard_wire::{DecodeLimits, Envelope, Field, Malformed, Splice, decode};

/// Is in every payload below; no message may contain it.
const SECRET: &str = "acq@123";

/// An envelope with a valid triple, a payload, and these further members.
fn with(members: &str) -> String {
    format!(r#"{{"channel":"Sales","topic":"Call","subtopic":"Ring","data":"{SECRET}",{members}}}"#)
}

fn read(text: &str) -> Result<Envelope<'_>, Malformed> {
    decode(text, DecodeLimits::default())
}

#[track_caller]
fn accepted(text: &str) -> Envelope<'_> {
    read(text).unwrap_or_else(|malformed| panic!("{}: {text}", malformed.refusal))
}

/// Checks the code of a refusal, and that its message names this and quotes no payload.
#[track_caller]
fn refused(text: &str, code: ErrorCode, names: &str) -> Malformed {
    let Err(malformed) = read(text) else { panic!("accepted: {text}") };
    let message = &malformed.refusal.message;
    assert_eq!(malformed.refusal.code, code, "{text}: {message}");
    assert!(message.contains(names), "{text}: '{names}' is not in: {message}");
    assert!(!message.contains(SECRET) && message.len() < 200, "{text}: {message}");
    malformed
}

#[test]
fn a_text_that_is_not_json_is_refused_with_the_byte() {
    let good = with(r#""x":1"#);
    let texts = [
        String::new(),
        " \n\t ".to_owned(),
        good[..good.len() - 1].to_owned(),
        good[..20].to_owned(),
        format!("{good} {SECRET}"),
        format!("{good}{good}"),
        format!("{good}\n{good}"),
        format!("{good}\0"),
        format!("\u{feff}{good}"),
        good.replace('"', "'"),
        good.replace("\"channel\"", "channel"),
        good.replace('}', ",}"),
        good.replace(r#"","topic""#, r#"" "topic""#),
        good.replace('{', "{/* hello */"),
        with(r#""x":NaN"#),
        with("\"x\":\"\0\""),
        with("\"x\":\"\n\""),
        with(r#""x":"\x41""#),
        with(r#""x":"\u00""#),
        with(r#""x":01"#),
        with(r#""x":+1"#),
        with(r#""x":0x10"#),
        with(r#""x":tru"#),
        with(r#""x":1."#),
        "\"".to_owned(),
        with(r#""x":[{]}"#),
    ];
    for text in texts {
        refused(&text, InvalidJson, "byte ");
    }
}

#[test]
fn a_text_that_is_not_an_object_is_refused() {
    for text in [format!("[{}]", with(r#""x":1"#)), format!("\"{SECRET}\""), "42".to_owned(), "null".to_owned()] {
        refused(&text, InvalidEnvelope, "one JSON object");
    }
}

#[test]
fn the_envelope_is_level_1_of_128() {
    let nested = |levels: usize| with(&format!("\"x\":{}{}", "[".repeat(levels - 1), "]".repeat(levels - 1)));
    accepted(&nested(128));
    refused(&nested(129), InvalidEnvelope, "deeper than 128 levels");
    refused(
        &format!(r#"{{"channel":"Sales","data":{}"#, "[".repeat(100_000)),
        InvalidEnvelope,
        "deeper than 128 levels",
    );
}

#[test]
fn a_triple_has_three_parts() {
    let long = "n".repeat(129);
    let cases = [
        ("", "'channel' is missing"),
        (r#""topic":"Call","subtopic":"Ring""#, "'channel' is missing"),
        (r#""channel":"Sales","subtopic":"Ring""#, "'topic' is missing"),
        (r#""channel":"Sales","topic":"Call""#, "'subtopic' is missing"),
        (r#""channel":7,"topic":"Call","subtopic":"Ring""#, "'channel' must be a string, not a number"),
        (r#""channel":"Sales","topic":null,"subtopic":"Ring""#, "'topic' must be a string, not null"),
        (r#""channel":"Sales","topic":"Call","subtopic":["Ring"]"#, "'subtopic' must be a string, not an array"),
        (r#""channel":"","topic":"Call","subtopic":"Ring""#, "'channel' must not be empty"),
        (&format!(r#""channel":"Sales","topic":"{long}","subtopic":"Ring""#), "'topic' must not be longer"),
        (r#""channel":"Sales","topic":"Ca\u0007ll","subtopic":"Ring""#, "'topic' must not contain control"),
        (r#""channel":"Sales\u0000","topic":"Call","subtopic":"Ring""#, "'channel' must not contain control"),
        (r#""channel":"Sales","topic":"Call","subtopic":"Ring/x""#, "'subtopic' must not contain '/'"),
        (r#""channel":"Sales","topic":"Call","subtopic":"Ring\/x""#, "'subtopic' must not contain '/'"),
        (r#""channel":"Sales","topic":"*","subtopic":"Ring""#, "'topic' must not be '*'"),
        (r#""channel":"Sales","topic":"\ud800","subtopic":"Ring""#, "'topic' has a lone surrogate"),
    ];
    for (members, names) in cases {
        refused(&format!("{{{members}}}"), InvalidEnvelope, names);
    }
    let longest = "é".repeat(64);
    let text = format!(r#"{{"channel":"{longest}","topic":"a*b","subtopic":"\u0043all"}}"#);
    assert_eq!(accepted(&text).triple().to_string(), format!("{longest}/a*b/Call"));
}

#[test]
fn another_spelling_of_broker_is_a_reserved_channel() {
    for channel in ["broker", "BROKER", "brOkEr", " Broker", "Broker\\t", "bro\\u006ber"] {
        let text = format!(r#"{{"id":"m1","channel":"{channel}","topic":"Connection","subtopic":"Ping"}}"#);
        if channel == "Broker\\t" {
            refused(&text, InvalidEnvelope, "control characters");
        } else {
            assert_eq!(refused(&text, ReservedChannel, "'Broker'").id.as_deref(), Some("m1"));
        }
    }
    for channel in ["Broker", "Br\\u006fker"] {
        let text = format!(r#"{{"channel":"{channel}","topic":"Connection","subtopic":"Ping"}}"#);
        assert!(accepted(&text).triple().is_broker());
    }
    accepted(r#"{"channel":"Brokers","topic":"Connection","subtopic":"Ping"}"#);
}

#[test]
fn each_field_has_its_type_and_bounds() {
    let long = "n".repeat(129);
    let cases = [
        (r#""id":1"#, "'id' must be a string"),
        (r#""id":"""#, "'id' must not be empty"),
        (r#""id":"\udc00""#, "'id' has a lone surrogate"),
        (&format!(r#""id":"{long}""#), "'id' must not be longer"),
        (r#""inReplyTo":{}"#, "'inReplyTo' must be a string"),
        (r#""inReplyTo":"\ud800""#, "'inReplyTo' has a lone surrogate"),
        (r#""user":1"#, "'user' must be a string"),
        (r#""user":"""#, "'user' must not be empty"),
        (r#""user":"a\u0085""#, "'user' must not contain control"),
        (r#""target":["a"]"#, "'target' must be a string"),
        (r#""target":"""#, "'target' must not be empty"),
        (r#""source":false"#, "'source' must be a string, not a boolean"),
        (r#""source":"""#, "'source' must not be empty"),
        (&format!(r#""source":"{long}""#), "'source' must not be longer"),
        (r#""timeout":0"#, "'timeout' must be a whole number"),
        (r#""timeout":-1"#, "'timeout' must be a whole number"),
        (r#""timeout":1.5"#, "'timeout' must be a whole number"),
        (r#""timeout":1e400"#, "'timeout' must be a whole number"),
        (r#""timeout":18446744073709551616"#, "'timeout' must be a whole number"),
        (r#""timeout":"100""#, "'timeout' must be a whole number"),
        (r#""more":"true""#, "'more' must be true or false, not a string"),
        (r#""gather":1"#, "'gather' must be true or false, not a number"),
        (r#""idempotent":"yes""#, "'idempotent' must be true or false"),
        (r#""retain":[]"#, "'retain' must be true or false, not an array"),
        (r#""once":{}"#, "'once' must be true or false, not an object"),
    ];
    for (member, names) in cases {
        refused(&with(member), InvalidEnvelope, names);
    }
    let text = with(
        r#""id":"\n","inReplyTo":"","user":"u","target":"t","source":"s/*","timeout":1,"more":true,"gather":true,
        "idempotent":true,"retain":true,"once":true"#,
    );
    let envelope = accepted(&text);
    let names = [envelope.id(), envelope.in_reply_to(), envelope.user(), envelope.target(), envelope.source()];
    assert_eq!(names, [Some("\n"), Some(""), Some("u"), Some("t"), Some("s/*")]);
    assert_eq!(envelope.timeout_ms(), Some(1));
    assert!(envelope.more() && envelope.gather() && envelope.idempotent() && envelope.retain() && envelope.once());
}

#[test]
fn null_means_absent_except_in_a_payload() {
    let text = with(
        r#""id":null,"inReplyTo":null,"user":null,"target":null,"source":null,"timeout":null,"more":null,"gather":null,
        "idempotent":null,"retain":null,"once":null,"requestId":null,"offset":null,"epoch":null,"replayed":null,
        "retained":null,"seq":null"#,
    );
    let envelope = accepted(&text);
    let names = [envelope.id(), envelope.in_reply_to(), envelope.user(), envelope.target(), envelope.source()];
    assert_eq!((names, envelope.request_id(), envelope.timeout_ms()), ([None; 5], None, None));
    assert!(!envelope.more() && !envelope.retain() && !envelope.once() && !envelope.asks());

    let payload = |members: &str| {
        let text = format!(r#"{{"channel":"A","topic":"B","subtopic":"C"{members}}}"#);
        accepted(&text).payload().map(str::to_owned)
    };
    assert_eq!(payload(""), None);
    assert_eq!(payload(r#","message":null"#).as_deref(), Some("null"));
    assert_eq!(payload(r#","message":{},"data":null"#).as_deref(), Some("null"), "rules on the payload mean 'data'");
    assert_eq!(payload(r#","message":[1]"#).as_deref(), Some("[1]"));
}

#[test]
fn only_the_broker_sets_some_fields() {
    for key in ["requestId", "seq", "offset", "epoch", "replayed", "retained", r"r\u0065tained"] {
        let text = with(&format!(r#""{key}":"x""#));
        refused(&text, InvalidEnvelope, "is set by the broker only");
        assert!(decode(&text, DecodeLimits::OWN).is_ok());
    }
}

#[test]
fn a_key_of_the_table_occurs_once() {
    let twice = [
        (r#""channel":"Sales""#, "'channel' occurs twice"),
        (r#""ch\u0061nnel":"Other""#, "'channel' occurs twice"),
        (r#""data":1"#, "'data' occurs twice"),
        (r#""message":1,"message":1"#, "'message' occurs twice"),
        (r#""id":"a","\u0069d":"a""#, "'id' occurs twice"),
        (r#""id":null,"id":"a""#, "'id' occurs twice"),
        (r#""once":false,"once":true"#, "'once' occurs twice"),
        (r#""seq":null,"seq":null"#, "'seq' occurs twice"),
    ];
    for (members, names) in twice {
        refused(&with(members), InvalidEnvelope, names);
    }
    accepted(&with(r#""x":1,"x":2"#));
}

#[test]
fn a_key_that_could_be_taken_for_another_is_refused() {
    let keys = [
        ("Channel", "channel"),
        ("USER", "user"),
        ("Source", "source"),
        ("InReplyTo", "inReplyTo"),
        ("inreplyto", "inReplyTo"),
        ("ID", "id"),
        ("Retained", "retained"),
        ("Once", "once"),
        ("SEQ", "seq"),
        ("data ", "data"),
        ("Data ", "data"),
        (r"\u0055ser", "user"),
        (r"\tuser", "user"),
        (r"\u00a0Idempotent\u2003", "idempotent"),
    ];
    for (key, meant) in keys {
        refused(&with(&format!(r#""{key}":null"#)), InvalidEnvelope, &format!("'{meant}'"));
    }
    refused(&with(&format!(r#""{}user":1"#, " ".repeat(1_000))), InvalidEnvelope, "'user'");
    for key in ["", " ", "ids", "us er", "in_reply_to", "ｉｄ", r"user\ud800", "time-out", "\u{17f}ource"] {
        accepted(&with(&format!(r#""{key}":1"#)));
    }
}

#[test]
fn the_first_mistake_is_reported_with_the_id() {
    let malformed = refused(&with(r#""more":1,"gather":1,"id":"m1""#), InvalidEnvelope, "'more'");
    assert_eq!(malformed.id.as_deref(), Some("m1"));
    assert_eq!(refused(&with(r#""id":null,"more":1"#), InvalidEnvelope, "'more'").id, None);
}

#[test]
fn a_payload_passes_as_it_is() {
    let payloads = [
        r#""\ud800""#,
        "[1e999,-0,1E+2,0.10]",
        r#"{"a":1,"a":2,"Channel":"Other","source":"trunk","id":7,"seq":1}"#,
        "{ \"space\" :\t[ 1 ,\r\n 2 ] }",
        "18446744073709551616",
    ];
    for payload in payloads {
        let text = format!(r#"{{"channel":"A","topic":"B","subtopic":"C","data":{payload}}}"#);
        assert_eq!(accepted(&text).payload(), Some(payload));
    }
}

/// The text that leaves after these changes.
fn spliced<'e>(envelope: &'e Envelope<'e>, change: impl FnOnce(Splice<'e>) -> Splice<'e>) -> String {
    change(Splice::new(envelope)).pieces(|pieces| pieces.concat())
}

#[test]
fn a_field_that_was_null_gives_way_to_the_brokers() {
    let (triple, rest) = (r#""channel":"A","topic":"B","subtopic":"C""#, r#""x" : null"#);
    for key in ["source", "user", "requestId", "retained", "offset", "epoch", "replayed", "id", "inReplyTo", "timeout"]
    {
        let escaped = format!(r"\u{:04x}{}", key.as_bytes()[0], &key[1..]);
        for written in [key, &escaped] {
            for text in [
                format!(r#"{{"{written}" : null ,{triple},{rest}}}"#),
                format!(r#"{{{triple}, "{written}":null,{rest}}}"#),
                format!(r#"{{{triple},{rest},"{written}":null }}"#),
            ] {
                let envelope = accepted(&text);
                let text = match key {
                    "user" => spliced(&envelope, |it| it.cut(Field::User).string(key, "b")),
                    "id" => spliced(&envelope, |it| it.cut(Field::Id).string(key, "b")),
                    "inReplyTo" => spliced(&envelope, |it| it.cut(Field::InReplyTo).string(key, "b")),
                    "timeout" => spliced(&envelope, |it| it.cut(Field::Timeout).string(key, "b")),
                    _ => spliced(&envelope, |it| it.string(key, "b")),
                };
                assert_eq!(text.replace(' ', ""), format!(r#"{{{triple},"x":null,"{key}":"b"}}"#));
                assert!(text.contains(rest), "{text}");
            }
        }
    }
}

#[test]
fn once_never_leaves() {
    for value in ["true", "false", "null"] {
        for text in [
            format!(r#"{{"once":{value},"channel":"A","topic":"B","subtopic":"C"}}"#),
            format!(r#"{{"channel":"A","topic":"B","\u006fnce" : {value},"subtopic":"C"}}"#),
            format!(r#"{{"channel":"A","topic":"B","subtopic":"C","once":{value}}}"#),
        ] {
            let envelope = accepted(&text);
            assert_eq!(envelope.once(), value == "true");
            assert_eq!(spliced(&envelope, |it| it), r#"{"channel":"A","topic":"B","subtopic":"C"}"#);
        }
    }
}
