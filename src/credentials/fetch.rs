//! [`FetchCredentials`]: answers `Salesforce/User/FetchCredentials` with the credentials of the requesting user.
//!
//! The verified user of the request decides whose credentials these are; the payload is not read. Each fetch leaves one
//! audit record, written before the answer is sent.

use std::io;
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use zeroize::Zeroizing;

use super::Audit;
use super::source::{Credentials, Source, internal};
use crate::adapter::{Answer, Handler, Request, Response};
use wire::{ErrorCode, Pattern, Refusal, Triple};

/// The handler of `Salesforce/User/FetchCredentials`.
pub struct FetchCredentials {
    source: Arc<dyn Source>,
    audit: Arc<Audit>,
}

impl FetchCredentials {
    /// Answers from this source and records in this log.
    pub fn new(source: Arc<dyn Source>, audit: Arc<Audit>) -> Self {
        Self { source, audit }
    }
}

impl Handler for FetchCredentials {
    fn serves(&self) -> Vec<Pattern> {
        vec![Pattern::exactly(&Triple::new("Salesforce", "User", "FetchCredentials"))]
    }

    fn failure_keys(&self) -> &'static [&'static str] {
        &["Username", "Password", "Extension", "ADFSUsername"]
    }

    fn handle(&self, request: Request) -> Answer<'_> {
        let asked = Asked { request, audit: Arc::clone(&self.audit), recorded: false };
        Box::pin(async move {
            let answer = match named(&asked.request) {
                Ok(user) => {
                    Arc::clone(&self.source).find(user.to_owned()).await.and_then(|credentials| respond(&credentials))
                }
                Err(refusal) => Err(refusal),
            };
            // The record may wait for the disk.
            tokio::task::spawn_blocking(move || asked.answered(answer)).await.unwrap_or_else(|error| {
                tracing::error!(%error, "a fetch of credentials did not complete");
                Err(internal())
            })
        })
    }

    fn refused(&self, request: &Request, refusal: &Refusal) {
        self.audit.record(request, Some(refusal.code));
    }
}

/// A request in progress. If it is dropped before its answer, it is recorded as cancelled.
struct Asked {
    request: Request,
    audit: Arc<Audit>,
    recorded: bool,
}

impl Asked {
    fn answered(mut self, answer: Result<Response, Refusal>) -> Result<Response, Refusal> {
        self.recorded = true;
        self.audit.record_and_wait(&self.request, answer.as_ref().err().map(|refusal| refusal.code));
        answer
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if !self.recorded {
            self.audit.record(&self.request, Some(ErrorCode::RequestCancelled));
        }
    }
}

/// Returns whose credentials are requested.
fn named(request: &Request) -> Result<&str, Refusal> {
    request.user.as_deref().ok_or_else(|| {
        Refusal::new(
            ErrorCode::UserRequired,
            "a service has to say whose credentials it wants: add \"user\" to the envelope",
        )
    })
}

/// The documented answer, keys in their documented order.
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
    // Measured first, then written into a buffer of exactly that size: a buffer that grows, or shrinks to fit, would
    // leave copies of the password behind.
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

/// Counts the bytes written to it.
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
