//! What the store keeps, and every way in which opening it can go wrong.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use switchboard::credentials::{Delimiter, Directory, Entry, KeySource, Settings, read_import};
use switchboard::store::FolderLock;

use super::{SECRET, entry, settings, store_with_alice};
use crate::support::{DEADLINE, secret_file};

const STORE: &str = "credentials.redb";
const KEY: &str = "credentials.key";

fn passwords(directory: &Directory) -> Vec<(String, String)> {
    let read = |entry: Entry| (entry.user, entry.credentials.password.expose_secret().to_owned());
    directory.list().unwrap().into_iter().map(read).collect()
}

/// Opening fails with words that name `path` and all of `parts`, and leaves every file of the folder as it was.
fn check_refused(settings: &Settings, path: &Path, parts: &[&str]) {
    let files = |folder: &Path| {
        let mut files: Vec<_> = fs::read_dir(folder)
            .map(|entries| entries.map(|entry| entry.unwrap().path()).map(|it| (fs::read(&it).ok(), it)).collect())
            .unwrap_or_default();
        files.sort();
        files
    };
    let before = files(&settings.data_dir);
    let words = Directory::open(settings).unwrap_err().to_string();
    for part in parts.iter().chain([&path.to_str().unwrap()]) {
        assert!(words.contains(part), "no '{part}' in: {words}");
    }
    assert!(!words.contains(SECRET));
    assert!(before == files(&settings.data_dir), "something was overwritten: {words}");
}

#[test]
fn what_is_set_is_read_back_until_it_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let directory = store_with_alice(folder.path());
    assert_eq!(directory.set(&[entry("alice@example.com", "new"), entry("bob", "b")]).unwrap(), 1);
    let all = [("alice@example.com".to_owned(), "new".to_owned()), ("bob".to_owned(), "b".to_owned())];
    assert_eq!(passwords(&directory), all);
    assert!(directory.get("Bob").unwrap().is_none(), "names are compared byte for byte");
    assert!(directory.remove("bob").unwrap());
    assert!(!directory.remove("bob").unwrap());
    drop(directory);

    let directory = Directory::open_existing(&settings(folder.path())).unwrap().unwrap();
    assert_eq!(directory.check().unwrap(), 1);
    assert_eq!(directory.get("alice@example.com").unwrap().unwrap().password.expose_secret(), "new");
}

#[test]
fn nothing_is_made_for_those_who_only_read() {
    let folder = tempfile::tempdir().unwrap();
    let absent = folder.path().join("absent");
    assert!(Directory::open_existing(&settings(&absent)).unwrap().is_none());
    assert!(!absent.exists());
}

#[test]
fn the_file_shows_neither_users_nor_secrets() {
    let folder = tempfile::tempdir().unwrap();
    drop(store_with_alice(folder.path()));
    let bytes = fs::read(folder.path().join(STORE)).unwrap();
    for word in ["alice", SECRET, "1245456", "5051"] {
        assert!(!bytes.windows(word.len()).any(|window| window == word.as_bytes()), "'{word}' is in the file");
    }
}

#[cfg(unix)]
#[test]
fn the_files_are_their_owners_only() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    drop(store_with_alice(&data));
    let _lock = FolderLock::take(&data).unwrap();
    assert_eq!(fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o700);
    for file in fs::read_dir(&data).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{}", file.path().display());
    }

    let key = data.join(KEY);
    for (mode, refused) in [(0o400, false), (0o640, true), (0o660, true), (0o644, true), (0o602, true)] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        if refused {
            check_refused(&settings(&data), &key, &["open to other users", "chmod 600"]);
        } else {
            Directory::open(&settings(&data)).unwrap();
        }
    }
}

