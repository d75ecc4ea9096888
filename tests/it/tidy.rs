//! Keeps the house in order by reading its text: import arrows point down, the core neither waits nor looks at a clock.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Floor 0: nothing of ours.
const GROUND: &[&str] = &["websocket", "backoff", "expiring", "short_text", "wiped"];

/// Floor 1: services that know no session.
const SERVICES: &[&str] = &["audit", "auth", "certificates", "cluster", "config", "store", "http", "telemetry"];

/// The rooms and which floors and rooms each may import; ARCHITECTURE.md draws the same arrows. `server` alone wires rooms
/// together: a session and an adapter do not know each other.
const ARROWS: &[(&str, &[&[&str]])] = &[
    ("websocket", &[&["wiped"]]),
    ("backoff", &[]),
    ("expiring", &[]),
    ("audit", &[&["store"], GROUND]),
    ("short_text", &[]),
    ("wiped", &[]),
    ("auth", &[&["telemetry"], GROUND]),
    ("cluster", &[&["store", "telemetry"], GROUND]),
    ("config", &[&["auth", "http"], GROUND]),
    ("certificates", &[&["store"], GROUND]),
    ("store", &[GROUND]),
    ("http", &[GROUND]),
    ("telemetry", &[&["store"], GROUND]),
    ("router", &[SERVICES, GROUND]),
    ("adapter", &[&["router"], SERVICES, GROUND]),
    ("credentials", &[&["adapter", "router"], SERVICES, GROUND]),
    ("salesforce", &[&["credentials", "adapter", "router"], SERVICES, GROUND]),
    ("connection", &[&["router"], SERVICES, GROUND]),
    ("server", &[&["connection", "salesforce", "credentials", "adapter", "router"], SERVICES, GROUND]),
    ("cli", &[&["server", "salesforce", "credentials"], SERVICES, GROUND]),
];

/// Rooms that may name a channel: who serves it, what configures it, and what explains it on a terminal.
const MAY_NAME_CHANNELS: &[&str] = &["salesforce", "credentials", "config", "cli"];

/// The code of the core that may wait: the connection's driver, and the signals of a drain that it waits for.
const MAY_WAIT: &[&str] = &["src/connection/driver/", "src/connection/shutdown.rs"];

fn sources() -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|it| it == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    let mut found = Vec::new();
    walk(Path::new("src"), &mut found);
    found.sort();
    assert!(found.len() > 10, "the sources were not found");
    found
}

fn room_of(path: &Path) -> String {
    let inside = path.strip_prefix("src").unwrap();
    inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

/// Where a file's unit tests begin.
const UNIT_TESTS: &str = "\n#[cfg(test)]\nmod tests {\n";

/// Lines of code, without comments, documentation and the unit tests at the end.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let code = text.split(UNIT_TESTS).next().unwrap_or_default();
    code.lines().enumerate().map(|(at, line)| (at + 1, line)).filter(|(_, line)| !line.trim_start().starts_with("//"))
}

#[test]
fn imports_point_down_only() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let room = room_of(&path);
        if ["lib", "main"].contains(&room.as_str()) {
            continue;
        }
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == room) else {
            wrong.push(format!("{}: the room '{room}' has no arrows in tidy.rs", path.display()));
            continue;
        };
        for (at, line) in code_lines(&text) {
            for used in line.split("crate::").skip(1) {
                let used: String = used.chars().take_while(|it| it.is_alphanumeric() || *it == '_').collect();
                if used != room && !allowed.iter().any(|floor| floor.contains(&used.as_str())) {
                    wrong.push(format!("{}:{at}: '{room}' must not import '{used}'", path.display()));
                }
            }
            if line.contains("super::super") {
                wrong.push(format!("{}:{at}: write crate::room::… in place of super::super", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_channel_is_special_to_the_rooms_that_serve_all() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        if MAY_NAME_CHANNELS.contains(&room_of(&path).as_str()) {
            continue;
        }
        for (at, line) in code_lines(&text) {
            if line.contains("\"Salesforce\"") || line.contains("\"Salesforce/") {
                wrong.push(format!("{}:{at}: names a channel", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_core_neither_waits_nor_looks_at_a_clock() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let name = path.to_str().unwrap();
        let may_wait = MAY_WAIT.iter().any(|it| name.starts_with(it));
        let is_core = ["router", "cluster", "connection"].contains(&room_of(&path).as_str());
        if !is_core || may_wait || is_tests(&path) {
            continue;
        }
        for (at, line) in code_lines(&text) {
            for word in [".await", "Instant::now", "SystemTime::now", "tokio::spawn", "tokio::time"] {
                if line.contains(word) {
                    wrong.push(format!("{name}:{at}: {word} in the core"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether a file has the unit tests of the room that it is in, and nothing else.
fn is_tests(path: &Path) -> bool {
    let room = fs::read_to_string(path.with_file_name("mod.rs")).unwrap_or_default();
    path.ends_with("tests.rs") && room.ends_with("\n#[cfg(test)]\nmod tests;\n")
}

#[test]
fn unit_tests_stand_last_so_that_no_code_hides_behind_them() {
    for (path, text) in sources() {
        let Some((_, tests)) = text.split_once(UNIT_TESTS) else { continue };
        assert!(
            tests.split_once("\n}\n").is_some_and(|(_, rest)| rest.is_empty()),
            "{}: code after its tests",
            path.display()
        );
    }
}

#[test]
fn no_folder_has_a_file_of_its_own_name_beside_it() {
    for (path, _) in sources() {
        assert!(!path.with_extension("").is_dir(), "{} is beside a folder of its name: use mod.rs", path.display());
    }
}

/// The largest number of packages, itself included, that an integrator of `switchboard-client` compiles without TLS.
const CLIENT_PACKAGES_MAX: usize = 60;

#[test]
fn the_client_without_tls_has_few_dependencies() {
    let tree =
        "tree --offline --locked -p switchboard-client --no-default-features -e normal --prefix none --no-dedupe";
    let output = Command::new(env!("CARGO")).args(tree.split(' ')).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let packages: BTreeSet<String> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    assert!(packages.iter().any(|it| it.starts_with("tokio-tungstenite ")), "{packages:#?}");
    assert!(packages.len() <= CLIENT_PACKAGES_MAX, "{} packages: {packages:#?}", packages.len());
    assert!(!packages.iter().any(|it| it.starts_with("switchboard v")), "the client depends on the broker");
}
