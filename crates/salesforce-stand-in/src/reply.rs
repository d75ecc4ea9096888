//! [`Reply`]: a whole answer, and [`Refusal`]: an error of the REST API, a JSON array.

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{HeaderMap, StatusCode};
use serde_json::{Map, Value, json};

/// An answer.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Reply {
    /// A JSON body.
    pub(super) fn json(status: StatusCode, value: &Value) -> Self {
        Self::of(status, "application/json;charset=UTF-8", value.to_string())
    }

    /// A body of some type.
    pub(super) fn of(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        Self { status, headers, body: body.into() }
    }

    /// 200 with a JSON body.
    pub(super) fn ok(value: &Value) -> Self {
        Self::json(StatusCode::OK, value)
    }

    /// 204.
    pub(super) fn nothing() -> Self {
        Self { status: StatusCode::NO_CONTENT, headers: HeaderMap::new(), body: Bytes::new() }
    }

    /// Adds a header; an invalid value is left out.
    pub(super) fn with(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }
}

/// An error of the REST API.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) code: String,
    pub(super) message: String,
    pub(super) fields: Vec<String>,
}

impl Refusal {
    /// An error with its status.
    pub(super) fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self { status, code: code.to_owned(), message: message.into(), fields: Vec::new() }
    }

    /// 400.
    pub(super) fn bad(code: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// 404 for something that does not exist.
    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NOT_FOUND", "The requested resource does not exist")
    }

    /// 405, naming the allowed methods.
    pub(super) fn method(allowed: &str) -> Self {
        let message = format!("HTTP Method not allowed. Allowed are {allowed}");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", message)
    }

    /// 400 for a name that is not an object, or not one that the caller may read.
    pub(super) fn no_object(name: &str) -> Self {
        Self::bad(
            "INVALID_TYPE",
            format!(
                "sObject type '{name}' is not supported. If you are attempting to use a custom object, be sure to \
                 append the '__c' after the entity name. Please reference your WSDL or the describe call for the \
                 appropriate names."
            ),
        )
    }

    /// Names the fields concerned.
    pub(super) fn about(mut self, fields: &[&str]) -> Self {
        self.fields = fields.iter().map(ToString::to_string).collect();
        self
    }

    /// One entry of the array.
    pub(super) fn entry(&self) -> Value {
        let mut entry = Map::new();
        entry.insert("message".to_owned(), json!(self.message));
        entry.insert("errorCode".to_owned(), json!(self.code));
        if !self.fields.is_empty() {
            entry.insert("fields".to_owned(), json!(self.fields));
        }
        Value::Object(entry)
    }

    /// The form in collections: `statusCode` instead of `errorCode`, always with `fields`.
    pub(super) fn item(&self) -> Value {
        json!({ "statusCode": self.code, "message": self.message, "fields": self.fields })
    }
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Self {
        Self::json(refusal.status, &json!([refusal.entry()]))
    }
}
