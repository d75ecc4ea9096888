//! switchboard: JSON envelopes in text frames, see docs/protocol.md.

use std::io::Write;

use anyhow::{Result, bail};
use memchr::memmem;

use super::{Driver, Incoming, Subject};
use crate::{payload, ws};

const DATA: &[u8] = b"\"data\":{\"t\":";

pub struct Switchboard;

fn envelope(out: &mut Vec<u8>, from: usize, subject: &Subject, extra: &[&[u8]], payload: &[u8]) {
    let Subject { channel, topic, subtopic } = subject;
    let _ = write!(out, r#"{{"channel":"{channel}","topic":"{topic}","subtopic":"{subtopic}","source":"y{from}""#);
    extra.iter().for_each(|part| out.extend_from_slice(part));
    out.extend_from_slice(b",\"data\":");
    out.extend_from_slice(payload);
    out.push(b'}');
}

fn subscribe(out: &mut Vec<u8>, subject: &Subject, role: &str) {
    let Subject { channel, topic, subtopic } = subject;
    let _ = write!(
        out,
        r#"{{"channel":"Broker","topic":"Subscription","subtopic":"Subscribe","data":{{"channel":"{channel}","topic":"{topic}","subtopic":"{subtopic}"{role}}}}}"#
    );
}

/// The string value of `key`, given as `"key":"`.
fn value<'a>(envelope: &'a [u8], key: &[u8]) -> &'a [u8] {
    let rest = memmem::find(envelope, key).map_or(&[][..], |at| &envelope[at + key.len()..]);
    &rest[..memchr::memchr(b'"', rest).unwrap_or(0)]
}

impl Driver for Switchboard {
    fn opcode(&self) -> u8 {
        ws::TEXT
    }

    fn message_per_frame(&self) -> bool {
        true
    }

    fn hello(&self, from: usize, out: &mut Vec<u8>) {
        let _ = write!(
            out,
            r#"{{"channel":"Broker","topic":"Application","subtopic":"Register","source":"y{from}","data":{{"user":"yardstick"}}}}"#
        );
    }

    fn subscribe(&self, _id: usize, subject: &Subject, out: &mut Vec<u8>) {
        subscribe(out, subject, "");
    }

    fn publish(&self, from: usize, subject: &Subject, payload: &[u8], out: &mut Vec<u8>) {
        envelope(out, from, subject, &[], payload);
    }

    fn has_requests(&self) -> bool {
        true
    }

    fn serve(&self, subject: &Subject, out: &mut Vec<u8>) {
        subscribe(out, subject, r#","role":"handler""#);
    }

    fn request(&self, from: usize, subject: &Subject, payload: &[u8], out: &mut Vec<u8>) {
        envelope(out, from, subject, &[br#","id":"q""#], payload);
    }

    fn reply(&self, from: usize, subject: &Subject, raw: &[u8], payload: &[u8], out: &mut Vec<u8>) {
        let id = value(raw, b"\"id\":\"");
        envelope(out, from, subject, &[br#","inReplyTo":""#, id, b"\""], payload);
    }

    fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Option<(usize, Incoming<'a>)>> {
        let incoming = if let Some(at) = memmem::find(bytes, DATA) {
            let rest = &bytes[at + DATA.len() - payload::START.len()..];
            let Some(payload) = payload::extent(rest).and_then(|len| rest.get(..len)) else {
                bail!("a damaged payload: {}", String::from_utf8_lossy(bytes));
            };
            Incoming::Message { raw: bytes, payload }
        } else if memmem::find(bytes, b"\"Success\":true").is_some() {
            Incoming::Granted
        } else if memmem::find(bytes, b"\"Success\":false").is_some() {
            Incoming::Refused(String::from_utf8_lossy(bytes).into_owned())
        } else {
            Incoming::Other
        };
        Ok(Some((bytes.len(), incoming)))
    }
}
