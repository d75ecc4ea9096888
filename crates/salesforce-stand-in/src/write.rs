//! Checks writes to rows: the caller may write the field, and its type, length and uniqueness fit.

use hyper::StatusCode;
use serde_json::{Map, Value, json};

use super::caller::Caller;
use super::id;
use super::org::State;
use super::pubsub::{Change, ChangeKind};
use super::reply::Refusal;
use super::schema::{Field, Kind, Object};

/// Creates a row and returns its id.
pub(super) fn create(
    state: &mut State,
    caller: &Caller,
    object: &Object,
    body: &Map<String, Value>,
) -> Result<String, Refusal> {
    let values = checked(state, caller, object, body, None)?;
    let absent = |it: &&Field| it.required && it.default.is_none() && values.get(&it.name).is_none_or(Value::is_null);
    let missing: Vec<&str> = object.fields.iter().filter(absent).map(|it| it.name.as_str()).collect();
    if !missing.is_empty() {
        let message = format!("Required fields are missing: [{}]", missing.join(", "));
        return Err(Refusal::bad("REQUIRED_FIELD_MISSING", message).about(&missing));
    }
    if object.name.ends_with("__e") {
        // An event is published and never becomes a row.
        let id = id::made("e00", state.changes.len() as u64 + 1);
        state.changes.push(changed(caller, object, (&id, ChangeKind::Publish), Map::new(), values));
        return Ok(id);
    }
    let id = state.store.insert(caller.now, &caller.user.id, object, values);
    let after = values_of(state, object, &id);
    state.changes.push(changed(caller, object, (&id, ChangeKind::Create), Map::new(), after));
    Ok(id)
}

fn values_of(state: &State, object: &Object, id: &str) -> Map<String, Value> {
    state.store.row(&object.name, id).map(|row| row.values.clone()).unwrap_or_default()
}

fn changed(
    caller: &Caller,
    object: &Object,
    (id, kind): (&str, ChangeKind),
    before: Map<String, Value>,
    after: Map<String, Value>,
) -> Change {
    let (object, id, by) = (object.name.clone(), id.to_owned(), caller.user.id.clone());
    Change { object, id, kind, by, before, after }
}

/// Changes a row.
pub(super) fn update(
    state: &mut State,
    caller: &Caller,
    object: &Object,
    id: &str,
    body: &Map<String, Value>,
) -> Result<(), Refusal> {
    let values = checked(state, caller, object, body, Some(id))?;
    let emptied = |it: &&Field| it.required && values.get(&it.name).is_some_and(Value::is_null);
    if let Some(field) = object.fields.iter().find(emptied) {
        let message = format!("Required fields are missing: [{}]", field.name);
        return Err(Refusal::bad("REQUIRED_FIELD_MISSING", message).about(&[&field.name]));
    }
    let before = values_of(state, object, id);
    match state.store.update(caller.now, &caller.user.id, object, id, values) {
        true => {
            let after = values_of(state, object, id);
            state.changes.push(changed(caller, object, (id, ChangeKind::Update), before, after));
            Ok(())
        }
        false => Err(Refusal::not_found()),
    }
}

/// Removes a row.
pub(super) fn delete(state: &mut State, caller: &Caller, object: &Object, id: &str) -> Result<(), Refusal> {
    may_write(caller, object)?;
    let before = values_of(state, object, id);
    match state.store.delete(&object.name, id) {
        true => {
            state.changes.push(changed(caller, object, (id, ChangeKind::Delete), before, Map::new()));
            Ok(())
        }
        false => Err(Refusal::new(StatusCode::NOT_FOUND, "ENTITY_IS_DELETED", "entity is deleted")),
    }
}

fn may_write(caller: &Caller, object: &Object) -> Result<(), Refusal> {
    match caller.writes_object(object) {
        true => Ok(()),
        false => Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "INSUFFICIENT_ACCESS_OR_READONLY",
            "insufficient access rights on object id",
        )),
    }
}

fn checked(
    state: &State,
    caller: &Caller,
    object: &Object,
    body: &Map<String, Value>,
    row: Option<&str>,
) -> Result<Map<String, Value>, Refusal> {
    may_write(caller, object)?;
    let mut values = Map::new();
    for (name, value) in body.iter().filter(|(name, _)| *name != "attributes") {
        let Some(field) = caller.field(object, name) else {
            let message = format!("No such column '{name}' on sobject of type {}", object.name);
            return Err(Refusal::bad("INVALID_FIELD", message));
        };
        if field.kind == Kind::Id {
            return Err(Refusal::bad("INVALID_FIELD", "The Id field should not be specified in the sobject data."));
        }
        if !caller.writes(object, field) {
            let message = format!(
                "Unable to create/update fields: {}. Please check the security settings of this field and verify that \
                 it is read/write for your profile or permission set.",
                field.name
            );
            return Err(Refusal::bad("INVALID_FIELD_FOR_INSERT_UPDATE", message).about(&[&field.name]));
        }
        let value = fitting(state, field, value)?;
        unique(state, object, field, &value, row)?;
        values.insert(field.name.clone(), value);
    }
    Ok(values)
}

/// The value in its stored form.
fn fitting(state: &State, field: &Field, value: &Value) -> Result<Value, Refusal> {
    let wrong = || {
        let message = format!("Cannot deserialize instance of {} from the value of {}", field.kind.name(), field.name);
        Refusal::bad("JSON_PARSER_ERROR", message)
    };
    match (field.kind, value) {
        (Kind::Boolean, Value::Bool(_))
        | (Kind::Double, Value::Number(_))
        | (Kind::Date | Kind::DateTime, Value::String(_)) => Ok(value.clone()),
        (Kind::Int, Value::Number(number)) if number.is_i64() => Ok(value.clone()),
        (Kind::Boolean, Value::Null) => Ok(json!(false)),
        (_, Value::Null) => Ok(Value::Null),
        (kind, Value::String(text)) if kind.is_text() => match (text.as_str(), kind) {
            ("", _) => Ok(Value::Null),
            (id, Kind::Reference) => reference(state, field, id),
            (text, _) if text.chars().count() > field.length => {
                let message = format!("{}: data value too large (max length={})", field.label(), field.length);
                Err(Refusal::bad("STRING_TOO_LONG", message).about(&[&field.name]))
            }
            _ => Ok(value.clone()),
        },
        _ => Err(wrong()),
    }
}

fn reference(state: &State, field: &Field, text: &str) -> Result<Value, Refusal> {
    let Some(id) = id::complete(text) else {
        let message = format!("{}: id value of incorrect type: {text}", field.label());
        return Err(Refusal::bad("MALFORMED_ID", message).about(&[&field.name]));
    };
    match field.references.as_ref().and_then(|it| state.store.row(it, &id)) {
        Some(_) => Ok(json!(id)),
        None => Err(Refusal::bad("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id").about(&[&field.name])),
    }
}

fn unique(state: &State, object: &Object, field: &Field, value: &Value, row: Option<&str>) -> Result<(), Refusal> {
    let Some(text) = value.as_str().filter(|_| field.unique) else { return Ok(()) };
    let taken = state.store.rows(&object.name).iter().filter(|it| Some(it.id.as_str()) != row).find(|it| {
        it.value(&field.name).as_str().is_some_and(|it| match field.case_sensitive {
            true => it == text,
            false => it.to_lowercase() == text.to_lowercase(),
        })
    });
    match taken {
        None => Ok(()),
        Some(taken) => Err(Refusal::bad(
            "DUPLICATE_VALUE",
            format!("duplicate value found: {} duplicates value on record with id: {}", field.name, taken.id),
        )
        .about(&[&field.name])),
    }
}
