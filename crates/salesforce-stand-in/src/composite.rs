//! `/composite`: up to 25 calls in one, five of them queries. The answer is 200 even if a part failed.

use std::collections::BTreeMap;

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue, LOCATION};
use hyper::{HeaderMap, Method};
use serde_json::{Map, Value, json};

use super::call::Call;
use super::caller::Caller;
use super::org::{self, State};
use super::reply::{Refusal, Reply};

const PARTS_MAX: usize = 25;
const QUERIES_MAX: usize = 5;

/// Answers a composite call.
pub(super) fn answer(state: &mut State, caller: &Caller, call: &Call) -> Result<Reply, Refusal> {
    if call.method != Method::POST {
        return Err(Refusal::method("POST"));
    }
    let body = call.object()?;
    let all_or_none = body.get("allOrNone").and_then(Value::as_bool).unwrap_or_default();
    let malformed = || Refusal::bad("JSON_PARSER_ERROR", "compositeRequest: not an array");
    let parts = body.get("compositeRequest").and_then(Value::as_array).ok_or_else(malformed)?;
    let queries = parts.iter().filter(|it| text(it, "url").contains("/query")).count();
    if parts.len() > PARTS_MAX || queries > QUERIES_MAX {
        let message = format!("a composite request has at most {PARTS_MAX} parts, {QUERIES_MAX} of them queries");
        return Err(Refusal::bad("LIMIT_EXCEEDED", message));
    }
    let before = (state.store.clone(), state.changes.len());
    let mut results: BTreeMap<String, Value> = BTreeMap::new();
    let mut replies = Vec::new();
    for part in parts {
        let id = text(part, "referenceId").to_owned();
        let reply = one(state, caller, call, part, &results).unwrap_or_else(Reply::from);
        let value = serde_json::from_slice(&reply.body).unwrap_or_default();
        if reply.status.is_success() {
            results.insert(id.clone(), value);
        }
        replies.push((id, reply));
    }
    let undone = all_or_none && replies.iter().any(|(_, it)| !it.status.is_success());
    if undone {
        state.store = before.0;
        state.changes.truncate(before.1);
    }
    let told: Vec<_> = replies.into_iter().map(|(id, reply)| response(&id, undone, reply)).collect();
    Ok(Reply::ok(&json!({ "compositeResponse": told })))
}

fn text<'v>(part: &'v Value, key: &str) -> &'v str {
    part.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn one(
    state: &mut State,
    caller: &Caller,
    call: &Call,
    part: &Value,
    results: &BTreeMap<String, Value>,
) -> Result<Reply, Refusal> {
    let method = Method::from_bytes(text(part, "method").as_bytes());
    let method = method.map_err(|_| Refusal::bad("JSON_PARSER_ERROR", "method: not an HTTP method"))?;
    let url = referred(text(part, "url"), results)?;
    let body = match part.get("body") {
        Some(body) => Bytes::from(substituted(body, results)?.to_string()),
        None => Bytes::new(),
    };
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let part = Call::new(method, &url, headers, body, ("http", "")).ok_or_else(Refusal::not_found)?;
    let part = Call { base: call.base.clone(), ..part };
    // A composite call inside another is refused like any unknown resource.
    match part.segments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["services", "data", _, below @ ..] if *below != ["composite"] => org::resource(state, caller, &part, below),
        _ => Err(Refusal::not_found()),
    }
}

/// Replaces the references in the strings of a body.
fn substituted(value: &Value, results: &BTreeMap<String, Value>) -> Result<Value, Refusal> {
    Ok(match value {
        Value::String(text) => Value::String(referred(text, results)?),
        Value::Object(object) => {
            let inside = object.iter().map(|(key, value)| Ok((key.clone(), substituted(value, results)?)));
            Value::Object(inside.collect::<Result<Map<_, _>, Refusal>>()?)
        }
        Value::Array(array) => array.iter().map(|it| substituted(it, results)).collect::<Result<_, _>>()?,
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    })
}

/// Replaces `@{reference.field}` with a value from the answer of an earlier part.
fn referred(text: &str, results: &BTreeMap<String, Value>) -> Result<String, Refusal> {
    let mut done = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("@{") {
        let (expression, after) = after.split_once('}').unwrap_or((after, ""));
        let (reference, path) = expression.split_once('.').unwrap_or((expression, ""));
        let pointer = path.replace(['.', '['], "/").replace(']', "");
        let value = results.get(reference).and_then(|it| it.pointer(&format!("/{pointer}")));
        let Some(value) = value else {
            let message = format!("Invalid reference specified. No value for {expression} found in {reference}");
            return Err(Refusal::bad("PROCESSING_HALTED", message));
        };
        done.push_str(before);
        done.push_str(&value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned));
        rest = after;
    }
    Ok(done + rest)
}

fn response(id: &str, undone: bool, reply: Reply) -> Value {
    let reply = match undone && reply.status.is_success() {
        true => Refusal::bad(
            "PROCESSING_HALTED",
            "The transaction was rolled back since another operation in the same transaction failed.",
        )
        .into(),
        false => reply,
    };
    let location = reply.headers.get(LOCATION).and_then(|it| it.to_str().ok());
    json!({
        "body": serde_json::from_slice::<Value>(&reply.body).unwrap_or_default(),
        "httpHeaders": location.map_or_else(|| json!({}), |it| json!({ "Location": it })),
        "httpStatusCode": reply.status.as_u16(),
        "referenceId": id,
    })
}
