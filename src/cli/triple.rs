//! CHANNEL, TOPIC and SUBTOPIC on the command line, and ids. They are checked before the command connects.

use super::Usage;
use super::output::hint;
use switchboard_client::{Pattern, Triple};
use wire::{BROKER, NAME_BYTES_MAX, check_part};

/// Reads the triple of an envelope to send.
pub(crate) fn triple<'a>(channel: &'a str, topic: &'a str, subtopic: &'a str) -> Result<Triple<'a>, Usage> {
    for (name, part) in [("channel", channel), ("topic", topic), ("subtopic", subtopic)] {
        check_part(part).map_err(|fault| Usage::new(format!("the {name} {fault}")))?;
    }
    if channel == BROKER {
        return Err(Usage::new("the channel 'Broker' is reserved for the broker")
            .hint("`switchboard apps` lists applications, `switchboard sub Broker` prints who registers and leaves"));
    }
    Ok(Triple::new(channel, topic, subtopic))
}

/// Reads the id of an event or a request.
pub(crate) fn id(text: &str) -> Result<String, String> {
    match text.len() {
        0 => Err("must not be empty".to_owned()),
        1..=NAME_BYTES_MAX => Ok(text.to_owned()),
        _ => Err(format!("must not be longer than {NAME_BYTES_MAX} bytes")),
    }
}

/// Reads the pattern of a subscription. Prints a hint if a part looks like another broker's wildcard.
pub(crate) fn pattern(channel: &str, topic: &str, subtopic: &str) -> Result<Pattern, Usage> {
    let pattern = Pattern::from_parts(Some(channel), Some(topic), Some(subtopic))
        .map_err(|(part, fault)| Usage::new(format!("the {part} {fault}")))?;
    if let Some(text) = pattern.hint() {
        hint(&text);
    }
    Ok(pattern)
}
