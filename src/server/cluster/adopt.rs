//! [`adopt`]: moves what one broker kept on its disk into the cluster, for `switchboard cluster adopt`.
//!
//! The file is read once for the ids of events with `once`, and once for everything else. What was read is put into JetStream in
//! portions, several logs at once. `history/adopt` is how a log is adopted, `retained/adopt` a value.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use futures_util::StreamExt;
use futures_util::future::{join_all, try_join_all};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use super::history::{Adopting, LogAdopter, Outcome};
use super::jetstream::{JetStream, StorageError};
use super::retained::{ValueOutcome, adopt_value};
use super::{ClusterError, connect, date, read_keys};
use crate::cluster::beats_subject;
use crate::config::{Config, Scope};
use crate::store::StoreError;
use crate::store::history::{Known, Loaded, LogName, Look, Place, Retained, millis};

/// The logs, and the values, that are put at once.
const AT_ONCE: usize = 32;

/// The bytes of events beyond which no more are read before those are put.
const PORTION_BYTES: usize = 32 << 20;

/// How long nodes are listened for: each has a beat every 500 ms.
const LISTEN: Duration = Duration::from_millis(1800);

/// Why nothing, or not everything, could be tried.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// The history cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// NATS cannot be used, or stopped answering.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

/// What was adopted.
#[derive(Debug, Default)]
pub struct Adopted {
    /// The logs of which the cluster has all events now.
    pub logs: usize,
    /// The events that were appended, by this run.
    pub events: u64,
    /// The values that were put, by this run.
    pub values: usize,
    /// The values that an earlier run has put.
    pub values_there: usize,
    /// The logs without an event.
    pub empty: usize,
    /// The values in whose places the cluster has later ones.
    pub newer: usize,
    /// The logs of shared channels that have a new epoch, because their first events were gone.
    pub renewed: Vec<LogName>,
    /// What was not adopted, or not all of it, and why.
    pub refused: Vec<(String, &'static str)>,
}

/// Moves a history into the cluster of a configuration. The file stays as it is. `None`: there is no history.
///
/// # Errors
/// [`AdoptError`]. What was put before is recognised by the next run.
pub fn adopt(config: &Config, look: &Look<'_>) -> Result<Option<Adopted>, AdoptError> {
    let mut known = Vec::new();
    let since = millis(date(config.history.retry));
    let found = look.contents(&mut |item| match item {
        Loaded::Known(id) if id.at >= since => known.push(id),
        Loaded::Known(_) | Loaded::Log { .. } | Loaded::Entry(..) | Loaded::Retained(..) => {}
    })?;
    if !found {
        return Ok(None);
    }
    let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("jetstream").enable_all().build();
    let runtime = runtime.map_err(ClusterError::Thread)?;
    let mut run = Run::open(config, &runtime, known)?;
    look.contents(&mut |item| run.take(item))?;
    Ok(Some(run.finish()?))
}

/// An adoption under way.
struct Run<'a> {
    config: &'a Config,
    runtime: &'a Runtime,
    storage: Arc<JetStream>,
    adopter: LogAdopter,
    /// The logs of which events were read that are not put. Only the last one can have more.
    logs: Vec<Adopting>,
    bytes: usize,
    values: Vec<(Place, Retained)>,
    /// The logs with a new epoch: that of the file, the new one, and what is subtracted from their offsets.
    moved: HashMap<LogName, (Box<str>, Arc<str>, u64)>,
    adopted: Adopted,
    failed: Option<StorageError>,
}

impl<'a> Run<'a> {
    fn open(config: &'a Config, runtime: &'a Runtime, known: Vec<Known>) -> Result<Self, ClusterError> {
        let keys = read_keys(&config.cluster)?;
        let (storage, has_nodes) = runtime.block_on(async {
            let client = connect::reach(&config.cluster, connect::options(&config.cluster, "cluster adopt")).await?;
            let has_nodes = has_nodes(&client, &config.cluster.name).await;
            Ok::<_, ClusterError>((JetStream::open_beside(client, &keys, config).await?, has_nodes))
        })?;
        let storage = Arc::new(storage);
        let adopter = LogAdopter::new(&storage, config, has_nodes, known);
        let (logs, values, moved) = (Vec::new(), Vec::new(), HashMap::new());
        Ok(Self {
            config,
            runtime,
            storage,
            adopter,
            logs,
            bytes: 0,
            values,
            moved,
            adopted: Adopted::default(),
            failed: None,
        })
    }

    /// Takes what was read next.
    fn take(&mut self, item: Loaded) {
        if self.failed.is_some() {
            return;
        }
        let outcome = match item {
            Loaded::Log { name, epoch, last, .. } => {
                let outcome = if self.logs.len() >= AT_ONCE { self.put_logs(false) } else { Ok(()) };
                self.logs.push(Adopting::new(name, epoch, last));
                outcome
            }
            Loaded::Entry(offset, entry) => {
                self.bytes += entry.text.len();
                if let Some(log) = self.logs.last_mut() {
                    log.entries.push((offset, entry));
                }
                if self.bytes >= PORTION_BYTES { self.put_logs(true) } else { Ok(()) }
            }
            Loaded::Known(_) => Ok(()),
            Loaded::Retained(place, value) => {
                self.values.push((place, value));
                if self.values.len() >= AT_ONCE { self.put_values() } else { Ok(()) }
            }
        };
        self.failed = outcome.err();
    }

