//! The door of handlers inside the process: a request goes out as [`Given`], an answer is returned as [`Data`]. Neither is
//! an envelope, so nothing is serialised only to be parsed again.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use crate::router::frames::{self, Head};
use crate::router::request::answer::log_failure;
use crate::router::request::pending::{KeptText, Pending};
use crate::router::request::words;
use crate::router::session::Session;
use crate::router::{RequestId, Router, SessionId};
use crate::websocket::Frame;
use wire::{Envelope, ErrorCode, Refusal, Triple, notice};

/// One request, as a handler inside the process gets it.
pub struct Given {
    /// The broker's id, by which it is answered.
    pub id: RequestId,
    /// What is requested.
    pub triple: Triple<'static>,
    /// The requesting application, verified.
    pub source: Arc<str>,
    /// The user: the requester's own, or the one that a service named. `None` if a service named none.
    pub user: Option<Box<str>>,
    /// The requesting session.
    pub session: SessionId,
    /// The address of the requester's peer; `None` inside the process.
    pub address: Option<IpAddr>,
    /// The requester's own `id`, by which the same request is known if it is sent again.
    pub request_id: Option<Box<str>>,
    /// `data` (or `message`) as it came.
    pub payload: Option<Payload>,
    /// How long the requester still waits.
    pub timeout: Duration,
    /// How long the request has waited for the handler.
    pub waited: Duration,
}

/// The JSON text of a payload, zeroised when dropped. No `Debug`: it may hold a password.
pub struct Payload(Text);

enum Text {
    /// Counted towards the limit of the session that asks.
    Kept(Arc<KeptText>),
    Own(Zeroizing<String>),
}

impl Payload {
    /// Copies a JSON text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(Text::Own(Zeroizing::new(text.to_owned())))
    }

    /// The JSON text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Text::Kept(text) => text.as_str(),
            Text::Own(text) => text,
        }
    }

    /// The JSON value, unread.
    #[must_use]
    pub fn as_raw(&self) -> &RawValue {
        // It was checked when its envelope was decoded.
        serde_json::from_str(self.as_str()).unwrap_or(RawValue::NULL)
    }
}

/// Where the router puts the requests of a handler inside the process.
///
/// Requests are offered in the order in which they were asked, by the thread of the session that asks, which holds no
/// lock. What an offer refuses is answered with that refusal.
pub trait Door: Send + Sync {
    /// Takes a request, to be answered with [`Router::answer`] or [`Router::refuse`].
    ///
    /// # Errors
    /// The refusal that its requester gets.
    fn offer(&self, given: Given) -> Result<(), Refusal>;

    /// A request that it took has ended without its answer.
    fn withdraw(&self, id: RequestId, why: &Refusal);
}

/// `data` of an answer. It is written once, straight into the frame that leaves, because each buffer on the way would be
/// another place with the password in it.
pub struct Data(Box<WriteJson>);

type WriteJson = dyn Fn(&mut dyn io::Write) -> io::Result<()> + Send + Sync;

impl Data {
    /// `data` that is serialised when it leaves.
    pub fn new(value: impl Serialize + Send + Sync + 'static) -> Self {
        Self(Box::new(move |to| serde_json::to_writer(to, &value).map_err(Into::into)))
    }

    /// Writes the JSON text.
    ///
    /// # Errors
    /// Those of `to`, and values that JSON cannot express.
    pub fn write(&self, to: &mut dyn io::Write) -> io::Result<()> {
        (self.0)(to)
    }
}

/// The longest field that a failure repeats, as JSON.
const REPEATED_BYTES_MAX: usize = 1024;

