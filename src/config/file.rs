//! What TOML may say: reads a text by the table of keys, and notes every mistake with its line.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::admin::TOKENS;
use super::channel::CHANNEL_KEYS;
use super::jwt::{self, ISSUER_KEYS, ISSUERS};
use super::lines::{Lines, Unreadable};
use super::mistake::{Mistake, Place, Report, nearest_key, printable};
use super::reference::{Key, keys};
use super::roles::{ROLE_KEYS, RoleDraft};
use super::rules::Places;
use super::salesforce::{OBJECT_KEYS, OBJECTS, TOPIC_KEYS, TOPICS};
use super::value::Item;
use super::{Channel, Config, EventTopic, WritableObject};
use wire::{BROKER, check_name, check_part};

/// What a file may have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contents {
    /// Every key.
    Everything,
    /// `[[applications]]` only: a file of `applications_dir`.
    Applications,
}

/// Reads a text into a configuration.
pub(crate) fn read(
    (text, contents): (&str, Contents),
    path: &Path,
    config: &mut Config,
    places: &mut Places,
    report: &mut Report,
) {
    let lines = Lines::new(text, path);
    let (root, errors) = DeTable::parse_recoverable(text);
    let mut reader = Reader { lines, contents, config, places, report: Report::default(), whole: errors.is_empty() };
    reader.root(root.get_ref());
    let (lines, found) = (reader.lines, reader.report.into_mistakes());

    let Unreadable { lines: unreadable, mistakes, single } = Unreadable::find(&errors, &lines);
    // What the parser made of a line that it could not read is not the operator's mistake.
    report.extend(found.into_iter().filter(|it| {
        let repeats = single.is_some() && it.key.as_deref() == Some("applications");
        !repeats && !matches!(it.place, Place::File { at: Some((line, _)), .. } if unreadable.contains(&line))
    }));
    report.extend(mistakes);
    if let Some(place) = single {
        report.add(&place, "applications", "must be an array of tables: [[applications]]");
    }
}

/// Walks the tables of a text.
pub(super) struct Reader<'a> {
    pub(super) lines: Lines<'a>,
    pub(super) contents: Contents,
    pub(super) config: &'a mut Config,
    pub(super) places: &'a mut Places,
    pub(super) report: Report,
    /// Whether the whole text could be parsed: else nothing is called missing.
    pub(super) whole: bool,
}

type Name<'a> = Spanned<std::borrow::Cow<'a, str>>;

/// One of the tables `[section.NAME]`.
struct Named<'v> {
    name: &'v str,
    /// `section.NAME`, as a mistake says it.
    key: String,
    place: Place,
    table: &'v DeTable<'v>,
}

