//! What TOML may say: reads a text by the table of keys, and notes every mistake with its line.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::mistake::{Mistake, Place, Report, nearest_key, printable};
use super::reference::{APPLICATION_KEYS, CHANNEL_KEYS, Key, keys};
use super::rules::Places;
use super::salesforce::{OBJECT_KEYS, OBJECTS, TOPIC_KEYS, TOPICS};
use super::value::Item;
use super::{Application, Channel, Config, EventTopic, ProvedBy, WritableObject, syntax, tls};
use crate::auth::CertificateName;
use wire::{BROKER, check_name, check_part};

/// `[[applications]]` while it is read: what is required may yet be absent.
#[derive(Default)]
pub(crate) struct Draft {
    /// `source`
    pub(crate) source: Option<String>,
    /// `user`
    pub(crate) user: Option<String>,
    /// `service`
    pub(crate) service: bool,
    /// `token_sha256`
    pub(crate) token_sha256: Option<[u8; 32]>,
    /// `certificate`
    pub(crate) certificate: Option<String>,
    /// `certificate_sha256`
    pub(crate) certificate_sha256: Option<[u8; 32]>,
    /// `exclusive`
    pub(crate) exclusive: bool,
    /// `observe`
    pub(crate) observe: bool,
    /// `handle`
    pub(crate) handle: Vec<wire::Pattern>,
    /// `request`
    pub(crate) request: Option<Vec<wire::Pattern>>,
}

impl Draft {
    /// What proves it. `None` if nothing does.
    fn proved_by(&self) -> Option<ProvedBy> {
        let subject = || self.certificate.as_deref().map(|subject| CertificateName::Subject(subject.into()));
        let certificate = || self.certificate_sha256.map(CertificateName::Sha256).or_else(subject);
        self.token_sha256.map(ProvedBy::Token).or_else(|| certificate().map(ProvedBy::Certificate))
    }
}

/// The keys of an application that say what proves it.
const PROOFS: [&str; 3] = ["token_sha256", "certificate_sha256", "certificate"];

/// Reads a text into a configuration.
pub(crate) fn read(text: &str, path: &Path, config: &mut Config, places: &mut Places, report: &mut Report) {
    let lines = Lines::new(text, path);
    let (root, errors) = DeTable::parse_recoverable(text);
    let mut reader =
        Reader { lines, config, places, report: Report::default(), whole: errors.is_empty(), seen: HashSet::new() };
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

/// The lines that are not TOML.
struct Unreadable {
    lines: HashSet<usize>,
    /// One for each line.
    mistakes: Vec<Mistake>,
    /// The first header `[applications]`, if such headers repeat keys.
    single: Option<Place>,
}

impl Unreadable {
    fn find(errors: &[toml::de::Error], lines: &Lines<'_>) -> Self {
        let mut found = Self { lines: HashSet::new(), mistakes: Vec::new(), single: None };
        let applications = if errors.is_empty() { None } else { lines.single_applications() };
        for error in errors {
            let start = error.span().map_or(0, |span| span.start);
            let line = lines.line_of(start);
            match &applications {
                Some((first, tables)) if error.message() == "duplicate key" && tables.contains(&line) => {
                    found.single = Some(lines.place(*first));
                }
                _ if found.lines.insert(line) => {
                    // The error's own display would quote the line.
                    let message = syntax::explain(lines.text_of(line), error.message());
                    found.mistakes.push(Mistake { place: lines.place(start), key: None, message, nearest: None });
                }
                _ => {}
            }
        }
        found
    }
}

/// Turns byte offsets into lines and columns.
struct Lines<'a> {
    text: &'a str,
    path: &'a Path,
    /// Where each line begins.
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str, path: &'a Path) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self { text, path, starts: std::iter::once(0).chain(ends).collect() }
    }

    /// The number of the line of an offset, from 1.
    fn line_of(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset).max(1)
    }

    fn text_of(&self, line: usize) -> &str {
        let start = self.starts.get(line - 1).copied().unwrap_or_default();
        let end = self.starts.get(line).copied().unwrap_or(self.text.len());
        self.text.get(start..end).unwrap_or_default().trim_end()
    }

    /// If there is a header `[applications]`, where the first one begins, and the lines of all tables of applications, with
    /// one bracket or two.
    fn single_applications(&self) -> Option<(usize, HashSet<usize>)> {
        let mut first = None;
        let mut tables = HashSet::new();
        let mut inside = false;
        for (line, start) in (1..).zip(&self.starts) {
            let text = self.text_of(line);
            if syntax::is_header(text) {
                let single = syntax::is_single_applications(text);
                inside = single || text.trim_start().starts_with("[[applications]]");
                if single {
                    first.get_or_insert(*start);
                }
            }
            if inside {
                tables.insert(line);
            }
        }
        first.map(|first| (first, tables))
    }

    fn place(&self, offset: usize) -> Place {
        let line = self.line_of(offset);
        let start = self.starts.get(line - 1).copied().unwrap_or_default();
        // An offset inside a character or after the end counts as the line's first column.
        let before = self.text.get(start..offset).unwrap_or_default();
        Place::File { path: self.path.to_owned(), at: Some((line, before.chars().count() + 1)) }
    }
}

