//! [`Store`]: the rows of every object. It checks neither types nor uniqueness; `write` does.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::clock::written;
use super::id;
use super::schema::{Kind, Object};

/// The rows of every object.
#[derive(Clone, Debug, Default)]
pub(super) struct Store {
    rows: BTreeMap<String, Vec<Row>>,
    made: u64,
}

/// A row; a field without a value is null.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) id: String,
    pub(super) values: Map<String, Value>,
}

impl Row {
    /// The value of a field, by its exact name.
    pub(super) fn value(&self, field: &str) -> &Value {
        self.values.get(field).unwrap_or(&Value::Null)
    }
}

impl Store {
    /// The rows of an object, oldest first.
    pub(super) fn rows(&self, object: &str) -> &[Row] {
        self.rows.get(object).map_or(&[], Vec::as_slice)
    }

    /// The row of a complete id.
    pub(super) fn row(&self, object: &str, id: &str) -> Option<&Row> {
        self.rows(object).iter().find(|it| it.id == id)
    }

    /// Adds a row with its id or a new one, its defaults and the fields that the org writes, and returns the id.
    pub(super) fn insert(
        &mut self,
        now: Duration,
        by: &str,
        object: &Object,
        mut values: Map<String, Value>,
    ) -> String {
        let given = values.get("Id").and_then(Value::as_str).map(ToOwned::to_owned);
        let id = given.unwrap_or_else(|| {
            self.made += 1;
            id::made(&object.prefix, self.made)
        });
        for field in &object.fields {
            if values.contains_key(&field.name) {
                continue;
            }
            let value = match (field.name.as_str(), &field.default, field.kind) {
                ("Id", _, _) => json!(id),
                ("CreatedDate" | "LastModifiedDate" | "SystemModstamp", _, _) => json!(written(now)),
                ("CreatedById" | "LastModifiedById" | "OwnerId", _, _) => json!(by),
                // As in an org, the name of a custom object is its id until it is set.
                ("Name", None, _) if object.custom() => json!(id),
                (_, Some(default), _) => default.clone(),
                (_, None, Kind::Boolean) => json!(false),
                (_, None, _) => continue,
            };
            values.insert(field.name.clone(), value);
        }
        self.rows.entry(object.name.clone()).or_default().push(Row { id: id.clone(), values });
        id
    }

    /// Changes a row; returns `false` if there is none.
    pub(super) fn update(
        &mut self,
        now: Duration,
        by: &str,
        object: &Object,
        id: &str,
        values: Map<String, Value>,
    ) -> bool {
        let Some(row) = self.rows.get_mut(&object.name).and_then(|rows| rows.iter_mut().find(|it| it.id == id)) else {
            return false;
        };
        row.values.extend(values);
        for name in ["LastModifiedDate", "SystemModstamp"] {
            row.values.insert(name.to_owned(), json!(written(now)));
        }
        row.values.insert("LastModifiedById".to_owned(), json!(by));
        true
    }

    /// Removes a row; returns `false` if there is none.
    pub(super) fn delete(&mut self, object: &str, id: &str) -> bool {
        let Some(rows) = self.rows.get_mut(object) else { return false };
        let before = rows.len();
        rows.retain(|it| it.id != id);
        rows.len() < before
    }
}
