//! The budget of instructions that `.ci/run` keeps: the rule of benches/budget notices what it is there for.

use std::fs;

use rule::{Budget, FILE};

#[path = "../../benches/budget/rule.rs"]
mod rule;

fn kept_in_the_repository() -> Budget {
    Budget::read(&fs::read_to_string(FILE).unwrap()).unwrap()
}

/// The budget with every count at this percentage.
fn at(percent: u64) -> Budget {
    let mut budget = kept_in_the_repository();
    budget.instructions.values_mut().for_each(|count| *count = *count * percent / 100);
    budget
}

#[track_caller]
fn check(budget: &Budget, found: &Budget, kept: bool, words: &str) {
    let (lines, outcome) = budget.compare(found);
    assert!(outcome == kept && lines.contains(words), "{lines}");
}

#[test]
fn a_step_that_takes_more_than_its_budget_is_noticed() {
    let here = kept_in_the_repository();
    check(&here, &here, true, "+0.0 %");
    check(&at(95), &here, false, "over the budget by more than 3 %");
    check(&here, &at(102), true, "+2.0 %");
    let mut one = here.clone();
    *one.instructions.values_mut().next().unwrap() += 5_000;
    check(&here, &one, false, "over the budget");
}

#[test]
fn a_budget_that_is_too_generous_is_noticed() {
    let here = kept_in_the_repository();
    check(&at(108), &here, true, "-7.4 %");
    check(&at(115), &here, false, "is to be lowered");
}

#[test]
fn a_step_without_a_budget_and_a_budget_without_a_step_are_noticed() {
    let here = kept_in_the_repository();
    let mut fewer = here.clone();
    fewer.instructions.pop_first();
    check(&fewer, &here, false, "is on one side only");
    check(&here, &fewer, false, "is on one side only");
}

#[test]
fn the_file_is_as_it_is_written() {
    assert_eq!(fs::read_to_string(FILE).unwrap(), kept_in_the_repository().written());
}
