//! How many instructions does each step of the hot path take, and is that within `benches/budget.toml`?
//!
//! Each scenario runs twice under valgrind's callgrind, the second time with twice the rounds: the difference is what the
//! rounds took, without start and set-up. Instructions say less than time, but they are the same on a busy machine.
//!
//! `cargo bench --locked --profile budget --bench budget -- check` exits with 1 where a budget is not kept, or is too
//! generous; `-- write` writes the file anew; `-- run NAME ROUNDS` is what valgrind runs, and a profiler may.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a bench fails loudly")]
#![allow(clippy::print_stdout, reason = "a bench prints its figures")]

use std::collections::BTreeMap;
use std::process::{Command, ExitCode, Stdio};
use std::{env, fs};

use rule::{Budget, FILE, MeasuredWith};
use scenario::{SCENARIOS, Scenario};

#[path = "../../tests/it/support/framing.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod framing;
#[path = "../support/nested.rs"]
mod nested;
mod rule;
mod scenario;
mod stream;
#[path = "../support/mod.rs"]
mod support;

fn main() -> ExitCode {
    // `cargo bench` says `--bench` to every bench.
    let arguments: Vec<String> = env::args().skip(1).filter(|it| it != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["run", name, rounds] => {
            let scenario = SCENARIOS.iter().find(|it| it.name == *name).unwrap();
            (scenario.run)(rounds.parse().unwrap());
            ExitCode::SUCCESS
        }
        ["check"] => check(),
        ["write"] => write(),
        // Among all benches, which are built as for a release: counts of that build are not the budget's.
        [] => {
            println!("budget: `cargo bench --locked --profile budget --bench budget -- check` counts");
            ExitCode::SUCCESS
        }
        _ => {
            println!("usage: budget check | write | run NAME ROUNDS");
            ExitCode::from(2)
        }
    }
}

fn check() -> ExitCode {
    let budget = Budget::read(&fs::read_to_string(FILE).unwrap()).unwrap();
    let here = match here() {
        Ok(here) if here == budget.measured_with => here,
        Ok(here) => return skipped(&format!("measured with {:?}, here is {here:?}", budget.measured_with)),
        Err(why) => return skipped(&why),
    };
    let found = Budget { measured_with: here, instructions: count_all() };
    let (lines, kept) = budget.compare(&found);
    println!("{lines}");
    if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Counts that were made by another compiler, or on another kind of machine, cannot be compared.
fn skipped(why: &str) -> ExitCode {
    println!("SKIPPED: the budget of instructions ({FILE}) was NOT checked: {why}");
    ExitCode::SUCCESS
}

fn write() -> ExitCode {
    let found = Budget { measured_with: here().unwrap(), instructions: count_all() };
    fs::write(FILE, found.written()).unwrap();
    println!("{}", found.written());
    ExitCode::SUCCESS
}

/// What counts depend on besides the code.
fn here() -> Result<MeasuredWith, String> {
    let words = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
        Ok::<_, String>(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    // "rustc 1.95.0 (59807616e 2026-04-14)"
    let rustc = words("rustc", &["--version"])?.split(' ').nth(1).unwrap_or_default().to_owned();
    let libc = words("getconf", &["GNU_LIBC_VERSION"])?;
    let valgrind = words("valgrind", &["--version"])?;
    Ok(MeasuredWith { rustc, machine: machine(), libc, valgrind })
}

/// Valgrind shows every program the same processor of this kind, so that libc and others choose the same code in it.
fn machine() -> String {
    #[cfg(target_arch = "x86_64")]
    let vectors = if std::arch::is_x86_feature_detected!("avx2") { " with avx2" } else { "" };
    #[cfg(not(target_arch = "x86_64"))]
    let vectors = "";
    format!("{} {}{vectors}", env::consts::OS, env::consts::ARCH)
}

fn count_all() -> BTreeMap<String, u64> {
    SCENARIOS.iter().map(|scenario| (scenario.name.to_owned(), per_step(scenario))).collect()
}

/// Instructions for one step of a scenario.
fn per_step(scenario: &Scenario) -> u64 {
    let (once, twice) = (instructions(scenario, scenario.rounds), instructions(scenario, 2 * scenario.rounds));
    (twice - once) / (u64::from(scenario.rounds) * scenario.steps_a_round)
}

/// All instructions of a run.
fn instructions(scenario: &Scenario, rounds: u32) -> u64 {
    // The environment's size moves the stack, from where hash seeds come.
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(env::current_exe().unwrap())
        .args(["run", scenario.name, &format!("{rounds:08}")])
        .env_clear()
        .env("PATH", env::var_os("PATH").unwrap_or_default())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {words}", scenario.name);
    // "==4711== Collected : 12345"
    let collected = words.lines().find_map(|line| line.split_once("Collected : ")).unwrap().1;
    collected.trim().parse().unwrap()
}
