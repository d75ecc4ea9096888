//! [`FetchCredentials`]: answers `Salesforce/User/FetchCredentials` with the credentials of the user who asks.
//!
//! Whose they are is said by the request's verified user alone; the payload is not read. Each fetch leaves one audit
//! record, written before its answer leaves.

use std::io;
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use zeroize::Zeroizing;

use super::{Audit, FETCH_CREDENTIALS, Org, exactly};
use crate::adapter::directory::{Credentials, Directory};
use crate::adapter::{Answer, Handler, Request, Response};
use wire::Pattern;
use wire::{ErrorCode, Refusal};

/// Where credentials come from.
#[derive(Clone)]
pub enum Store {
    /// The embedded directory.
    Directory(Arc<Directory>),
    /// A Salesforce org.
    Org(Arc<Org>),
}

impl From<Arc<Directory>> for Store {
    fn from(directory: Arc<Directory>) -> Self {
        Self::Directory(directory)
    }
}

impl From<Arc<Org>> for Store {
    fn from(org: Arc<Org>) -> Self {
        Self::Org(org)
    }
}

/// Serves credentials from a store.
pub struct FetchCredentials {
    store: Store,
    audit: Arc<Audit>,
}

impl FetchCredentials {
    /// A handler on an open store and an open record.
    pub fn new(store: impl Into<Store>, audit: Arc<Audit>) -> Self {
        Self { store: store.into(), audit }
    }
}

impl Handler for FetchCredentials {
    fn serves(&self) -> Vec<Pattern> {
        vec![exactly(FETCH_CREDENTIALS)]
    }

    fn failure_keys(&self) -> &'static [&'static str] {
        &["Username", "Password", "Extension", "ADFSUsername"]
    }

    fn handle(&self, request: Request) -> Answer<'_> {
        let audit = Arc::clone(&self.audit);
        match &self.store {
            Store::Directory(directory) => {
                let directory = Arc::clone(directory);
                Box::pin(async move {
                    // A look-up takes tens of microseconds, but may wait for the disk or for a writer in another
                    // process; and on a thread of its own it goes on to its audit record when the asker gives up
                    // meanwhile.
                    on_a_thread(move || {
                        let answer = named(&request).and_then(|user| from_directory(&directory, user));
                        audit.record_and_wait(&request, answer.as_ref().err().map(|refusal| refusal.code));
                        answer
                    })
                    .await
                })
            }
            Store::Org(org) => {
                let org = Arc::clone(org);
                Box::pin(async move {
                    let asked = Asked { request: Some(request), audit };
                    let answer = match asked.request.as_ref().map(named) {
                        Some(Ok(user)) => org.find(user).await.and_then(|credentials| respond(&credentials)),
                        Some(Err(refusal)) => Err(refusal),
                        None => Err(internal()),
                    };
                    on_a_thread(move || asked.answered(answer)).await
                })
            }
        }
    }

    fn refused(&self, request: &Request, refusal: &Refusal) {
        self.audit.record(request, Some(refusal.code));
    }
}

async fn on_a_thread(work: impl FnOnce() -> Result<Response, Refusal> + Send + 'static) -> Result<Response, Refusal> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        tracing::error!(%error, "a fetch of credentials did not end");
        Err(internal())
    })
}

/// A request that waits for an org. Dropped before its answer, it leaves its record all the same.
struct Asked {
    request: Option<Request>,
    audit: Arc<Audit>,
}

impl Asked {
    fn answered(mut self, answer: Result<Response, Refusal>) -> Result<Response, Refusal> {
        if let Some(request) = self.request.take() {
            self.audit.record_and_wait(&request, answer.as_ref().err().map(|refusal| refusal.code));
        }
        answer
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if let Some(request) = &self.request {
            self.audit.record(request, Some(ErrorCode::RequestCancelled));
        }
    }
}

/// Whose credentials are asked for.
fn named(request: &Request) -> Result<&str, Refusal> {
    request.user.as_deref().ok_or_else(|| {
        Refusal::new(
            ErrorCode::UserRequired,
            "a service has to say whose credentials it wants: add \"user\" to the envelope",
        )
    })
}

fn from_directory(directory: &Directory, user: &str) -> Result<Response, Refusal> {
    match directory.get(user) {
        Ok(Some(credentials)) => respond(&credentials),
        Ok(None) => Err(Refusal::new(
            ErrorCode::CredentialsNotFound,
            format!(
                "no credentials are stored for the user '{user}'; an administrator stores them with 'switchboard \
                 credentials set USER --username NAME --extension EXT'"
            ),
        )),
        Err(error) => {
            tracing::error!(%error, "the credential store failed");
            Err(internal())
        }
    }
}

fn internal() -> Refusal {
    Refusal::new(ErrorCode::Internal, "the credential store failed; the broker's log says why")
}

/// The documented reply, key by key in its order.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Reply<'a> {
    username: &'a str,
    password: &'a str,
    extension: &'a str,
    #[serde(rename = "ADFSUsername")]
    adfs_username: &'a str,
    success: bool,
    error_message: Option<&'a str>,
}

fn respond(credentials: &Credentials) -> Result<Response, Refusal> {
    in_json(credentials).map_err(|error| {
        tracing::error!(%error, "credentials could not be written as JSON");
        internal()
    })
}

fn in_json(credentials: &Credentials) -> io::Result<Response> {
    let reply = Reply {
        username: &credentials.username,
        password: credentials.password.expose_secret(),
        extension: &credentials.extension,
        adfs_username: credentials.adfs_username.as_deref().unwrap_or_default(),
        success: true,
        error_message: None,
    };
    // Measured first and written into a buffer of just that size: one that grew, or shrank to fit, would leave copies
    // of the password behind.
    let mut length = Length(0);
    serde_json::to_writer(&mut length, &reply)?;
    let mut json = Zeroizing::new(Vec::with_capacity(length.0));
    serde_json::to_writer(&mut *json, &reply)?;
    let json = std::mem::take(&mut *json);
    String::from_utf8(json).map(|json| SecretString::from(json).into()).map_err(|error| {
        drop(Zeroizing::new(error.into_bytes()));
        io::Error::from(io::ErrorKind::InvalidData)
    })
}

/// Counts what is written to it.
struct Length(usize);

impl io::Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
