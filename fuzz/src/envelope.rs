//! Targets `envelope` and `command`: a text message.

use serde_json::value::RawValue;
use wire::command::{Command, REPLIES_MAX, Role};
use wire::{DecodeLimits, Envelope, Field, Splice, decode};

/// Decodes a text message, and splices it as a request leaves.
pub fn envelope(bytes: &[u8]) -> String {
    let Ok(text) = str::from_utf8(bytes) else { return "not-utf8".to_owned() };
    match decode(text, DecodeLimits::default()) {
        Ok(envelope) => {
            check_splice(&envelope);
            "accepted".to_owned()
        }
        Err(malformed) => malformed.refusal.code.to_string(),
    }
}

/// Whatever a client sent, the broker's fields are the only ones of their names, and the payload is untouched.
fn check_splice(envelope: &Envelope<'_>) {
    let cut = Splice::new(envelope).cut(Field::Id).cut(Field::User).cut(Field::Timeout).cut(Field::InReplyTo);
    let mut spliced = cut.string("id", "r\"1").string("user", "alice").number("timeout", 7).string("requestId", "own");
    if envelope.source().is_none() {
        spliced = spliced.string("source", "crm");
    }
    let text = spliced.pieces(|pieces| pieces.concat());
    assert!(serde_json::from_str::<&RawValue>(&text).is_ok(), "not JSON: {text}");
    let Ok(leaves) = decode(&text, DecodeLimits { depth: usize::MAX, broker_fields: true }) else {
        panic!("not an envelope: {text}");
    };
    assert_eq!(leaves.triple(), envelope.triple());
    assert_eq!((leaves.id(), leaves.user(), leaves.timeout_ms()), (Some("r\"1"), Some("alice"), Some(7)));
    assert_eq!((leaves.request_id(), leaves.in_reply_to(), leaves.once()), (Some("own"), None, false));
    assert_eq!((leaves.source(), leaves.target()), (envelope.source().or(Some("crm")), envelope.target()));
    assert_eq!(leaves.payload(), envelope.payload());
}

/// Reads a text message as a command of the broker.
pub fn command(bytes: &[u8]) -> String {
    let Ok(text) = str::from_utf8(bytes) else { return "not-utf8".to_owned() };
    let envelope = match decode(text, DecodeLimits::default()) {
        Ok(envelope) if envelope.triple().is_broker() => envelope,
        Ok(_) => return "not-a-command".to_owned(),
        Err(malformed) => return malformed.refusal.code.to_string(),
    };
    match Command::read(&envelope) {
        Ok(command) => {
            check_bounds(&command);
            "accepted".to_owned()
        }
        Err(refusal) => {
            assert!(refusal.message.len() < 400, "a long message: {}", refusal.message);
            refusal.code.to_string()
        }
    }
}

/// The broker keeps what a subscription has, so all of it is bounded.
fn check_bounds(command: &Command) {
    let Command::Subscribe(wanted) = command else { return };
    let is_short = |text: &str| text.len() <= wire::NAME_BYTES_MAX;
    let pattern = &wanted.pattern;
    let parts = [&pattern.channel, &pattern.topic, &pattern.subtopic];
    assert!(parts.iter().filter_map(|part| part.as_deref()).all(is_short));
    assert!([&wanted.group, &wanted.user].iter().filter_map(|it| it.as_deref()).all(is_short));
    if let Role::Handler { replies, .. } = &wanted.role {
        assert!(replies.len() <= REPLIES_MAX && replies.iter().all(|(topic, sub)| is_short(topic) && is_short(sub)));
    }
}
