//! Replays the corpora of the fuzz targets, which need no fuzzer for that.

#[expect(unreachable_pub, reason = "in fuzz/ it is a library")]
#[path = "../../../fuzz/src/lib.rs"]
mod targets;

use std::fs;

/// Runs every file of a corpus. A file `CLASS.what-it-shows` has to have this outcome; others must only not panic.
#[track_caller]
fn replay(target: &str, run: fn(&[u8]) -> String) {
    let (mut classes, mut wrong) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(format!("fuzz/corpus/{target}")).unwrap() {
        let path = entry.unwrap().path();
        let outcome = run(&fs::read(&path).unwrap());
        let name = path.file_name().unwrap().to_str().unwrap();
        let Some((class, _)) = name.split_once('.') else { continue };
        if class != outcome {
            wrong.push(format!("{name}: {outcome}"));
        }
        classes.push(class.to_owned());
    }
    assert!(wrong.is_empty(), "{target}:\n{}", wrong.join("\n"));
    classes.sort_unstable();
    classes.dedup();
    assert!(classes.len() > 1, "{target}: the seeds have one outcome only, {classes:?}");
}

#[test]
fn frames() {
    replay("frame", targets::frame);
}

#[test]
fn envelopes() {
    replay("envelope", targets::envelope);
}

#[test]
fn commands() {
    replay("command", targets::command);
}

#[test]
fn handshakes() {
    replay("handshake", targets::handshake);
}

#[test]
fn tokens() {
    replay("jwt", targets::jwt);
}

#[test]
fn key_sets() {
    replay("key_set", targets::key_set);
}

#[test]
fn headers_of_proxies() {
    replay("forwarded", targets::forwarded);
}

#[test]
fn configurations() {
    replay("configuration", targets::configuration);
}
