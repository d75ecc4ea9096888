//! `switchboard credentials …`, as a script runs it.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use switchboard::credentials::Directory;

use super::{SECRET, settings, store_with_alice};

/// What a run of the program left: exit code, standard output, standard error.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Run(pub(super) i32, pub(super) String, pub(super) String);

/// A folder for the store, and the commands that use it.
pub(super) struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    pub(super) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(super) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(super) fn file(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, contents).unwrap();
        path
    }

    /// Runs `switchboard credentials` on the desk's folder.
    pub(super) fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>, input: &str) -> Run {
        self.command(arguments, input, |command| command.arg("--data-dir").arg(self.data()))
    }

    fn command<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
        input: &str,
        more: impl FnOnce(&mut Command) -> &mut Command,
    ) -> Run {
        let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
        command.arg("credentials").args(arguments).current_dir(self.folder.path());
        command.env_remove("SWITCHBOARD_CREDENTIALS_KEY").env("HOME", self.folder.path()).env_remove("XDG_DATA_HOME");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = more(&mut command).spawn().unwrap();
        // A program that refuses its arguments reads no input.
        let _refused = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let run = Run(output.status.code().unwrap(), text(output.stdout), text(output.stderr));
        assert!(!run.1.contains(SECRET) && !run.2.contains(SECRET), "a password was printed: {} {}", run.1, run.2);
        run
    }

    pub(super) fn set(&self, user: &str, password: &str) -> Run {
        self.run(["set", user, "--username", "1245456", "--extension", "5051"], password)
    }

    pub(super) fn password(&self, user: &str) -> Option<String> {
        use secrecy::ExposeSecret;
        let directory = Directory::open_existing(&settings(&self.data())).unwrap()?;
        directory.get(user).unwrap().map(|found| found.password.expose_secret().to_owned())
    }
}

