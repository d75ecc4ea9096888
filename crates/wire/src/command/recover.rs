//! `data.recover` of Subscribe: where a replay of history begins.

use super::options::{Options, Raw, invalid, options};
use crate::error::Refusal;

/// The events that a subscription wants from the log, before live ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recover {
    /// Those after a position.
    After {
        /// The life of the log in which `offset` counts.
        epoch: String,
        /// The last event that the client has.
        offset: u64,
    },
    /// The last ones, at most this many.
    Last(u64),
}

options!(RecoverOptions {
    epoch = "epoch",
    offset = "offset",
    last = "last",
});

impl Recover {
    pub(super) fn read(recover: Raw<'_>) -> Result<Option<Self>, Refusal> {
        let Some(json) = recover.json() else { return Ok(None) };
        if !json.starts_with('{') {
            return Err(recover.wrong("an object", json));
        }
        let RecoverOptions { epoch, offset, last } = RecoverOptions::members(json, "data.recover")?;
        match (epoch.json(), offset.json(), last.json()) {
            (Some(_), Some(offset), None) => {
                let Some(offset) = whole(offset) else {
                    return Err(invalid("data.recover.offset must be a whole number, 0 or more"));
                };
                let Some(epoch) = epoch.text().ok().flatten() else {
                    return Err(invalid("data.recover.epoch must be a string, as the broker has sent it"));
                };
                Ok(Some(Self::After { epoch: epoch.into_owned(), offset }))
            }
            (None, None, Some(last)) => match whole(last) {
                Some(last @ 1..) => Ok(Some(Self::Last(last))),
                Some(0) | None => Err(invalid("data.recover.last must be a whole number, 1 or more")),
            },
            _ => Err(invalid(
                "data.recover must have either 'epoch' and 'offset', as an event or the reply to Subscribe has them, or \
                 'last', a number of events",
            )),
        }
    }
}

/// A number that JSON writes with digits alone.
fn whole(json: &str) -> Option<u64> {
    json.parse().ok()
}
