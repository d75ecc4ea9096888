//! `switchboard conformance`: our three clients pass every script, and for each script there is a client that does not.

mod application;
mod clients;
mod faults;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;

use super::{Beside, command};

/// How long a run may take. The longest script takes six seconds.
const LIMIT: Duration = Duration::from_secs(90);

const SUITES: [&str; 3] = ["client", "handler", "resume"];

/// A running judge.
struct Judge {
    program: Beside,
    addresses: Vec<String>,
}

/// The verdicts by script, and the exit code.
struct Judged {
    verdicts: BTreeMap<String, Value>,
    code: Option<i32>,
}

impl Judge {
    async fn start(arguments: &[&str]) -> Self {
        let fixed = ["conformance", "--listen", "127.0.0.1:0", "--json"];
        let mut program = Beside::of(command(&[&fixed, arguments].concat()));
        let first: Value = serde_json::from_str(&program.line().await).unwrap();
        let addresses = first["addresses"].as_array().unwrap();
        let addresses = addresses.iter().map(|it| it.as_str().unwrap().to_owned()).collect();
        Self { program, addresses }
    }

    /// Waits until every script was judged.
    async fn verdicts(mut self) -> Judged {
        let mut verdicts = BTreeMap::new();
        for _ in &self.addresses {
            let verdict: Value = serde_json::from_str(&self.program.line().await).unwrap();
            let text = |key: &str| verdict[key].as_str().unwrap();
            let name = format!("{}/{}", text("suite"), text("script"));
            verdicts.insert(name, verdict);
        }
        Judged { verdicts, code: self.program.code().await }
    }
}

/// Returns the verdicts about clients that play meanwhile. Some go on without an end, when nobody listens any more.
async fn judge_beside(judge: Judge, playing: impl Future<Output = Vec<()>>) -> Judged {
    let judging = async {
        tokio::select! {
            judged = judge.verdicts() => judged,
            () = async { playing.await; std::future::pending().await } => unreachable!("it never ends"),
        }
    };
    timeout(LIMIT, judging).await.expect("it takes too long")
}

impl Judged {
    #[track_caller]
    fn all_passed(&self) {
        let wrong: Vec<_> = self.verdicts.values().filter(|it| it["verdict"] != "passed").collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert_eq!(self.code, Some(0));
    }
}

/// The name of a script in its address.
fn script_of(url: &str) -> String {
    url.splitn(4, '/').last().unwrap().to_owned()
}

#[tokio::test]
async fn without_a_client_it_ends_and_says_what_was_not_judged() {
    let judge = Judge::start(&["--wait", "100ms", "--script", "client/ping", "--script", "resume/ask"]).await;
    let judged = judge.verdicts().await;
    assert_eq!(judged.verdicts.keys().collect::<Vec<_>>(), ["client/ping", "resume/ask"]);
    assert!(judged.verdicts.values().all(|it| it["verdict"] == "not judged"), "{:?}", judged.verdicts);
    assert_eq!(judged.code, Some(1));
}

#[tokio::test]
async fn wrong_arguments_are_exit_code_2() {
    for (arguments, words) in [
        (&["--script", "client/pong"][..], "there is no such script"),
        (&["--listen", "nowhere"], "--listen nowhere"),
        (&["--suite", "everything"], "invalid value 'everything'"),
    ] {
        let outcome = super::run_with(command(&[&["conformance"], arguments].concat()), "").await;
        outcome.has(2, words);
    }
}

/// The page's tables: the number of scripts that our clients pass, and every script.
fn tables(verdicts: &[&Value]) -> [String; 2] {
    let mut results = "| suite | scripts | JavaScript | Python | Rust |\n|---|---|---|---|---|\n".to_owned();
    for suite in SUITES {
        let count = verdicts.iter().filter(|it| it["suite"] == suite).count();
        writeln!(results, "| `{suite}` | {count} | {count} passed | {count} passed | {count} passed |").unwrap();
    }
    let mut scripts = "| script | judged: the client | rule |\n|---|---|---|\n".to_owned();
    for verdict in verdicts {
        let [suite, script, judges, rule] =
            ["suite", "script", "judges", "rule"].map(|it| verdict[it].as_str().unwrap());
        let heading = rule.strip_prefix("docs/protocol.md#").unwrap();
        writeln!(scripts, "| `{suite}/{script}` | {judges} | [{heading}](protocol.md#{heading}) |").unwrap();
    }
    [results, scripts]
}

#[tokio::test]
async fn every_script_is_in_the_page_and_has_a_fault() {
    let judge = Judge::start(&["--wait", "1ms"]).await;
    let listed: Vec<_> = judge.addresses.iter().map(|url| script_of(url)).collect();
    let judged = judge.verdicts().await;
    let in_order: Vec<_> = listed.iter().map(|script| &judged.verdicts[script]).collect();
    let page = std::fs::read_to_string("docs/client-conformance.md").unwrap();
    for table in tables(&in_order) {
        assert!(page.contains(&table), "docs/client-conformance.md is stale; it has to contain:\n\n{table}");
    }
    let mut shown: Vec<_> = faults::FAULTS.iter().map(|(script, ..)| *script).collect();
    shown.dedup();
    assert_eq!(listed, shown);
}