#[test]
fn the_key_may_be_elsewhere_or_in_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let file = folder.path().join("elsewhere.key");
    let by_file = Settings { data_dir: data.clone(), key: KeySource::File(file.clone()) };
    Directory::open(&by_file).unwrap().set(&[entry("alice", SECRET)]).unwrap();
    assert!(!data.join(KEY).exists());

    let digits = fs::read_to_string(&file).unwrap();
    let by_text = |text: &str| Settings { data_dir: data.clone(), key: KeySource::Text(SecretString::from(text)) };
    assert_eq!(Directory::open(&by_text(digits.trim())).unwrap().check().unwrap(), 1);
    assert_eq!(Directory::open(&by_text(&digits.trim().to_uppercase())).unwrap().check().unwrap(), 1);

    let store = data.join(STORE);
    check_refused(&by_text(&"0".repeat(64)), &store, &["SWITCHBOARD_CREDENTIALS_KEY", "right key back"]);
    for wrong in ["", "00", &"0".repeat(65), &"g".repeat(64)] {
        check_refused(&by_text(wrong), Path::new("SWITCHBOARD_CREDENTIALS_KEY"), &["64 hexadecimal digits"]);
    }
}

#[test]
fn a_key_that_is_missing_wrong_or_broken_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    drop(store_with_alice(folder.path()));
    let (key, store) = (folder.path().join(KEY), folder.path().join(STORE));
    let settings = settings(folder.path());
    let write = |text: &[u8]| fs::write(&key, text).unwrap();

    write("a1".repeat(32).as_bytes());
    check_refused(&settings, &store, &["not the one", key.to_str().unwrap(), "put the right key back"]);
    for broken in [b"".as_slice(), b"\n", b"12", "x".repeat(64).as_bytes(), &[0xff; 64], "a1".repeat(33).as_bytes()] {
        write(broken);
        check_refused(&settings, &key, &["64 hexadecimal digits"]);
    }
    fs::remove_file(&key).unwrap();
    check_refused(&settings, &key, &["key file is missing", store.to_str().unwrap(), "backup"]);
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let below = file.join("data");
    check_refused(&settings(&below), &below, &["cannot be made", "--data-dir"]);
    assert!(FolderLock::take(&below).unwrap_err().to_string().contains(below.to_str().unwrap()));
    // A key that cannot be made leaves no store behind that nobody could open.
    let data = folder.path().join("data");
    let key = KeySource::File(below.join(KEY));
    Directory::open(&Settings { data_dir: data.clone(), key }).unwrap_err();
    assert!(!data.join(STORE).exists());
}

#[test]
fn a_trial_waits_for_the_process_that_makes_the_key_and_the_store() {
    let (folder, made) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    drop(store_with_alice(made.path()));
    let path = |name: &str| folder.path().join(name);
    let lock = fs::File::create(path("credentials.lock")).unwrap();
    lock.lock().unwrap();
    secret_file(path(KEY), "");
    let (tried, outcome) = std::sync::mpsc::channel();
    let tried_settings = settings(folder.path());
    let trial = std::thread::spawn(move || tried.send(Directory::try_open(&tried_settings)).unwrap());
    // Nothing is decided while the lock is held.
    let early = outcome.recv_timeout(Duration::from_millis(100));
    assert!(early.is_err(), "{early:?}");
    fs::copy(made.path().join(KEY), path(KEY)).unwrap();
    fs::copy(made.path().join(STORE), path(STORE)).unwrap();
    drop(lock);
    outcome.recv_timeout(DEADLINE).unwrap().unwrap();
    trial.join().unwrap();
}

#[cfg(unix)]
#[test]
fn a_lock_that_is_a_link_is_refused_and_its_target_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    drop(store_with_alice(&data));
    let victim = folder.path().join("victim");
    for name in ["switchboard.lock", "credentials.lock", "audit.lock"] {
        let link = data.join(name);
        fs::remove_file(&link).ok();
        fs::write(&victim, "of another user").unwrap();
        std::os::unix::fs::symlink(&victim, &link).unwrap();
        let words = match name {
            "audit.lock" => {
                let entry = switchboard::audit::Entry::new(switchboard::audit::Event::Rekeyed);
                switchboard::audit::append(&data, &entry).unwrap_err().to_string()
            }
            _ => Directory::rekey(&settings(&data), None).unwrap_err().to_string(),
        };
        assert!(words.contains("it is a symbolic link; remove the link"), "{name}: {words}");
        assert_eq!(fs::read_to_string(&victim).unwrap(), "of another user", "{name}");
        fs::remove_file(&link).unwrap();
    }
}

