//! `switchboard conformance`: a broker that plays scripts and judges the client that connects.
//!
//! Each script has an address of its own, and is a function over a [`Player`]: see [`Script`]. `messages` and `closes` are the suite
//! for every client, `handler` and `resume` the others. This file accepts the connections, brings each to its script, and prints
//! the verdicts.

mod closes;
mod door;
mod handler;
mod messages;
mod peer;
mod player;
mod resume;
mod script;
mod session;
mod upkeep;

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::output::{Output, counted, note};
use super::{Exit, Usage, interruption};
use door::{Door, HANDSHAKES_MAX};
use player::Player;
use script::{Script, Suite, Verdict};

/// What `switchboard conformance --help` shows after the arguments.
const EXAMPLES: &str = "\
Examples:
  switchboard conformance                          judge a client by every script
  switchboard conformance --suite resume --json    the scripts about resume, as JSON lines
  switchboard conformance --script client/ping     one script

Each script has an address, such as ws://127.0.0.1:7430/client/ping, and judges the client that
connects to it. Start your client once with each address, one after the other or all at once.
The command prints the addresses at its start, and a verdict at the end of each script. It ends
when all scripts were judged, or when nobody connects for the time that --wait gives.

The client under test
  - registers under any source; the broker is in open mode, and any token will do
  - subscribes to Conformance/Do/* and, on the event
      Publish   publishes Conformance/Done/Publish with the data of the event
      Request   sends the request Conformance/Ask/Echo with the data of the event, and publishes
                Conformance/Done/Request with the data of the answer, or {\"ErrorCode\":...} of it
      Leave     ends its session, as it does when its program ends
  - handles Conformance/Ask/* (suite handler) and, on the request
      Echo      answers with the data of the request
      Fail      refuses with the ErrorCode BUSY
      Progress  sends one answer with more:true, then answers as for Echo
      Wait      answers nothing until the request is cancelled
  - reconnects as it does in production

docs/client-conformance.md lists the scripts. Exit codes: 0 every script was passed, 1 one was not, 2 wrong usage.
";

/// How many connections of a client may wait for its script.
const ARRIVALS_MAX: usize = 16;

/// Check a client against the protocol
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Conformance {
    /// Where to listen; port 0 takes any
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7430")]
    listen: String,
    /// Play the scripts of one suite: client, handler or resume [default: all]
    #[arg(long, value_enum, hide_possible_values = true)]
    suite: Option<Suite>,
    /// Play this script; can be repeated
    #[arg(long, value_name = "SUITE/SCRIPT", conflicts_with = "suite")]
    script: Vec<String>,
    /// How long to wait for a connection while no script is playing
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = humantime::parse_duration)]
    wait: Duration,
    /// How long the client has for a step of a script; its back-off may take 30s
    #[arg(long, value_name = "DURATION", default_value = "40s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Print JSON lines: first the addresses, then one verdict each
    #[arg(long)]
    json: bool,
}

/// Plays the scripts until each was judged.
pub(super) async fn run(arguments: Conformance, output: &mut Output) -> anyhow::Result<Exit> {
    let scripts = chosen(&arguments)?;
    let listener = TcpListener::bind(&arguments.listen).await;
    let listener = listener.map_err(|error| Usage::new(format!("--listen {}: {error}", arguments.listen)))?;
    let address = listener.local_addr()?;
    announce(&scripts, &format!("ws://{address}"), arguments.json, output)?;
    if !address.ip().to_canonical().is_loopback() {
        note(&format!(
            "warning: {address} can be reached from other computers; listen on 127.0.0.1 unless that is intended"
        ));
    }
    let passed = tokio::select! {
        passed = judge(&scripts, &listener, &arguments, output) => passed?,
        () = interruption() => return Ok(Exit::Refused),
    };
    note(&format!("{} of {} passed", passed, counted(scripts.len(), "script")));
    Ok(if passed == scripts.len() { Exit::Done } else { Exit::Refused })
}

/// Returns the scripts that the arguments choose.
fn chosen(arguments: &Conformance) -> anyhow::Result<Vec<&'static Script>> {
    let suites = Suite::ALL.into_iter().filter(|it| arguments.suite.is_none_or(|suite| suite == *it));
    let all: Vec<_> = suites.flat_map(Suite::scripts).collect();
    if arguments.script.is_empty() {
        return Ok(all);
    }
    let find = |name: &String| {
        let found = all.iter().find(|it| it.path() == *name).copied();
        found.ok_or_else(|| {
            Usage::new(format!("--script {name}: there is no such script; without it, all are listed")).into()
        })
    };
    arguments.script.iter().map(find).collect()
}

/// Prints where the client has to connect to.
fn announce(scripts: &[&Script], base: &str, is_json: bool, output: &mut Output) -> anyhow::Result<()> {
    let addresses: Vec<_> = scripts.iter().map(|it| format!("{base}/{}", it.path())).collect();
    if is_json {
        output.line(&json!({ "listening": base, "addresses": addresses }).to_string())?;
        return Ok(());
    }
    output.line(&format!("listening on {base}"))?;
    output.text(&format!(
        "  {}
",
        addresses.join(
            "
  "
        )
    ))?;
    note("start the client with each address; switchboard conformance --help says what it has to do; Ctrl-C ends this");
    Ok(())
}

/// Plays every script, and prints the verdicts. Returns how many scripts were passed.
async fn judge(
    scripts: &[&'static Script],
    listener: &TcpListener,
    arguments: &Conformance,
    output: &mut Output,
) -> anyhow::Result<usize> {
    let (mut door, mut plays, mut handshakes) = (Door::default(), FuturesUnordered::new(), FuturesUnordered::new());
    for script in scripts.iter().copied() {
        let (sender, arrivals) = mpsc::channel(ARRIVALS_MAX);
        let refusals = door.add(script, sender);
        plays.push(play(script, Player::new(script, arrivals, refusals, arguments.timeout)));
    }
    let mut print = |verdict: &Verdict| match arguments.json {
        true => output.line(&verdict.json().to_string()),
        false => output.text(&(verdict.text() + "\n")),
    };
    let (mut passed, mut idle_until) = (0, Instant::now() + arguments.wait);
    while !plays.is_empty() {
        tokio::select! {
            accepted = listener.accept(), if handshakes.len() < HANDSHAKES_MAX => {
                // A connection that ended before it was accepted does not end the program.
                if let Ok((stream, _)) = accepted {
                    handshakes.push(door.shake_hands(stream));
                }
            }
            Some(()) = handshakes.next() => {}
            Some(verdict) = plays.next() => {
                door.close(verdict.script);
                passed += usize::from(verdict.is_passed());
                print(&verdict)?;
            }
            () = sleep_until(idle_until), if !door.is_playing() => break,
        }
        idle_until = Instant::now() + arguments.wait;
    }
    for script in door.not_judged() {
        print(&Verdict { script, outcome: None })?;
    }
    Ok(passed)
}

/// Plays one script.
async fn play(script: &'static Script, mut player: Player) -> Verdict {
    player.arrive().await;
    let outcome = (script.play)(&mut player).await;
    player.leave().await;
    Verdict { script, outcome: Some(outcome) }
}

/// The triple of a message on the channel of the suite.
fn ours(topic: &'static str, subtopic: &str) -> wire::Triple<'static> {
    wire::Triple::new("Conformance", topic, subtopic.to_owned())
}
