//! `switchboard cluster adopt`: what becomes of the history of a broker that becomes a node.

use crate::cli::output::{self, Output};
use crate::cli::{Exit, Usage};
use crate::store::FolderLock;
use crate::store::history::{HistorySettings, set_aside};

/// Gives the history another name, so that the node can start without it.
pub(super) fn discard(settings: &HistorySettings, output: &mut Output) -> anyhow::Result<Exit> {
    let alone = FolderLock::take_for_repair(&settings.data_dir).map_err(Usage::new)?;
    match set_aside(settings, "discarded", &alone).map_err(Usage::new)? {
        Some(path) => output.line(&format!("the history was left aside: it is now {}", path.display()))?,
        None => output::note(&format!("there is no history in {}", settings.data_dir.display())),
    }
    Ok(Exit::Done)
}
