//! `[history]`, and `channels.NAME.history`: the events that the broker keeps for later subscribers.

use std::time::Duration;

use super::file::unknown;
use super::mistake::Report;
use super::reference::{Key, TICK};
use super::slot::{Slot, Word};
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
    /// `disk_bytes`: disk of all durable logs.
    pub disk_bytes: usize,
    /// `commit`: how long a durable event waits for others that share its commit.
    pub commit: Duration,
    /// `timeout`: how long a durable event, or a read of earlier ones, may wait for its turn, and then for the disk.
    pub timeout: Duration,
    /// `waiting`: durable events that wait for the disk.
    pub waiting: usize,
    /// `waiting_bytes`: the bytes of their texts.
    pub waiting_bytes: usize,
}

impl Default for History {
    fn default() -> Self {
        Self {
            retry: Duration::from_mins(2),
            ids: 1_000_000,
            bytes: 256 << 20,
            disk_bytes: 1 << 30,
            commit: Duration::from_millis(2),
            timeout: Duration::from_secs(10),
            waiting: 16_384,
            waiting_bytes: 256 << 20,
        }
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
                  its oldest events; a durable one only loses the copy in memory.",
    },
    Key {
        name: "history.disk_bytes",
        slot: Slot::Size(1, |it| &mut it.history.disk_bytes),
        default: "1073741824",
        unit: "bytes",
        meaning: "Disk of the events of all durable channels. Beyond that, the log unused for longest is removed, and the \
                  log says so.",
    },
    Key {
        name: "history.commit",
        slot: Slot::Span(Duration::ZERO, |it| &mut it.history.commit),
        default: r#""2ms""#,
        unit: "",
        meaning: "How long an event of a durable channel waits at most for others that share its commit to the disk.",
    },
    Key {
        name: "history.timeout",
        slot: Slot::Span(TICK, |it| &mut it.history.timeout),
        default: r#""10s""#,
        unit: "",
        meaning: "How long an event of a durable channel may wait for its turn to be written, and how long the disk may then \
                  take. Beyond either, it is refused with `STORAGE_UNAVAILABLE` and delivered to nobody, so no publisher \
                  waits for a disk that does not answer. The same for each read of earlier events that a Subscribe with \
                  `recover`, or a replay, needs from the disk.",
    },
    Key {
        name: "history.waiting",
        slot: Slot::Size(1, |it| &mut it.history.waiting),
        default: "16384",
        unit: "events",
        meaning: "How many events of durable channels, of all publishers, wait for the disk at once. Beyond that, others \
                  are refused with `STORAGE_UNAVAILABLE`.",
    },
    Key {
        name: "history.waiting_bytes",
        slot: Slot::Size(1, |it| &mut it.history.waiting_bytes),
        default: "268435456",
        unit: "bytes",
        meaning: "The same in bytes of their texts.",
    },
];

/// The key `history.durable` of `[channels.NAME]`, which is a member of `history`.
pub(super) const DURABLE_KEY: Key<Channel> = Key {
    name: "history.durable",
    slot: Slot::Switch(|it| &mut it.durable),
    default: "false",
    unit: "",
    meaning: "Whether the channel's logs are on disk, in `history.redb` in the data folder: an event is delivered, and its \
              receipt sent, only after that. A member of `history`: `{ size = 1000, ttl = \"10m\", durable = true }`.",
};

/// The key `retain` of `[channels.NAME]`.
pub(super) const RETAIN_KEY: Key<Channel> = Key {
    name: "retain",
    slot: Slot::Word(&[Word { word: "durable", put: |it| it.retain_durable = true }]),
    default: "none",
    unit: "",
    meaning: "`\"durable\"`: the channel's retained values are on disk, so they survive a restart.",
};

/// The key `history` of `[channels.NAME]`.
pub(super) const LOG_KEY: Key<Channel> = Key {
    name: "history",
    slot: Slot::Removable("table of `size`, `ttl` and `durable`", read_log, |it| it.history = None),
    default: "none",
    unit: "",
    meaning: "Keeps the last events of the channel, for subscribers that ask for them with `recover`: \
              `{ size = 1000, ttl = \"10m\" }`. There is one log for each user, or one in all if the channel is shared; \
              `size` is the events of one log, `ttl` how long each is kept. Both are needed; `durable` is not.",
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
    let (mut good, mut durable) = (true, false);
    for (name, item) in members {
        if name == "durable" {
            good &= Slot::Switch(|it: &mut bool| it).put(&mut durable, &format!("{key}.durable"), item, report);
            continue;
        }
        match LOG_KEYS.iter().find(|known| known.name == name) {
            Some(known) => good &= known.slot.put(&mut bounds, &format!("{key}.{}", known.name), item, report),
            None => {
                let known = LOG_KEYS.iter().map(|key| key.name).chain(["durable"]);
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
        channel.durable = durable;
    }
    good
}
