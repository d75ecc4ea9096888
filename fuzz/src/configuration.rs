//! Target `configuration`: the text of a configuration file.

use std::fs;

use switchboard::config::{Config, LoadOptions};

/// Loads a configuration file. A refused one has to name its mistakes.
pub fn configuration(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("switchboard.toml");
    fs::write(&file, bytes).expect("a file");
    match Config::load(LoadOptions { file: Some(file), ..LoadOptions::default() }) {
        Ok(_) => "accepted".to_owned(),
        Err(mistakes) => {
            let words = mistakes.to_string();
            assert!(!mistakes.list().is_empty() && !words.is_empty(), "refused without a reason");
            "refused".to_owned()
        }
    }
}