#[test]
fn a_second_broker_on_the_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let lock = FolderLock::take(folder.path()).unwrap();
    let words = FolderLock::take(folder.path()).unwrap_err().to_string();
    for part in [folder.path().to_str().unwrap(), &std::process::id().to_string(), "another broker", "--data-dir"] {
        assert!(words.contains(part), "no '{part}' in: {words}");
    }
    drop(lock);
    FolderLock::take(folder.path()).unwrap();
}

/// Opens a store whose file was changed: it is refused by name and left as it is, or nothing was lost.
fn check_changed(folder: &Path, bytes: &[u8], expected: &[(String, String)], what: &str) -> bool {
    let path = folder.join(STORE);
    fs::write(&path, bytes).unwrap();
    match Directory::open(&settings(folder)) {
        Err(error) => {
            assert!(error.to_string().contains(path.to_str().unwrap()), "{what}: {error}");
            assert!(fs::read(&path).unwrap() == bytes, "{what}: the file was overwritten");
            true
        }
        Ok(directory) => {
            assert_eq!(passwords(&directory), expected, "{what}");
            false
        }
    }
}

#[test]
fn a_damaged_file_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let directory = store_with_alice(folder.path());
    directory.set(&(0..40).map(|n| entry(&format!("agent{n}"), "x")).collect::<Vec<_>>()).unwrap();
    directory.remove("agent7").unwrap();
    let expected = passwords(&directory);
    drop(directory);
    let bytes = fs::read(folder.path().join(STORE)).unwrap();

    let mut refused = 0;
    let offsets = (0..320).step_by(5).chain((320..bytes.len()).step_by(1009));
    for at in offsets {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        refused += usize::from(check_changed(folder.path(), &changed, &expected, &format!("byte {at}")));
    }
    assert!(refused > 20, "only {refused} changes were noticed");

    for length in [0, 1, 9, 64, 320, 4096, 4097, bytes.len() / 2, bytes.len() - 4096, bytes.len() - 1] {
        let cut = &bytes[..length];
        assert!(check_changed(folder.path(), cut, &expected, &format!("cut to {length}")), "cut to {length}: opened");
    }
    assert!(check_changed(folder.path(), &vec![0; 65536], &expected, "zeros"));
    assert!(check_changed(folder.path(), "user,password\n".repeat(9000).as_bytes(), &expected, "text"));
}

#[test]
fn rows_are_bound_to_their_users() {
    // The file's tables as redb sees them: an attacker who can write the file can do this.
    const ROWS: redb::TableDefinition<'_, &[u8; 32], &[u8]> = redb::TableDefinition::new("rows");
    let folder = tempfile::tempdir().unwrap();
    let directory = store_with_alice(folder.path());
    directory.set(&[entry("mallory", "m")]).unwrap();
    drop(directory);

    let database = redb::Database::open(folder.path().join(STORE)).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        use redb::ReadableTable;
        let mut table = transaction.open_table(ROWS).unwrap();
        let rows: Vec<_> = table
            .iter()
            .unwrap()
            .map(|row| row.map(|(row, sealed)| (*row.value(), sealed.value().to_vec())).unwrap())
            .collect();
        assert_eq!(rows.len(), 2);
        table.insert(&rows[0].0, rows[1].1.as_slice()).unwrap();
        table.insert(&rows[1].0, rows[0].1.as_slice()).unwrap();
    }
    transaction.commit().unwrap();
    drop(database);

    let directory = Directory::open(&settings(folder.path())).unwrap();
    for user in ["alice@example.com", "mallory"] {
        let words = directory.get(user).unwrap_err().to_string();
        assert!(words.contains("altered or moved") && words.contains(STORE), "{words}");
    }
    directory.check().unwrap_err();
    // What cannot be read can still be replaced.
    directory.set(&[entry("mallory", "m"), entry("alice@example.com", "a")]).unwrap();
    assert_eq!(directory.check().unwrap(), 2);
}