impl Reader<'_> {
    fn root(&mut self, root: &DeTable<'_>) {
        // Applications name roles.
        if let Some(roles) = root.get("roles") {
            self.roles(roles);
        }
        for (name, value) in root {
            match name.get_ref().as_ref() {
                "applications" => self.applications(value),
                key if self.contents == Contents::Applications => self.not_an_application(key, name),
                "channels" => self.channels(value),
                "roles" => {}
                key if is_table(key) => self.section(key, value),
                key => self.key(key, name, value),
            }
        }
    }

    fn not_an_application(&mut self, key: &str, name: &Name<'_>) {
        let message = "is not for a file of applications_dir, which has [[applications]] only".to_owned();
        let is_known = is_table(key) || keys().any(|known| known.name == key);
        let nearest = if is_known { None } else { nearest_key(key, ["applications"]) };
        let place = self.lines.place(name.span().start);
        self.report.push(Mistake { place, key: Some(printable(key)), message, nearest });
    }

    fn section(&mut self, section: &str, value: &Spanned<DeValue<'_>>) {
        let Some(table) = value.get_ref().as_table() else {
            let place = self.lines.place(value.span().start);
            return self.report.add(&place, section, format!("must be a table: [{section}]"));
        };
        if let Some(table) = self.config.proofs.turn_on(section) {
            self.places.note(table, self.lines.place(value.span().start));
        }
        for (name, value) in table {
            match format!("{section}.{}", name.get_ref()) {
                key if key == OBJECTS => self.objects(name, value),
                key if key == TOPICS => self.topics(name, value),
                key if key == ISSUERS => self.issuers(name, value),
                key if key == TOKENS => self.admin_tokens(value),
                key if is_table(&key) => self.section(&key, value),
                key => self.key(&key, name, value),
            }
        }
    }

    fn key(&mut self, key: &str, name: &Name<'_>, value: &Spanned<DeValue<'_>>) {
        let Some(known) = keys().find(|known| known.name == key) else {
            let place = self.lines.place(name.span().start);
            return self.report.push(unknown(place, key, "", all_names()));
        };
        let item = self.item(value);
        if known.slot.put(self.config, key, &item, &mut self.report) {
            self.places.set(known.name, known.slot.shown(&item), item.place.clone());
            self.places.note(known.name, item.place);
        }
    }

    fn item(&self, value: &Spanned<DeValue<'_>>) -> Item {
        Item::from_toml(value, &|offset| self.lines.place(offset))
    }

    fn channels(&mut self, value: &Spanned<DeValue<'_>>) {
        let mut channels = HashMap::new();
        for Named { name, key, place, table } in self.named("channels", value) {
            if let Err(fault) = check_part(name) {
                self.report.add(&place, &*key, format!("the name of a channel {fault}"));
            }
            if name == BROKER {
                self.report.add(&place, &*key, "is the broker's own channel, which cannot be configured");
            }
            let mut channel = Channel::default();
            self.table(&format!("{key}."), table, CHANNEL_KEYS, &mut channel);
            channels.insert(name.to_owned(), channel);
        }
        self.config.channels = channels;
    }

    fn roles(&mut self, value: &Spanned<DeValue<'_>>) {
        for Named { name, key, place, table } in self.named("roles", value) {
            if let Err(fault) = check_name(name) {
                self.report.add(&place, &*key, format!("the name of a role {fault}"));
            }
            let mut draft = RoleDraft::default();
            self.table(&format!("{key}."), table, ROLE_KEYS, &mut draft);
            for missing in RoleDraft::REQUIRED.into_iter().filter(|it| self.whole && !table.contains_key(*it)) {
                self.report.add(
                    &place,
                    format!("{key}.{missing}"),
                    "is missing: a role must have it; [] allows nothing",
                );
            }
            self.config.roles.insert(name, draft.role(name));
        }
    }

    fn objects(&mut self, name: &Name<'_>, value: &Spanned<DeValue<'_>>) {
        self.places.note(OBJECTS, self.lines.place(name.span().start));
        let mut objects = BTreeMap::new();
        for Named { name, key, place, table } in self.named(OBJECTS, value) {
            if let Err(fault) = check_name(name) {
                self.report.add(&place, &*key, format!("the name of an object {fault}"));
            }
            let mut object = WritableObject::named(name);
            if self.table(&format!("{key}."), table, OBJECT_KEYS, &mut object) {
                for (part, message) in object.wrong() {
                    self.report.add(&place, format!("{key}.{part}"), message);
                }
            }
            objects.insert(name.to_owned(), object);
        }
        self.config.salesforce.objects = objects;
    }

    fn topics(&mut self, name: &Name<'_>, value: &Spanned<DeValue<'_>>) {
        self.places.note(TOPICS, self.lines.place(name.span().start));
        let mut topics = BTreeMap::<String, EventTopic>::new();
        for Named { name, key, place, table } in self.named(TOPICS, value) {
            let mut topic = EventTopic::default();
            let complete = self.table(&format!("{key}."), table, TOPIC_KEYS, &mut topic);
            let own = format!("{key}.topic");
            if complete && topic.topic.is_empty() {
                let missing = "is missing: what Salesforce calls the topic, such as /event/CTI_Notice__e";
                self.report.add(&place, own, missing);
            } else if complete && topics.values().any(|other| other.topic == topic.topic) {
                self.report.add(&place, own, "is another table's too: a topic can have only one table");
            } else {
                topics.insert(name.to_owned(), topic);
            }
        }
        self.config.salesforce.events.topics = topics;
    }

    fn issuers(&mut self, name: &Name<'_>, value: &Spanned<DeValue<'_>>) {
        self.places.note(ISSUERS, self.lines.place(name.span().start));
        let mut issuers = Vec::new();
        for Named { name, key, place, table } in self.named(ISSUERS, value) {
            if let Err(fault) = check_part(name) {
                self.report.add(&place, &*key, format!("the name of an issuer {fault}"));
            }
            let mut draft = jwt::Draft::default();
            let mut complete = self.table(&format!("{key}."), table, ISSUER_KEYS, &mut draft);
            for (part, message) in draft.wrong(&|part| table.contains_key(part), &self.config.roles) {
                let written = table.get_key_value(part).map(|(name, _)| self.lines.place(name.span().start));
                let own = format!("{key}.{part}");
                if (self.whole || written.is_some()) && !self.report.has_within(&own) {
                    complete = false;
                    self.report.add(written.as_ref().unwrap_or(&place), own, message);
                }
            }
            let names_users = draft.names_users();
            issuers.extend(draft.finish(name).filter(|_| complete).map(|issuer| (issuer, place, names_users)));
        }
        if self.whole {
            for (place, key, message) in jwt::conflicts(&issuers) {
                self.report.add(place, key, message);
            }
        }
        self.config.issuers = issuers.into_iter().map(|(issuer, ..)| issuer).collect();
    }

    /// The tables `[section.NAME]`, without those that are none.
    fn named<'v>(&mut self, section: &str, value: &'v Spanned<DeValue<'_>>) -> Vec<Named<'v>> {
        let Some(tables) = value.get_ref().as_table() else {
            let place = self.lines.place(value.span().start);
            self.report.add(&place, section, format!("must be tables: [{section}.NAME]"));
            return Vec::new();
        };
        let mut named = Vec::with_capacity(tables.len());
        for (name, value) in tables {
            let key = format!("{section}.{}", quoted(name.get_ref()));
            let place = self.lines.place(name.span().start);
            match value.get_ref().as_table() {
                Some(table) => named.push(Named { name: name.get_ref(), key, place, table }),
                None => self.report.add(&place, &*key, format!("must be a table: [{key}]")),
            }
        }
        named
    }

    /// Reads a table that becomes a `T`. Says whether all of it could be read.
    pub(super) fn table<T>(
        &mut self,
        prefix: &str,
        table: &DeTable<'_>,
        keys: &'static [Key<T>],
        target: &mut T,
    ) -> bool {
        let mut good = true;
        for (name, value) in table {
            let item = self.item(value);
            if let Some(known) = keys.iter().find(|known| known.name == name.get_ref()) {
                let own = format!("{prefix}{}", known.name);
                good &= known.slot.put(target, &own, &item, &mut self.report);
                // There may be a hundred thousand applications.
                if !prefix.starts_with("applications[") {
                    self.places.set(own, known.slot.shown(&item), item.place);
                }
            } else {
                let place = self.lines.place(name.span().start);
                self.report.push(unknown(place, name.get_ref(), prefix, keys.iter().map(|key| key.name)));
            }
        }
        good
    }
}

