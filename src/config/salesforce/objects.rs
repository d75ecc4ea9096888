//! [`WritableObject`] and [`CallVariables`]: what may be written to an org, and the variables that are saved for a
//! call; the keys of `[salesforce.objects.NAME]` and `[salesforce.variables]`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Lack;
use super::text;
use crate::config::Config;
use crate::config::mistake::Report;
use crate::config::reference::Key;
use crate::config::rules::Places;
use crate::config::slot::Slot;
use crate::config::text::name;
use wire::Pattern;

/// `[salesforce.objects.NAME]`: an object that messages may write. Everything else is read-only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WritableObject {
    /// The API name of the object; by default the name of the table.
    pub object: String,
    /// Whether `UpdateObject` may change its records.
    pub update: bool,
    /// Whether `CreateObject` may create records.
    pub create: bool,
    /// The fields that may be written, by the name that applications use for each.
    pub fields: BTreeMap<String, String>,
    /// The field that is shown for a record; empty: none.
    pub display_field: String,
    /// The External ID field that makes a repeated request create one record; empty: none.
    pub external_id: String,
    /// The field that the call's id is written to; empty: none.
    pub call_field: String,
}

impl WritableObject {
    /// The defaults for a table of this name.
    pub(crate) fn named(name: &str) -> Self {
        Self { object: name.to_owned(), ..Self::default() }
    }

    /// Returns the missing and the conflicting keys, with messages.
    pub(crate) fn wrong(&self) -> Vec<(&'static str, String)> {
        let mut wrong = Vec::new();
        if text::object_name(&self.object).is_err() {
            wrong.push(("object", "is missing: the table's name is not the API name of an object".to_owned()));
        }
        if self.create && self.external_id.is_empty() {
            let message = "is missing: create = true needs a Text field with 'External ID', so that a request which is \
                           asked again makes no second record";
            wrong.push(("external_id", message.to_owned()));
        }
        let own = [&self.external_id, &self.call_field];
        let mut seen = BTreeSet::new();
        for field in self.fields.values().chain(own.into_iter().filter(|it| !it.is_empty())) {
            if !seen.insert(field.to_ascii_lowercase()) {
                let message =
                    format!("names {field} twice: fields, external_id and call_field are fields of their own");
                wrong.push(("fields", message));
            }
        }
        wrong
    }
}

/// `[salesforce.variables]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallVariables {
    /// How long the variables and known records of a call are kept after their last change.
    pub keep: Duration,
    /// The most variables of a call.
    pub variables: usize,
    /// The most bytes of a call's variables, names and values.
    pub bytes: usize,
    /// The most calls of a user that have variables.
    pub calls: usize,
    /// The most bytes of a user's variables.
    pub user_bytes: usize,
    /// The most bytes of all variables.
    pub total_bytes: usize,
    /// The events that cause the variables of a call to be written.
    pub write_on: Vec<Pattern>,
    /// The path of the call's id in an event's payload: keys with dots between them.
    pub call_id: String,
    /// The path of the call's state in an event's payload; empty: every event of `write_on` counts.
    pub state: String,
    /// The states that count.
    pub states: Vec<String>,
    /// The table of the object whose record is looked up by `call_field` if no message has named the call's record;
    /// empty: none.
    pub object: String,
}

impl Default for CallVariables {
    fn default() -> Self {
        Self {
            keep: Duration::from_hours(8),
            variables: 100,
            bytes: 64 << 10,
            calls: 1000,
            user_bytes: 4 << 20,
            total_bytes: 64 << 20,
            write_on: Vec::new(),
            call_id: "callId".to_owned(),
            state: String::new(),
            states: Vec::new(),
            object: String::new(),
        }
    }
}

/// The name of the table of objects.
pub(crate) const OBJECTS: &str = "salesforce.objects";

/// Checks the objects and the variables against each other.
pub(crate) fn check(config: &Config, places: &Places, report: &mut Report) {
    let (objects, variables) = (&config.salesforce.objects, &config.salesforce.variables);
    let named = objects.get(&variables.object);
    let wrong: [(bool, Lack); 2] = [
        (
            !variables.object.is_empty() && !named.is_some_and(|it| it.update && !it.call_field.is_empty()),
            (
                "salesforce.variables.object",
                "must be the NAME of a table [salesforce.objects.NAME] with update = true and call_field",
            ),
        ),
        (
            variables.state.is_empty() != variables.states.is_empty(),
            (
                "salesforce.variables.states",
                "goes with salesforce.variables.state: where an event says it, and what counts",
            ),
        ),
    ];
    for (key, message) in wrong.into_iter().filter(|(applies, _)| *applies).map(|(_, lack)| lack) {
        if let Some(place) = places.of(key) {
            report.add(place, key, message);
        }
    }
}

/// Warns about settings that are valid but probably a mistake.
pub(crate) fn warnings(config: &Config) -> impl Iterator<Item = String> {
    let (objects, variables) = (&config.salesforce.objects, &config.salesforce.variables);
    let idle = objects.iter().filter(|(_, it)| !it.update && !it.create);
    let idle = idle.map(|(name, _)| format!("[{OBJECTS}.{name}] allows nothing: neither update nor create is true"));
    let unused = objects.is_empty() && *variables != CallVariables::default();
    idle.chain(unused.then(|| format!("[salesforce.variables] is not used: there is no [{OBJECTS}.NAME]")))
}

