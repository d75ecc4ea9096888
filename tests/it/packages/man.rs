//! `switchboard man`: a page for each command.

use std::fs;

use tokio::process::Command;

use crate::support::{programs, within};

#[tokio::test]
async fn every_command_has_a_page_that_man_can_show() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man1");
    let mut man = Command::new(env!("CARGO_BIN_EXE_switchboard"));
    let output = within("the pages", man.arg("man").arg(&pages).output()).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let names: Vec<String> =
        fs::read_dir(&pages).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    for name in ["switchboard.1", "switchboard-serve.1", "switchboard-credentials-set.1", "switchboard-man.1"] {
        assert!(names.iter().any(|it| it == name), "{name} is not among {names:?}");
    }
    let serve = fs::read_to_string(pages.join("switchboard-serve.1")).unwrap();
    assert!(serve.contains("SIGHUP") && serve.contains("data\\-dir"), "{serve}");
    // `man` itself says whether a page is sound.
    let mut lint = Command::new("man");
    lint.args(["--warnings", "--local-file"]).arg(pages.join("switchboard.1")).env("MANPAGER", "cat");
    if programs::exists("man").await {
        let output = within("man", lint.output()).await.unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_said() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut man = Command::new(env!("CARGO_BIN_EXE_switchboard"));
    let pages = file.path().join("below");
    let output = within("the end", man.arg("man").arg(&pages).output()).await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains(pages.to_str().unwrap()), "{said}");
}
