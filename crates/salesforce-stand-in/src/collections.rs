//! `/composite/sobjects`: up to 200 rows in one call, each with an outcome of its own.

use std::sync::Arc;

use hyper::Method;
use serde_json::{Map, Value, json};

use super::call::Call;
use super::caller::Caller;
use super::org::State;
use super::reply::{Refusal, Reply};
use super::sobjects::item;
use super::{id, write};

const ROWS_MAX: usize = 200;

/// Answers a call about several rows.
pub(super) fn answer(state: &mut State, caller: &Caller, call: &Call) -> Result<Reply, Refusal> {
    let (all_or_none, records) = match call.method {
        Method::DELETE => {
            let ids = call.parameter("ids").unwrap_or_default().split(',');
            let all_or_none = call.parameter("allOrNone") == Some("true");
            (all_or_none, ids.map(|it| json!({ "Id": it })).collect())
        }
        Method::POST | Method::PATCH => {
            let mut body = call.object()?;
            let all_or_none = body.get("allOrNone").and_then(Value::as_bool).unwrap_or_default();
            match body.remove("records") {
                Some(Value::Array(records)) => (all_or_none, records),
                _ => return Err(Refusal::bad("JSON_PARSER_ERROR", "records: not an array")),
            }
        }
        _ => return Err(Refusal::method("DELETE,PATCH,POST")),
    };
    if records.len() > ROWS_MAX {
        return Err(Refusal::bad("EXCEEDED_ID_LIMIT", "record limit reached. cannot submit more than 200 records"));
    }
    let before = (state.store.clone(), state.changes.len());
    let outcomes: Vec<_> = records.iter().map(|it| one(state, caller, &call.method, it)).collect();
    let undone = all_or_none && outcomes.iter().any(Result::is_err);
    if undone {
        state.store = before.0;
        state.changes.truncate(before.1);
    }
    let told = outcomes.into_iter().map(|outcome| match outcome {
        Ok(_) if undone => failed(&Refusal::bad(
            "ALL_OR_NONE_OPERATION_ROLLED_BACK",
            "Record rolled back because not all records were valid and the request was using AllOrNone header",
        )),
        Ok(id) => item(&id),
        Err(refusal) => failed(&refusal),
    });
    Ok(Reply::ok(&told.collect()))
}

fn failed(refusal: &Refusal) -> Value {
    json!({ "success": false, "errors": [refusal.item()] })
}

fn one(state: &mut State, caller: &Caller, method: &Method, record: &Value) -> Result<String, Refusal> {
    let schema = Arc::clone(&state.schema);
    let mut values = record.as_object().cloned().unwrap_or_default();
    let given = take_id(&mut values);
    let by_prefix = || schema.objects.iter().find(|it| given.as_ref().is_some_and(|id| id.starts_with(&it.prefix)));
    let named = values.get("attributes").and_then(|it| it.get("type")).and_then(Value::as_str);
    let object = match (named, method) {
        (Some(name), _) => caller.object(&schema, name)?,
        (None, &Method::DELETE) => by_prefix().ok_or_else(|| Refusal::bad("MALFORMED_ID", "malformed id"))?,
        (None, _) => return Err(Refusal::bad("INVALID_TYPE", "attributes.type is missing")),
    };
    if *method == Method::POST {
        return write::create(state, caller, object, &values);
    }
    let id = given.ok_or_else(|| Refusal::bad("MISSING_ARGUMENT", "Id not specified in an update call"))?;
    if *method == Method::PATCH {
        write::update(state, caller, object, &id, &values)?;
    } else {
        write::delete(state, caller, object, &id)?;
    }
    Ok(id)
}

fn take_id(values: &mut Map<String, Value>) -> Option<String> {
    let key = values.keys().find(|it| it.eq_ignore_ascii_case("id"))?.clone();
    id::complete(values.remove(&key)?.as_str()?)
}
