//! The table "Close codes" of docs/errors.md, played against every client that we ship: the Rust client, the JavaScript client,
//! the Python client, and the examples. The broker is played by the test.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::iter;
use serde_json::{Value, json};
use switchboard_client::{Client, Error, State};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use wire::{CloseCode, Reconnect};

use crate::client::fake_broker::{FakeBroker, Peer, event};
use crate::support::programs::{self, built, gadget_script};
use crate::support::within;

/// How many clients run at the same time.
const SIDE_BY_SIDE: usize = 8;

/// Longer than the first pause of any client.
const DRAIN: Duration = Duration::from_millis(700);

/// The reason in every Close frame.
const REASON: &str = "a test closes it";

/// A running client. Its output is complete when it has stopped.
type Running = JoinHandle<String>;

/// A client that we ship.
struct Shipped {
    name: &'static str,
    start: fn(&str) -> Running,
    /// How many envelopes it sends after Register.
    follow: usize,
    has_provider: bool,
}

const CLIENTS: &[Shipped] = &[
    Shipped { name: "the Rust client", start: rust, follow: 1, has_provider: false },
    Shipped { name: "the Rust client with a provider", start: rust_with_provider, follow: 0, has_provider: true },
    Shipped {
        name: "the JavaScript client with a provider",
        start: javascript_with_provider,
        follow: 1,
        has_provider: true,
    },
    Shipped { name: "examples/adapter.py", start: adapter, follow: 1, has_provider: false },
    Shipped { name: "the Python client with a provider", start: python_with_provider, follow: 0, has_provider: true },
    Shipped { name: "examples/gadget.html", start: gadget, follow: 2, has_provider: false },
    Shipped { name: "examples/screen.js", start: screen, follow: 1, has_provider: false },
];

