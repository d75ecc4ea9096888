//! `/sobjects`: the list of objects, and rows by their id. Rows by another field are `external`'s.

use std::sync::Arc;

use hyper::header::LOCATION;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::call::Call;
use super::caller::Caller;
use super::org::State;
use super::reply::{Refusal, Reply};
use super::schema::{Field, Object};
use super::{describe, external, id, write};

/// Answers a call below `/sobjects`.
pub(super) fn answer(state: &mut State, caller: &Caller, call: &Call, below: &[&str]) -> Result<Reply, Refusal> {
    let schema = Arc::clone(&state.schema);
    let Some((name, below)) = below.split_first() else {
        return match call.method {
            Method::GET => Ok(describe::all(&schema, caller)),
            _ => Err(Refusal::method("GET,HEAD")),
        };
    };
    let Ok(object) = caller.object(&schema, name) else { return Err(Refusal::not_found()) };
    match below {
        [] => collection(state, caller, call, object),
        ["describe"] => match call.method {
            Method::GET => Ok(describe::one(caller, object)),
            _ => Err(Refusal::method("GET,HEAD")),
        },
        [field, value] if !field.eq_ignore_ascii_case("Id") => {
            external::answer(state, caller, call, object, (field, value))
        }
        [id] | [_, id] => row(state, caller, call, object, id),
        _ => Err(Refusal::not_found()),
    }
}

fn collection(state: &mut State, caller: &Caller, call: &Call, object: &Object) -> Result<Reply, Refusal> {
    match call.method {
        Method::GET => Ok(Reply::ok(&json!({ "objectDescribe": describe::brief(caller, object), "recentItems": [] }))),
        Method::POST => {
            let id = write::create(state, caller, object, &call.object()?)?;
            Ok(created(caller, object, &id))
        }
        _ => Err(Refusal::method("GET,HEAD,POST")),
    }
}

fn row(state: &mut State, caller: &Caller, call: &Call, object: &Object, id: &str) -> Result<Reply, Refusal> {
    let id = id::complete(id).ok_or_else(|| {
        let message = format!("Provided external ID field does not exist or is not accessible: {id}");
        Refusal::new(StatusCode::NOT_FOUND, "NOT_FOUND", message)
    })?;
    match call.method {
        Method::GET => {
            let row = state.store.row(&object.name, &id).ok_or_else(Refusal::not_found)?;
            let fields = asked_fields(caller, call, object)?;
            Ok(Reply::ok(&caller.record(object, row, fields.as_deref())))
        }
        Method::PATCH => {
            write::update(state, caller, object, &id, &call.object()?)?;
            Ok(Reply::nothing())
        }
        Method::DELETE => {
            write::delete(state, caller, object, &id)?;
            Ok(Reply::nothing())
        }
        _ => Err(Refusal::method("GET,HEAD,PATCH,DELETE")),
    }
}

/// 201.
pub(super) fn created(caller: &Caller, object: &Object, id: &str) -> Reply {
    Reply::json(StatusCode::CREATED, &json!({ "id": id, "success": true, "errors": [] }))
        .with(LOCATION, &caller.url(object, id))
}

/// `?fields=a,b`.
pub(super) fn asked_fields<'o>(
    caller: &Caller,
    call: &Call,
    object: &'o Object,
) -> Result<Option<Vec<&'o Field>>, Refusal> {
    let Some(names) = call.parameter("fields") else { return Ok(None) };
    let found = names.split(',').map(str::trim).map(|name| {
        caller.field(object, name).ok_or_else(|| {
            let message = format!("No such column '{name}' on sobject of type {}", object.name);
            Refusal::bad("INVALID_FIELD", message)
        })
    });
    found.collect::<Result<_, _>>().map(Some)
}

/// The entry of a collection for one successful row.
pub(super) fn item(id: &str) -> Value {
    json!({ "id": id, "success": true, "errors": [] })
}
