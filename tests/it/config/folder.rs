//! `applications_dir`: a folder of files with applications.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use switchboard::config::{Config, LoadOptions, Mistakes};
use tempfile::TempDir;

/// A configuration file `f.toml` beside a folder `applications`.
struct Site(TempDir);

impl Site {
    fn new(files: &[(&str, &str)]) -> Self {
        let site = Self(tempfile::tempdir().unwrap());
        fs::create_dir(site.path().join("applications")).unwrap();
        site.configure("");
        for (name, text) in files {
            fs::write(site.path().join("applications").join(name), text).unwrap();
        }
        site
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn configure(&self, more: &str) {
        let folder = self.path().join("applications");
        let text = format!("applications_dir = '{}'\n{more}", folder.display());
        fs::write(self.path().join("f.toml"), text).unwrap();
    }

    fn load(&self) -> Result<Config, Mistakes> {
        Config::load(LoadOptions { file: Some(self.path().join("f.toml")), ..LoadOptions::default() })
    }

    fn sources(&self) -> Vec<String> {
        self.load().unwrap().applications.into_iter().map(|it| it.source).collect()
    }

    /// The mistakes, without the folder of this test.
    fn mistakes(&self) -> String {
        self.load().unwrap_err().to_string().replace(&format!("{}/", self.path().display()), "")
    }
}

/// An application of alice, whose token has this number.
fn block(source: &str, number: usize) -> String {
    format!("[[applications]]\nsource = '{source}'\nuser = 'alice'\ntoken_sha256 = '{}'\n", hash(number))
}

fn hash(number: usize) -> String {
    format!("{number:064x}")
}

#[test]
fn applications_of_the_folder_add_to_those_of_the_file() {
    let two = format!("{}{}", block("b", 2), block("c", 3));
    let site = Site::new(&[("2.toml", &block("d", 4)), ("1.toml", &two), ("empty.toml", ""), ("notes.txt", "no TOML")]);
    fs::write(site.path().join("applications/.3.toml.swp.toml"), "not TOML").unwrap();
    fs::create_dir(site.path().join("applications/old")).unwrap();
    fs::write(site.path().join("applications/old/5.toml"), block("old", 5)).unwrap();
    site.configure(&block("a", 1));
    assert_eq!(site.sources(), ["a", "b", "c", "d"]);
}

#[test]
fn every_mistake_names_its_file_and_line() {
    let same = block("same", 1);
    let site = Site::new(&[
        ("a.toml", &format!("{same}\n{same}")),
        ("b.toml", "[[applications]]\nsource = 'x'\nuser = 'alice'\ntoken_sha256 = 'short'\nexclusiv = true\n"),
        ("c.toml", "applications_dir = '.'\n[limits]\nrate = 1\n[[application]]\nsource = 'x'\n"),
        ("d.toml", "[[applications]]\nsource = 'x"),
        ("e.toml", "[applications]\nsource = 'x'"),
        ("f.toml", &same),
    ]);
    fs::create_dir(site.path().join("applications/g.toml")).unwrap();
    fs::write(site.path().join("applications/h.toml"), [0xff]).unwrap();
    let expected = "\
applications/a.toml:6: applications[1].source: is listed before with the same token_sha256: a token proves a source once
applications/b.toml:4: applications[0].token_sha256: must be 64 hex digits: the SHA-256 of the token, not the token; 'switchboard token new' prints both
applications/b.toml:5: applications[0].exclusiv: unknown key
  hint: did you mean exclusive?
applications/c.toml:1: applications_dir: is not for a file of applications_dir, which has [[applications]] only
applications/c.toml:2: limits: is not for a file of applications_dir, which has [[applications]] only
applications/c.toml:4: application: is not for a file of applications_dir, which has [[applications]] only
  hint: did you mean applications?
applications/e.toml:1: applications: must be an array of tables: [[applications]]
applications/f.toml:1: applications[0].source: is listed before with the same token_sha256: a token proves a source once
applications/g.toml: is not a file
applications/h.toml: is not UTF-8 text";
    let found = site.mistakes();
    let (broken, others): (Vec<&str>, Vec<&str>) =
        found.lines().partition(|line| line.starts_with("applications/d.toml:2: is not TOML"));
    assert_eq!(others.join("\n"), expected);
    assert_eq!(broken.len(), 1, "{found}");
}

#[test]
fn check_finds_the_mistakes_of_the_folder() {
    let site = Site::new(&[("a.toml", "[[applications]]\nsource = 'x'\nservice = true\n")]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
    command.args(["check", "--json", "--config", "f.toml"]).env("SWITCHBOARD__DATA_DIR", "data");
    let output = command.current_dir(site.path()).output().unwrap();
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(2));
    let mistake = &found["mistakes"][0];
    assert!(mistake["file"].as_str().unwrap().ends_with("applications/a.toml"), "{found}");
    assert_eq!((&mistake["line"], &mistake["key"]), (&1.into(), &"applications[0].token_sha256".into()), "{found}");
}

#[test]
fn a_folder_that_cannot_be_read_is_a_mistake_of_the_key() {
    let site = Site::new(&[]);
    fs::remove_dir(site.path().join("applications")).unwrap();
    assert!(
        site.mistakes().starts_with("f.toml:1: applications_dir: names a folder that cannot be read: No such file")
    );
    fs::write(site.path().join("applications"), "").unwrap();
    assert!(site.mistakes().starts_with("f.toml:1: applications_dir: names a folder that cannot be read: Not a dir"));
}

#[test]
fn a_file_can_be_a_link_inside_the_folder_and_not_out_of_it() {
    let site = Site::new(&[]);
    // As Kubernetes mounts a ConfigMap.
    let folder = site.path().join("applications");
    fs::create_dir(folder.join("..2026_01")).unwrap();
    fs::write(folder.join("..2026_01/a.toml"), block("a", 1)).unwrap();
    symlink("..2026_01", folder.join("..data")).unwrap();
    symlink("..data/a.toml", folder.join("a.toml")).unwrap();
    assert_eq!(site.sources(), ["a"]);

    fs::write(site.path().join("elsewhere.toml"), block("b", 2)).unwrap();
    symlink("../elsewhere.toml", folder.join("b.toml")).unwrap();
    symlink("nowhere.toml", folder.join("c.toml")).unwrap();
    let expected = "\
applications/b.toml: is a link out of the folder of applications_dir: copy the file into it
applications/c.toml: cannot be read: No such file or directory (os error 2)";
    assert_eq!(site.mistakes(), expected);

    // The folder itself can be a link.
    fs::remove_file(folder.join("b.toml")).unwrap();
    fs::remove_file(folder.join("c.toml")).unwrap();
    fs::rename(&folder, site.path().join("kept")).unwrap();
    symlink("kept", &folder).unwrap();
    assert_eq!(site.sources(), ["a"]);
}

#[test]
fn a_pipe_is_not_read() {
    let site = Site::new(&[]);
    let pipe = site.path().join("applications/a.toml");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    assert_eq!(site.mistakes(), "applications/a.toml: is not a file");
}

#[test]
fn all_files_together_have_a_bound() {
    let filling = format!("# {}\n", "x".repeat(40 << 20));
    let site = Site::new(&[("a.toml", &filling), ("b.toml", &filling)]);
    let expected = "applications/b.toml: is larger than any configuration: 64 MiB at most, which all files of \
                    applications_dir share";
    assert_eq!(site.mistakes(), expected);
}

#[test]
fn a_warning_names_the_file_of_its_application() {
    let site = Site::new(&[("a.toml", &format!("\n{}handle = ['Plain/Topic/*']\n", block("a", 1)))]);
    let warnings = site.load().unwrap().warnings;
    let found = warnings.iter().any(|it| it.contains("applications/a.toml:2: applications[0].handle[0] has no effect"));
    assert!(found, "{warnings:?}");
}

/// In any of the three ways. Each was quadratic at some time, or would be if columns, links or threads cost more for each.
#[test]
fn ten_thousand_applications_are_read() {
    const APPLICATIONS: usize = 10_000;
    let blocks: Vec<String> = (0..APPLICATIONS).map(|number| block(&format!("app-{number}"), number)).collect();
    let in_one_file = Site::new(&[("all.toml", &blocks.concat())]).load().unwrap();
    assert_eq!(in_one_file.applications.len(), APPLICATIONS);

    let mut line = "applications = [".to_owned();
    for number in 0..APPLICATIONS {
        write!(line, "{{source='app-{number}',user='alice',token_sha256='{}'}},", hash(number)).unwrap();
    }
    let in_one_line = Site::new(&[("all.toml", &(line + "]"))]).load().unwrap();
    assert_eq!(in_one_line.applications, in_one_file.applications);

    let names: Vec<String> = (0..APPLICATIONS).map(|number| format!("{number:05}.toml")).collect();
    let files: Vec<(&str, &str)> =
        names.iter().zip(&blocks).map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let in_many_files = Site::new(&files).load().unwrap();
    assert_eq!(in_many_files.applications, in_one_file.applications);
    assert_eq!(in_many_files.warnings, in_one_file.warnings);
}
