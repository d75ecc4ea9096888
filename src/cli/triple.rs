//! CHANNEL, TOPIC and SUBTOPIC on the command line, checked before anything is connected to.

use super::Usage;
use switchboard_client::{Pattern, Triple};
use wire::{BROKER, check_part};

/// The triple of an envelope to send.
pub(crate) fn triple<'a>(channel: &'a str, topic: &'a str, subtopic: &'a str) -> Result<Triple<'a>, Usage> {
    for (name, part) in [("channel", channel), ("topic", topic), ("subtopic", subtopic)] {
        check_part(part).map_err(|fault| Usage::new(format!("the {name} {fault}")))?;
    }
    if channel == BROKER {
        return Err(Usage::new("the channel 'Broker' is the broker's own")
            .hint("`switchboard apps` lists applications, `switchboard sub Broker` hears what the broker says"));
    }
    Ok(Triple::new(channel, topic, subtopic))
}

/// The pattern of a subscription.
pub(crate) fn pattern(channel: &str, topic: &str, subtopic: &str) -> Result<Pattern, Usage> {
    Pattern::from_parts(Some(channel), Some(topic), Some(subtopic))
        .map_err(|(part, fault)| Usage::new(format!("the {part} {fault}")))
}
