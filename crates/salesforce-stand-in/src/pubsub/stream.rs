//! [`Stream`]: one Subscribe. It delivers as many events as were requested, sends keep-alives, and ends as a fault
//! demands.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream as streams;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use tokio::sync::watch;
use tokio::time::{Instant, Interval, interval_at};

use super::bus::{Event, News};
use super::grpc::{self, Messages, Status};
use super::messages::{ConsumerEvent, FetchRequest, FetchResponse, ProducerEvent};
use super::{Body, REPLAY_CORRUPTED, REPLAY_INVALID, known, status};
use crate::faults::Broken;
use crate::serve::Shared;

/// The time between keep-alives; an org sends one at least every 270 seconds.
const KEEP_ALIVE: Duration = Duration::from_mins(1);

/// The most events in one response.
const BATCH: usize = 20;

/// An open stream.
pub(super) struct Stream {
    shared: Arc<Shared>,
    messages: Messages,
    rpc_id: String,
    topic: String,
    /// The number of the last event that was delivered.
    given: u64,
    /// Events that were requested and not delivered.
    owed: usize,
    news: watch::Receiver<News>,
    keep_alives: u64,
    keep_alive: Interval,
    /// The fault that ends it, and after how many more events.
    fault: Option<(Broken, usize)>,
    ended: bool,
}

/// What is sent next.
enum Next {
    Frame(Frame<Bytes>),
    End(Option<Status>),
    Cut,
}

impl Stream {
    /// Opens a stream. The first message names the topic and the start.
    pub(super) async fn open(shared: Arc<Shared>, mut messages: Messages, rpc_id: String) -> Result<Self, Status> {
        let first: FetchRequest = messages.only().await?;
        let custom = first.replay_preset == 2;
        let fault = shared.faults.lock().meet_events(true, custom);
        if let Some(status) = fault.filter(|(_, after)| *after == 0).and_then(|(broken, _)| status(broken)) {
            return Err(status);
        }
        let (oldest, newest) = known(&shared, &first.topic_name)?.kept;
        let given = match first.replay_preset {
            0 => newest,
            1 => oldest - 1,
            _ => {
                let refused = |code, message| Err(Status::known(Status::INVALID_ARGUMENT, code, message));
                let Ok(number) = <[u8; 8]>::try_from(first.replay_id.as_slice()).map(u64::from_be_bytes) else {
                    return refused(REPLAY_CORRUPTED, "The replay id is corrupted.");
                };
                if number < oldest - 1 || number > newest {
                    return refused(REPLAY_INVALID, "The Replay ID validation failed.");
                }
                number
            }
        };
        shared.bus.count(&first.topic_name, |streams| streams + 1);
        let news = shared.bus.news.subscribe();
        let keep_alives = news.borrow().keep_alives;
        let mut stream = Self {
            messages,
            rpc_id,
            topic: first.topic_name.clone(),
            given,
            owed: 0,
            news,
            keep_alives,
            keep_alive: interval_at(Instant::now() + KEEP_ALIVE, KEEP_ALIVE),
            fault,
            ended: false,
            shared,
        };
        stream.ask(&first)?;
        Ok(stream)
    }

    /// The messages that are sent.
    pub(super) fn into_body(self) -> Body {
        let frames = streams::unfold(self, |mut stream| async move {
            if stream.ended {
                return None;
            }
            let frame = match stream.next().await {
                Next::Frame(frame) => Ok(frame),
                Next::End(status) => {
                    stream.ended = true;
                    Ok(Status::trailers(status.as_ref(), &stream.rpc_id))
                }
                Next::Cut => {
                    stream.ended = true;
                    // Events already delivered are sent first.
                    tokio::task::yield_now().await;
                    Err(grpc::cut())
                }
            };
            Some((frame, stream))
        });
        StreamBody::new(frames).map_err(|error: io::Error| error).boxed_unsync()
    }

    fn ask(&mut self, request: &FetchRequest) -> Result<(), Status> {
        let refused = |message: &str| Err(Status::new(Status::INVALID_ARGUMENT, message));
        if !request.topic_name.is_empty() && request.topic_name != self.topic {
            return refused("The topic of a stream cannot change.");
        }
        match usize::try_from(request.num_requested) {
            Ok(number @ 1..=100) => {
                self.owed += number;
                self.shared.bus.owed_most.fetch_max(self.owed, Ordering::Relaxed);
            }
            _ => return refused("num_requested must be from 1 to 100."),
        }
        Ok(())
    }

    async fn next(&mut self) -> Next {
        loop {
            match self.fault {
                Some((Broken::Silent, _)) => std::future::pending().await,
                Some((broken, 0)) => return status(broken).map_or(Next::Cut, |status| Next::End(Some(status))),
                _ => {}
            }
            if let Some(events) = self.due() {
                return self.response(events);
            }
            tokio::select! {
                asked = self.messages.next() => match asked {
                    Ok(Some(request)) => if let Err(status) = self.ask(&request) {
                        return Next::End(Some(status));
                    },
                    Ok(None) => return Next::End(None),
                    Err(status) => return Next::End(Some(status)),
                },
                changed = self.news.changed() => if changed.is_err() {
                    return Next::End(None);
                },
                _ = self.keep_alive.tick() => return self.response(Vec::new()),
            }
        }
    }

    /// The events to deliver now; without any, a keep-alive.
    fn due(&mut self) -> Option<Vec<Event>> {
        let most = self.owed.min(BATCH).min(self.fault.map_or(usize::MAX, |(_, after)| after));
        let events = self.shared.bus.after(&self.topic, self.given, most);
        if !events.is_empty() {
            return Some(events);
        }
        let asked = self.news.borrow().keep_alives;
        (std::mem::replace(&mut self.keep_alives, asked) != asked).then(Vec::new)
    }

    fn response(&mut self, events: Vec<Event>) -> Next {
        self.owed -= events.len();
        if let Some((_, after)) = &mut self.fault {
            *after -= events.len();
        }
        self.given = events.last().map_or(self.given, |last| last.number);
        let events = events.into_iter().map(|event| ConsumerEvent {
            replay_id: event.number.to_be_bytes().to_vec(),
            event: Some(ProducerEvent { id: event.id, schema_id: event.schema_id, payload: event.payload }),
        });
        Next::Frame(grpc::data(&FetchResponse {
            events: events.collect(),
            latest_replay_id: self.given.to_be_bytes().to_vec(),
            rpc_id: self.rpc_id.clone(),
            pending_num_requested: i32::try_from(self.owed).unwrap_or(i32::MAX),
        }))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.bus.count(&self.topic, |streams| streams.saturating_sub(1));
    }
}
