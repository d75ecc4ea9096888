//! RFC 6455 by a suite that is not ours: Autobahn's cases, which `tests/python/autobahn.py` runs against a broker. Every
//! verdict other than OK has a row in docs/conformance.md that explains it, and the page has no other rows.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use tokio::process::Command;

use crate::support::Broker;
use crate::support::programs::python;

const PAGE: &str = "docs/conformance.md";

/// How long a run may take. It needs 15 s on two idle cores, and more beside other tests.
const LIMIT: Duration = Duration::from_secs(110);

/// The suite sends messages of up to 16 MiB, and up to 65,536 frames or 1,000 messages in a row, of which none is an envelope.
/// Some cases take longer than 10 s on a busy machine, and none expects a ping.
const LIMITS: &str = "[limits]
message_bytes = 33554432
registration_bytes = 33554432
outbound_bytes = 67108864
registration = \"2m\"
heartbeat = \"2m\"
rate = 0
malformed = 10000";

/// How the cases are run: the name of the run, its column in the page's table of results, and the cases that it leaves out.
struct Run {
    name: &'static str,
    column: usize,
    cases: &'static [&'static str],
}

const UNREGISTERED: Run = Run { name: "unregistered", column: 1, cases: &[] };

/// Without 10.1.1, which counts the frames of a message that is longer here, and without the extension.
const REGISTERED: Run =
    Run { name: "registered", column: 2, cases: &["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*"] };

/// The verdicts of the suite, by the number of the case.
type Verdicts = BTreeMap<String, String>;

/// A row of the page: cases, their verdict and the reason.
struct Deviation {
    cases: Vec<String>,
    verdict: String,
    reason: String,
}

impl Deviation {
    fn covers(&self, case: &str) -> bool {
        self.cases.iter().any(|it| match it.strip_suffix('*') {
            Some(start) => case.starts_with(start),
            None => case == it,
        })
    }
}

/// The rows of the table under a heading of the page, cell by cell.
fn rows(page: &str, heading: &str) -> Vec<Vec<String>> {
    let section = page.split(&format!("\n## {heading}\n")).nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = section.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    let cells = |row: &str| row.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect();
    rows.take_while(|line| line.starts_with('|')).map(cells).collect()
}

fn deviations(page: &str) -> Vec<Deviation> {
    let rows = rows(page, "Deviations").into_iter().map(|row| {
        let [cases, verdict, reason] = row.try_into().unwrap();
        Deviation { cases: cases.split(", ").map(str::to_owned).collect(), verdict, reason }
    });
    rows.collect()
}

/// Reads what the suite printed. A verdict is about the messages of the case; if the suite judged its close differently, that
/// is added.
fn verdicts(printed: &str) -> Verdicts {
    let verdict = |line: &str| {
        let [case, messages, close, _code] = line.split('\t').collect::<Vec<_>>().try_into().unwrap();
        let verdict =
            if close == "OK" || close == messages { messages.to_owned() } else { format!("{messages}, close {close}") };
        (case.to_owned(), verdict)
    };
    printed.lines().map(verdict).collect()
}

/// Replaces each verdict that is one of several on the page ("OK or FAILED", which timing decides) by what the page says.
fn settled(deviations: &[Deviation], verdicts: &Verdicts) -> Verdicts {
    let settled = |(case, verdict): (&String, &String)| {
        let written = deviations.iter().find(|it| it.covers(case)).map(|it| &it.verdict);
        let written = written.filter(|it| it.split(" or ").any(|one| one == verdict));
        (case.clone(), written.unwrap_or(verdict).clone())
    };
    verdicts.iter().map(settled).collect()
}

/// How many cases have each verdict.
fn counts(verdicts: &Verdicts) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for verdict in verdicts.values() {
        *counts.entry(verdict.as_str()).or_default() += 1;
    }
    counts
}

