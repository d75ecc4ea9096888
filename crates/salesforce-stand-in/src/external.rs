//! Rows by an external id: `/sobjects/OBJECT/FIELD/VALUE`, for reading and for upserts that create at most once.

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::call::Call;
use super::caller::Caller;
use super::org::State;
use super::query::twin;
use super::reply::{Refusal, Reply};
use super::schema::{Field, Object};
use super::sobjects::asked_fields;
use super::store::Row;
use super::write;

/// From this version on, an upsert that changes a row returns its id.
const TELLS_ID: u16 = 46;

/// Answers a call about the row whose field has the value.
pub(super) fn answer(
    state: &mut State,
    caller: &Caller,
    call: &Call,
    object: &Object,
    (field, value): (&str, &str),
) -> Result<Reply, Refusal> {
    let field = caller.field(object, field).filter(|it| it.external_id).ok_or_else(|| {
        let message = format!("Provided external ID field does not exist or is not accessible: {field}");
        Refusal::new(StatusCode::NOT_FOUND, "NOT_FOUND", message)
    })?;
    let mut rows = found(state, object, field, value);
    if caller.effects.two_rows {
        rows.extend(rows.first().map(twin));
    }
    if rows.len() > 1 {
        let urls: Vec<_> = rows.iter().map(|it| caller.url(object, &it.id)).collect();
        return Ok(Reply::json(StatusCode::MULTIPLE_CHOICES, &json!(urls)));
    }
    let row = rows.first();
    match (&call.method, row) {
        (&Method::GET, Some(row)) => {
            let fields = asked_fields(caller, call, object)?;
            Ok(Reply::ok(&caller.record(object, row, fields.as_deref())))
        }
        (&Method::PATCH, row) => upsert(state, caller, call, object, (field, value), row.map(|it| it.id.as_str())),
        (&Method::DELETE, Some(row)) => {
            write::delete(state, caller, object, &row.id)?;
            Ok(Reply::nothing())
        }
        (&Method::GET | &Method::DELETE, None) => Err(Refusal::not_found()),
        _ => Err(Refusal::method("GET,HEAD,PATCH,DELETE")),
    }
}

fn found(state: &State, object: &Object, field: &Field, value: &str) -> Vec<Row> {
    let same = |it: &str| match field.case_sensitive {
        true => it == value,
        false => it.to_lowercase() == value.to_lowercase(),
    };
    let rows = state.store.rows(&object.name).iter();
    rows.filter(|it| it.value(&field.name).as_str().is_some_and(same)).cloned().collect()
}

fn upsert(
    state: &mut State,
    caller: &Caller,
    call: &Call,
    object: &Object,
    (field, value): (&Field, &str),
    row: Option<&str>,
) -> Result<Reply, Refusal> {
    let mut body = call.object()?;
    if body.contains_key(&field.name) {
        let message = format!("The {} field should not be specified in the sobject data.", field.name);
        return Err(Refusal::bad("INVALID_FIELD", message));
    }
    let told = |id: &str, created| json!({ "id": id, "success": true, "errors": [], "created": created });
    match row {
        Some(id) => {
            write::update(state, caller, object, id, &body)?;
            Ok(if caller.version >= TELLS_ID { Reply::ok(&told(id, false)) } else { Reply::nothing() })
        }
        None => {
            body.insert(field.name.clone(), Value::String(value.to_owned()));
            let id = write::create(state, caller, object, &body)?;
            Ok(Reply::json(StatusCode::CREATED, &told(&id, true)))
        }
    }
}
