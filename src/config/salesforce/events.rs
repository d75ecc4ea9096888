//! [`Events`]: which events of an org are subscribed to, and for whom; the keys of `[salesforce.events]` and its
//! topics.

use std::collections::BTreeMap;
use std::time::Duration;

use super::text;
use crate::config::reference::Key;
use crate::config::slot::{Slot, Word};
use crate::config::text::base_url;
use crate::config::value::Fault;
use crate::config::{Config, Scope};

/// `[salesforce.events]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Events {
    /// Where the Pub/Sub API is; a [`BaseUrl`](crate::http::BaseUrl).
    pub endpoint: String,
    /// How long the broker waits before it subscribes, after its start or a reload.
    pub settle: Duration,
    /// `[salesforce.events.topics.NAME]`; without any, nothing is subscribed to.
    pub topics: BTreeMap<String, EventTopic>,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            endpoint: "https://api.pubsub.salesforce.com:7443".to_owned(),
            settle: Duration::from_secs(5),
            topics: BTreeMap::new(),
        }
    }
}

/// `[salesforce.events.topics.NAME]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventTopic {
    /// Its name in Salesforce: `/event/CTI_Notice__e`, `/data/CTI_Login__ChangeEvent`.
    pub topic: String,
    /// The field of the event that names its user; `None`: it is for everybody.
    pub user_field: Option<String>,
    /// Where to begin without a valid replay id.
    pub start: Start,
    /// The fields that are passed on; `None`: all.
    pub fields: Option<Vec<String>>,
}

/// `salesforce.events.topics.NAME.start`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// With events published from then on.
    #[default]
    Latest,
    /// With the oldest event that Salesforce still has.
    Earliest,
}

/// The name of the table of topics.
pub(crate) const TOPICS: &str = "salesforce.events.topics";

/// Warns about settings that are valid but probably a mistake.
pub(crate) fn warnings(config: &Config) -> impl Iterator<Item = String> {
    let shared = config.channels.get("Salesforce").is_some_and(|channel| channel.scope == Scope::Shared);
    let addressed =
        config.salesforce.events.topics.iter().filter(move |(_, topic)| shared && topic.user_field.is_some());
    addressed.map(|(name, _)| {
        format!(
            "[{TOPICS}.{name}] has user_field, and channels.Salesforce.scope is \"shared\": its events reach everybody"
        )
    })
}

/// The keys of `[salesforce.events]`.
pub(crate) static EVENT_KEYS: &[Key<Config>] = &[
    Key {
        name: "salesforce.events.endpoint",
        slot: Slot::Text(base_url, |it, url| it.salesforce.events.endpoint = url),
        default: r#""https://api.pubsub.salesforce.com:7443""#,
        unit: "",
        meaning: "Where the Pub/Sub API is; other regions and a stand-in have other addresses. The access \
                  token is sent there.",
    },
    Key {
        name: "salesforce.events.settle",
        slot: Slot::Span(Duration::ZERO, |it| &mut it.salesforce.events.settle),
        default: r#""5s""#,
        unit: "",
        meaning: "How long the broker waits after its start before it subscribes. Applications can reconnect \
                  meanwhile, and do not miss events that were published while the broker was down. It waits as long \
                  before it subscribes to a topic that a reload adds.",
    },
];

/// The keys of `[salesforce.events.topics.NAME]`.
pub(crate) static TOPIC_KEYS: &[Key<EventTopic>] = &[
    Key {
        name: "topic",
        slot: Slot::Text(topic, |it, topic| it.topic = topic),
        default: "required",
        unit: "",
        meaning: "What Salesforce calls it: `/event/NAME__e` for a platform event, `/data/NAME__ChangeEvent` for the \
                  changes of a custom object's records, `/data/NAMEChangeEvent` of a standard one's, or a custom channel \
                  that ends in `__chn`.",
    },
    Key {
        name: "user_field",
        slot: Slot::Text(text::field_name, |it, name| it.user_field = Some(name)),
        default: "none: to everybody",
        unit: "",
        meaning: "The field of the event that names the user whom it is for, by a path with dots where it lies deeper. An \
                  event whose field is empty goes to nobody.",
    },
    Key {
        name: "start",
        slot: Slot::Word(&[
            Word { word: "latest", put: |it| it.start = Start::Latest },
            Word { word: "earliest", put: |it| it.start = Start::Earliest },
        ]),
        default: r#""latest""#,
        unit: "",
        meaning: "Where to begin if the broker has never subscribed to the topic before, or Salesforce does not take its replay id \
                  any more: with what comes from then on, or with the oldest that Salesforce keeps (three days).",
    },
    Key {
        name: "fields",
        slot: Slot::Texts(text::object_name, |it| it.fields.get_or_insert_default()),
        default: "all",
        unit: "",
        meaning: "The fields that are passed on, beside `ChangeEventHeader`. The field of \
                  `salesforce.credentials.fields.password` never is.",
    },
];

/// Checks the name of a topic of the Pub/Sub API.
fn topic(text: &str) -> Result<String, Fault> {
    let name = text.strip_prefix("/event/").or_else(|| text.strip_prefix("/data/"));
    match name {
        Some(name) if text::is_identifier(name) => Ok(text.to_owned()),
        Some(_) | None => {
            Err("must be a topic of the Pub/Sub API, such as /event/CTI_Notice__e or /data/CTI_Login__ChangeEvent"
                .into())
        }
    }
}
