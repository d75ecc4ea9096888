//! [`Caller`]: the user of a call, and what object permissions and field-level security let it read and write.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::faults::Effects;
use super::reply::Refusal;
use super::schema::{Field, Kind, Object, Schema};
use super::seed::User;
use super::store::Row;

/// The user of a call, and the version of the API.
pub(super) struct Caller {
    pub(super) user: Arc<User>,
    pub(super) effects: Effects,
    pub(super) version: u16,
    pub(super) now: Duration,
}

impl Caller {
    /// The object of this name, if the user may read it.
    pub(super) fn object<'s>(&self, schema: &'s Schema, name: &str) -> Result<&'s Object, Refusal> {
        let object = schema.object(name).filter(|it| !self.among(&it.hidden_from));
        object.ok_or_else(|| Refusal::no_object(name))
    }

    /// Whether the user may write the object.
    pub(super) fn writes_object(&self, object: &Object) -> bool {
        !self.among(&object.read_only_for)
    }

    /// Whether the user may read the field.
    pub(super) fn reads(&self, object: &Object, field: &Field) -> bool {
        let named = |(object_name, field_name): &(String, String)| {
            object.name.eq_ignore_ascii_case(object_name) && field.name.eq_ignore_ascii_case(field_name)
        };
        !self.among(&field.hidden_from) && !self.effects.hidden.iter().any(named)
    }

    /// Whether the user may write the field.
    pub(super) fn writes(&self, object: &Object, field: &Field) -> bool {
        !field.system && self.reads(object, field) && !self.among(&field.read_only_for)
    }

    /// The field of this name, if the user may read it: a hidden field looks like one that does not exist.
    pub(super) fn field<'o>(&self, object: &'o Object, name: &str) -> Option<&'o Field> {
        object.field(name).filter(|it| self.reads(object, it))
    }

    /// A value as the user reads it: encrypted fields are masked unless the user may view encrypted data.
    pub(super) fn shown(&self, object: &Object, field: &Field, value: &Value) -> Value {
        let named = |(object_name, field_name): &(String, String)| {
            object.name.eq_ignore_ascii_case(object_name) && field.name.eq_ignore_ascii_case(field_name)
        };
        let clear = self.user.view_encrypted_data && !self.effects.masked.iter().any(named);
        match value {
            Value::String(text) if field.kind == Kind::EncryptedString && !clear => json!(field.mask.over(text)),
            other => other.clone(),
        }
    }

    /// A row with these fields, or with all that the user may read.
    pub(super) fn record(&self, object: &Object, row: &Row, fields: Option<&[&Field]>) -> Value {
        let mut record = Map::new();
        record.insert("attributes".to_owned(), self.attributes(object, &row.id));
        let mut show = |field: &Field| {
            record.insert(field.name.clone(), self.shown(object, field, row.value(&field.name)));
        };
        match fields {
            Some(fields) => fields.iter().for_each(|it| show(it)),
            None => object.fields.iter().filter(|it| self.reads(object, it)).for_each(show),
        }
        Value::Object(record)
    }

    /// The attributes at the beginning of every record.
    pub(super) fn attributes(&self, object: &Object, id: &str) -> Value {
        json!({ "type": object.name, "url": self.url(object, id) })
    }

    /// The path of a record.
    pub(super) fn url(&self, object: &Object, id: &str) -> String {
        format!("/services/data/v{}.0/sobjects/{}/{id}", self.version, object.name)
    }

    fn among(&self, users: &[String]) -> bool {
        users.iter().any(|it| it.eq_ignore_ascii_case(&self.user.username))
    }
}
