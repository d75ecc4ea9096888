//! `switchboard credentials …`, as a script runs it.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use switchboard::credentials::{Directory, read_import};

use super::{SECRET, settings, store_with_alice};

/// What a run of the program left: exit code, standard output, standard error.
struct Run(i32, String, String);

/// A folder for the store, and the commands that use it.
struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn file(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, contents).unwrap();
        path
    }

    /// Runs `switchboard credentials` on the desk's folder.
    fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>, input: &str) -> Run {
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

    fn set(&self, user: &str, password: &str) -> Run {
        self.run(["set", user, "--username", "1245456", "--extension", "5051"], password)
    }

    fn password(&self, user: &str) -> Option<String> {
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
    assert_eq!((code, out, err.as_str()), (0, format!("stored 'alice@example.com' in {folder}\n"), ""));
    let adfs = ["set", "bob", "--username", "b", "--extension", "6", "--adfs-username", "corp\\bob"];
    assert_eq!(desk.run(adfs, "x").0, 0);
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
    assert_eq!(desk.run(["remove", "bob"], "").1, "removed 'bob'\n");
    let Run(code, out, err) = desk.run(["remove", "bob"], "");
    assert_eq!((code, out.as_str()), (1, ""));
    assert_eq!(err, "CREDENTIALS_NOT_FOUND: no credentials are stored for the user 'bob'\n");
    let Run(code, out, err) = desk.run(["show", "bob"], "");
    assert_eq!((code, out.as_str()), (1, ""));
    assert_eq!(err, "CREDENTIALS_NOT_FOUND: no credentials are stored for the user 'bob'\n");
}

#[test]
fn a_password_is_one_line_of_standard_input() {
    let desk = Desk::new();
    for (input, stored) in [
        ("secret", "secret"),
        ("secret\n", "secret"),
        ("secret\r\n", "secret"),
        (" with spaces \n", " with spaces "),
        ("first\nsecond\n", "first"),
    ] {
        assert_eq!(desk.set("alice", input).0, 0, "{input:?}");
        assert_eq!(desk.password("alice").unwrap(), stored, "{input:?}");
    }
    for (input, why) in [
        ("", "password must not be empty"),
        ("\n", "password must not be empty"),
        ("\r\n", "password must not be empty"),
        ("tab\there", "password must not contain control characters"),
        (&"x".repeat(1025), "password must not be longer than 1024 bytes"),
        (&"x".repeat(9999), "password must not be longer than 1024 bytes"),
    ] {
        let Run(code, _, err) = desk.set("alice", input);
        assert_eq!((code, err), (2, format!("error: {why}\n")), "{} bytes", input.len());
    }
    let as_argument = ["set", "bob", "--username", "b", "--extension", "6", "--password", "x"];
    assert_eq!(desk.run(as_argument, "").0, 2);
    assert_eq!(desk.password("alice").unwrap(), "first");
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
    // Without either, the platform's data folder.
    assert_eq!(desk.command(["list", "--json"], "", |command| command).1, "[]\n");
}

/// Reads a file that has this name and these contents: the users that are good, the words about the others.
fn check_import(name: &str, contents: impl AsRef<[u8]>, users: &[&str], faults: &[&str]) {
    let read = read_import(Path::new(name), contents.as_ref()).unwrap();
    let found: Vec<_> = read.entries.iter().map(|entry| entry.user.as_str()).collect();
    assert_eq!(found, users);
    let found: Vec<_> = read.faults.iter().map(ToString::to_string).collect();
    assert_eq!(found, faults);
    assert!(!found.iter().any(|fault| fault.contains(SECRET)));
}

#[test]
fn csv_is_read_as_spreadsheets_write_it() {
    let head = "user,username,password,extension,adfs_username\n";
    check_import("a.csv", format!("{head}a,u,p,1,\nb,u,p,2,corp\\b\n"), &["a", "b"], &[]);
    check_import("a.csv", format!("\u{feff}{head}a,u,p,1,\n").replace('\n', "\r\n"), &["a"], &[]);
    check_import("a.csv", "extension,password,user,username\n1,p,a,u\n\n2,p,b,u", &["a", "b"], &[]);
    check_import("a.txt", format!("{head}a,u,\"p,\"\"q\"\"\",1,\n"), &["a"], &[]);
    check_import("a.csv", head, &[], &[]);
    check_import(
        "a.csv",
        format!(
            "{head}a,u,p,1,\n,u,{SECRET},1,\nb,u,,1,\na,u,p,2,\nc,u,p\nd,u,p,1,x,y\ne,u,\"two\nlines\",1,\nf,{},p,1,\n",
            "x".repeat(129)
        ),
        &["a"],
        &[
            "row 2 (line 3): user must not be empty",
            "row 3 (line 4): password must not be empty",
            "row 4 (line 5): the user is already in row 1",
            "row 5 (line 6): 3 fields, where the first line has 5",
            "row 6 (line 7): 6 fields, where the first line has 5",
            "row 7 (line 8): password must not contain control characters",
            "row 8 (line 10): username must not be longer than 128 bytes",
        ],
    );
    check_import(
        "a.csv",
        [head.as_bytes(), b"a,u,\xff,1,\nb,u,p,1,\n"].concat(),
        &["b"],
        &["row 1 (line 2): password is not UTF-8"],
    );
}

#[test]
fn json_is_read_object_by_object() {
    check_import(
        "a.json",
        r#" [{"user":"a","username":"u","password":"p","extension":"1"},
            {"adfs_username":null,"extension":"1","password":"p\u00e9","username":"u","user":"b"}]"#,
        &["a", "b"],
        &[],
    );
    check_import("agents", "\u{feff}\n[]", &[], &[]);
    let rows = [
        r#"{"user":"a","username":"u","password":"p","extension":"1","adfs_username":"x"}"#,
        "null",
        r#"{"user":"b","username":"u","password":"p"}"#,
        r#"{"user":"b","username":"u","password":"p","extension":5051}"#,
        r#"{"user":"b","user":"c","username":"u","password":"p","extension":"1"}"#,
        r#"{"user":"b","username":"u","password":null,"extension":"1"}"#,
        r#"{"user":"b","username":"u","password":"\ud800","extension":"1"}"#,
        r#"{"user":"b","username":"u","passwort":"acq@123-never-shown","extension":"1"}"#,
        r#"{"user":"a","username":"u","password":"p","extension":"1"}"#,
        r#"{"user":"b\u0000","username":"u","password":"p","extension":"1"}"#,
    ];
    check_import(
        "a.json",
        format!("[{}]", rows.join(",")),
        &["a"],
        &[
            "row 2: not an object",
            "row 3: extension is missing",
            "row 4: extension has to be a string",
            "row 5: user is given twice",
            "row 6: password has to be a string",
            "row 7: password has an escape that is not a character",
            "row 8: a key that is none of user, username, password, extension, adfs_username",
            "row 9: the user is already in row 1",
            "row 10: user must not contain control characters",
        ],
    );
}