fn process(mut command: Command) -> Running {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let child = command.spawn().unwrap();
    #[expect(clippy::disallowed_methods, reason = "ends with the test")]
    tokio::spawn(async move {
        let output = child.wait_with_output().await.unwrap();
        [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat()
    })
}

fn rust(url: &str) -> Running {
    let mut command = Command::new(built().join("examples/handler"));
    command.arg(url).env_remove("SWITCHBOARD_TOKEN");
    process(command)
}

fn rust_with_provider(url: &str) -> Running {
    let asked = AtomicUsize::new(1);
    let builder = Client::builder(url).source("crm").token_provider(move || {
        let token = format!("token-{}", asked.fetch_add(1, Ordering::Relaxed));
        async move { Ok::<_, std::io::Error>(token.into()) }
    });
    #[expect(clippy::disallowed_methods, reason = "ends with the test")]
    tokio::spawn(async move {
        let client = builder.connect().await.unwrap();
        let mut states = Box::pin(client.states());
        let mut output = String::new();
        while let Some(state) = states.next().await {
            match state {
                State::Disconnected { reason, .. } => writeln!(output, "{reason}").unwrap(),
                State::Closed { code, reason } => writeln!(output, "{}", Error::Closed { code, reason }).unwrap(),
                State::Connecting | State::Connected(_) => {}
            }
        }
        output
    })
}

/// Runs a script that needs a part of a browser. Node ends when it has neither a socket nor a timer.
fn node(script: &str) -> Running {
    let browser =
        "globalThis.window = new EventTarget(); globalThis.document = new EventTarget(); document.hidden = false;";
    let mut command = programs::node();
    command.args(["--input-type=module", "--eval"]).arg(format!("{browser}\n{script}"));
    process(command)
}

fn javascript_with_provider(url: &str) -> Running {
    let client = std::fs::read_to_string("clients/js/bundle/switchboard.global.js").unwrap();
    node(&format!(
        "{client}
         globalThis.location = {{ hostname: 'localhost' }};
         let asked = 0;
         const desk = switchboard.connect({{ source: 'crm', url: '{url}', token: () => `token-${{++asked}}` }});
         desk.on('error', ({{ code, message }}) => console.log(`${{code}}: ${{message}}`));
         desk.subscribe('Phone', () => {{}});"
    ))
}

fn gadget(url: &str) -> Running {
    node(&gadget_script(url, ""))
}

fn screen(url: &str) -> Running {
    let mut command = programs::node();
    command.args(["examples/screen.js", url]).env_remove("SWITCHBOARD_TOKEN");
    process(command)
}

fn python(script: &str, url: &str) -> Running {
    let mut command = Command::new(built().parent().unwrap().join("python/bin/python"));
    command.args([script, url]).env_remove("SWITCHBOARD_TOKEN");
    process(programs::with_our_client(command))
}

fn adapter(url: &str) -> Running {
    python("examples/adapter.py", url)
}

fn python_with_provider(url: &str) -> Running {
    python("tests/python/provider.py", url)
}

/// Returns whether this machine can run the client.
async fn can_run(client: &Shipped) -> bool {
    match client.name {
        "examples/adapter.py" | "the Python client with a provider" => programs::python().await.is_some(),
        name if name.contains("Rust") => true,
        _ => programs::exists("node").await,
    }
}

/// Registers the client, and answers what it sends then. Returns its end and its token.
async fn register(client: &Shipped, broker: &FakeBroker) -> (Peer<TcpStream>, Value) {
    let (mut peer, register) = broker.session().await;
    for _ in 0..client.follow {
        let envelope = peer.next().await;
        peer.answer(&envelope, json!({ "Success": true, "ErrorMessage": null, "SubscriptionId": "1" })).await;
    }
    // Nothing that was sent on an earlier connection is sent again.
    peer.receives_nothing().await;
    (peer, register["data"]["token"].clone())
}

/// One run of a client: codes after which it reconnects, then one after which it stops. `None`: the connection is lost
/// without a Close frame.
struct Run {
    client: &'static Shipped,
    reconnects: Vec<Option<u16>>,
    stops: u16,
}

/// Returns what the client has to do.
fn expected(code: Option<u16>) -> Reconnect {
    code.map_or(Reconnect::BackOff, Reconnect::after)
}

/// Returns the runs that play every code once. Few codes each, because the back-off of a client grows; and dealt out in turn,
/// because a client may stop at the third of 1002, 1007 and 1009 within a minute.
fn runs(client: &'static Shipped) -> Vec<Run> {
    let sent = CloseCode::ALL.iter().map(|code| Some(code.code()));
    let is_final = |code: &Option<u16>| match expected(*code) {
        Reconnect::Stop => true,
        Reconnect::NewToken => !client.has_provider,
        Reconnect::BackOff | Reconnect::DropMessage | Reconnect::AfterDelay => false,
    };
    let (stops, reconnects): (Vec<_>, Vec<_>) = sent.chain([None, Some(1011)]).partition(is_final);
    let stops: Vec<u16> = stops.into_iter().flatten().collect();
    let dealt = |at: usize| reconnects.iter().copied().skip(at).step_by(stops.len()).collect();
    stops.iter().enumerate().map(|(at, code)| Run { client, reconnects: dealt(at), stops: *code }).collect()
}

async fn play(Run { client, reconnects, stops }: Run) {
    let name = client.name;
    let broker = FakeBroker::start().await;
    let running = (client.start)(&broker.url());
    let (mut peer, mut token) = register(client, &broker).await;
    for code in &reconnects {
        let after = expected(*code);
        if after == Reconnect::AfterDelay {
            let data = json!({ "ReconnectAfterMs": u64::try_from(DRAIN.as_millis()).unwrap() });
            peer.say(event("Broker/Connection/Draining", data)).await;
            // The pause is counted from the Close frame, not from the notice.
            peer.receives_nothing().await;
        }
        let closed = Instant::now();
        match code {
            Some(code) => peer.close(*code, REASON).await,
            None => drop(peer),
        }
        let again;
        (peer, again) = register(client, &broker).await;
        assert!(after != Reconnect::AfterDelay || closed.elapsed() >= DRAIN, "{name}: {:?}", closed.elapsed());
        assert!(!client.has_provider || again != token, "{name}: {code:?}: the token is not a new one");
        token = again;
    }
    peer.close(stops, REASON).await;
    let output = within(&format!("the end of {name} after {stops}"), running).await.unwrap();
    let refused = reconnects.iter().filter(|code| expected(**code) == Reconnect::DropMessage);
    for code in refused.flatten().chain([&stops]) {
        let word = if *code == CloseCode::Kicked.code() { "KICKED" } else { &code.to_string() };
        let line = output.lines().find(|line| line.contains(word) && line.contains(REASON));
        assert!(line.is_some(), "{name}: {code} is not reported:\n{output}");
    }
}

#[tokio::test]
async fn every_client_does_what_the_table_says() {
    let mut plan = Vec::new();
    for client in CLIENTS {
        if can_run(client).await {
            plan.extend(runs(client));
        }
    }
    iter(plan).for_each_concurrent(SIDE_BY_SIDE, play).await;
}

/// Returns the table as docs/errors.md has it.
fn table() -> String {
    let mut table = "| code | reason | what a client does |\n|---|---|---|\n".to_owned();
    for code in CloseCode::ALL {
        writeln!(table, "| {} | {} | {} |", code.code(), code.reason(), code.reconnect().advice()).unwrap();
    }
    table
}

#[test]
fn docs_errors_md_has_the_table_of_the_catalogue() {
    let text = std::fs::read_to_string(Path::new("docs/errors.md")).unwrap();
    assert!(text.contains(&table()), "docs/errors.md is stale; its table of close codes must be:\n\n{}", table());
}
