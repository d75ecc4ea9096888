//! The shape of an object's events, and the event of a changed record.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::avro::{Form, Shape, Slot};
use super::made_id;
use crate::schema::{Field, Kind, Object, Schema};

/// The ending of change events' names.
const CHANGES: &[&str] = &["CREATE", "UPDATE", "DELETE", "UNDELETE"];

/// Fields of a record that change events do not have.
const LEFT_OUT: [&str; 3] = ["Id", "IsDeleted", "SystemModstamp"];

/// The change of a record, or a published event.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) object: String,
    pub(crate) id: String,
    pub(crate) kind: ChangeKind,
    /// The user who made the change.
    pub(crate) by: String,
    pub(crate) before: Map<String, Value>,
    pub(crate) after: Map<String, Value>,
}

/// The kind of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChangeKind {
    /// The record was created.
    Create,
    /// The record was changed.
    Update,
    /// The record was deleted.
    Delete,
    /// An event that is not a record.
    Publish,
}

impl Change {
    /// The topic on which it is published.
    pub(super) fn topic(&self) -> String {
        match self.kind {
            ChangeKind::Publish => format!("/event/{}", self.object),
            ChangeKind::Create | ChangeKind::Update | ChangeKind::Delete => {
                format!("/data/{}", change_name(&self.object))
            }
        }
    }
}

/// `CTI_Login__c` -> `CTI_Login__ChangeEvent`, `Account` -> `AccountChangeEvent`.
fn change_name(object: &str) -> String {
    object.strip_suffix("__c").map_or_else(|| format!("{object}ChangeEvent"), |own| format!("{own}__ChangeEvent"))
}

/// The shape of a topic's events; `None`: there is no such topic.
pub(super) fn of_topic(schema: &Schema, topic: &str) -> Option<Shape> {
    if let Some(name) = topic.strip_prefix("/event/") {
        let object = schema.objects.iter().find(|it| it.name == name && name.ends_with("__e"))?;
        return Some(published(object));
    }
    let name = topic.strip_prefix("/data/")?;
    schema.objects.iter().find(|it| !it.name.ends_with("__e") && change_name(&it.name) == name).map(changed)
}

fn published(object: &Object) -> Shape {
    let mut slots = vec![
        Slot::required("CreatedDate", Form::Moment, "CreatedDate:DateTime"),
        Slot::required("CreatedById", Form::Text, "CreatedBy:EntityId"),
    ];
    slots.extend(object.fields.iter().filter(|field| field.custom()).map(slot));
    Shape { name: object.name.clone(), slots }
}

fn changed(object: &Object) -> Shape {
    let texts = |name| Slot::required(name, Form::Texts, "");
    let header = vec![
        Slot::required("entityName", Form::Text, ""),
        texts("recordIds"),
        Slot::required("changeType", Form::Word(CHANGES), ""),
        Slot::required("changeOrigin", Form::Text, ""),
        Slot::required("transactionKey", Form::Text, ""),
        Slot::required("sequenceNumber", Form::Int, ""),
        Slot::required("commitTimestamp", Form::Long, ""),
        Slot::required("commitNumber", Form::Long, ""),
        Slot::required("commitUser", Form::Text, ""),
        texts("nulledFields"),
        texts("diffFields"),
        texts("changedFields"),
    ];
    let header = Shape { name: "ChangeEventHeader".to_owned(), slots: header };
    let mut slots = vec![Slot::required("ChangeEventHeader", Form::Record(header), "")];
    let parts = name_parts(object);
    for field in object.fields.iter().filter(|field| !LEFT_OUT.contains(&field.name.as_str())) {
        match field.name.as_str() {
            "Name" if !parts.is_empty() => {
                let inner = parts.iter().map(|part| Slot::optional(part, Form::Text, "Data:Text")).collect();
                let shape = Shape { name: "Switchable_PersonName".to_owned(), slots: inner };
                slots.push(Slot::optional("Name", Form::Record(shape), "Data:SwitchablePersonName"));
            }
            part if parts.contains(&part) => {}
            _ => slots.push(slot(field)),
        }
    }
    Shape { name: change_name(&object.name), slots }
}

/// The fields of a person's name, which are nested in it.
fn name_parts(object: &Object) -> &'static [&'static str] {
    const PARTS: &[&str] = &["FirstName", "LastName"];
    let all = PARTS.iter().chain(&["Name"]).all(|name| object.field(name).is_some());
    if all { PARTS } else { &[] }
}