#[test]
fn a_file_that_is_no_import_is_refused_as_a_whole() {
    let columns = "user,username,password,extension,adfs_username";
    for (name, contents, why) in [
        ("a.csv", b"".as_slice(), format!("the file is empty; its first line has to be {columns}")),
        ("a.csv", b"user,username,password\n", "the column 'extension' is missing from the first line".to_owned()),
        ("a.csv", b"user,username,secret,extension\n", format!("column 3 of the first line is none of {columns}")),
        (
            "a.csv",
            b"user;username;password;extension\n",
            format!("column 1 of the first line is none of {columns}; separate columns by commas"),
        ),
        (
            "a.csv",
            b"user,user,username,password,extension\n",
            "the column 'user' is twice in the first line".to_owned(),
        ),
        ("a.csv", b"\xff\xfeu\0s\0", "the file is UTF-16; save it as UTF-8".to_owned()),
        ("a.json", b"[{}", "line 1, column 3: this is not JSON".to_owned()),
        ("a.json", b"[] x", "line 1, column 4: this is not JSON".to_owned()),
        (
            "a",
            b"{\"user\":\"a\"}",
            "the file has to be a JSON array of objects with user, username, password, extension, adfs_username"
                .to_owned(),
        ),
    ] {
        assert_eq!(read_import(Path::new(name), contents).map(|_| ()).unwrap_err(), why);
    }
}

#[test]
fn an_import_is_all_or_nothing_unless_partial() {
    let desk = Desk::new();
    drop(store_with_alice(&desk.data()));
    let good = "user,username,password,extension\nalice@example.com,u,new,1\nbob,u,p,2\n";
    let bad = desk.file("bad.csv", format!("{good},u,{SECRET},3\n"));
    let run = |desk: &Desk, file: &Path, flags: &[&str]| {
        let arguments = [OsStr::new("import"), file.as_os_str()].into_iter().chain(flags.iter().map(OsStr::new));
        desk.run(arguments, "")
    };
    let Run(code, out, err) = run(&desk, &bad, &[]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("row 3 (line 4): user must not be empty") && err.contains("nothing was imported"), "{err}");
    assert_eq!((desk.password("bob"), desk.password("alice@example.com").unwrap()), (None, SECRET.to_owned()));

    let Run(code, out, err) = run(&desk, &bad, &["--partial"]);
    assert_eq!((code, out.as_str()), (1, "imported 2 users, 1 of them replaced\n"));
    assert!(err.contains("row 3 (line 4)") && err.contains("1 of 3 rows"), "{err}");
    assert_eq!(
        (desk.password("bob").unwrap(), desk.password("alice@example.com").unwrap()),
        ("p".into(), "new".into())
    );

    assert_eq!(run(&desk, &desk.file("good.csv", good), &[]).0, 0);
    assert_eq!(run(&desk, &desk.file("wrong.csv", "a,b\n"), &["--partial"]).0, 1);
    assert_eq!(run(&desk, Path::new("absent.csv"), &[]).0, 2);
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
