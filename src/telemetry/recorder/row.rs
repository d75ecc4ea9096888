//! [`Row`]: an entry as operators see it.

use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;
use wire::ErrorCode;

use super::entry::{Entry, What, Who};
use super::segment::Segment;

/// One entry, as it is answered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RecentEntry)]
pub struct Row {
    /// When, as RFC 3339 says it.
    pub at: String,
    /// `registered`, `resumed`, `subscribed`, `unsubscribed`, `refused`, `request`, `state`, `closed`, `event`, or
    /// `left_out`.
    pub what: &'static str,
    /// The source of the session; of a client without one, what it says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Its user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The first part of the triple or of the pattern.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// The second one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// The third one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subtopic: Option<String>,
    /// The sender's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The id was longer, and this is its beginning.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub id_cut: bool,
    /// The broker's id of a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The broker's id of a subscription.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription_id: Option<String>,
    /// `subscriber` or `handler`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<&'static str>,
    /// The source of the handler of a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handler: Option<String>,
    /// The user of the handler.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handler_user: Option<String>,
    /// The session of the handler.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handler_session: Option<String>,
    /// How a request ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<&'static str>,
    /// How long it took, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<f64>,
    /// An error code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
    /// The status code of a Close frame.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub close_code: Option<u16>,
    /// Why a session or a subscription ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// What a session is now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<&'static str>,
    /// In how many outbound queues an event is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receivers: Option<u32>,
    /// The length of its text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u32>,
    /// Its place in the log of its channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// It was sent before, so it was not delivered again.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub duplicate: bool,
    /// How many entries of this session were left out in this second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// The trace of a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

impl Row {
    /// Fills in the names of an entry.
    pub(super) fn name(&mut self, segment: &Segment, entry: &Entry) {
        if let Some(who) = segment.session(entry.who) {
            self.source = Some(who.source.to_owned()).filter(|source| !source.is_empty());
            self.user = who.user.map(str::to_owned);
            self.session = id_of(&who);
        }
        if let Some(peer) = segment.session(entry.peer) {
            self.handler = Some(peer.source.to_owned());
            self.handler_user = peer.user.map(str::to_owned);
            self.handler_session = id_of(&peer);
        }
        if let Some(triple) = segment.triple(entry.triple) {
            let [channel, topic, subtopic] = triple.map(|part| Some(part.to_owned()));
            (self.channel, self.topic, self.subtopic) = (channel, topic, subtopic);
        }
        if let Some((id, is_whole)) = segment.id(entry) {
            (self.id, self.id_cut) = (Some(id.to_owned()), !is_whole);
        }
        self.traceparent = segment.trace(entry).map(|trace| trace.to_string());
    }

    /// Fills in what happened.
    pub(super) fn say(&mut self, what: &What) {
        let name = |name: &[u8]| std::str::from_utf8(name).ok().filter(|it| !it.starts_with('\0')).map(str::to_owned);
        match *what {
            What::Subscribed { name: own, is_handler } => {
                self.subscription_id = name(&own);
                self.role = Some(if is_handler { "handler" } else { "subscriber" });
            }
            What::Unsubscribed { name: own, why } => {
                (self.subscription_id, self.reason) = (name(&own), Some(why.as_str()));
            }
            What::Refused(code) => self.code = Some(code.as_str()),
            What::Request { name: own, outcome, code, micros } => {
                self.request_id = name(&own);
                self.outcome = Some(outcome.as_str());
                self.code = code.map(ErrorCode::as_str);
                self.latency_ms = Some(millis(micros));
            }
            What::State(state) => self.state = Some(state),
            What::Closed { code, why } => (self.close_code, self.reason) = (code, Some(why)),
            What::Event { receivers, bytes, offset, is_duplicate } => {
                self.receivers = Some(receivers);
                self.bytes = (bytes != u32::MAX).then_some(bytes);
                self.offset = (offset != 0).then_some(offset);
                self.duplicate = is_duplicate;
            }
            // What is left out is a number of all workers.
            What::Registered | What::Resumed | What::LeftOut { .. } => {}
        }
    }
}

pub(super) fn id_of(who: &Who<'_>) -> Option<String> {
    (who.session != [0; 16]).then(|| Uuid::from_bytes(who.session).to_string())
}

#[expect(clippy::cast_precision_loss, reason = "a latency is far below 2^52 microseconds")]
fn millis(micros: u64) -> f64 {
    micros as f64 / 1000.0
}
