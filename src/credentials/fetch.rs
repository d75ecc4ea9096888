//! [`FetchCredentials`]: answers `Salesforce/User/FetchCredentials` with the credentials of the requesting user.
//!
//! The verified user of the request decides whose credentials these are; the payload is not read. Each fetch leaves one
//! audit record, written before the answer is sent, also if several fetches share one exchange with the source. If the
//! record cannot be written, the fetch is refused, unless `credentials.audit_required` is off.

use std::sync::Arc;

use secrecy::ExposeSecret;
use serde::{Serialize, Serializer};

use super::exchange::Exchanges;
use super::source::{Credentials, Source, internal};
use crate::adapter::{Answer, Data, Given, Handler, Refused, Response};
use crate::audit::{Audit, Event, Unwritten};
use wire::{ErrorCode, Pattern, Refusal, Triple};

/// The handler of `Salesforce/User/FetchCredentials`.
pub struct FetchCredentials {
    exchanges: Arc<Exchanges>,
    audit: Arc<Audit>,
}

impl FetchCredentials {
    /// Answers from this source and records in this log.
    pub fn new(source: Arc<dyn Source>, audit: Arc<Audit>) -> Self {
        Self { exchanges: Arc::new(Exchanges::new(source)), audit }
    }
}

impl Handler for FetchCredentials {
    fn name(&self) -> &'static str {
        "FetchCredentials"
    }

    fn serves(&self) -> Vec<Pattern> {
        vec![Pattern::exactly(&Triple::new("Salesforce", "User", "FetchCredentials"))]
    }

    fn failure_keys(&self) -> &'static [&'static str] {
        &["Username", "Password", "Extension", "ADFSUsername"]
    }

    fn record_key(&self, given: &Given) -> Option<String> {
        given.user.as_deref().map(str::to_owned)
    }

    fn handle(&self, given: Given) -> Answer<'_> {
        let asked = Asked { given, audit: Arc::clone(&self.audit), recorded: false };
        Box::pin(async move {
            let found = match named(&asked.given) {
                Ok(user) => self.exchanges.find(user).await,
                Err(refusal) => Err(refusal),
            };
            // The record may wait for the disk.
            tokio::task::spawn_blocking(move || asked.answered(found)).await.unwrap_or_else(|error| {
                tracing::error!(%error, "a fetch of credentials did not complete");
                Err(internal())
            })
        })
    }

    fn refused(&self, refused: &Refused<'_>) {
        refused.record(Event::Fetch, &self.audit);
    }
}

/// A request in progress. If it is dropped before its answer, it is recorded as cancelled.
struct Asked {
    given: Given,
    audit: Arc<Audit>,
    recorded: bool,
}

impl Asked {
    fn answered(mut self, found: Result<Arc<Credentials>, Refusal>) -> Result<Response, Refusal> {
        self.recorded = true;
        let outcome = found.as_ref().err().map(|refusal| refusal.code);
        let entry = self.given.audited(Event::Fetch);
        let written = self.audit.record_and_wait(&entry.clone().with_outcome(outcome));
        let credentials = found?;
        match written {
            Err(unwritten) if self.audit.is_required() => {
                if unwritten == Unwritten::Late {
                    // The late record says that the credentials were sent; this one corrects it.
                    self.audit.record(&entry.with_outcome(Some(ErrorCode::StorageUnavailable)));
                }
                Err(Refusal::new(
                    ErrorCode::StorageUnavailable,
                    "credentials are only sent with an audit record, which cannot be written now; the broker's log says \
                     why; try again in a moment",
                ))
            }
            Ok(()) | Err(_) => Ok(Data::new(Reply(credentials)).into()),
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if !self.recorded {
            let entry = self.given.audited(Event::Fetch);
            self.audit.record(&entry.with_outcome(Some(ErrorCode::RequestCancelled)));
        }
    }
}

/// Returns whose credentials are requested.
fn named(given: &Given) -> Result<&str, Refusal> {
    given.user.as_deref().ok_or_else(|| {
        Refusal::new(
            ErrorCode::UserRequired,
            "a service has to say whose credentials it wants: add \"user\" to the envelope",
        )
    })
}

/// The documented reply. It is serialised straight into the frame that leaves.
struct Reply(Arc<Credentials>);

impl Serialize for Reply {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Credentials { username, password, extension, adfs_username } = &*self.0;
        let fields = Fields {
            username,
            password: password.expose_secret(),
            extension,
            adfs_username: adfs_username.as_deref().unwrap_or_default(),
            success: true,
            error_message: None,
        };
        fields.serialize(serializer)
    }
}

/// Key by key in the documented order.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Fields<'a> {
    username: &'a str,
    password: &'a str,
    extension: &'a str,
    #[serde(rename = "ADFSUsername")]
    adfs_username: &'a str,
    success: bool,
    error_message: Option<&'a str>,
}