/// Fields of a payload, and their values.
pub(in crate::router) type Repeats = Vec<(&'static str, Value)>;

impl Router {
    /// What a handler inside the process gets of a request.
    ///
    /// # Errors
    /// `TOO_MANY_REQUESTS` if its requester has too many bytes pending.
    pub(super) fn given(
        &self,
        pending: &Pending,
        envelope: &Envelope<'_>,
        timeout: Duration,
    ) -> Result<Given, Refusal> {
        let most = self.policy.limits().pending_bytes;
        let keep = |text| KeptText::new(&pending.asker, text, most).ok_or_else(|| words::too_many_bytes(most));
        Ok(Given {
            id: pending.id,
            triple: pending.triple.clone(),
            source: Arc::clone(&pending.asker.source),
            user: pending.user.clone(),
            session: pending.asker.id,
            address: pending.asker.address(),
            request_id: pending.asker_id.clone(),
            payload: envelope.payload().map(keep).transpose()?.map(|text| Payload(Text::Kept(text))),
            timeout,
            waited: Duration::ZERO,
        })
    }
}

impl Router {
    /// Answers a request that a handler inside the process was given. Returns whether its requester still waited.
    pub fn answer(&self, now: Instant, handler: &Arc<Session>, id: RequestId, data: &Data) -> bool {
        let Some(pending) = handler.given(id) else { return false };
        let head = Head::new(&pending.triple, pending.asker_id.as_deref(), pending.gather.is_some());
        match frames::reply(&head, pending.secret, |to| data.write(to)) {
            Ok(frame) => {
                // No size: it would tell the length of a password.
                tracing::trace!(kind = "reply", triple = %pending.triple, source = &*handler.source, receivers = 1, "a message");
                self.answer_with_own(now, handler, &pending, frame, None)
            }
            Err(error) => {
                tracing::error!(triple = %pending.triple, %error, "an adapter's answer could not be written as JSON");
                self.refuse(now, handler, id, &Refusal::new(ErrorCode::Internal, "the adapter failed; see the log"))
            }
        }
    }

    /// Fails a request that a handler inside the process was given. Returns whether its requester still waited.
    pub fn refuse(&self, now: Instant, handler: &Arc<Session>, id: RequestId, refusal: &Refusal) -> bool {
        let Some(pending) = handler.given(id) else { return false };
        log_failure(&pending, &handler.source, refusal);
        let frame = failure_of(&pending, refusal, pending.gather.is_some());
        self.answer_with_own(now, handler, &pending, frame, Some(refusal.code))
    }

    /// Answers a request with a frame of a handler inside the process, counts it and shows it. Returns whether the requester
    /// still waited.
    fn answer_with_own(
        &self,
        now: Instant,
        handler: &Arc<Session>,
        pending: &Arc<Pending>,
        frame: Frame,
        code: Option<ErrorCode>,
    ) -> bool {
        let routed = self.answer_with(now, handler, pending, false, frame);
        let place = self.policy.place(&pending.triple.channel);
        self.metrics.traffic.reply(place, routed.as_ref().map_or(0, |routed| routed.deliveries));
        if routed.is_some() {
            self.show_answer(now, handler, pending, code);
        }
        routed.is_some()
    }
}

/// The failure of a request, with what its adapter declared. `more`: other replies follow.
pub(in crate::router) fn failure_of(pending: &Pending, refusal: &Refusal, more: bool) -> Frame {
    let keys = pending.failure_keys;
    let mut refusal = refusal.clone();
    for (key, value) in pending.repeats.iter().flatten() {
        refusal = refusal.with(key, value.clone());
    }
    let (triple, id) = (&pending.triple, pending.asker_id.as_deref());
    if !more {
        return notice::failure(triple, id, keys, &refusal).into();
    }
    let data = notice::failure_data(keys, &refusal);
    let write = |to: &mut dyn io::Write| serde_json::to_writer(to, &data).map_err(Into::into);
    frames::reply(&Head::new(triple, id, true), false, write)
        .unwrap_or_else(|_| notice::failure(triple, id, keys, &words::impossible("a failure is not JSON")).into())
}

/// The fields of a request that its failure repeats, because an adapter declared them for its triple.
pub(super) fn repeats(fields: &[&'static str], envelope: &Envelope<'_>) -> Option<Repeats> {
    if fields.is_empty() {
        return None;
    }
    // A payload that is not an object has no fields.
    let payload: HashMap<String, &RawValue> = serde_json::from_str(envelope.payload()?).ok()?;
    let value = |field: &&'static str| {
        let given = payload
            .get(*field)
            .or_else(|| payload.iter().find(|(key, _)| key.eq_ignore_ascii_case(field)).map(|(_, value)| value))?;
        let is_short = given.get().len() <= REPEATED_BYTES_MAX && !given.get().starts_with(['{', '[']);
        Some((*field, serde_json::from_str(given.get()).ok().filter(|_| is_short)?))
    };
    Some(fields.iter().filter_map(value).collect())
}
