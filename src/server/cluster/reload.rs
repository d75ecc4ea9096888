//! A reload of all nodes of a cluster: `switchboard reload --cluster`.
//!
//! The node that is asked lets every live node read its file and check it whole (`Prepare`). Each answers with the digest that
//! it would have, and keeps the configuration. Only if all digests are the same, all put theirs in force (`Apply`). Every
//! wait has a bound, and a node that is lost meanwhile fails the reload.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout_at};

use super::{Cluster, digest};
use crate::cluster::PeerState;
use crate::config::{Config, LoadOptions};
use crate::server::reload::Agreement;
use crate::server::{Broker, How, ReloadError, Reloaded, Reloader};

/// How long all nodes may take to answer.
const WAIT: Duration = Duration::from_secs(5);

/// How long a node keeps a configuration that it has read for another one.
const KEPT: Duration = Duration::from_secs(30);

/// How often a node that waits looks whether another one is lost.
const LOOK: Duration = Duration::from_millis(50);

/// The longest explanation that crosses a link, in bytes.
const WHY_BYTES_MAX: usize = 4000;

/// How many messages of other nodes wait to be read.
pub(super) const WAITING_MAX: usize = 64;

/// A message of another node's program, and that node.
pub(super) type Control = (String, Vec<u8>);

/// What nodes say to each other of a reload.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Said {
    /// Read your file.
    Prepare { id: u64, keeps_restart_keys: bool },
    /// It is read, and this is what has to be the same everywhere.
    Prepared { id: u64, digest: Vec<u8> },
    /// It cannot be read, or put in force.
    Failed { id: u64, why: String },
    /// Put in force what you have read.
    Apply { id: u64 },
    /// It is in force.
    Applied { id: u64 },
    /// Forget what you have read.
    Abort { id: u64 },
}

/// The reloads of all nodes that this one takes part in.
#[derive(Default)]
pub(super) struct Reloads {
    state: Mutex<State>,
    answered: Notify,
}

#[derive(Default)]
struct State {
    /// What another node lets this one put in force.
    prepared: Option<Prepared>,
    /// The reload that this node was asked for.
    own: Option<Own>,
}

struct Prepared {
    id: u64,
    by: String,
    until: Instant,
    keeps_restart_keys: bool,
    /// `None` while it is being read.
    config: Option<Box<Config>>,
}

struct Own {
    id: u64,
    answers: BTreeMap<String, Answer>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Awaited,
    Prepared(Vec<u8>),
    Failed(String),
    Applied,
}

impl State {
    fn is_busy(&self, now: Instant) -> bool {
        self.own.is_some() || self.prepared.as_ref().is_some_and(|it| now < it.until)
    }
}

impl Reloads {
    /// Begins a reload of these nodes.
    ///
    /// # Errors
    /// [`ReloadError::Busy`].
    fn begin(&self, nodes: &[String]) -> Result<u64, ReloadError> {
        let mut state = self.state.lock();
        if state.is_busy(Instant::now()) {
            return Err(ReloadError::Busy);
        }
        let id = rand::random();
        state.own = Some(Own { id, answers: awaited(nodes) });
        Ok(id)
    }

    /// Notes what a node has answered.
    fn note(&self, node: &str, id: u64, answer: Answer) {
        let mut state = self.state.lock();
        if let Some(own) = state.own.as_mut().filter(|own| own.id == id)
            && let Some(place) = own.answers.get_mut(node)
        {
            *place = answer;
            self.answered.notify_one();
        }
    }

    fn answers(&self) -> BTreeMap<String, Answer> {
        self.state.lock().own.as_ref().map(|own| own.answers.clone()).unwrap_or_default()
    }

    fn await_again(&self, nodes: &[String]) {
        if let Some(own) = &mut self.state.lock().own {
            own.answers = awaited(nodes);
        }
    }
}

fn awaited(nodes: &[String]) -> BTreeMap<String, Answer> {
    nodes.iter().map(|node| (node.clone(), Answer::Awaited)).collect()
}

/// A reload of all nodes that this one was asked for. Unless it is put in force, every node forgets what it has read.
struct Asked<'a> {
    broker: &'a Broker,
    cluster: &'a Cluster,
    id: u64,
    nodes: Vec<String>,
    is_applied: bool,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if !self.is_applied {
            self.say(&Said::Abort { id: self.id });
        }
        self.cluster.plane.reloads().state.lock().own = None;
    }
}

impl<'a> Asked<'a> {
    fn begin(broker: &'a Broker) -> Result<Self, ReloadError> {
        let cluster = broker.cluster.as_ref().ok_or(ReloadError::NoCluster)?;
        let nodes = cluster.linked()?;
        let id = cluster.plane.reloads().begin(&nodes)?;
        Ok(Self { broker, cluster, id, nodes, is_applied: false })
    }

