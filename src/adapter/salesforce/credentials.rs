//! [`FetchCredentials`]: answers `Salesforce/User/FetchCredentials` with the credentials of the user who asks.
//!
//! Whose they are is said by the request's verified user alone; the payload is not read. Each fetch leaves one audit
//! record, written before its answer leaves.

use std::io;
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use zeroize::Zeroizing;

use super::{Audit, FETCH_CREDENTIALS, exactly};
use crate::adapter::directory::{Credentials, Directory};
use crate::adapter::{Answer, Handler, Request, Response};
use crate::envelope::Pattern;
use crate::error::{ErrorCode, Refusal};

/// Serves credentials from the embedded directory.
pub struct FetchCredentials {
    directory: Arc<Directory>,
    audit: Arc<Audit>,
}

impl FetchCredentials {
    /// A handler on an open store and an open record.
    pub fn new(directory: Arc<Directory>, audit: Arc<Audit>) -> Self {
        Self { directory, audit }
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
        let (directory, audit) = (Arc::clone(&self.directory), Arc::clone(&self.audit));
        Box::pin(async move {
            // A look-up takes tens of microseconds, but may wait for the disk or for a writer in another process; and
            // on a thread of its own it goes on to its audit record when the asker gives up meanwhile.
            let fetched = tokio::task::spawn_blocking(move || {
                let answer = fetch(&directory, request.user.as_deref());
                audit.record_and_wait(&request, answer.as_ref().err().map(|refusal| refusal.code));
                answer
            });
            fetched.await.unwrap_or_else(|error| {
                tracing::error!(%error, "a fetch of credentials did not end");
                Err(internal())
            })
        })
    }

    fn refused(&self, request: &Request, refusal: &Refusal) {
        self.audit.record(request, Some(refusal.code));
    }
}

fn fetch(directory: &Directory, user: Option<&str>) -> Result<Response, Refusal> {
    let Some(user) = user else {
        return Err(Refusal::new(
            ErrorCode::UserRequired,
            "a service has to say whose credentials it wants: add \"user\" to the envelope",
        ));
    };
    match directory.get(user) {
        Ok(Some(credentials)) => respond(&credentials).map_err(|error| {
            tracing::error!(%error, "credentials could not be written as JSON");
            internal()
        }),
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

fn respond(credentials: &Credentials) -> io::Result<Response> {
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
    String::from_utf8(json).map(SecretString::from).map_err(|error| {
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
