//! [`Balancer`]: passes connections on to the nodes of a cluster, as a load balancer does.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use switchboard_client::{Builder, Client};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Passes connections on to nodes in turn, as a load balancer does.
pub(crate) struct Balancer {
    pub(crate) address: SocketAddr,
    pub(crate) nodes: Arc<Mutex<Vec<SocketAddr>>>,
    _tasks: JoinSet<()>,
}

impl Balancer {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let nodes = Arc::new(Mutex::new(Vec::<SocketAddr>::new()));
        let mut tasks = JoinSet::new();
        let of_tasks = Arc::clone(&nodes);
        tasks.spawn(async move {
            let (mut connections, next) = (JoinSet::new(), AtomicUsize::new(0));
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let node = {
                    let nodes = of_tasks.lock();
                    nodes[next.fetch_add(1, Ordering::Relaxed) % nodes.len()]
                };
                connections.spawn(async move {
                    if let Ok(mut node) = TcpStream::connect(node).await {
                        copy_bidirectional(&mut client, &mut node).await.ok();
                    }
                });
            }
        });
        Self { address, nodes, _tasks: tasks }
    }

    /// A client that connects again soon, to any of the nodes.
    pub(crate) fn builder(&self, source: &str) -> Builder {
        let builder = Client::builder(format!("ws://{}/ws", self.address)).source(source);
        builder.backoff(Duration::from_millis(20), Duration::from_millis(200)).wait_for_broker(Duration::MAX)
    }
}