/// The mistake of a key that its table does not have.
pub(crate) fn unknown(place: Place, key: &str, prefix: &str, known: impl IntoIterator<Item = &'static str>) -> Mistake {
    Mistake {
        place,
        key: Some(format!("{prefix}{}", printable(key))),
        message: "unknown key".to_owned(),
        nearest: nearest_key(key, known),
    }
}

/// Whether some key is in a table of this name.
fn is_table(name: &str) -> bool {
    tables().any(|table| table == name)
}

/// Every table that contains a key, directly or deeper.
fn tables() -> impl Iterator<Item = &'static str> {
    keys().flat_map(|key| key.name.match_indices('.').filter_map(|(at, _)| key.name.get(..at)))
}

/// Every name that can stand on the left, for the nearest one.
fn all_names() -> impl Iterator<Item = &'static str> {
    keys().map(|key| key.name).chain(tables()).chain([
        "applications",
        "channels",
        "roles",
        OBJECTS,
        TOPICS,
        ISSUERS,
        TOKENS,
    ])
}

/// A part of a key as TOML writes it: bare where it can be.
pub(crate) fn quoted(name: &str) -> String {
    let bare = !name.is_empty() && name.bytes().all(|it| it.is_ascii_alphanumeric() || b"-_".contains(&it));
    if bare { printable(name) } else { format!("\"{}\"", printable(name)) }
}