    fn finish(mut self) -> Result<Adopted, ClusterError> {
        let outcome = match self.failed.take() {
            None => self.put_logs(false).and_then(|()| self.put_values()),
            Some(error) => Err(error),
        };
        let servers = self.config.cluster.servers.join(", ");
        let unreachable = |error: StorageError| {
            let error = format!("JetStream: {error}; what was adopted so far is recognised when this runs again");
            ClusterError::Unreachable { servers, error }
        };
        outcome.map_err(unreachable)?;
        Ok(self.adopted)
    }

    /// Puts the events that were read. `is_open`: more of the last log can follow.
    fn put_logs(&mut self, is_open: bool) -> Result<(), StorageError> {
        let put = try_join_all(self.logs.iter_mut().map(|log| self.adopter.advance(log)));
        self.runtime.block_on(put)?;
        self.bytes = 0;
        let open = if is_open { self.logs.pop() } else { None };
        for log in std::mem::take(&mut self.logs) {
            self.adopted.events += log.appended;
            match log.outcome() {
                Outcome::Adopted => self.adopted.logs += 1,
                Outcome::Empty => self.adopted.empty += 1,
                Outcome::Refused(why) => self.adopted.refused.push((log.log.to_string(), why)),
            }
            if let (Outcome::Adopted, Some((epoch, shift))) = (log.outcome(), log.moved()) {
                let new = self.runtime.block_on(self.adopter.shared_epoch(&log.log))?;
                self.moved.insert(log.log.clone(), (epoch.into(), new, shift));
                self.adopted.renewed.push(log.log);
            }
        }
        self.logs.extend(open);
        Ok(())
    }

    /// Puts the values that were read, which follow all logs.
    fn put_values(&mut self) -> Result<(), StorageError> {
        self.put_logs(false)?;
        let mut values = std::mem::take(&mut self.values);
        for (place, value) in &mut values {
            self.move_position(place, value);
        }
        let (storage, config) = (&self.storage, self.config);
        let put = values.iter().map(|(place, value)| async move {
            match misplaced(config, place) {
                Some(why) => Ok(Err(why)),
                None => adopt_value(storage, place, value).await.map(Ok),
            }
        });
        let outcomes = self.runtime.block_on(join_all(put));
        for (outcome, (place, _)) in outcomes.into_iter().zip(&values) {
            match outcome? {
                Ok(ValueOutcome::Put) => self.adopted.values += 1,
                Ok(ValueOutcome::WasThere) => self.adopted.values_there += 1,
                Ok(ValueOutcome::Newer) => self.adopted.newer += 1,
                Ok(ValueOutcome::TooLarge) => {
                    let why = "it is larger than the cluster's NATS servers take (max_payload)";
                    self.adopted.refused.push((Value(place).to_string(), why));
                }
                Err(why) => self.adopted.refused.push((Value(place).to_string(), why)),
            }
        }
        Ok(())
    }

    /// Gives a value the position that its event has in the cluster.
    fn move_position(&self, place: &Place, value: &mut Retained) {
        let channel = place.triple.split('/').next().unwrap_or_default();
        let log = LogName { channel: channel.into(), user: place.user.clone() };
        let (Some((epoch, offset)), Some((old, new, shift))) = (&mut value.position, self.moved.get(&log)) else {
            return;
        };
        if **epoch == **old {
            *epoch = Box::from(&**new);
            *offset = offset.saturating_sub(*shift);
        }
    }
}

/// A retained value, as it is named to an operator.
struct Value<'a>(&'a Place);

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { user, triple, target } = self.0;
        write!(f, "the retained value of {triple}")?;
        if let Some(user) = user {
            write!(f, " of '{user}'")?;
        }
        target.as_ref().map_or(Ok(()), |target| write!(f, " for '{target}'"))
    }
}

/// Why no node would use a value.
fn misplaced(config: &Config, place: &Place) -> Option<&'static str> {
    let mut names = place.triple.split('/');
    let mut name = || names.next().unwrap_or_default();
    let [channel, topic, subtopic] = [name(), name(), name()];
    let is_shared = config.channels.get(channel).is_some_and(|it| it.scope == Scope::Shared);
    if is_shared != place.user.is_none() {
        return Some("its channel has another scope in this configuration");
    }
    let triple = wire::Triple::new(channel, topic, subtopic);
    let is_protected = config.protected.iter().any(|pattern| pattern.matches_any_case(&triple));
    is_protected.then_some("it is on a protected triple, where nothing is kept")
}

/// Whether nodes of a cluster run.
async fn has_nodes(client: &Client, name: &str) -> bool {
    match client.subscribe(beats_subject(name)).await {
        Ok(mut beats) => matches!(timeout(LISTEN, beats.next()).await, Ok(Some(_))),
        // So nothing is done that they would not notice.
        Err(_) => true,
    }
}
