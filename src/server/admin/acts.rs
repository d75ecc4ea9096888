//! [`Act`]: a call that changes something. Each leaves an audit record.

use std::borrow::Cow;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::response::Response;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::Value;

use super::access::Caller;
use super::problem::Answered;
use crate::audit::{Audit, Entry, Event};

/// The longest arguments that are recorded, in bytes of JSON. A record has to fit into a line that `audit verify` reads. The
/// arguments of a call that changes something are shorter.
const ARGUMENTS_BYTES_MAX: usize = 16 << 10;

/// What the audit record of a call will say beside who made it. A call that takes arguments notes them here.
#[derive(Clone, Default)]
pub(super) struct Act(Arc<Mutex<Option<Value>>>);

impl Act {
    /// Notes the arguments of the call, which have no secret.
    pub(super) fn note(&self, arguments: &impl Serialize) {
        let arguments = serde_json::to_value(arguments).ok();
        let bytes = arguments.as_ref().map_or(0, |arguments| arguments.to_string().len());
        *self.0.lock() = match bytes {
            ..=ARGUMENTS_BYTES_MAX => arguments,
            _ => Some(format!("{bytes} bytes, which are too many to record").into()),
        };
    }
}

/// The act that the check of the caller has begun.
impl<S: Send + Sync> FromRequestParts<S> for Act {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

/// Returns the name of a call: its method and its path.
pub(super) fn name_of(request: &Request) -> String {
    format!("{} {}", request.method(), request.uri().path())
}

/// Records a call and its outcome.
pub(super) fn record(audit: &Audit, caller: &Caller, call: &str, act: &Act, response: &Response) {
    let code = response.extensions().get::<Answered>().map(|Answered(code)| code.as_str());
    record_of(audit, Some(&caller.name), caller.address, call, act, code);
}

/// Records a call of somebody whose token may not be known. `code` says why it was refused.
pub(super) fn record_of(
    audit: &Audit,
    token: Option<&str>,
    address: IpAddr,
    call: &str,
    act: &Act,
    code: Option<&'static str>,
) {
    let arguments = act.0.lock().take();
    tracing::info!(token, %address, call, outcome = code.unwrap_or("ok"), "an admin acted");
    audit.record(&Entry {
        code,
        token,
        address: Some(address),
        target: Some(Cow::Borrowed(call)),
        arguments: arguments.as_ref(),
        ..Entry::new(Event::Admin)
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_arguments_do_not_make_a_long_record() {
        let noted = |length| {
            let act = Act::default();
            act.note(&"x".repeat(length));
            let noted = act.0.lock().take();
            noted.unwrap().to_string()
        };
        assert_eq!(noted(ARGUMENTS_BYTES_MAX - 2).len(), ARGUMENTS_BYTES_MAX);
        assert_eq!(noted(ARGUMENTS_BYTES_MAX - 1), "\"16385 bytes, which are too many to record\"");
    }
}