    fn say(&self, said: &Said) {
        for node in &self.nodes {
            // A node without a link is found to be lost.
            say(self.broker, node, said);
        }
    }

    /// Waits until every node has answered. Returns the answers.
    ///
    /// # Errors
    /// [`ReloadError::Unreached`], and the first [`ReloadError::Elsewhere`].
    async fn answers(&self) -> Result<BTreeMap<String, Answer>, ReloadError> {
        let until = Instant::now() + WAIT;
        let reloads = self.cluster.plane.reloads();
        loop {
            let answered = reloads.answered.notified();
            let answers = reloads.answers();
            let linked = self.cluster.linked().unwrap_or_default();
            for (node, answer) in &answers {
                let (node, now) = (node.clone(), Instant::now());
                match answer {
                    Answer::Failed(why) => return Err(ReloadError::Elsewhere { node, why: why.clone() }),
                    Answer::Awaited if !linked.contains(&node) => {
                        return Err(ReloadError::Unreached { node, why: "was lost meanwhile" });
                    }
                    Answer::Awaited if now >= until => {
                        return Err(ReloadError::Unreached { node, why: "did not answer within 5 s" });
                    }
                    Answer::Awaited | Answer::Prepared(_) | Answer::Applied => {}
                }
            }
            if answers.values().all(|answer| *answer != Answer::Awaited) {
                return Ok(answers);
            }
            // Whether it was notified or not: it looks again.
            timeout_at(until.min(Instant::now() + LOOK), answered).await.ok();
        }
    }
}

fn say(broker: &Broker, node: &str, said: &Said) -> bool {
    postcard::to_allocvec(said).is_ok_and(|bytes| broker.router.send_control(node, &bytes))
}

impl Cluster {
    /// The other live nodes.
    ///
    /// # Errors
    /// [`ReloadError::Unreached`] if there is no link to one of them, or to NATS.
    fn linked(&self) -> Result<Vec<String>, ReloadError> {
        if !self.is_well() {
            let node = self.node().to_owned();
            return Err(ReloadError::Unreached { node, why: "is cut off from the others" });
        }
        let peers = self.view().peers;
        let live = peers.into_iter().filter(|peer| peer.live && peer.state != PeerState::Lost);
        live.map(|peer| match peer.state {
            PeerState::Linked => Ok(peer.node),
            PeerState::Joining | PeerState::Broken | PeerState::Lost => {
                Err(ReloadError::Unreached { node: peer.node, why: "has no link to this one at the moment" })
            }
        })
        .collect()
    }
}

impl Reloader {
    /// Reloads all nodes of the cluster from their files: all of it is put in force on all of them, or nothing anywhere.
    ///
    /// # Errors
    /// [`ReloadError`]; it names the node that is not this one. After [`ReloadError::Partly`], the others have the new
    /// configuration.
    pub async fn reload_all(&self, how: How, options: LoadOptions) -> Result<Reloaded, ReloadError> {
        let outcome = self.reload_all_nodes(how, options).await;
        if let Err(error) = &outcome {
            tracing::error!(%error, "the reload of all nodes was refused");
        }
        outcome
    }

    async fn reload_all_nodes(&self, how: How, options: LoadOptions) -> Result<Reloaded, ReloadError> {
        let mut asked = Asked::begin(self.broker())?;
        let (config, checked) = self.read(how, options).await?;
        asked.say(&Said::Prepare { id: asked.id, keeps_restart_keys: how.keeps_restart_keys });
        for (node, answer) in asked.answers().await? {
            if let Answer::Prepared(other) = answer
                && let Some(key) = digest::difference(&checked.digest, &other)
            {
                return Err(ReloadError::Differs { node, key });
            }
        }
        if how.dry_run {
            return Ok(checked);
        }
        // Here first: if this fails, nothing has changed anywhere.
        let reloaded = self.carry_out(how, Agreement::All, move || Ok(*config)).await?;
        asked.is_applied = true;
        asked.cluster.plane.reloads().await_again(&asked.nodes);
        asked.say(&Said::Apply { id: asked.id });
        match asked.answers().await {
            Ok(_) => Ok(reloaded),
            Err(ReloadError::Elsewhere { node, why }) => Err(ReloadError::Partly { node, why }),
            Err(ReloadError::Unreached { node, why }) => Err(ReloadError::Partly { node, why: why.to_owned() }),
            Err(error) => Err(error),
        }
    }