#[test]
fn an_administrator_sets_shows_lists_and_removes() {
    let desk = Desk::new();
    let Run(code, out, err) = desk.set("alice@example.com", &format!("{SECRET}\n"));
    let folder = desk.data();
    let folder = folder.display();
    assert_eq!((code, out), (0, format!("stored 'alice@example.com' in {folder}\n")));
    assert_eq!(err, format!("made a credential store in {folder}, where there was none\n"));
    let adfs = ["set", "bob", "--username", "b", "--extension", "6", "--adfs-username", "corp\\bob"];
    assert_eq!(desk.run(adfs, "x"), Run(0, format!("stored 'bob' in {folder}\n"), String::new()));
    assert_eq!(desk.run(adfs, "y").1, format!("replaced 'bob' in {folder}\n"));
    assert_eq!(desk.password("bob").unwrap(), "y");

    let alice = json!({"user": "alice@example.com", "username": "1245456", "extension": "5051", "adfs_username": null});
    let bob = json!({"user": "bob", "username": "b", "extension": "6", "adfs_username": "corp\\bob"});
    let read = |run: Run| serde_json::from_str::<Value>(&run.1).unwrap();
    assert_eq!(read(desk.run(["show", "alice@example.com", "--json"], "")), alice);
    assert_eq!(read(desk.run(["list", "--json"], "")), json!([alice, bob]));
    insta::assert_snapshot!(desk.run(["list"], "").1, @r"
    user               username  extension  adfs_username
    alice@example.com  1245456   5051
    bob                b         6          corp\bob
    ");
    insta::assert_snapshot!(desk.run(["show", "bob"], "").1, @r"
    user          bob
    username      b
    extension     6
    adfs_username corp\bob
    ");
    assert_eq!(desk.run(["remove", "bob"], "").1, format!("removed 'bob' from {folder}\n"));
    let Run(code, out, err) = desk.run(["remove", "bob"], "");
    assert_eq!((code, out.as_str()), (1, ""));
    assert_eq!(err, format!("CREDENTIALS_NOT_FOUND: no credentials are stored for the user 'bob' in {folder}\n"));
    let Run(code, out, err) = desk.run(["show", "bob"], "");
    assert_eq!((code, out.as_str()), (1, ""));
    assert_eq!(err, format!("CREDENTIALS_NOT_FOUND: no credentials are stored for the user 'bob' in {folder}\n"));
}

#[test]
fn a_password_is_the_only_line_of_standard_input() {
    let desk = Desk::new();
    assert_eq!(desk.set("alice", "first").0, 0);
    for (input, stored) in [
        ("secret", "secret"),
        ("secret\n", "secret"),
        ("secret\r\n", "secret"),
        ("\u{feff}secret\r\n", "secret"),
        (&format!("\u{feff}{}\r\n", "x".repeat(1024)), &"x".repeat(1024)),
    ] {
        let Run(code, _, err) = desk.set("alice", input);
        assert_eq!((code, err.as_str()), (0, ""), "{input:?}");
        assert_eq!(desk.password("alice").unwrap(), stored, "{input:?}");
    }
    for blank in [" secret\n", "secret \r\n", "secret\u{a0}", "\u{200b}secret"] {
        let Run(code, _, err) = desk.set("alice", blank);
        assert!(code == 0 && err.contains("warning: password begins or ends with white space"), "{blank:?}: {err}");
        assert_eq!(desk.password("alice").unwrap(), blank.trim_end_matches(['\r', '\n']), "{blank:?}");
    }
    assert_eq!(desk.set("alice", "last").0, 0);
    let several = "standard input has more than one line, and a password is one; nothing was stored";
    for (input, why) in [
        ("", "password must not be empty"),
        ("\n", "password must not be empty"),
        ("\r\n", "password must not be empty"),
        ("tab\there", "password must not contain control characters"),
        (&"x".repeat(1025), "password must not be longer than 1024 bytes"),
        (&"x".repeat(9999), "password must not be longer than 1024 bytes"),
        ("first\nsecond\n", several),
        ("first\rsecond", several),
        ("first\n\n", several),
        ("\nsecond", several),
    ] {
        let Run(code, _, err) = desk.set("alice", input);
        assert_eq!((code, err), (2, format!("error: {why}\n")), "{} bytes", input.len());
    }
    let as_argument = ["set", "bob", "--username", "b", "--extension", "6", "--password", "x"];
    assert_eq!(desk.run(as_argument, "").0, 2);
    assert_eq!(desk.password("alice").unwrap(), "last");
}

#[test]
fn those_who_only_look_make_no_store() {
    let desk = Desk::new();
    let Run(code, out, err) = desk.run(["list", "--json"], "");
    assert_eq!((code, out.as_str()), (0, "[]\n"));
    assert!(err.contains("no credential store in"), "{err}");
    for arguments in [["show", "alice"], ["remove", "alice"]] {
        let Run(code, _, err) = desk.run(arguments, "");
        assert_eq!(code, 1);
        assert!(
            err.starts_with("CREDENTIALS_NOT_FOUND: ")
                && err.contains("no credential store in")
                && err.contains(desk.data().to_str().unwrap()),
            "{err}"
        );
    }
    assert!(!desk.data().exists());
}

#[test]
fn an_unusable_key_or_store_is_exit_code_2() {
    let desk = Desk::new();
    drop(store_with_alice(&desk.data()));
    let zeros = |command: &mut Command| {
        command.env("SWITCHBOARD_CREDENTIALS_KEY", "0".repeat(64));
    };
    let Run(code, _, err) = desk.command(["list"], "", |command| {
        zeros(command);
        command.arg("--data-dir").arg(desk.data())
    });
    assert_eq!(code, 2);
    assert!(err.starts_with("error: ") && err.contains("credentials.redb") && err.contains("right key back"), "{err}");
    fs::write(desk.data().join("credentials.redb"), "no store").unwrap();
    let Run(code, _, err) = desk.set("alice", "x");
    assert_eq!(code, 2);
    assert!(err.contains("damaged") && err.contains("backup"), "{err}");
}

#[test]
fn the_configuration_says_where_store_and_key_are() {
    let desk = Desk::new();
    let (data, key) = (desk.data(), desk.folder.path().join("the.key"));
    let config = desk.file(
        "switchboard.toml",
        format!("data_dir = {:?}\n[credentials]\nkey_file = {:?}\n", data.display(), key.display()),
    );
    let set = ["set", "alice", "--username", "1", "--extension", "2"];
    assert_eq!(desk.command(set, "x", |command| command.arg("--config").arg(&config)).0, 0);
    assert!(key.exists() && data.join("credentials.redb").exists() && !data.join("credentials.key").exists());
    let other = desk.folder.path().join("other");
    let both = |command: &mut Command| {
        command.arg("--config").arg(&config).arg("--data-dir").arg(&other);
    };
    let moved = desk.command(set, "x", |command| {
        both(command);
        command
    });
    assert_eq!(moved.0, 0);
    assert!(other.join("credentials.redb").exists() && !other.join("credentials.key").exists());
    let absent = desk.command(["list"], "", |command| command.arg("--config").arg("absent.toml"));
    assert_eq!(absent.0, 2);
    assert!(absent.2.contains("absent.toml"));
    // The text of the variable may end in a line end, as the file may.
    let digits = fs::read_to_string(&key).unwrap();
    let by_variable = desk.command(["list", "--json"], "", |command| {
        command
            .arg("--data-dir")
            .arg(&data)
            .env("SWITCHBOARD_CREDENTIALS_KEY", format!("\u{feff}{}\r\n", digits.trim()))
    });
    assert!(by_variable.0 == 0 && by_variable.1.contains("alice"), "{by_variable:?}");
    // Without either, the platform's data folder.
    assert_eq!(desk.command(["list", "--json"], "", |command| command).1, "[]\n");
}

#[test]
fn a_running_brokers_store_changes_under_it_at_once() {
    let desk = Desk::new();
    let directory = store_with_alice(&desk.data());
    assert_eq!(desk.set("bob", "from the command line").0, 0);
    assert!(directory.get("bob").unwrap().is_some());
    assert_eq!(desk.run(["remove", "bob"], "").0, 0);
    assert!(directory.get("bob").unwrap().is_none());
}

#[test]
fn commands_that_replace_the_file_at_once_do_not_disturb_each_other() {
    let desk = Desk::new();
    drop(store_with_alice(&desk.data()));
    std::thread::scope(|scope| {
        for n in 0..8 {
            let desk = &desk;
            scope.spawn(move || assert_eq!(desk.set("alice@example.com", &format!("password {n}")).0, 0));
            scope.spawn(move || {
                let Run(code, out, err) = desk.run(["list", "--json"], "");
                assert!(code == 0 && out.contains("alice@example.com"), "{out}{err}");
            });
        }
    });
    assert!(desk.password("alice@example.com").unwrap().starts_with("password "));
}
