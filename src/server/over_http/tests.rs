//! Exact counts: many calls at once, some of which hang up, leave nothing behind.

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use wire::command::{Role, Subscribe};
use wire::{DecodeLimits, decode};

use crate::auth::{Identity, Permissions, Principal, hash_token};
use crate::config::{Application, AuthMode, Config, ProvedBy};
use crate::router::{Outbox, OutboxLimits, Registration, Router, Session};
use crate::server::{Broker, Server};
use crate::websocket::Frame;

const DEADLINE: Duration = Duration::from_secs(20);
const TOKEN: &str = "a-token";
const CALLS: usize = 200;

fn config(data_dir: &std::path::Path) -> Config {
    let crm = Application {
        source: "crm".to_owned(),
        user: Some("alice".to_owned()),
        proved_by: ProvedBy::Token(hash_token(&SecretString::from(TOKEN))),
        exclusive: true,
        role: None,
        permissions: Permissions::default(),
        handle: Vec::new(),
        request: None,
        over_http: true,
    };
    Config {
        listen: vec![std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()],
        data_dir: data_dir.to_owned(),
        auth: AuthMode::Tokens,
        applications: vec![crm],
        ..Config::default()
    }
}

/// A session of alice in the router, without a connection.
fn desk(router: &Router) -> Arc<Session> {
    let identity = Identity::unproved(Principal::User("alice".into()), Permissions::all());
    let outbox = Outbox::new(OutboxLimits { messages: 100_000, bytes: 1 << 30, refuses: false });
    let registration = Registration { source: "desk".into(), identity, echo: false, address: None, outbox, will: None };
    let desk = router.attach(now(), registration).unwrap();
    let handler = Role::Handler { answers: true, ordered: false, replies: Vec::new() };
    for (pattern, role) in [("Phone/Call/Dial", handler), ("Phone/Call/Ringing", Role::Subscriber)] {
        router.subscribe(now(), &desk, &Subscribe::new(pattern.parse().unwrap(), role), |_| None).unwrap();
    }
    desk
}

fn now() -> std::time::Instant {
    tokio::time::Instant::now().into_std()
}

/// The next frames of a session.
async fn frames(session: &Session) -> Vec<Frame> {
    let mut frames = Vec::new();
    let ready = std::future::poll_fn(|cx| session.outbox().poll_ready(cx));
    timeout(DEADLINE, ready).await.expect("something for the session");
    session.outbox().take(now(), usize::MAX, &mut frames);
    frames
}

async fn begin(address: std::net::SocketAddr, path: &str, subtopic: &str) -> TcpStream {
    let body = format!(r#"{{"channel":"Phone","topic":"Call","subtopic":"{subtopic}","data":1}}"#);
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all((head + &body).as_bytes()).await.unwrap();
    stream
}

async fn status(mut stream: TcpStream) -> String {
    let mut response = String::new();
    timeout(DEADLINE, stream.read_to_string(&mut response)).await.expect("an answer").unwrap();
    response.split(' ').nth(1).unwrap().to_owned()
}

/// Waits until a broker has nothing of a call any more. A call's task may end a moment after its answer was read.
async fn nothing_left(broker: &Broker, sessions: usize) {
    let counts = || {
        let size = broker.router.size();
        let of_calls = [size.calls, size.requests, size.asked, size.given, broker.settings.unregistered().count()];
        (of_calls, size.sessions, broker.tasks.len())
    };
    // The task that is left is the listener's.
    let clean = ([0; 5], sessions, 1);
    let waiting = async {
        while counts() != clean {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, waiting).await.ok();
    assert_eq!(counts(), clean);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_at_once_are_counted_exactly_and_leave_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::bind(config(folder.path()), None).unwrap();
    let (broker, address) = (Arc::clone(&server.broker), server.addresses()[0]);
    let (stop, stopped) = oneshot::channel::<()>();
    let tasks = TaskTracker::new();
    let running = tasks.spawn(server.run(async { drop(stopped.await) }));
    let desk = desk(&broker.router);

    let published: Vec<_> = (0..CALLS)
        .map(|_| tasks.spawn(async move { status(begin(address, "/v1/publish", "Ringing").await).await }))
        .collect();
    let mut events = 0;
    while events < CALLS {
        events += frames(&desk).await.len();
    }
    for call in published {
        assert_eq!(call.await.unwrap(), "200");
    }
    assert_eq!(events, CALLS, "each was delivered once");
    nothing_left(&broker, 1).await;

    // Every second caller hangs up when its request is at the handler.
    let (mut waiting, mut cancelled, mut answered) = (Vec::new(), 0, 0);
    for _ in 0..CALLS {
        waiting.push(begin(address, "/v1/request", "Dial").await);
    }
    let mut requests = Vec::new();
    while requests.len() < CALLS {
        requests.extend(frames(&desk).await);
    }
    assert_eq!(broker.router.size().calls, CALLS);
    let kept = waiting.split_off(CALLS / 2);
    drop(waiting);
    while cancelled < CALLS / 2 {
        let notices = frames(&desk).await;
        assert!(notices.iter().all(|frame| frame.text().contains("Cancelled")));
        cancelled += notices.len();
    }
    for request in &requests {
        let request = decode(request.text(), DecodeLimits::OWN).unwrap();
        let id = request.id().unwrap();
        let reply = format!(
            r#"{{"channel":"Phone","topic":"Call","subtopic":"Dial","inReplyTo":"{id}","data":{{"Success":true}}}}"#
        );
        let reply = decode(&reply, DecodeLimits::default()).unwrap();
        answered += usize::from(broker.router.route(now(), &desk, &reply).is_ok());
    }
    assert_eq!((cancelled, answered), (CALLS / 2, CALLS - CALLS / 2));
    for call in kept {
        assert_eq!(status(call).await, "200");
    }
    nothing_left(&broker, 1).await;
    broker.router.detach(now(), &desk);
    nothing_left(&broker, 0).await;
    stop.send(()).unwrap();
    timeout(DEADLINE, running).await.expect("the end").unwrap();
}
