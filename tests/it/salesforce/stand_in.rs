//! [`StandIn`]: an org of a few lines, so that each test says what Salesforce answers, bytes and timing included.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep_until};

/// A request as it came.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) path: String,
    /// Decoded.
    pub(super) query: BTreeMap<String, String>,
    /// Decoded.
    pub(super) form: BTreeMap<String, String>,
    pub(super) token: Option<String>,
}

impl Seen {
    pub(super) fn is_login(&self) -> bool {
        self.path == "/services/oauth2/token"
    }
}

/// What is answered.
pub(super) enum Answer {
    Json(u16, String),
    Html(u16),
    /// Half of a body, then the connection ends.
    Cut,
    /// Nothing: the connection ends.
    Gone,
    /// The other, later.
    Late(Duration, Box<Answer>),
    /// Exact bytes.
    Raw(String),
}

type Script = dyn Fn(&Seen) -> Answer + Send + Sync;

pub(super) struct StandIn {
    pub(super) url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    busy: Arc<Mutex<(usize, usize)>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[expect(clippy::disallowed_methods, reason = "a stand-in is outside the program")]
impl StandIn {
    /// Starts one that answers by `script`, to which `{url}` in a body is its own address.
    pub(super) async fn start(script: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (seen, busy, script): (_, _, Arc<Script>) =
            (Arc::<Mutex<Vec<Seen>>>::default(), Arc::<Mutex<(usize, usize)>>::default(), Arc::new(script));
        let (all, own, load) = (Arc::clone(&seen), url.clone(), Arc::clone(&busy));
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&all), Arc::clone(&load), Arc::clone(&script), own.clone()));
            }
        });
        Self { url, seen, busy, task }
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }

    pub(super) fn logins(&self) -> usize {
        self.seen.lock().iter().filter(|seen| seen.is_login()).count()
    }

    /// Requests that were not logins.
    pub(super) fn calls(&self) -> usize {
        self.seen.lock().iter().filter(|seen| !seen.is_login()).count()
    }

    /// The most requests that were being answered at once.
    pub(super) fn at_once(&self) -> usize {
        self.busy.lock().1
    }
}

async fn serve(
    mut stream: TcpStream,
    all: Arc<Mutex<Vec<Seen>>>,
    busy: Arc<Mutex<(usize, usize)>>,
    script: Arc<Script>,
    url: String,
) {
    let mut buffer = Vec::new();
    while let Some(seen) = read(&mut stream, &mut buffer).await {
        all.lock().push(seen.clone());
        {
            let mut busy = busy.lock();
            busy.0 += 1;
            busy.1 = busy.1.max(busy.0);
        }
        let mut answer = script(&seen);
        while let Answer::Late(span, then) = answer {
            sleep_until(Instant::now() + span).await;
            answer = *then;
        }
        busy.lock().0 -= 1;
        let head = |status: u16, kind: &str, length: usize| {
            format!(
                "HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\
                     Sforce-Limit-Info: api-usage=18/5000\r\n\r\n"
            )
        };
        let (bytes, goes_on) = match answer {
            Answer::Json(status, body) => {
                let body = body.replace("{url}", &url);
                (head(status, "application/json", body.len()) + &body, true)
            }
            Answer::Html(status) => {
                let body = "<html><body>maintenance</body></html>";
                (head(status, "text/html", body.len()) + body, true)
            }
            Answer::Cut => (head(200, "application/json", 900) + "{\"records\":[{\"Id\":", false),
            Answer::Raw(bytes) => (bytes.replace("{url}", &url), false),
            Answer::Gone | Answer::Late(..) => (String::new(), false),
        };
        if stream.write_all(bytes.as_bytes()).await.is_err() || !goes_on {
            return;
        }
    }
}

async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Seen> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|it| it == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(buffer[..end].to_vec()).unwrap();
    let header = |name: &str| {
        head.lines()
            .find_map(|line| line.split_once(": ").filter(|(it, _)| it.eq_ignore_ascii_case(name)).map(|(_, it)| it))
    };
    let length: usize = header("content-length").map_or(0, |it| it.parse().unwrap());
    while buffer.len() < end + length {
        stream.read_buf(buffer).await.ok()?;
    }
    let body = String::from_utf8(buffer[end..end + length].to_vec()).unwrap();
    let token = header("authorization").map(|it| it.trim_start_matches("Bearer ").to_owned());
    let target = head.split(' ').nth(1).unwrap().to_owned();
    buffer.drain(..end + length);
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    Some(Seen { path: path.to_owned(), query: pairs(query), form: pairs(&body), token })
}

fn pairs(text: &str) -> BTreeMap<String, String> {
    reqwest::Url::parse(&format!("http://x/?{text}")).unwrap().query_pairs().into_owned().collect()
}
