//! `check` finds everything that would keep `serve` from starting, and changes nothing.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::{Broker, secret_file};

/// A folder with a configuration file for a broker in open mode.
struct Site {
    folder: tempfile::TempDir,
}

impl Site {
    /// With these lines before those of the data folder, which is in the site's folder.
    fn new(toml: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let own = "listen = ['127.0.0.1:0']\ndata_dir = 'data'\nauth.mode = 'open'\n";
        fs::write(folder.path().join("f.toml"), format!("{own}{toml}\n")).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
        command.args(arguments).args(["--config", "f.toml"]).envs(variables.iter().copied());
        command.current_dir(self.folder.path()).output().unwrap()
    }

    /// Makes the store and its key, as a first start does.
    fn with_store(self) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
        command.args(["credentials", "set", "alice", "--username", "1", "--extension", "2", "--config", "f.toml"]);
        let empty = self.path("password");
        fs::write(&empty, "secret\n").unwrap();
        command.stdin(fs::File::open(empty).unwrap()).current_dir(self.folder.path());
        assert!(command.output().unwrap().status.success());
        self
    }

    /// Asserts that `check` and `serve` both end with 2, and that both say `expected`.
    #[track_caller]
    fn refuses(&self, variables: &[(&str, &str)], expected: &str) {
        let before = contents(self.folder.path());
        let check = self.run(&["check"], variables);
        assert_eq!(contents(self.folder.path()), before, "check changed something");
        let serve = self.run(&["serve"], variables);
        let (checked, served) = (String::from_utf8(check.stdout).unwrap(), String::from_utf8(serve.stderr).unwrap());
        assert!(checked.contains(expected) && checked.ends_with("1 mistake\n"), "check: {checked}");
        assert!(served.contains(expected), "serve: {served}");
        assert_eq!((check.status.code(), serve.status.code()), (Some(2), Some(2)));
    }
}

/// Every file and folder with its mode, content and time of change.
fn contents(folder: &Path) -> Vec<(PathBuf, u32, Vec<u8>, std::time::SystemTime)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            found.extend(contents(&path));
        }
        let content = if metadata.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        found.push((path, metadata.permissions().mode(), content, metadata.modified().unwrap()));
    }
    found.sort();
    found
}

#[test]
fn a_data_folder_that_cannot_be_made_or_written_is_a_mistake() {
    Site::new("")
        .refuses(&[("SWITCHBOARD__DATA_DIR", "f.toml/data")], "the data folder cannot be used: Not a directory");
    Site::new("").refuses(&[("SWITCHBOARD__DATA_DIR", "f.toml")], "files cannot be made in the data folder");
    let site = Site::new("");
    std::os::unix::fs::symlink("nowhere", site.path("data")).unwrap();
    site.refuses(&[], "the data folder cannot be used");
    #[cfg(target_os = "linux")]
    Site::new("").refuses(&[("SWITCHBOARD__DATA_DIR", "/proc/data")], "the data folder cannot be made");
}

#[test]
fn a_file_of_the_data_folder_that_cannot_be_written_is_a_mistake() {
    for (name, expected) in [
        ("audit.jsonl", "the audit log cannot be written"),
        ("switchboard.lock", "switchboard.lock: cannot be written"),
        ("credentials.redb", "the store cannot be written"),
    ] {
        let site = Site::new("");
        fs::create_dir_all(site.path("data").join(name)).unwrap();
        site.refuses(&[], expected);
    }
}

