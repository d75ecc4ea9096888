//! `switchboard cluster adopt`: what becomes of the history of a broker that becomes a node.

use crate::cli::output::{self, Output, counted};
use crate::cli::{Exit, Usage};
use crate::config::Config;
use crate::server::BindError;
use crate::server::cluster_adopt::{AdoptError, Adopted, adopt};
use crate::store::FolderLock;
use crate::store::history::{HistorySettings, Look, set_aside};

/// Moves the history into the cluster, and then gives the file another name. If something could not be moved, it keeps its name,
/// and the exit code is 1.
pub(super) fn run(config: &Config, settings: &HistorySettings, output: &mut Output) -> anyhow::Result<Exit> {
    if !config.cluster.is_on() {
        return Err(Usage::new("this configuration has no [cluster], into which the history would be moved").into());
    }
    let alone = FolderLock::take_for_repair(&settings.data_dir).map_err(Usage::new)?;
    let adopted = adopt(config, &Look::alone(settings, &alone)).map_err(|error| match error {
        AdoptError::Store(error) => anyhow::Error::from(Usage::new(error)),
        AdoptError::Cluster(error) => BindError::Cluster(error).into(),
    })?;
    let Some(adopted) = adopted else { return Ok(no_history(settings)) };
    for line in summary(&adopted) {
        output.line(&output::one_line(&line, output.is_terminal()))?;
    }
    if !adopted.refused.is_empty() {
        output::error(&format!(
            "not everything was adopted, so the history stays in {}; remove the causes and run this again, which recognises \
             what it has adopted, or leave the rest aside with --discard",
            settings.data_dir.display()
        ));
        return Ok(Exit::Refused);
    }
    if let Some(path) = set_aside(settings, "adopted", &alone).map_err(Usage::new)? {
        output.line(&format!("the history is now {}", path.display()))?;
    }
    Ok(Exit::Done)
}

/// Gives the history another name, so that the node can start without it.
pub(super) fn discard(settings: &HistorySettings, output: &mut Output) -> anyhow::Result<Exit> {
    let alone = FolderLock::take_for_repair(&settings.data_dir).map_err(Usage::new)?;
    let Some(path) = set_aside(settings, "discarded", &alone).map_err(Usage::new)? else {
        return Ok(no_history(settings));
    };
    output.line(&format!("the history was left aside: it is now {}", path.display()))?;
    Ok(Exit::Done)
}

fn no_history(settings: &HistorySettings) -> Exit {
    output::note(&format!("there is no history in {}", settings.data_dir.display()));
    Exit::Done
}

fn summary(adopted: &Adopted) -> Vec<String> {
    let Adopted { logs, events, values, values_there, empty, newer, renewed, refused } = adopted;
    let events = usize::try_from(*events).unwrap_or(usize::MAX);
    let mut lines =
        vec![format!("{} complete in the cluster; {} appended now", counted(*logs, "log"), counted(events, "event"))];
    let values_of = |number: usize| counted(number, "retained value");
    lines.push(format!("{} put now, and {} by an earlier run", values_of(*values), values_of(*values_there)));
    if *newer > 0 {
        lines.push(format!("{} left out: the cluster has later ones in their places", values_of(*newer)));
    }
    if *empty > 0 {
        lines.push(format!("{} left out without an event: in the cluster they begin anew", counted(*empty, "log")));
    }
    let renewed = renewed.iter().map(|log| {
        format!("{log}: its first events were gone, so it has a new epoch and its offsets begin at 1: clients are told EPOCH")
    });
    lines.extend(renewed);
    lines.extend(refused.iter().map(|(what, why)| format!("{what}: not adopted: {why}")));
    lines
}
