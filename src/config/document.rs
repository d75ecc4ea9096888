//! docs/configuration.md: the guide with the table of keys printed into it.

use super::admin::TOKEN_KEYS;
use super::application::APPLICATION_KEYS;
use super::changes::restart_keys;
use super::channel::CHANNEL_KEYS;
use super::jwt::ISSUER_KEYS;
use super::reference::{FLAGS, Key, keys, variable};
use super::roles::ROLE_KEYS;
use super::salesforce::{OBJECT_KEYS, TOPIC_KEYS};

/// The guide, with a mark where the tables go.
const GUIDE: &str = include_str!("guide.md");

/// The mark.
const MARK: &str = "<!-- the tables of keys -->\n";

/// One key, as the reference has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// With its table: `limits.rate`, `applications[].source`, `channels.NAME.scope`.
    pub key: String,
    /// What it takes, in words.
    pub kind: String,
    /// The environment variable, for keys that stand once.
    pub variable: Option<String>,
    /// The flag of `serve`.
    pub flag: Option<&'static str>,
    /// As TOML writes it, or in words.
    pub default: &'static str,
    /// The unit of a number.
    pub unit: &'static str,
    /// What it decides.
    pub meaning: &'static str,
}

/// Every key.
#[must_use]
pub fn rows() -> Vec<Row> {
    let once = keys().map(|key| Row {
        variable: Some(variable(key.name)),
        flag: FLAGS.iter().find(|(flagged, _)| *flagged == key.name).map(|(_, flag)| *flag),
        ..row("", key)
    });
    let applications = APPLICATION_KEYS.iter().map(|key| row("applications[].", key));
    let tokens = TOKEN_KEYS.iter().map(|key| row("admin.tokens[].", key));
    let issuers = ISSUER_KEYS.iter().map(|key| row("auth.jwt.NAME.", key));
    let roles = ROLE_KEYS.iter().map(|key| row("roles.NAME.", key));
    let channels = CHANNEL_KEYS.iter().map(|key| row("channels.NAME.", key));
    let objects = OBJECT_KEYS.iter().map(|key| row("salesforce.objects.NAME.", key));
    let topics = TOPIC_KEYS.iter().map(|key| row("salesforce.events.topics.NAME.", key));
    once.chain(applications)
        .chain(tokens)
        .chain(issuers)
        .chain(roles)
        .chain(channels)
        .chain(objects)
        .chain(topics)
        .collect()
}

fn row<T>(prefix: &str, key: &Key<T>) -> Row {
    Row {
        key: format!("{prefix}{}", key.name),
        kind: key.slot.kind(),
        variable: None,
        flag: None,
        default: key.default,
        unit: key.unit,
        meaning: key.meaning,
    }
}

/// The text of docs/configuration.md.
#[must_use]
pub fn document() -> String {
    GUIDE.replace(MARK, &tables())
}

fn tables() -> String {
    let rows = rows();
    let part = |title: &str, prefix: &str| {
        let own = rows.iter().filter(|row| row.key.starts_with(prefix));
        format!("### {title}\n\n{HEAD}{}", own.map(line).collect::<String>())
    };
    let once = rows.iter().filter(|row| row.variable.is_some()).map(line).collect::<String>();
    let restart = format!(
        "### Keys that need a restart\n\nA reload that finds one of these changed is refused: {}.\n",
        restart_keys().join(", ")
    );
    format!(
        "### Single keys\n\n{HEAD}{once}\n{}\n{}\n{}\n{}\n{}\n{}\n{}\n{restart}",
        part("Keys of `[[applications]]`", "applications[]."),
        part("Keys of `[[admin.tokens]]`", "admin.tokens[]."),
        part("Keys of `[auth.jwt.NAME]`", "auth.jwt.NAME."),
        part("Keys of `[roles.NAME]`", "roles.NAME."),
        part("Keys of `[channels.NAME]`", "channels.NAME."),
        part("Keys of `[salesforce.objects.NAME]`", "salesforce.objects.NAME."),
        part("Keys of `[salesforce.events.topics.NAME]`", "salesforce.events.topics.NAME."),
    )
}

const HEAD: &str =
    "| key | takes | default | unit | environment variable, flag | meaning |\n|---|---|---|---|---|---|\n";

fn line(row: &Row) -> String {
    let Row { key, kind, variable, flag, default, unit, meaning } = row;
    let names: Vec<String> = variable.iter().map(String::as_str).chain(*flag).map(|it| format!("`{it}`")).collect();
    let default = if is_toml(default) { format!("`{default}`") } else { (*default).to_owned() };
    format!("| `{key}` | {kind} | {default} | {unit} | {} | {meaning} |\n", names.join(", "))
}

/// Whether a default is a value of TOML; else it is words.
fn is_toml(default: &str) -> bool {
    toml::de::DeValue::parse(default).is_ok()
}