#[test]
fn a_key_that_cannot_be_used_is_a_mistake() {
    let site = Site::new("").with_store();
    let key = site.path("data/credentials.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    site.refuses(&[], "chmod 600");
    secret_file(&key, "not a key");
    site.refuses(&[], "64 hexadecimal digits");
    secret_file(&key, "ab".repeat(32));
    site.refuses(&[], "is not the one that this credential store was made with");
    fs::remove_file(&key).unwrap();
    site.refuses(&[], "the key file is missing");
    site.refuses(&[("SWITCHBOARD_CREDENTIALS_KEY", "x")], "SWITCHBOARD_CREDENTIALS_KEY");

    // Before there is a store.
    Site::new("").refuses(&[("SWITCHBOARD_CREDENTIALS_KEY", "x")], "SWITCHBOARD_CREDENTIALS_KEY");
    Site::new("credentials.key_file = 'absent/key'").refuses(&[], "the key cannot be written");
    let site = Site::new("credentials.key_file = 'key'");
    fs::write(site.path("key"), "ab".repeat(32)).unwrap();
    fs::set_permissions(site.path("key"), fs::Permissions::from_mode(0o604)).unwrap();
    site.refuses(&[], "chmod 600");
}

#[test]
fn a_damaged_store_is_a_mistake() {
    let site = Site::new("").with_store();
    fs::write(site.path("data/credentials.redb"), "").unwrap();
    site.refuses(&[], "the credential store is damaged");
}

#[test]
fn an_address_that_this_machine_does_not_have_is_a_mistake() {
    // TEST-NET-1 (RFC 5737) is nobody's.
    let tokens = [
        ("SWITCHBOARD__LISTEN", "192.0.2.1:7420"),
        ("SWITCHBOARD__AUTH__MODE", "tokens"),
        ("SWITCHBOARD__HTTP__INSECURE", "true"),
    ];
    Site::new("").refuses(&tokens, "could not listen on 192.0.2.1:7420");
}

#[test]
fn files_of_salesforce_that_cannot_be_used_are_mistakes() {
    let org = "credentials.store = 'salesforce'\n[salesforce]\nclient_id = 'x'\nusername = 'u@example.com'\n";
    let site = Site::new(&format!("{org}private_key_file = 'absent.key'"));
    site.refuses(&[], "salesforce.private_key_file: absent.key");
}

/// One rule for every file with a secret, whatever key names it.
#[test]
fn a_secret_that_others_can_read_is_a_mistake() {
    let org = "credentials.store = 'salesforce'\n[salesforce]\nclient_id = 'x'\n\
               login_url = 'https://a.my.salesforce.com'\n";
    let asked = "[[applications]]\nsource = 'a'\nservice = true\ntoken_sha256 = '5f70bf18a086007016e948b04aed3b82103a36bea\
                 41755b6cddfaf10ace3c6ef'\n[auth.salesforce_introspection]\nhost = 'https://a.my.salesforce.com'\n\
                 org_id = '00D000000000001'\nclient_id = 'x'\n";
    for (key, toml) in [
        ("credentials", "credentials.key_file = 'secret'".to_owned()),
        ("salesforce.private_key_file", format!("{org}username = 'u@example.com'\nprivate_key_file = 'secret'")),
        ("salesforce.client_secret_file", format!("{org}client_secret_file = 'secret'")),
        ("auth.salesforce_introspection.client_secret_file", format!("{asked}client_secret_file = 'secret'")),
    ] {
        let site = Site::new(&toml);
        let variables = if toml.contains("[auth.") { [("SWITCHBOARD__AUTH__MODE", "tokens")].as_slice() } else { &[] };
        let secret = site.path("secret");
        fs::write(&secret, "ab".repeat(32)).unwrap();
        for mode in [0o644, 0o640, 0o604, 0o602] {
            fs::set_permissions(&secret, fs::Permissions::from_mode(mode)).unwrap();
            site.refuses(variables, "the file is open to other users of this machine; run 'chmod 600' on it");
            let check = String::from_utf8(site.run(&["check"], variables).stdout).unwrap();
            assert!(check.starts_with(&format!("{key}: ")) && check.contains("secret: "), "{check}");
        }
        for mode in [0o600, 0o400] {
            fs::set_permissions(&secret, fs::Permissions::from_mode(mode)).unwrap();
            let check = String::from_utf8(site.run(&["check"], variables).stdout).unwrap();
            assert!(!check.contains("open to other users"), "{mode:o}: {check}");
        }
    }
}

#[test]
fn a_variable_that_only_serve_reads_is_a_mistake() {
    Site::new("").refuses(&[("SWITCHBOARD_LOG", "warning")], "'warning' in the log filter");
    let site = Site::new("");
    let check = site.run(&["check"], &[("SWITCHBOARD_LOG_FORMAT", "xml")]);
    assert_eq!(check.status.code(), Some(2), "{check:?}");
    assert_eq!(site.run(&["serve"], &[("SWITCHBOARD_LOG_FORMAT", "xml")]).status.code(), Some(2));
}

#[test]
fn a_variable_that_only_serve_reads_is_reported_together_with_mistakes_of_the_file() {
    let site = Site::new("[limits]\nrat = 1");
    let variables = [("SWITCHBOARD_LOG", "warning"), ("SWITCHBOARD_LOG_FORMAT", "xml")];
    let words = String::from_utf8(site.run(&["check"], &variables).stdout).unwrap();
    for expected in ["limits.rat", "SWITCHBOARD_LOG: ", "SWITCHBOARD_LOG_FORMAT: must be text or json", "3 mistakes\n"]
    {
        assert!(words.contains(expected), "{expected}: {words}");
    }
    let json = site.run(&["check", "--json"], &variables);
    let told: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    let keys: Vec<_> = told["mistakes"].as_array().unwrap().iter().map(|mistake| &mistake["key"]).collect();
    assert_eq!(keys, ["limits.rat", "SWITCHBOARD_LOG", "SWITCHBOARD_LOG_FORMAT"]);
    assert_eq!(json.status.code(), Some(2));
}

/// The key is wrong, and nothing else is: neither the store nor the key file.
#[test]
fn a_key_that_is_not_utf_8_is_one_mistake() {
    let site = Site::new("").with_store();
    fs::remove_file(site.path("data/credentials.key")).unwrap();
    let run = |command: &[&str]| {
        let mut process = Command::new(env!("CARGO_BIN_EXE_switchboard"));
        process.args(command).args(["--config", "f.toml"]).current_dir(site.folder.path());
        process.env("SWITCHBOARD_CREDENTIALS_KEY", std::ffi::OsStr::from_bytes(b"\xff")).output().unwrap()
    };
    for command in [["check"].as_slice(), &["serve"], &["credentials", "list"]] {
        let output = run(command);
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(said.contains("SWITCHBOARD_CREDENTIALS_KEY has to hold 64 hexadecimal digits"), "{command:?}: {said}");
        assert!(!said.contains("key file"), "{command:?}: {said}");
        assert!(command != ["check"] || said.ends_with("1 mistake\n"), "{said}");
        assert_eq!(output.status.code(), Some(2), "{command:?}");
    }
}

#[test]
fn a_variable_that_is_not_utf_8_is_a_mistake() {
    let site = Site::new("");
    for name in ["SWITCHBOARD_LOG", "SWITCHBOARD_LOG_FORMAT"] {
        let run = |command: &str| {
            let mut process = Command::new(env!("CARGO_BIN_EXE_switchboard"));
            process.args([command, "--config", "f.toml"]).current_dir(site.folder.path());
            process.env(name, std::ffi::OsStr::from_bytes(b"\xff")).output().unwrap()
        };
        let check = run("check");
        let told = String::from_utf8(check.stdout).unwrap();
        assert!(told.contains(&format!("{name}: is not UTF-8")), "{told}");
        assert_eq!((check.status.code(), run("serve").status.code()), (Some(2), Some(2)), "{name}");
    }
}

/// A pipe could keep `check` and `serve` waiting for ever.
#[test]
fn a_file_that_a_key_names_and_that_is_a_pipe_is_a_mistake() {
    let org = "credentials.store = 'salesforce'\n[salesforce]\nclient_id = 'x'\n\
               login_url = 'https://a.my.salesforce.com'\n";
    for toml in [
        "credentials.key_file = 'pipe'".to_owned(),
        format!("{org}username = 'u@example.com'\nprivate_key_file = 'pipe'"),
        format!("{org}client_secret_file = 'pipe'"),
        format!("{org}client_secret_file = 'secret'\nca_file = 'pipe'"),
    ] {
        let site = Site::new(&toml);
        secret_file(site.path("secret"), "s3cret");
        assert!(Command::new("mkfifo").arg("-m").arg("600").arg(site.path("pipe")).status().unwrap().success());
        site.refuses(&[], "it is not a regular file");
    }
}

#[test]
fn a_lock_that_is_a_link_is_a_mistake() {
    let site = Site::new("");
    fs::create_dir(site.path("data")).unwrap();
    std::os::unix::fs::symlink(site.path("f.toml"), site.path("data/switchboard.lock")).unwrap();
    site.refuses(&[], "switchboard.lock: cannot be written: it is a symbolic link");
    fs::rename(site.path("data/switchboard.lock"), site.path("data/audit.lock")).unwrap();
    site.refuses(&[], "audit.lock: the audit log cannot be written: it is a symbolic link");
}

/// What a link leads to is not there, and yet the name is taken.
#[test]
fn a_link_that_leads_nowhere_is_a_mistake() {
    for (name, toml, expected) in [
        ("data/audit.jsonl", "", "audit.jsonl: the audit log cannot be written: "),
        ("data/audit.lock", "", "audit.lock: the audit log cannot be written: it is a symbolic link"),
        ("data/switchboard.lock", "", "switchboard.lock: cannot be written: it is a symbolic link"),
        ("data/credentials.lock", "", "credentials.lock: cannot be written: it is a symbolic link"),
        ("data/credentials.key", "", "credentials.key: the key cannot be written: "),
        ("key", "credentials.key_file = 'key'", "key: the key cannot be written: "),
    ] {
        let site = Site::new(toml);
        fs::create_dir(site.path("data")).unwrap();
        std::os::unix::fs::symlink("nowhere", site.path(name)).unwrap();
        site.refuses(&[], expected);
    }
}

/// The broker puts its new store in the place of the link.
#[test]
fn a_store_that_is_a_link_which_leads_nowhere_is_not_a_mistake() {
    let site = Site::new("");
    fs::create_dir(site.path("data")).unwrap();
    std::os::unix::fs::symlink("nowhere", site.path("data/credentials.redb")).unwrap();
    assert_eq!(site.run(&["check"], &[]).status.code(), Some(0));
    assert!(fs::metadata(site.with_store().path("data/credentials.redb")).unwrap().is_file());
}

#[test]
fn a_lock_or_a_log_that_is_a_pipe_is_a_mistake() {
    for name in ["audit.jsonl", "audit.lock", "switchboard.lock", "credentials.lock"] {
        let site = Site::new("");
        fs::create_dir(site.path("data")).unwrap();
        let pipe = site.path("data").join(name);
        assert!(Command::new("mkfifo").arg("-m").arg("600").arg(pipe).status().unwrap().success());
        site.refuses(&[], "it is not a regular file");
    }
}

#[test]
fn a_first_start_needs_neither_a_data_folder_nor_a_key() {
    let site = Site::new("");
    let check = site.run(&["check", "--strict"], &[]);
    assert_eq!(check.status.code(), Some(0), "{check:?}");
    assert!(!site.path("data").exists(), "check made the data folder");
    let site = site.with_store();
    let before = contents(site.folder.path());
    assert_eq!(site.run(&["check"], &[]).status.code(), Some(0));
    assert_eq!(contents(site.folder.path()), before, "check changed something");
}

#[tokio::test]
async fn a_configuration_can_be_checked_while_its_broker_runs() {
    let broker = Broker::with_config("").await;
    let mut check = tokio::process::Command::new(env!("CARGO_BIN_EXE_switchboard"));
    check.arg("check").env("SWITCHBOARD__DATA_DIR", broker.data_dir());
    check.env("SWITCHBOARD__LISTEN", broker.address().to_string());
    let output = check.output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
}
