//! A simulated Salesforce org for tests and demonstrations: REST, OAuth and the Pub/Sub API, as far as the broker uses
//! them.
//!
//! It uses none of the other packages: code shared with the adapter would share its mistakes. It is tested by clients
//! that were written elsewhere (`tests/python`, `tests/node`).
//!
//! Start at [`Org`]. A call goes through `serve` (connections), `faults`, `org` (dispatch) and the file of its
//! resource: `token`, `userinfo`, `introspection`, `versions`, `limits`, `query`, `sobjects`, `external`,
//! `collections`, `composite`, `describe`, `apex`, `gadget`. `pubsub` is the Pub/Sub API, `control` arms faults. Errors
//! have Salesforce's own texts.
//!
//! Its secrets and tokens are made up and kept in the clear: never give it real ones.

mod apex;
mod body;
mod call;
mod caller;
mod clock;
mod collections;
mod compare;
mod composite;
mod control;
mod describe;
mod external;
mod faults;
mod gadget;
mod id;
mod introspection;
mod jwt;
mod limits;
mod org;
mod pubsub;
mod query;
mod reply;
mod resolve;
mod schema;
mod seed;
mod serve;
mod sessions;
mod sobjects;
mod soql;
mod store;
mod tls;
mod token;
mod userinfo;
mod versions;
mod write;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

pub use control::HELP as CONTROL_HELP;
pub use faults::{Broken, Fault, Wrong};
pub use gadget::GadgetError;
pub use seed::{DEMO as DEMO_SEED, Seed, SeedError};
pub use serve::Seen;
pub use tls::TlsError;

use serve::Shared;

/// How an org is started.
pub struct Options {
    /// Where it listens; port 0 takes any.
    pub listen: SocketAddr,
    /// Whether it speaks https, with a certificate authority made at start.
    pub tls: bool,
    /// Its content.
    pub seed: Seed,
}

/// A running org. It stops when this is dropped.
pub struct Org {
    shared: Arc<Shared>,
    tasks: TaskTracker,
}

/// Why an org did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be used.
    #[error("could not listen on {0}: {1}")]
    Listen(SocketAddr, #[source] io::Error),
    /// No certificate could be made.
    #[error("could not make a certificate: {0}")]
    Tls(#[from] TlsError),
    /// The org's own key cannot be used.
    #[error(transparent)]
    Gadget(#[from] GadgetError),
    /// The seed has a mistake.
    #[error("seed: {0}")]
    Seed(#[from] SeedError),
}

impl Org {
    /// Starts an org on the current runtime. It is ready when this returns.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let told = |error| StartError::Listen(options.listen, error);
        let listener = TcpListener::bind(options.listen).await.map_err(told)?;
        let address = listener.local_addr().map_err(told)?;
        let authority = if options.tls { Some(tls::authority(address.ip())?) } else { None };
        let (acceptor, pem) = authority.map(|it| (it.acceptor, it.pem)).unzip();
        let shared = Arc::new(Shared::new(options.seed, address, pem)?);
        let tasks = shared.tasks.clone();
        tasks.spawn(serve::accept(Arc::clone(&shared), listener, acceptor, tasks.clone()));
        Ok(Self { shared, tasks })
    }

    /// Stops it, and returns when its address is free and its connections are closed: then the org is down.
    pub async fn stop(self) {
        self.shared.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Its address: `http://127.0.0.1:40000`.
    pub fn url(&self) -> String {
        self.shared.url()
    }

    /// The certificate authority that clients have to trust, if it speaks https.
    pub fn ca_pem(&self) -> Option<&str> {
        self.shared.ca_pem.as_deref()
    }

    /// The certificate of the key with which the org's Apex code signs tokens.
    pub fn certificate_pem(&self) -> &str {
        self.shared.signer.certificate_pem()
    }

    /// Arms a fault.
    pub fn fault(&self, fault: Fault) {
        self.shared.faults.lock().arm(fault);
    }

    /// Clears all faults.
    pub fn clear_faults(&self) {
        self.shared.faults.lock().clear();
    }

    /// Publishes a record on a topic, or says why it cannot.
    pub fn publish(&self, topic: &str, record: &serde_json::Map<String, serde_json::Value>) -> Result<(), String> {
        self.shared.publish(topic, record)
    }

    /// Sends an empty response on every stream of events.
    pub fn keep_alive(&self) {
        self.shared.bus.keep_alive();
    }

    /// How many streams of a topic are open.
    pub fn streams(&self, topic: &str) -> usize {
        self.shared.bus.streams(topic)
    }

    /// The most events that were ever requested on a stream and not delivered.
    pub fn owed_most(&self) -> usize {
        self.shared.bus.owed_most()
    }

    /// Expires every access token.
    pub fn expire_sessions(&self) {
        self.shared.expire_sessions();
    }

    /// Moves the org's time forward by this many seconds, or back by a negative number.
    pub fn shift_clock(&self, seconds: i32) {
        self.shared.clock.shift(seconds);
    }

    /// The calls that were answered, oldest first; the newest ten thousand of them.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen()
    }

    /// The number of logins.
    pub fn logins(&self) -> u64 {
        self.shared.counts().0
    }

    /// The number of API calls that counted against the daily limit.
    pub fn calls(&self) -> u64 {
        self.shared.counts().1
    }

    /// Forgets the calls and resets the counts.
    pub fn forget(&self) {
        self.shared.forget();
    }
}

impl Drop for Org {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}
