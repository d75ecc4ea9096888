//! ARCHITECTURE.md names every package and every room, and nothing that does not exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::{files, prose};

fn page() -> String {
    fs::read_to_string("ARCHITECTURE.md").unwrap()
}

/// The words between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The column of the table under a heading, row by row.
fn column<'a>(page: &'a str, heading: &str, at: usize) -> Vec<&'a str> {
    let section = page.split(&format!("\n## {heading}\n")).nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = section.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    rows.take_while(|line| line.starts_with('|')).map(|row| row.split('|').nth(at).unwrap()).collect()
}

#[test]
fn architecture_md_has_every_package() {
    let page = page();
    let named: BTreeSet<PathBuf> = column(&page, "Packages", 1)
        .into_iter()
        .map(|cell| PathBuf::from(quoted(cell).next().unwrap().trim_end_matches('.')))
        .collect();
    let manifests = files().into_iter().filter(|path| path.file_name().is_some_and(|name| name == "Cargo.toml"));
    let packages: BTreeSet<PathBuf> = manifests.map(|path| path.parent().unwrap().to_owned()).collect();
    assert_eq!(named, packages);
}

#[test]
fn architecture_md_has_every_room() {
    let page = page();
    let named: BTreeSet<String> = column(&page, "Rooms of `src/`", 2)
        .into_iter()
        .flat_map(|cell| quoted(cell).map(|name| name.trim_end_matches('/').to_owned()))
        .collect();
    let mut rooms: BTreeSet<String> =
        fs::read_dir("src").unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    rooms.remove("lib.rs");
    assert_eq!(named, rooms);
}

#[test]
fn architecture_md_and_contributing_md_name_paths_that_exist() {
    let tops: BTreeSet<String> = ["src", "crates", "tests", "benches", "clients", "docs", "examples", "fuzz"]
        .map(|folder| format!("{folder}/"))
        .into_iter()
        .collect();
    for page in ["ARCHITECTURE.md", "CONTRIBUTING.md"] {
        let text = prose(&fs::read_to_string(page).unwrap());
        let mut checked = 0;
        for name in quoted(&text).filter(|name| tops.iter().any(|top| name.starts_with(top.as_str()))) {
            checked += 1;
            assert!(Path::new(name).exists(), "{page} names `{name}`, which does not exist");
        }
        assert!(checked > 0, "{page} names no paths");
    }
}

/// `name` in `tests/it/file.rs`, as ARCHITECTURE.md writes it.
#[test]
fn the_tests_that_keep_an_invariant_exist() {
    let page = page();
    for cell in column(&page, "Invariants", 2) {
        for (before, after) in cell.match_indices("` in `").map(|(at, found)| (&cell[..at], &cell[at + found.len()..]))
        {
            let name = before.rsplit('`').next().unwrap();
            let file = after.split('`').next().unwrap();
            let text = fs::read_to_string(file).unwrap();
            assert!(text.contains(name), "{file} does not have `{name}`");
        }
    }
}
