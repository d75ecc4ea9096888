//! The envelope of a question.

use wire::{DecodeLimits, Envelope, ErrorCode, Refusal, decode};

/// Reads the envelope of a question. `json_depth`: how deep it may nest. It has no payload, so that no secret is sent for a
/// question.
///
/// # Errors
/// Those of [`decode`]; `INVALID_ENVELOPE` for a payload, `RESERVED_CHANNEL` for the channel `Broker`.
pub fn envelope(text: &str, json_depth: usize) -> Result<Envelope<'_>, Refusal> {
    let envelope = decode(text, DecodeLimits::client(json_depth)).map_err(|malformed| {
        Refusal::new(malformed.refusal.code, format!("the envelope to explain: {}", malformed.refusal.message))
    })?;
    if envelope.triple().is_broker() {
        let words = "the envelope to explain is a command or an event of the broker, which are not routed by the rules";
        return Err(Refusal::new(ErrorCode::ReservedChannel, words));
    }
    if envelope.payload().is_some() {
        let words = "the envelope to explain has a payload; leave out 'data' and 'message', which decide nothing";
        return Err(Refusal::new(ErrorCode::InvalidEnvelope, words));
    }
    Ok(envelope)
}
