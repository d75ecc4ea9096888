//! [`Door`]: the handshakes. It brings each connection to the script that its path names.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::accept_hdr_async_with_config;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::peer::Peer;
use super::script::Script;

/// How many handshakes may be under way.
pub(super) const HANDSHAKES_MAX: usize = 64;
/// How long one may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// The longest message of a client, in bytes. The scripts announce less.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// The sub-protocol of the broker.
const SUB_PROTOCOL: &str = "switchboard.v1";

/// See the module.
#[derive(Default)]
pub(super) struct Door {
    places: Vec<Place>,
}

/// A script behind the door.
struct Place {
    script: &'static Script,
    path: String,
    arrivals: mpsc::Sender<Peer>,
    refusals: Arc<AtomicU32>,
    state: Cell<State>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Playing,
    Judged,
}

impl Door {
    /// Adds a script. Returns the number of handshakes that are answered with 503, which the script sets.
    pub(super) fn add(&mut self, script: &'static Script, arrivals: mpsc::Sender<Peer>) -> Arc<AtomicU32> {
        let refusals = Arc::new(AtomicU32::new(0));
        let path = format!("/{}", script.path());
        self.places.push(Place {
            script,
            path,
            arrivals,
            refusals: Arc::clone(&refusals),
            state: Cell::new(State::Waiting),
        });
        refusals
    }

    /// Notes that a script was judged. Its client is told to stop if it connects once more.
    pub(super) fn close(&self, script: &Script) {
        for place in self.places.iter().filter(|it| std::ptr::eq(it.script, script)) {
            place.state.set(State::Judged);
        }
    }

    /// Whether a client is being judged.
    pub(super) fn is_playing(&self) -> bool {
        self.places.iter().any(|it| it.state.get() == State::Playing)
    }

    /// Returns the scripts to which nobody connected.
    pub(super) fn not_judged(&self) -> impl Iterator<Item = &'static Script> {
        self.places.iter().filter(|it| it.state.get() == State::Waiting).map(|it| it.script)
    }

    /// Shakes hands, and brings the connection to its script.
    pub(super) async fn shake_hands(&self, stream: TcpStream) {
        let at = Instant::now();
        // Small messages in both directions; without the option, the script's clock would measure the kernel's.
        stream.set_nodelay(true).ok();
        let found = RefCell::new(None);
        let config = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        #[expect(clippy::result_large_err, reason = "the form of the library's callback")]
        let decide = |request: &Request, response: Response| {
            let place = self.find(request.uri().path())?;
            *found.borrow_mut() = Some(place);
            Ok(with_sub_protocol(request, response))
        };
        let shaken = timeout(HANDSHAKE, accept_hdr_async_with_config(stream, decide, Some(config))).await;
        let (Ok(Ok(socket)), Some(place)) = (shaken, found.into_inner()) else { return };
        let peer = Peer::new(at, socket);
        if place.state.get() == State::Judged {
            peer.close(Some(4410), "the script is over").await;
            return;
        }
        place.state.set(State::Playing);
        // A script reads one connection after the other. One too many is dropped.
        place.arrivals.try_send(peer).ok();
    }

    #[expect(clippy::result_large_err, reason = "the form of the library's callback")]
    fn find(&self, path: &str) -> Result<&Place, ErrorResponse> {
        let Some(place) = self.places.iter().find(|it| it.path == path) else {
            return Err(refusal(
                StatusCode::NOT_FOUND,
                "there is no script at this path; the start of the program lists all",
            ));
        };
        let is_refused =
            place.refusals.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        if is_refused { Err(refusal(StatusCode::SERVICE_UNAVAILABLE, "busy: try again later")) } else { Ok(place) }
    }
}

/// Answers the offer of our sub-protocol. Another one is not answered, which RFC 6455 allows.
fn with_sub_protocol(request: &Request, mut response: Response) -> Response {
    let offered = request.headers().get_all("Sec-WebSocket-Protocol").iter().filter_map(|it| it.to_str().ok());
    if offered.flat_map(|it| it.split(',')).any(|it| it.trim() == SUB_PROTOCOL) {
        response.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static(SUB_PROTOCOL));
    }
    response
}

fn refusal(status: StatusCode, why: &str) -> ErrorResponse {
    let mut response = ErrorResponse::new(Some(format!("{why}\n")));
    *response.status_mut() = status;
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert("Retry-After", HeaderValue::from_static("1"));
    }
    response
}