    /// Reads the configuration and checks it whole, and changes nothing.
    async fn read(&self, how: How, options: LoadOptions) -> Result<(Box<Config>, Reloaded), ReloadError> {
        let how = How { dry_run: true, ..how };
        let read = Arc::new(Mutex::new(None));
        let kept = Arc::clone(&read);
        let load = move || {
            let config = Config::load(options)?;
            *kept.lock() = Some(Box::new(config.clone()));
            Ok(config)
        };
        let checked = self.carry_out(how, Agreement::All, load).await?;
        let config = read.lock().take().ok_or(ReloadError::Ended)?;
        Ok((config, checked))
    }
}

impl Broker {
    /// Does what other nodes ask for in a reload of all, until the broker drains.
    pub(in crate::server) fn serve_reloads(self: &Arc<Self>) {
        let Some(controls) = self.cluster.as_ref().and_then(|cluster| cluster.plane.take_controls()) else { return };
        let (broker, draining) = (Arc::clone(self), self.draining.clone());
        self.handlers.spawn(async move {
            tokio::select! {
                () = draining.cancelled() => {}
                () = serve(broker, controls) => {}
            }
        });
    }

    async fn prepare(self: &Arc<Self>, node: &str, id: u64, keeps_restart_keys: bool) -> Said {
        let failed = |why: String| Said::Failed { id, why };
        let Some(cluster) = &self.cluster else { return failed(ReloadError::NoCluster.to_string()) };
        {
            let mut state = cluster.plane.reloads().state.lock();
            if state.is_busy(Instant::now()) {
                return failed(ReloadError::Busy.to_string());
            }
            let until = Instant::now() + KEPT;
            state.prepared = Some(Prepared { id, by: node.to_owned(), until, keeps_restart_keys, config: None });
        }
        let read = match self.source.get().filter(|options| options.file.is_some()).cloned() {
            Some(options) => {
                let how = How { dry_run: true, keeps_restart_keys };
                Reloader::new(Arc::clone(self)).read(how, options).await.map_err(|error| error.to_string())
            }
            None => Err("it was started without a configuration file".to_owned()),
        };
        let mut state = cluster.plane.reloads().state.lock();
        match read {
            Ok((config, Reloaded { digest, .. })) => {
                // It may have been given up meanwhile.
                if let Some(prepared) = state.prepared.as_mut().filter(|it| it.id == id) {
                    prepared.config = Some(config);
                }
                Said::Prepared { id, digest }
            }
            Err(why) => {
                state.prepared.take_if(|it| it.id == id);
                failed(cut(why))
            }
        }
    }

    async fn apply(self: &Arc<Self>, node: &str, id: u64) -> Said {
        let now = Instant::now();
        let is_it = |it: &mut Prepared| it.id == id && it.by == *node;
        let prepared = self.cluster.as_ref().and_then(|it| it.plane.reloads().state.lock().prepared.take_if(is_it));
        match prepared {
            Some(Prepared { config: Some(config), keeps_restart_keys, until, .. }) if now < until => {
                let how = How { dry_run: false, keeps_restart_keys };
                let reloader = Reloader::new(Arc::clone(self));
                match reloader.carry_out(how, Agreement::All, move || Ok(*config)).await {
                    Ok(_) => Said::Applied { id },
                    Err(error) => Said::Failed { id, why: cut(error.to_string()) },
                }
            }
            _ => Said::Failed { id, why: "it has nothing to put in force any more".to_owned() },
        }
    }

    fn abort(&self, node: &str, id: u64) {
        if let Some(cluster) = &self.cluster {
            cluster.plane.reloads().state.lock().prepared.take_if(|it| it.id == id && it.by == *node);
        }
    }
}

async fn serve(broker: Arc<Broker>, mut controls: mpsc::Receiver<Control>) {
    while let Some((node, bytes)) = controls.recv().await {
        let Ok(said) = postcard::from_bytes::<Said>(&bytes) else {
            tracing::warn!(node, "another node sent what this one does not understand");
            continue;
        };
        let Some(cluster) = &broker.cluster else { return };
        let reloads = cluster.plane.reloads();
        let answer = match said {
            Said::Prepare { id, keeps_restart_keys } => Some(broker.prepare(&node, id, keeps_restart_keys).await),
            Said::Apply { id } => Some(broker.apply(&node, id).await),
            Said::Abort { id } => {
                broker.abort(&node, id);
                None
            }
            Said::Prepared { id, digest } => {
                reloads.note(&node, id, Answer::Prepared(digest));
                None
            }
            Said::Failed { id, why } => {
                reloads.note(&node, id, Answer::Failed(why));
                None
            }
            Said::Applied { id } => {
                reloads.note(&node, id, Answer::Applied);
                None
            }
        };
        if let Some(answer) = answer {
            say(&broker, &node, &answer);
        }
    }
}

/// A configuration can have many mistakes.
fn cut(mut why: String) -> String {
    let end = why.floor_char_boundary(WHY_BYTES_MAX);
    why.truncate(end);
    why
}
