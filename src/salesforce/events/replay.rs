//! [`Positions`]: how far each topic has been published, kept over a restart. The file is never ahead of what was
//! published, so after a crash an event may be repeated, but none is missed.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::store;

/// The file in the data folder.
const FILE: &str = "salesforce-events.json";

/// The time between two writes.
const EVERY: Duration = Duration::from_secs(1);

/// Replay ids by topic.
type Topics = BTreeMap<String, String>;

/// The content of the file: replay ids in base64, by org and topic. A replay id is valid for one org only.
#[derive(Default, Deserialize, Serialize)]
struct Kept {
    orgs: BTreeMap<String, Topics>,
}

/// How far each topic has been published.
pub(super) struct Positions {
    path: PathBuf,
    kept: Mutex<Kept>,
    advanced: Notify,
}

impl Positions {
    /// Reads the file. An unusable file is logged and ignored: then every topic begins at its configured start.
    pub(super) fn open(data_dir: &Path) -> Self {
        let path = data_dir.join(FILE);
        let kept = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::warn!(path = %path.display(), %error, "the saved replay ids cannot be read: topics begin at their configured start");
                Kept::default()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Kept::default(),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the saved replay ids cannot be read: topics begin at their configured start");
                Kept::default()
            }
        };
        Self { path, kept: Mutex::new(kept), advanced: Notify::new() }
    }

    /// The replay id to continue after.
    pub(super) fn find(&self, org: &str, topic: &str) -> Option<Vec<u8>> {
        let kept = self.kept.lock();
        kept.orgs.get(org)?.get(topic).and_then(|text| STANDARD.decode(text).ok()).filter(|id| !id.is_empty())
    }

    /// Records that a topic has been published up to this replay id.
    pub(super) fn advance(&self, org: &str, topic: &str, replay_id: &[u8]) {
        let text = STANDARD.encode(replay_id);
        let mut kept = self.kept.lock();
        match kept.orgs.get_mut(org).and_then(|topics| topics.get_mut(topic)) {
            Some(known) if *known == text => return,
            Some(known) => *known = text,
            None => {
                kept.orgs.entry(org.to_owned()).or_default().insert(topic.to_owned(), text);
            }
        }
        drop(kept);
        self.advanced.notify_one();
    }

    /// Forgets the replay id of a topic, because Salesforce refused it.
    pub(super) fn forget(&self, org: &str, topic: &str) {
        if let Some(topics) = self.kept.lock().orgs.get_mut(org) {
            topics.remove(topic);
        }
        self.advanced.notify_one();
    }

    /// Writes the file after changes, at most once a second, until `routed` says that nothing more will be published.
    pub(super) async fn run(self: Arc<Self>, routed: CancellationToken) {
        let mut told = false;
        loop {
            let over = tokio::select! {
                () = routed.cancelled() => true,
                () = self.advanced.notified() => false,
            };
            let own = Arc::clone(&self);
            let written = tokio::task::spawn_blocking(move || own.write()).await;
            match written {
                Ok(Ok(())) => told = false,
                Ok(Err(error)) if !told => {
                    told = true;
                    tracing::error!(path = %self.path.display(), %error, "replay ids cannot be saved: events would be repeated after a restart");
                }
                Ok(Err(_)) | Err(_) => {}
            }
            if over {
                return;
            }
            tokio::select! {
                () = routed.cancelled() => {}
                () = sleep_until(Instant::now() + EVERY) => {}
            }
        }
    }

    fn write(&self) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(&*self.kept.lock())?;
        store::replace(&self.path, &text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_found_again_and_damage_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let positions = Positions::open(folder.path());
        positions.advance("00D1", "/event/A__e", &[0, 1, 255]);
        positions.advance("00D1", "/event/B__e", &[7]);
        positions.advance("00D2", "/event/A__e", &[9]);
        positions.forget("00D1", "/event/B__e");
        positions.write().unwrap();
        let again = Positions::open(folder.path());
        assert_eq!(again.find("00D1", "/event/A__e"), Some(vec![0, 1, 255]));
        assert_eq!(again.find("00D2", "/event/A__e"), Some(vec![9]));
        assert_eq!(again.find("00D1", "/event/B__e"), None);
        fs::write(folder.path().join(FILE), "{").unwrap();
        assert_eq!(Positions::open(folder.path()).find("00D1", "/event/A__e"), None);
    }
}