/// Walks the tables of a text.
struct Reader<'a> {
    lines: Lines<'a>,
    config: &'a mut Config,
    places: &'a mut Places,
    report: Report,
    /// Whether the whole text could be parsed: else nothing is called missing.
    whole: bool,
    /// What the applications so far are known by.
    seen: HashSet<(ProvedBy, String)>,
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
        for (name, value) in root {
            match name.get_ref().as_ref() {
                "applications" => self.applications(value),
                "channels" => self.channels(value),
                key if is_table(key) => self.section(key, value),
                key => self.key(key, name, value),
            }
        }
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
            self.places.note(known.name, item.place);
        }
    }

    fn item(&self, value: &Spanned<DeValue<'_>>) -> Item {
        Item::from_toml(value, &|offset| self.lines.place(offset))
    }

    fn applications(&mut self, value: &Spanned<DeValue<'_>>) {
        let tables: Option<Vec<_>> = value.get_ref().as_array().and_then(|array| {
            array.iter().map(|it| it.get_ref().as_table().map(|table| (table, it.span().start))).collect()
        });
        let Some(tables) = tables else {
            let place = self.lines.place(value.span().start);
            return self.report.add(&place, "applications", "must be an array of tables: [[applications]]");
        };
        for (at, (table, start)) in tables.into_iter().enumerate() {
            self.application(at, table, start);
        }
    }

    fn application(&mut self, at: usize, table: &DeTable<'_>, start: usize) {
        let prefix = format!("applications[{at}].");
        let mut draft = Draft::default();
        let mut complete = self.table(&prefix, table, APPLICATION_KEYS, &mut draft);
        for (key, message) in incomplete(table, &draft) {
            complete = false;
            let written = table.get_key_value(key).map(|(name, _)| name.span().start);
            if self.whole || written.is_some() {
                self.report.add(&self.lines.place(written.unwrap_or(start)), format!("{prefix}{key}"), message);
            }
        }
        let proved_by = draft.proved_by();
        let Draft { source, user, exclusive, observe, handle, request, .. } = draft;
        let (true, Some(source), Some(proved_by)) = (complete, source, proved_by) else { return };
        if !self.seen.insert((proved_by.clone(), source.clone())) {
            let message = match proved_by {
                ProvedBy::Token(_) => "is listed before with the same token_sha256: a token proves a source once",
                ProvedBy::Certificate(_) => "is listed before with the same certificate, which proves a source once",
            };
            self.report.add(&self.lines.place(start), format!("{prefix}source"), message);
        }
        if matches!(proved_by, ProvedBy::Certificate(_)) {
            self.places.note(tls::CERTIFICATE_ROW, self.lines.place(start));
        }
        self.config.applications.push(Application { source, user, proved_by, exclusive, observe, handle, request });
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
    fn table<T>(&mut self, prefix: &str, table: &DeTable<'_>, keys: &'static [Key<T>], target: &mut T) -> bool {
        let mut good = true;
        for (name, value) in table {
            let item = self.item(value);
            if let Some(known) = keys.iter().find(|known| known.name == name.get_ref()) {
                good &= known.slot.put(target, &format!("{prefix}{}", known.name), &item, &mut self.report);
            } else {
                let place = self.lines.place(name.span().start);
                self.report.push(unknown(place, name.get_ref(), prefix, keys.iter().map(|key| key.name)));
            }
        }
        good
    }
}

/// The keys that an application lacks, or that do not go together, and why.
fn incomplete(table: &DeTable<'_>, draft: &Draft) -> impl Iterator<Item = (&'static str, &'static str)> {
    let has = |key: &str| table.contains_key(key);
    [
        (!has("source"), "source", "is missing: the name that the application registers under"),
        (
            !PROOFS.iter().any(|key| has(key)),
            "token_sha256",
            "is missing: 'switchboard token new' prints a token and its hash; or name a client certificate by \
             certificate_sha256 or certificate",
        ),
        (
            PROOFS.iter().filter(|key| has(key)).count() > 1,
            PROOFS.into_iter().rfind(|key| has(key)).unwrap_or("token_sha256"),
            "must not stand beside another proof: an application has one of token_sha256, certificate_sha256 and \
             certificate; list it twice for two",
        ),
        (
            has("user") && draft.service,
            "user",
            "must not stand beside service = true: an application is a user's or a service, never both",
        ),
        (!has("user") && !draft.service, "user", "is missing: an application needs user = \"NAME\", or service = true"),
        (
            draft.observe && draft.service,
            "observe",
            "must not stand beside service = true: a service receives the events of every user anyway",
        ),
    ]
    .into_iter()
    .filter(|(wrong, _, _)| *wrong)
    .map(|(_, key, message)| (key, message))
}

fn unknown(place: Place, key: &str, prefix: &str, known: impl IntoIterator<Item = &'static str>) -> Mistake {
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
    keys().map(|key| key.name).chain(tables()).chain(["applications", "channels", OBJECTS, TOPICS])
}

/// A part of a key as TOML writes it: bare where it can be.
fn quoted(name: &str) -> String {
    let bare = !name.is_empty() && name.bytes().all(|it| it.is_ascii_alphanumeric() || b"-_".contains(&it));
    if bare { printable(name) } else { format!("\"{}\"", printable(name)) }
}