fn slot(field: &Field) -> Slot {
    let (form, doc) = match field.kind {
        Kind::Boolean => (Form::Boolean, "Data:Boolean"),
        Kind::Int => (Form::Int, "Data:Integer"),
        Kind::Double => (Form::Double, "Data:Double"),
        Kind::Date => (Form::Moment, "Data:DateOnly"),
        Kind::DateTime => (Form::Moment, "Data:DateTime"),
        Kind::Id | Kind::Reference => (Form::Text, "Data:EntityId"),
        Kind::String
        | Kind::TextArea
        | Kind::EncryptedString
        | Kind::Email
        | Kind::Phone
        | Kind::Url
        | Kind::Picklist => (Form::Text, "Data:Text"),
    };
    Slot::optional(&field.name, form, doc)
}

/// The values of the event for a change.
pub(super) fn record(now: Duration, number: u64, shape: &Shape, change: &Change) -> Map<String, Value> {
    let ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    let mut record = Map::new();
    if change.kind == ChangeKind::Publish {
        record.clone_from(&change.after);
        record.insert("CreatedDate".to_owned(), json!(ms));
        record.insert("CreatedById".to_owned(), json!(change.by));
        return record;
    }
    let mut marks = Marks::default();
    for (at, slot) in shape.slots.iter().enumerate() {
        let Form::Record(inner) = &slot.form else {
            if let Some(value) = change.told(&slot.name) {
                marks.top.push((at, value.is_null()));
                record.insert(slot.name.clone(), value);
            }
            continue;
        };
        let mut parts = Map::new();
        for (within, part) in inner.slots.iter().enumerate() {
            if let Some(value) = change.told(&part.name) {
                marks.nested.push((at, within, value.is_null()));
                parts.insert(part.name.clone(), value);
            }
        }
        if !parts.is_empty() {
            record.insert(slot.name.clone(), Value::Object(parts));
        }
    }
    let update = change.kind == ChangeKind::Update;
    let listed = |null: bool| if update { marks.listed(null) } else { Vec::new() };
    let header = json!({
        "entityName": change.object,
        "recordIds": [change.id],
        "changeType": match change.kind {
            ChangeKind::Create => "CREATE",
            ChangeKind::Update => "UPDATE",
            ChangeKind::Delete | ChangeKind::Publish => "DELETE",
        },
        "changeOrigin": "com/salesforce/api/rest/67.0",
        "transactionKey": made_id(),
        "sequenceNumber": 1,
        "commitTimestamp": ms,
        "commitNumber": number,
        "commitUser": change.by,
        "nulledFields": listed(true),
        "diffFields": [],
        "changedFields": listed(false),
    });
    record.insert("ChangeEventHeader".to_owned(), header);
    record
}

impl Change {
    /// The value of a field in the event; `None`: it is left out.
    fn told(&self, field: &str) -> Option<Value> {
        let value = |of: &Map<String, Value>| of.get(field).cloned().unwrap_or_default();
        let after = value(&self.after);
        match self.kind {
            ChangeKind::Create => (!after.is_null()).then_some(after),
            ChangeKind::Update => (after != value(&self.before)).then_some(after),
            ChangeKind::Delete | ChangeKind::Publish => None,
        }
    }
}

/// The fields in a change event, by their places in the schema, and whether each is null now.
#[derive(Default)]
struct Marks {
    top: Vec<(usize, bool)>,
    nested: Vec<(usize, usize, bool)>,
}

impl Marks {
    /// The bitmaps: of all fields, or with `null` of those that are null now.
    fn listed(&self, null: bool) -> Vec<String> {
        let mut listed = Vec::new();
        let top: Vec<usize> = self.top.iter().filter(|(_, it)| *it || !null).map(|(at, _)| *at).collect();
        if !top.is_empty() {
            listed.push(bitmap(&top));
        }
        let mut parents: Vec<usize> = self.nested.iter().map(|(parent, _, _)| *parent).collect();
        parents.dedup();
        for parent in parents {
            let within = self.nested.iter().filter(|(of, _, it)| *of == parent && (*it || !null));
            let within: Vec<usize> = within.map(|(_, at, _)| *at).collect();
            if !within.is_empty() {
                listed.push(format!("{parent}-{}", bitmap(&within)));
            }
        }
        listed
    }
}

/// Writes a number in hex with these bits.
fn bitmap(bits: &[usize]) -> String {
    let digits = bits.iter().max().map_or(0, |last| last / 4 + 1);
    let digit = |place: usize| {
        let value = bits.iter().filter(|bit| **bit / 4 == place).fold(0, |sum, bit| sum | 1 << (bit % 4));
        char::from_digit(value, 16).unwrap_or('0').to_ascii_uppercase()
    };
    format!("0x{}", (0..digits).rev().map(digit).collect::<String>())
}