#[test]
fn no_secret_is_printed_by_debug() {
    let folder = tempfile::tempdir().unwrap();
    let directory = store_with_alice(folder.path());
    let key = fs::read_to_string(folder.path().join(KEY)).unwrap();
    let import = read_import(
        Path::new("x.csv"),
        format!("user,username,password,extension\na,b,{SECRET},c\n,b,{SECRET},c\n").as_bytes(),
        Delimiter::Auto,
    );
    let by_text = Settings {
        data_dir: folder.path().to_owned(),
        key: KeySource::Text(SecretString::from(key.trim().to_owned())),
    };
    let printed = format!("{directory:?} {:?} {:?} {import:?} {by_text:?}", directory.list(), directory.get("x"));
    assert!(!printed.contains(SECRET) && !printed.contains(key.trim()), "{printed}");
}

/// Not a test of its own: the other process of the tests below, which run this program again with a role.
#[test]
fn other_process() {
    let Ok(role) = std::env::var("SWITCHBOARD_TEST_OTHER_PROCESS") else { return };
    let (role, folder) = role.split_once(' ').unwrap();
    let directory = Directory::open(&settings(Path::new(folder))).unwrap();
    match role {
        "reader" => {
            let mut out = std::io::stderr();
            for line in std::io::stdin().lines() {
                let found = directory.get(&line.unwrap()).unwrap();
                writeln!(out, "{}", found.map_or("-".to_owned(), |it| it.password.expose_secret().to_owned())).unwrap();
            }
        }
        "writer" => {
            for n in 0..20 {
                directory.set(&[entry(&format!("{}-{n}", std::process::id()), "x")]).unwrap();
            }
        }
        _ => std::process::abort(),
    }
}

fn run_again(role: &str, folder: &Path) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["credentials::store::other_process", "--exact", "--nocapture"])
        .env("SWITCHBOARD_TEST_OTHER_PROCESS", format!("{role} {}", folder.display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn a_change_by_another_process_is_seen_by_the_next_fetch() {
    let folder = tempfile::tempdir().unwrap();
    let directory = store_with_alice(folder.path());
    let mut reader = run_again("reader", folder.path());
    let mut ask = reader.stdin.take().unwrap();
    let mut answers = BufReader::new(reader.stderr.take().unwrap()).lines();
    let mut fetch = |user: &str| {
        writeln!(ask, "{user}").unwrap();
        answers.next().unwrap().unwrap()
    };
    assert_eq!(fetch("alice@example.com"), SECRET);
    for n in 0..50 {
        let password = format!("password {n}");
        directory.set(&[entry("alice@example.com", &password)]).unwrap();
        assert_eq!(fetch("alice@example.com"), password);
    }
    directory.remove("alice@example.com").unwrap();
    assert_eq!(fetch("alice@example.com"), "-");
    // A store that is open for writing elsewhere opens here, again and again.
    for n in 0..5 {
        let user = format!("user {n}");
        Directory::open(&settings(folder.path())).unwrap().set(&[entry(&user, "x")]).unwrap();
        assert_eq!(fetch(&user), "x");
    }
    drop(ask);
    assert!(reader.wait().unwrap().success());
}

#[test]
fn a_copy_taken_while_a_broker_runs_is_a_backup() {
    let (folder, backup) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let directory = store_with_alice(folder.path());
    for name in [STORE, KEY] {
        fs::copy(folder.path().join(name), backup.path().join(name)).unwrap();
    }
    assert_eq!(passwords(&Directory::open(&settings(backup.path())).unwrap()), passwords(&directory));
}

#[test]
fn processes_that_make_and_fill_one_store_at_once_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let writers: Vec<_> = (0..4).map(|_| run_again("writer", &data)).collect();
    for writer in writers {
        let output = writer.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(Directory::open(&settings(&data)).unwrap().check().unwrap(), 80);
}

#[test]
fn a_process_killed_while_it_writes_leaves_a_store_that_opens() {
    let folder = tempfile::tempdir().unwrap();
    drop(store_with_alice(folder.path()));
    for round in 0..8 {
        let mut writer = run_again("writer", folder.path());
        // Waits for no effect: each round ends the process at another moment of its work.
        std::thread::sleep(Duration::from_millis(30 + 15 * round));
        writer.kill().unwrap();
        writer.wait().unwrap();
        let directory = Directory::open(&settings(folder.path())).unwrap();
        directory.check().unwrap();
        assert_eq!(directory.get("alice@example.com").unwrap().unwrap().password.expose_secret(), SECRET);
    }
}
