//! `[history]`, and `channels.NAME.history`: the events that the broker keeps for later subscribers.

use std::time::Duration;

use super::file::unknown;
use super::mistake::Report;
use super::reference::{Key, TICK};
use super::slot::Slot;
use super::value::{Item, Value};
use super::{Channel, Config};

/// `[history]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History {
    /// `retry`: how long the `id` of an event with `once` is known.
    pub retry: Duration,
    /// `ids`: how many of them are known.
    pub ids: usize,
    /// `bytes`: memory of all logs.
    pub bytes: usize,
}

impl Default for History {
    fn default() -> Self {
        Self { retry: Duration::from_mins(2), ids: 1_000_000, bytes: 256 << 20 }
    }
}

/// `channels.NAME.history`: how much each log of the channel keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogBounds {
    /// `size`: events.
    pub size: usize,
    /// `ttl`: how long each is kept.
    pub ttl: Duration,
}

/// The keys of `[history]`.
pub(crate) static HISTORY_KEYS: &[Key<Config>] = &[
    Key {
        name: "history.retry",
        slot: Slot::Span(TICK, |it| &mut it.history.retry),
        default: r#""2m""#,
        unit: "",
        meaning: "How long the `id` of an event with `once` is known, counted from the first one.",
    },
    Key {
        name: "history.ids",
        slot: Slot::Size(1, |it| &mut it.history.ids),
        default: "1000000",
        unit: "ids",
        meaning: "How many such ids are known. Beyond that, the oldest are forgotten before their time, and the log says \
                  so.",
    },
    Key {
        name: "history.bytes",
        slot: Slot::Size(1, |it| &mut it.history.bytes),
        default: "268435456",
        unit: "bytes",
        meaning: "Memory of the events that all channels with `history` keep. Beyond that, the log that holds most loses \
                  its oldest events.",
    },
];

/// The key `history` of `[channels.NAME]`.
pub(super) const LOG_KEY: Key<Channel> = Key {
    name: "history",
    slot: Slot::Removable("table of `size` and `ttl`", read_log, |it| it.history = None),
    default: "none",
    unit: "",
    meaning: "Keeps the last events of the channel, for subscribers that ask for them with `recover`: \
              `{ size = 1000, ttl = \"10m\" }`. There is one log for each user, or one in all if the channel is shared; \
              `size` is the events of one log, `ttl` how long each is kept. Both are needed.",
};

/// The members of `channels.NAME.history`.
static LOG_KEYS: &[Key<LogBounds>] = &[
    Key {
        name: "size",
        slot: Slot::Size(1, |it| &mut it.size),
        default: "required",
        unit: "events a log",
        meaning: "",
    },
    Key { name: "ttl", slot: Slot::Span(TICK, |it| &mut it.ttl), default: "required", unit: "", meaning: "" },
];

fn read_log(channel: &mut Channel, key: &str, item: &Item, report: &mut Report) -> bool {
    let Value::Table(members) = &item.value else {
        report.add(&item.place, key, "must be a table: { size = 1000, ttl = \"10m\" }");
        return false;
    };
    let mut bounds = LogBounds { size: 0, ttl: Duration::ZERO };
    let mut good = true;
    for (name, item) in members {
        match LOG_KEYS.iter().find(|known| known.name == name) {
            Some(known) => good &= known.slot.put(&mut bounds, &format!("{key}.{}", known.name), item, report),
            None => {
                let known = LOG_KEYS.iter().map(|key| key.name);
                report.push(unknown(item.place.clone(), name, &format!("{key}."), known));
                good = false;
            }
        }
    }
    for missing in LOG_KEYS.iter().filter(|known| members.iter().all(|(name, _)| name != known.name)) {
        report.add(&item.place, format!("{key}.{}", missing.name), "is missing: history needs `size` and `ttl`");
        good = false;
    }
    if good {
        channel.history = Some(bounds);
    }
    good
}
