//! [`Writable`]: what the configuration allows messages to write. A reload replaces it as a whole; a request has one of
//! them from its begin to its end.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use serde_json::value::to_raw_value;

use super::data::Variable;
use crate::config::{CallVariables, Salesforce, WritableObject, nearest};
use crate::salesforce::write::Field;
use crate::salesforce::write_fault::Target;
use wire::{ErrorCode, Refusal};

/// What may be written, and on which events saved variables are.
pub(super) struct Writable {
    pub(super) objects: BTreeMap<String, WritableObject>,
    pub(super) variables: CallVariables,
}

/// How a record may be written.
#[derive(Clone, Copy)]
pub(super) enum Way {
    Update,
    Create,
}

impl Writable {
    /// What a configuration allows.
    pub(super) fn new(config: &Salesforce) -> Self {
        Self { objects: config.objects.clone(), variables: config.variables.clone() }
    }

    /// Returns whether records of any object may be written in this way.
    pub(super) fn allows(&self, way: Way) -> bool {
        self.objects.values().any(|object| way.is_allowed(object))
    }

    /// Returns the object of a NAME, if its records may be written in this way.
    pub(super) fn object(&self, name: &str, way: Way) -> Result<&WritableObject, Refusal> {
        let (done, key) = match way {
            Way::Update => ("changed", "update"),
            Way::Create => ("made", "create"),
        };
        let objects = &self.objects;
        objects.get(name).filter(|object| way.is_allowed(object)).ok_or_else(|| {
            let others = objects.iter().filter(|(_, object)| way.is_allowed(object)).map(|(name, _)| name);
            let similar = nearest_of(name, others);
            let message = match similar.is_empty() {
                true => format!(
                    "data.Name: no record called '{name}' may be {done}; {key} = true in [salesforce.objects.{name}] would \
                     allow it"
                ),
                false => format!("data.Name: no record called '{name}' may be {done}{similar}"),
            };
            Refusal::new(ErrorCode::Forbidden, message)
        })
    }
}

impl Way {
    fn is_allowed(self, object: &WritableObject) -> bool {
        match self {
            Self::Update => object.update,
            Self::Create => object.create,
        }
    }
}

/// The object and the fields of a write, for faults.
pub(super) fn target<'a>(object: &'a WritableObject, fields: &'a [Field]) -> Target<'a> {
    Target { object: &object.object, fields: fields.iter().map(|(field, _)| field.as_str()).collect() }
}

/// Translates variables into fields.
pub(super) fn mapped(name: &str, object: &WritableObject, variables: Vec<Variable>) -> Result<Vec<Field>, Refusal> {
    let field = |(variable, value): Variable| match object.fields.get(&variable) {
        Some(field) => Ok((field.clone(), value)),
        None => Err(Refusal::new(
            ErrorCode::Forbidden,
            format!(
                "data.params: the variable '{variable}' is not mapped; fields in [salesforce.objects.{name}] would map it{}",
                nearest_of(&variable, object.fields.keys())
            ),
        )),
    };
    variables.into_iter().map(field).collect()
}

/// Writes a text as JSON.
pub(super) fn json_text(text: &str) -> Box<RawValue> {
    // A text can always be written as JSON.
    to_raw_value(text).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// Returns a question about the configured name that is most like this one; empty if none is.
pub(super) fn nearest_of<'a>(name: &str, configured: impl Iterator<Item = &'a String>) -> String {
    nearest(name, configured.map(String::as_str)).map_or_else(String::new, |it| format!(" (did you mean '{it}'?)"))
}
