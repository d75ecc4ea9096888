//! The files that the flight recorder is written to.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;
use switchboard::telemetry::recorder::{DumpError, Dumps, Record, Recorder, What, Who};

use crate::support::Broker;
use crate::support::within;

#[expect(clippy::disallowed_methods, reason = "where the clock begins does not matter")]
fn dumps(folder: &Path, bytes: usize) -> (Instant, Arc<Dumps>) {
    let now = Instant::now();
    let recorder = Recorder::for_workers(now, SystemTime::UNIX_EPOCH, bytes, 1);
    let who = Who { number: 1, session: [1; 16], source: "phone", user: Some("alice") };
    recorder.record(now, &Record::of(who, What::Registered));
    (now, Arc::new(Dumps::new(Arc::new(recorder), folder)))
}

/// The dumps in a folder, oldest first.
fn files(folder: &Path) -> Vec<PathBuf> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let is_one = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with("recent-") && path.extension().is_some_and(|it| it == "jsonl")
    };
    let mut files: Vec<_> = names.filter(is_one).collect();
    files.sort();
    files
}

/// The lines of a dump.
fn lines(file: &Path) -> Vec<Value> {
    fs::read_to_string(file).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Waits until there is a dump that is complete.
async fn dumped(folder: &Path) -> Vec<Value> {
    within("a file with a line about the session", async {
        loop {
            if let [file] = &*files(folder)
                && let text = fs::read_to_string(file).unwrap()
                && text.ends_with('\n')
                && text.contains("\"registered\"")
            {
                return lines(file);
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

#[test]
fn the_last_five_files_are_kept_for_their_owner_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (now, dumps) = dumps(folder.path(), 1 << 20);
    fs::write(folder.path().join("recently.jsonl"), "of somebody else").unwrap();
    let wall = |number| SystemTime::UNIX_EPOCH + Duration::from_secs(number);
    let written: Vec<_> = (0..7).map(|number| dumps.write(now, wall(number)).unwrap()).collect();
    assert_eq!(files(folder.path()), written[2..]);
    assert!(folder.path().join("recently.jsonl").exists());
    let name = written[6].file_name().unwrap().to_str().unwrap();
    assert_eq!(name, "recent-1970-01-01T00-00-06.000000Z.jsonl");
    let lines = lines(&written[6]);
    assert_eq!((&lines[0]["what"], &lines[0]["reach"]["events"]), (&"dump".into(), &lines[1]["at"]));
    assert_eq!((&lines[1]["what"], &lines[1]["source"]), (&"registered".into(), &"phone".into()));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&written[6]).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn a_recorder_that_is_turned_off_writes_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let (now, dumps) = dumps(folder.path(), 0);
    assert!(matches!(dumps.write(now, SystemTime::UNIX_EPOCH), Err(DumpError::Off)));
    assert_eq!(files(folder.path()), [""; 0].map(PathBuf::from));
}

#[test]
fn panics_cause_one_file_a_minute() {
    let folder = tempfile::tempdir().unwrap();
    let (now, dumps) = dumps(folder.path(), 1 << 20);
    let after = |seconds| dumps.begin_for_panic(now + Duration::from_secs(seconds));
    assert_eq!([0, 1, 59, 60, 61, 121].map(after), [true, false, false, true, false, true]);
}

#[tokio::test]
async fn a_panic_writes_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let (_, dumps) = dumps(folder.path(), 1 << 20);
    dumps.at_panics();
    for _ in 0..3 {
        std::thread::spawn(|| panic!("as a defect would")).join().unwrap_err();
    }
    let lines = dumped(folder.path()).await;
    assert_eq!(lines[1]["source"], "phone");
    drop(std::panic::take_hook());
    assert_eq!(files(folder.path()).len(), 1);
}

#[cfg(unix)]
#[tokio::test]
async fn sigusr1_writes_a_file_and_the_broker_goes_on() {
    let broker = Broker::start().await;
    let mut phone = broker.app("phone").await;
    broker.signal("USR1").await;
    broker.log_until("the name of the file", |log| log.contains("SIGUSR1") && log.contains("recent-")).await;
    let lines = dumped(&broker.data_dir()).await;
    let registered = lines.iter().find(|line| line["what"] == "registered").unwrap();
    assert_eq!(registered["source"], "phone");
    phone.command("Connection", "Ping", Value::Null).await;
}
