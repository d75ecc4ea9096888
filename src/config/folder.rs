//! `applications_dir`: a folder of files with `[[applications]]`, for sites with thousands of them.
//!
//! The files are those of the folder itself whose names end in `.toml` and do not begin with a dot (editors and Kubernetes
//! keep their own files that way). They are read in the order of their names. A file can be a link to another place in the
//! same folder, as in a Kubernetes `ConfigMap`; a link out of the folder is a mistake, because a person who can write to
//! the folder would otherwise choose what else the broker reads.

use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};

use super::Config;
use super::file::{self, Contents};
use super::layers::{FILE_BYTES_MAX, on_a_deep_stack, read_text};
use super::mistake::{Mistake, Place, Report};
use super::rules::Places;

/// The entries of a folder that are looked at.
const ENTRIES_MAX: usize = 100_000;

/// Adds the applications of `applications_dir` to a configuration whose other layers were read.
pub(super) fn read(config: &mut Config, places: &mut Places, report: &mut Report) {
    let (Some(folder), Some(place)) = (config.applications_dir.clone(), places.written(KEY).cloned()) else { return };
    let files = match Files::list(&folder) {
        Ok(files) => files,
        Err(message) => return report.add(&place, KEY, message),
    };
    // One thread for all files: to make one costs more than to read a file.
    let outcome = on_a_deep_stack(|| {
        let mut room = FILE_BYTES_MAX;
        for path in &files.paths {
            match files.text(path, &mut room) {
                Ok(text) => file::read((&text, Contents::Applications), path, config, places, report),
                Err(message) => {
                    let place = Place::File { path: path.clone(), at: None };
                    report.push(Mistake { place, key: None, message, nearest: None });
                }
            }
        }
    });
    if let Err(message) = outcome {
        report.add(&place, KEY, message);
    }
}

const KEY: &str = "applications_dir";

/// The files of a folder.
struct Files {
    /// The folder, without links.
    folder: PathBuf,
    /// In the order of their names.
    paths: Vec<PathBuf>,
}

impl Files {
    /// Lists the files of a folder.
    ///
    /// # Errors
    /// Why not, as the predicate of a sentence about the key.
    fn list(folder: &Path) -> Result<Self, String> {
        let cannot = |error: io::Error| format!("names a folder that cannot be read: {error}");
        let mut paths = Vec::new();
        for (number, entry) in fs::read_dir(folder).map_err(cannot)?.enumerate() {
            if number >= ENTRIES_MAX {
                return Err(format!("names a folder with more than {ENTRIES_MAX} entries"));
            }
            paths.extend(Some(entry.map_err(cannot)?).filter(is_ours).map(|entry| entry.path()));
        }
        paths.sort();
        Ok(Self { folder: folder.canonicalize().map_err(cannot)?, paths })
    }

    /// Reads a file, which takes its bytes from the room for all of them.
    ///
    /// # Errors
    /// Why not, as the predicate of a sentence about the file.
    fn text(&self, path: &Path, room: &mut u64) -> Result<String, String> {
        let cannot = |error: io::Error| format!("cannot be read: {error}");
        let target = path.canonicalize().map_err(cannot)?;
        if !target.starts_with(&self.folder) {
            return Err("is a link out of the folder of applications_dir: copy the file into it".to_owned());
        }
        // Reading a pipe would wait for its writer.
        if !fs::metadata(&target).map_err(cannot)?.is_file() {
            return Err("is not a file".to_owned());
        }
        let text = read_text(&target, *room)?;
        *room -= text.len() as u64;
        Ok(text)
    }
}

/// Returns whether an entry of the folder is a file of applications.
fn is_ours(entry: &DirEntry) -> bool {
    let name = entry.file_name();
    !name.as_encoded_bytes().starts_with(b".") && Path::new(&name).extension().is_some_and(|it| it == "toml")
}
