//! [`Call`]: one request to the instance, and [`Reply`]: its answer.

use reqwest::Method;
use serde::de::IgnoredAny;
use zeroize::Zeroizing;

use super::answer_fault::{too_large, too_large_after_write, too_large_description};
use super::breakers::Purpose;
use super::response::error_codes;
use super::transport::Largest;
use super::write_fault::Target;
use crate::telemetry::metrics::SalesforceOperation;

/// The largest answer that is read.
const BODY_BYTES_MAX: usize = 1 << 20;

/// The largest answer to a login that is read.
pub(super) const LARGEST_TO_LOGIN: Largest = Largest { bytes: BODY_BYTES_MAX, fault: too_large };

/// The largest description of an object that is read: an object with 900 fields takes some megabytes.
const DESCRIPTION_BYTES_MAX: usize = 16 << 20;

/// Which answers besides JSON the caller understands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// None.
    Json,
    /// One row by its key: 300 means several rows, 404 none.
    Row,
    /// The description of an object, which may be large: 404 means that there is no such object.
    Description,
    /// The answer of an Apex resource: 404 or an empty body means no row.
    Apex,
    /// The id of a new record: 400 with `DUPLICATE_VALUE` means that it exists already.
    Created,
    /// The answer to a change, which is usually empty.
    Changed,
}

/// One request to the instance.
pub(super) struct Call<'a> {
    /// Every method except GET writes.
    pub(super) method: Method,
    /// The path with its query.
    pub(super) path: &'a str,
    /// The body, in JSON.
    pub(super) body: Option<&'a str>,
    /// Which answers are understood.
    pub(super) want: Want,
    /// The user whose calls it counts as when it is sent; `None`: it is not counted.
    pub(super) user: Option<&'a str>,
    /// The object whose records are read or written, which decides the purpose; `None`: the credentials.
    pub(super) target: Option<&'a Target<'a>>,
}

impl<'a> Call<'a> {
    /// A GET that is not counted and concerns no object.
    pub(super) fn get(path: &'a str, want: Want) -> Self {
        Self { method: Method::GET, path, body: None, want, user: None, target: None }
    }

    /// Returns whether it changes something.
    pub(super) fn writes(&self) -> bool {
        self.method != Method::GET
    }

    /// What it is for.
    pub(super) fn purpose(&self) -> Purpose<'_> {
        self.target.map_or(Purpose::Credentials, |target| Purpose::Object(target.object))
    }

    /// What it is counted as.
    pub(super) fn operation(&self) -> SalesforceOperation {
        match self.want {
            Want::Created => SalesforceOperation::Create,
            Want::Changed => SalesforceOperation::Update,
            Want::Json | Want::Row | Want::Description | Want::Apex => SalesforceOperation::Query,
        }
    }

    /// The largest answer that is read.
    pub(super) fn largest(&self) -> Largest {
        match self.want {
            Want::Description => Largest { bytes: DESCRIPTION_BYTES_MAX, fault: too_large_description },
            Want::Created | Want::Changed => Largest { bytes: BODY_BYTES_MAX, fault: too_large_after_write },
            Want::Json | Want::Row | Want::Apex => Largest { bytes: BODY_BYTES_MAX, fault: too_large },
        }
    }
}

/// An answer.
pub(super) struct Reply {
    /// A success status, or one that [`Want`] allows.
    pub(super) status: u16,
    /// The body; zeroised when dropped.
    pub(super) body: Zeroizing<Vec<u8>>,
}

/// Returns whether the caller understands an answer.
pub(super) fn is_wanted(status: u16, body: &[u8], want: Want) -> bool {
    let says = |code: &str| error_codes(body).iter().any(|error| error.code == code);
    match status {
        200..=299 if body.trim_ascii().is_empty() => matches!(want, Want::Apex | Want::Changed),
        200..=299 => serde_json::from_slice::<IgnoredAny>(body).is_ok(),
        300 => want == Want::Row,
        400 => want == Want::Created && says("DUPLICATE_VALUE"),
        404 if want == Want::Apex => true,
        404 => matches!(want, Want::Row | Want::Description) && says("NOT_FOUND"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_meaning_of_an_answer_that_is_too_large_depends_on_the_request() {
        for (want, in_doubt, words) in [
            (Want::Json, false, "an answer of more than 1 MiB was not read"),
            (Want::Description, false, "the description of an object is larger than 16 MiB"),
            (Want::Created, true, "an answer of more than 1 MiB to a write was not read"),
            (Want::Changed, true, "an answer of more than 1 MiB to a write was not read"),
        ] {
            let Largest { bytes, fault } = Call::get("/", want).largest();
            let fault = fault(bytes).fault();
            assert_eq!(fault.is_in_doubt(), in_doubt, "{words}");
            assert!(fault.operator().starts_with(words), "{}", fault.operator());
        }
    }
}
