//! docs/protocol.md has every numbered rule with an excerpt of a transcript that shows it, and every code.

use std::fs;
use std::path::Path;

use wire::{CloseCode, ErrorCode};

use super::links;
use crate::transcripts::coverage::{numbered_rules, subject_of};

fn page() -> String {
    fs::read_to_string("docs/protocol.md").unwrap()
}

/// The excerpts in a part of the page: the transcript that was linked last before each, and its lines.
fn excerpts(part: &str) -> Vec<(String, &str)> {
    let mut found = Vec::new();
    let mut transcript = None;
    let mut rest = part;
    while let Some((before, after)) = rest.split_once("```text\n") {
        let linked = links(before).into_iter().rfind(|link| link.starts_with("../tests/it/transcripts/"));
        transcript = linked.or(transcript);
        let (lines, after) = after.split_once("```").unwrap();
        let file = transcript.clone().expect("a transcript is linked before the first excerpt");
        found.push((file, lines));
        rest = after;
    }
    found
}

fn read(transcript: &str) -> String {
    fs::read_to_string(Path::new("docs").join(transcript)).unwrap()
}

#[test]
fn protocol_md_shows_transcripts_as_they_are_played() {
    for (file, lines) in excerpts(&page()) {
        assert!(read(&file).contains(lines), "{file} has no such lines in a row:\n{lines}");
    }
}

#[test]
fn protocol_md_has_every_rule_with_an_excerpt_that_shows_it() {
    let page = page();
    for rule in numbered_rules() {
        let start = format!("\n**{rule}** ");
        let (_, after) = page.split_once(&start).unwrap_or_else(|| panic!("docs/protocol.md does not have {rule}"));
        let end = [after.find("\n**"), after.find("\n##")].into_iter().flatten().min().unwrap_or(after.len());
        let shown: Vec<String> = excerpts(&after[..end]).iter().map(|(file, _)| subject_of(&read(file))).collect();
        assert!(shown.contains(&format!("Rule {rule}")), "{rule}: the excerpts show {shown:?}");
    }
}

/// The first cells of the rows of the table under a heading of the page, after its header.
fn first_cells(page: &str, heading: &str) -> Vec<String> {
    let section = page.split(&format!("\n## {heading}\n")).nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = section.lines().skip_while(|line| !line.starts_with("| code |")).skip(2);
    let rows = rows.take_while(|line| line.starts_with('|'));
    rows.map(|row| row.split('|').nth(1).unwrap().trim().to_owned()).collect()
}

#[test]
fn protocol_md_lists_every_error_code_and_whether_a_retry_helps() {
    let page = page();
    let listed = first_cells(&page, "Errors and codes");
    let codes: Vec<String> = ErrorCode::ALL.iter().map(|code| format!("`{code}`")).collect();
    assert_eq!(listed, codes);
    for code in ErrorCode::ALL {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{code}` |"))).unwrap();
        let helps = if code.retryable() { "| yes |" } else { "| no |" };
        assert!(row.ends_with(helps), "{code}: {row}");
    }
}

#[test]
fn protocol_md_lists_every_close_code() {
    let cells = first_cells(&page(), "Close codes").join(", ");
    let listed: Vec<&str> = cells.split(", ").collect();
    for code in CloseCode::ALL {
        assert!(listed.contains(&code.code().to_string().as_str()), "docs/protocol.md does not list {}", code.code());
    }
}
