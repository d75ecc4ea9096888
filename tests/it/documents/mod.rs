//! Checks the documents: their blocks are executed (`blocks`), the examples run (`examples`) and survive any envelope
//! (`hostile`), docs/protocol.md has every rule and code (`protocol`), the systemd unit starts (`unit`), ARCHITECTURE.md has
//! every package and room (`architecture`), no text has a phrase that is hard to read (`words`). Here: links lead somewhere,
//! docs/errors.md explains every code, and no text names the machine it was written on.

mod architecture;
mod arrival;
mod blocks;
mod examples;
mod hostile;
mod protocol;
#[cfg(feature = "simulator")]
mod stand_in;
mod unit;
mod words;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use wire::{CloseCode, ErrorCode};

/// Folders that are not ours, or are made.
const NOT_OURS: &[&str] = &["target", ".git", "node_modules", "corpus", "venv", ".venv", "__pycache__"];

/// Every file of the repository, by its path from the root.
fn files() -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if NOT_OURS.contains(&name.as_str()) {
                continue;
            }
            if path.is_dir() {
                walk(&path, found);
            } else {
                found.push(path.strip_prefix(".").unwrap().to_owned());
            }
        }
    }
    let mut found = Vec::new();
    walk(Path::new("."), &mut found);
    found.sort();
    assert!(found.len() > 50, "the repository was not found");
    found
}

fn markdown() -> Vec<(PathBuf, String)> {
    let pages = files().into_iter().filter(|path| path.extension().is_some_and(|it| it == "md"));
    pages.map(|path| (path.clone(), fs::read_to_string(&path).unwrap())).collect()
}

/// The text without its fenced blocks, in which nothing is a link or a heading.
fn prose(text: &str) -> String {
    let mut fenced = false;
    let outside = text.lines().filter(|line| {
        let fence = line.starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    });
    outside.collect::<Vec<_>>().join("\n")
}

/// What is in `[…](HERE)`.
fn links(text: &str) -> Vec<String> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    targets.map(|(target, _)| target.to_owned()).collect()
}

/// A heading as the page's viewers name it in a link.
fn anchor(heading: &str) -> String {
    let heading = heading.trim().to_lowercase().replace(' ', "-");
    heading.chars().filter(|it| it.is_alphanumeric() || "-_".contains(*it)).collect()
}

fn anchors(text: &str) -> BTreeSet<String> {
    let prose = prose(text);
    let headings = prose.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#'))).collect()
}

#[test]
fn every_link_between_documents_leads_somewhere() {
    let mut dead = Vec::new();
    for (path, text) in markdown() {
        for link in links(&prose(&text)) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (file, fragment) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            if !target.exists() {
                dead.push(format!("{}: {link}", path.display()));
            } else if !fragment.is_empty() && !anchors(&fs::read_to_string(&target).unwrap()).contains(fragment) {
                dead.push(format!("{}: {link}: there is no such heading", path.display()));
            }
        }
    }
    assert!(dead.is_empty(), "links that lead nowhere:\n{}", dead.join("\n"));
}

/// The sections of docs/errors.md under one heading: title and body.
fn sections(heading: &str) -> Vec<(String, String)> {
    let text = fs::read_to_string("docs/errors.md").unwrap();
    let part = text.split("\n## ").find(|part| part.starts_with(heading)).unwrap();
    let sections = part.split("\n### ").skip(1).map(|section| section.split_once('\n').unwrap());
    sections.map(|(title, body)| (title.trim_matches('`').to_owned(), body.to_owned())).collect()
}

#[test]
fn errors_md_explains_every_error_code_in_the_order_of_the_catalogue() {
    let sections = sections("Error codes");
    let titles: Vec<&str> = sections.iter().map(|(title, _)| title.as_str()).collect();
    let codes: Vec<&str> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(titles, codes);
    for (code, (_, body)) in ErrorCode::ALL.iter().zip(&sections) {
        let again = if code.retryable() { "yes" } else { "no" };
        for said in ["- **Arrives on:** ", "- **Causes:** ", "- **Do:** ", &format!("- **Retry helps:** {again}\n")] {
            assert!(body.contains(said), "{code}: docs/errors.md does not say '{said}'");
        }
    }
}

#[test]
fn errors_md_explains_every_close_code() {
    let sections = sections("Close codes");
    let titles: Vec<&str> = sections.iter().map(|(title, _)| title.as_str()).collect();
    let codes: Vec<String> = CloseCode::ALL.iter().map(|code| code.code().to_string()).collect();
    assert_eq!(titles, codes);
    for (code, body) in &sections {
        assert!(body.contains("- **Do:** "), "{code}: docs/errors.md does not say what to do");
    }
}

#[test]
fn no_text_names_the_machine_it_was_written_on() {
    // In two parts, or this file would name them.
    let home = |user: &str| format!("/{user}/");
    let names = [
        home("home"),
        home("root"),
        home("work"),
        home("Users"),
        format!("replace-{}", "with ="),
        format!("index-{}", "url"),
    ];
    let mut named = Vec::new();
    for path in files() {
        // A file that is not text has no lines.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for (at, line) in text.lines().enumerate() {
            let registry =
                line.starts_with("source = \"registry+") && !line.contains("github.com/rust-lang/crates.io-index");
            if registry || names.iter().any(|name| line.contains(name)) {
                named.push(format!("{}:{}: {line}", path.display(), at + 1));
            }
        }
    }
    assert!(named.is_empty(), "paths or registries of one machine:\n{}", named.join("\n"));
}

#[test]
fn the_threat_model_names_tests_that_are_there() {
    let text = fs::read_to_string("docs/threat-model.md").unwrap();
    let promised = text.split("\n## What is promised\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let mut missing = Vec::new();
    for row in promised.lines().filter(|line| line.starts_with("| **")) {
        let shown = row.rsplit(" | ").next().unwrap();
        let mut file = PathBuf::new();
        for name in shown.split('`').skip(1).step_by(2) {
            if name.contains('.') {
                // Unit tests are named by their whole path.
                file = if name.starts_with("src/") { name.into() } else { Path::new("tests/it").join(name) };
            }
            let text = fs::read_to_string(&file).unwrap_or_default();
            if text.is_empty() || (!name.contains('.') && !text.contains(&format!("fn {name}("))) {
                missing.push(format!("{name} in {}", file.display()));
            }
        }
        assert!(!file.as_os_str().is_empty(), "no test in: {row}");
    }
    assert!(missing.is_empty(), "docs/threat-model.md names what is not there:\n{}", missing.join("\n"));
}

#[test]
fn documents_keep_their_size() {
    let lines = |path: &str| fs::read_to_string(path).unwrap().lines().count();
    assert!(lines("ARCHITECTURE.md") < 200, "ARCHITECTURE.md is to be read in one go");
    let recipes = fs::read_to_string("justfile").unwrap();
    let recipes = recipes.lines().filter(|line| line.trim_end().ends_with(':') && !line.starts_with([' ', '#']));
    assert!(recipes.count() <= 10, "at most ten recipes");
}