/// Returns the mistakes of the page about these verdicts: cases that it does not explain, rows that are not true, and wrong
/// counts in this column of its table of results.
fn mistakes(page: &str, column: usize, verdicts: &Verdicts) -> Vec<String> {
    let deviations = deviations(page);
    let verdicts = &settled(&deviations, verdicts);
    let mut mistakes = Vec::new();
    for (case, verdict) in verdicts {
        let explained: Vec<&str> =
            deviations.iter().filter(|it| it.covers(case)).map(|it| it.verdict.as_str()).collect();
        let expected: &[&str] = if verdict == "OK" { &[] } else { &[verdict] };
        if explained != expected {
            mistakes.push(format!("case {case} is {verdict}, and the page explains {explained:?}"));
        }
    }
    for row in rows(page, "Result") {
        let counted = counts(verdicts).get(row[0].as_str()).copied().unwrap_or_default();
        if row[column] != counted.to_string() {
            mistakes.push(format!("the page counts {} {}, the suite {counted}", row[column], row[0]));
        }
    }
    for it in deviations.iter().filter(|it| it.reason.is_empty()) {
        mistakes.push(format!("the row of {:?} has no reason", it.cases));
    }
    mistakes
}

/// The last lines of a text.
fn end_of(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

#[expect(clippy::print_stderr, reason = "what was run is printed, by a test that passes too")]
async fn check(run: &Run) {
    let Some(python) = python().await else { return };
    let broker = Broker::open_with(LIMITS).await;
    let mut suite = Command::new(python);
    suite.arg("tests/python/autobahn.py").arg(format!("ws://{}/ws", broker.address())).arg(run.name).args(run.cases);
    let output = tokio::time::timeout(LIMIT, suite.kill_on_drop(true).output()).await;
    let output = output.expect("the suite has not ended").unwrap();
    let [printed, errors] = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it).into_owned());
    let status = output.status;
    assert!(status.success(), "the suite ended with {status}: {errors}\nIt printed last:\n{}", end_of(&printed));
    let verdicts = verdicts(&printed);
    let mistakes = mistakes(&fs::read_to_string(PAGE).unwrap(), run.column, &verdicts);
    let (cases, counts) = (verdicts.len(), counts(&verdicts));
    eprintln!("Autobahn, {}: {cases} cases, {counts:?}, unexplained: {}", run.name, mistakes.len());
    assert!(mistakes.is_empty(), "{PAGE}:\n{}", mistakes.join("\n"));
}

#[tokio::test]
async fn every_verdict_of_autobahns_cases_is_ok_or_explained() {
    check(&UNREGISTERED).await;
}

#[tokio::test]
async fn autobahns_texts_are_echoed_to_a_session_that_registered() {
    check(&REGISTERED).await;
}

#[test]
fn a_verdict_that_the_page_does_not_explain_or_count_is_a_mistake() {
    let page = "\n## Result\n\n| verdict | cases |\n|---|---|\n| FAILED | 1 |\n| OK | 1 |\n
\n## Deviations\n\n| cases | verdict | why |\n|---|---|---|\n| 2.* | FAILED | a reason |\n";
    let found = |cases: [(&str, &str); 2]| {
        mistakes(page, 1, &cases.map(|(case, verdict)| (case.into(), verdict.into())).into()).len()
    };
    assert_eq!(found([("1.1", "OK"), ("2.1", "FAILED")]), 0);
    assert_eq!(found([("1.1", "FAILED"), ("2.1", "OK")]), 2);
    assert_eq!(found([("1.1", "OK"), ("3.1", "FAILED")]), 1);
    assert_eq!(found([("1.1", "OK"), ("2.1", "ERROR")]), 2);
    assert_eq!(found([("1.1", "FAILED"), ("2.1", "FAILED")]), 3);
    assert_eq!(found([("1.1", "OK"), ("1.2", "OK")]), 2);
    let verdicts = |verdict: &str| Verdicts::from([("2.1".into(), verdict.into())]);
    let either = page.replace("| FAILED |", "| OK or FAILED |").replace("| OK | 1 |", "| OK | 0 |");
    assert_eq!(mistakes(&either, 1, &verdicts("OK")).len() + mistakes(&either, 1, &verdicts("FAILED")).len(), 0);
    assert_eq!(mistakes(&either, 1, &verdicts("NON-STRICT")).len(), 2);
}
