//! [`Budget`]: how many instructions each step may take, as a file has it, and the rule that compares.
//!
//! tests/it includes this file, to prove that the rule notices.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// Where the budget is kept, from the root of the repository, where cargo runs benches and tests.
pub(crate) const FILE: &str = "benches/budget.toml";

/// By how much more than its budget a step may take, in percent: the compiler places code a little differently whenever
/// something near it changes.
const OVER: u64 = 3;

/// By how much less it may take before the budget has to follow, in percent: what was gained could be lost unseen.
const UNDER: u64 = 10;

/// What the file begins with.
const HEAD: &str = "\
# Instructions that each step of the hot path may take. `.ci/run` fails when one takes 3 % more, or 10 % less: then this
# file changes in the commit that changes the code, and its message says why. Written by
# `cargo bench --locked --profile budget --bench budget -- write`; benches/budget/scenario.rs says what each step is.
";

/// A file's content, or what was counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Budget {
    /// Counts are compared only where all of this is the same.
    pub(crate) measured_with: MeasuredWith,
    /// By name of the scenario.
    pub(crate) instructions: BTreeMap<String, u64>,
}

/// What counts depend on besides the code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MeasuredWith {
    pub(crate) rustc: String,
    pub(crate) machine: String,
    pub(crate) libc: String,
    pub(crate) valgrind: String,
}

impl Budget {
    /// Reads a file. `None`: it is not a budget.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let table: toml::Table = text.parse().ok()?;
        let with = table.get("measured-with")?;
        let word = |key: &str| Some(with.get(key)?.as_str()?.to_owned());
        let counts = table.get("instructions")?.as_table()?;
        let count = |(name, count): (&String, &toml::Value)| Some((name.clone(), count.as_integer()?.try_into().ok()?));
        Some(Self {
            measured_with: MeasuredWith {
                rustc: word("rustc")?,
                machine: word("machine")?,
                libc: word("libc")?,
                valgrind: word("valgrind")?,
            },
            instructions: counts.iter().map(count).collect::<Option<_>>()?,
        })
    }

    /// The file.
    pub(crate) fn written(&self) -> String {
        let MeasuredWith { rustc, machine, libc, valgrind } = &self.measured_with;
        let mut text = format!(
            "{HEAD}\n[measured-with]\nrustc = \"{rustc}\"\nmachine = \"{machine}\"\nlibc = \"{libc}\"\n\
             valgrind = \"{valgrind}\"\n\n[instructions]\n"
        );
        for (name, count) in &self.instructions {
            writeln!(text, "{name} = {count}").unwrap();
        }
        text
    }

    /// A line for each scenario, and whether all of them are within this budget.
    pub(crate) fn compare(&self, found: &Self) -> (String, bool) {
        let (mut lines, mut kept) = (String::new(), true);
        writeln!(lines, "{:<32}{:>12}{:>12}", "instructions", "budget", "here").unwrap();
        let names: BTreeSet<_> = self.instructions.keys().chain(found.instructions.keys()).collect();
        for name in names {
            let (allowed, taken) = (self.instructions.get(name), found.instructions.get(name));
            let (verdict, words) = verdict(allowed, taken);
            kept &= verdict;
            let figure = |count: Option<&u64>| count.map_or_else(|| "-".to_owned(), u64::to_string);
            writeln!(lines, "{name:<32}{:>12}{:>12}  {words}", figure(allowed), figure(taken)).unwrap();
        }
        if !kept {
            lines += "\nnot kept: make it cheaper, or say in the commit why not; for a new budget:\n\
                      cargo bench --locked --profile budget --bench budget -- write\n";
        }
        (lines, kept)
    }
}

fn verdict(allowed: Option<&u64>, taken: Option<&u64>) -> (bool, String) {
    let (Some(&allowed), Some(&taken)) = (allowed, taken) else {
        return (false, "is on one side only".to_owned());
    };
    #[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
    let change = taken as f64 / allowed as f64 * 100.0 - 100.0;
    if taken * 100 > allowed * (100 + OVER) {
        (false, format!("{change:+.1} %: over the budget by more than {OVER} %"))
    } else if taken * 100 < allowed * (100 - UNDER) {
        (false, format!("{change:+.1} %: a budget that is more than {UNDER} % too high is to be lowered"))
    } else {
        (true, format!("{change:+.1} %"))
    }
}