/// The keys of `[salesforce.variables]`.
pub(crate) static VARIABLE_KEYS: &[Key<Config>] = &[
    Key {
        name: "salesforce.variables.keep",
        slot: Slot::Span(Duration::from_secs(1), |it| &mut it.salesforce.variables.keep),
        default: r#""8h""#,
        unit: "",
        meaning: "How long the variables of a call are kept after they last changed, unless they are written before. In \
                  memory: a restart forgets them.",
    },
    Key {
        name: "salesforce.variables.variables",
        slot: Slot::Size(1, |it| &mut it.salesforce.variables.variables),
        default: "100",
        unit: "a call",
        meaning: "Variables that are kept for a call. Beyond this and the next four limits: `TOO_LARGE`.",
    },
    Key {
        name: "salesforce.variables.bytes",
        slot: Slot::Size(1, |it| &mut it.salesforce.variables.bytes),
        default: "65536",
        unit: "bytes a call",
        meaning: "Their size, names and values.",
    },
    Key {
        name: "salesforce.variables.calls",
        slot: Slot::Size(1, |it| &mut it.salesforce.variables.calls),
        default: "1000",
        unit: "a user",
        meaning: "Calls for which variables are kept.",
    },
    Key {
        name: "salesforce.variables.user_bytes",
        slot: Slot::Size(1, |it| &mut it.salesforce.variables.user_bytes),
        default: "4194304",
        unit: "bytes a user",
        meaning: "The size of all variables of one user, so that no user can take the room of the others.",
    },
    Key {
        name: "salesforce.variables.total_bytes",
        slot: Slot::Size(1, |it| &mut it.salesforce.variables.total_bytes),
        default: "67108864",
        unit: "bytes",
        meaning: "The size of all variables that are kept.",
    },
    Key {
        name: "salesforce.variables.write_on",
        slot: Slot::Patterns(|it, patterns| it.salesforce.variables.write_on = patterns),
        default: "[]",
        unit: "",
        meaning: "The events on which the variables of their call are written to its record: patterns.",
    },
    Key {
        name: "salesforce.variables.call_id",
        slot: Slot::Text(text::key_path, |it, path| it.salesforce.variables.call_id = path),
        default: r#""callId""#,
        unit: "",
        meaning: "Where in such an event's payload the call's id is: a key, or keys with dots between them, as in \
                  `\"call.id\"`. Compared without regard to case.",
    },
    Key {
        name: "salesforce.variables.state",
        slot: Slot::Text(text::key_path_or_none, |it, path| it.salesforce.variables.state = path),
        default: r#""""#,
        unit: "",
        meaning: "Where in it the call's state is, for an event that reports every change: `\"call.event\"`. `\"\"`: each event \
                  of `write_on` counts.",
    },
    Key {
        name: "salesforce.variables.states",
        slot: Slot::Texts(name, |it| &mut it.salesforce.variables.states),
        default: "[]",
        unit: "",
        meaning: "The states that count, as in `[\"Dropped\", \"ACW\"]`. Compared without regard to case.",
    },
    Key {
        name: "salesforce.variables.object",
        slot: Slot::Text(name, |it, name| it.salesforce.variables.object = name),
        default: "none",
        unit: "",
        meaning: "The NAME of the table whose record is looked for by `call_field` where neither `UpdateObject` nor \
                  `CreateObject` has named a record of the call.",
    },
];

/// The keys of `[salesforce.objects.NAME]`.
pub(crate) static OBJECT_KEYS: &[Key<WritableObject>] = &[
    Key {
        name: "object",
        slot: Slot::Text(text::object_name, |it, name| it.object = name),
        default: "NAME",
        unit: "",
        meaning: "The object's API name. NAME is what messages call it in `Name`.",
    },
    Key {
        name: "update",
        slot: Slot::Switch(|it| &mut it.update),
        default: "false",
        unit: "",
        meaning: "Whether `Salesforce/Call/UpdateObject`, and kept variables, may change its records.",
    },
    Key {
        name: "create",
        slot: Slot::Switch(|it| &mut it.create),
        default: "false",
        unit: "",
        meaning: "Whether `Salesforce/Call/CreateObject` may make records.",
    },
    Key {
        name: "fields",
        slot: Slot::Names(text::own_field, |it| &mut it.fields),
        default: "none",
        unit: "",
        meaning: "The fields that may be written: the variable that applications say, and the field's API name, as in \
                  `{ disposition = \"CallDisposition\" }`. Nothing else is written.",
    },
    Key {
        name: "display_field",
        slot: Slot::Text(text::own_field_or_none, |it, field| it.display_field = field),
        default: r#""""#,
        unit: "",
        meaning: "The field that `DisplayField` and `DisplayValue` show of a record that was made.",
    },
    Key {
        name: "external_id",
        slot: Slot::Text(text::own_field_or_none, |it, field| it.external_id = field),
        default: "required with `create`",
        unit: "",
        meaning: "A Text field of 64 characters, *External ID* and (where Setup offers it) *Unique*: it gets a hash of the \
                  request, so that a request asked again makes no second record.",
    },
    Key {
        name: "call_field",
        slot: Slot::Text(text::own_field_or_none, |it, field| it.call_field = field),
        default: r#""""#,
        unit: "",
        meaning: "The field that gets the call's id with each write; `\"\"` for none.",
    },
];
