//! Real NATS servers, and brokers that are nodes of a cluster on them.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::routes::Proxy;
use crate::support::programs::python;
use crate::support::{Broker, signal, within};

/// The key of a cluster.
pub(crate) const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// NATS servers that know each other.
pub(crate) struct Servers {
    all: Vec<Server>,
    program: PathBuf,
    folder: TempDir,
    /// What the connections between them go through, if they do.
    proxies: Vec<Proxy>,
}

struct Server {
    child: Child,
    port: u16,
    config: PathBuf,
}

/// A port that is free now. The servers have to know each other's before they start.
fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

impl Servers {
    /// This many servers. `None`: this machine has no Python, with whose packages nats-server is installed.
    pub(crate) async fn start(count: usize) -> Option<Self> {
        Self::start_as(count, false, "").await
    }

    /// The same with proxies between them, so that routes can break.
    pub(crate) async fn start_with_proxies(count: usize) -> Option<Self> {
        Self::start_as(count, true, "").await
    }

    /// One server with more lines in its configuration.
    pub(crate) async fn start_configured(more: &str) -> Option<Self> {
        Self::start_as(1, false, more).await
    }

    async fn start_as(count: usize, has_proxies: bool, more: &str) -> Option<Self> {
        let program = python().await?.parent().unwrap().join("nats-server");
        assert!(program.exists(), "no nats-server in target/python: run ./test, which installs it");
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("key");
        std::fs::write(&key, KEY).unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
        let (ports, routes): (Vec<_>, Vec<_>) = (0..count).map(|_| (free_port(), free_port())).unzip();
        let listeners: Vec<_> = match has_proxies {
            true => routes.iter().map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).collect(),
            false => Vec::new(),
        };
        // What a server is reached at by the others.
        let reached: Vec<_> = match has_proxies {
            true => listeners.iter().map(|it| it.local_addr().unwrap().port()).collect(),
            false => routes.clone(),
        };
        let proxies = listeners.into_iter().zip(&routes).map(|(listener, port)| Proxy::new(listener, *port)).collect();
        let all: Vec<_> = reached.iter().map(|port| format!("nats-route://127.0.0.1:{port}")).collect();
        let mut servers = Self { all: Vec::new(), program, folder, proxies };
        for (number, port) in ports.into_iter().enumerate() {
            let (name, route, routes) = (format!("nats-{number}"), routes[number], all.join(", "));
            let config = servers.folder.path().join(format!("{name}.conf"));
            let cluster = match count {
                1 => String::new(),
                _ => format!(
                    "cluster {{ name: test, listen: \"127.0.0.1:{route}\", cluster_advertise: \"127.0.0.1:{}\", \
                     routes: [{routes}], ping_interval: \"1s\", ping_max: 2 }}\n",
                    reached[number]
                ),
            };
            let text = format!(
                "server_name: {name}\nlisten: \"127.0.0.1:{port}\"\nping_interval: \"1s\"\nping_max: 2\n\
                 jetstream {{ store_dir: \"{}\" }}\nlog_file: \"{}\"\n{cluster}{more}",
                servers.folder.path().join(&name).display(),
                servers.folder.path().join(format!("{name}.log")).display()
            );
            std::fs::write(&config, text).unwrap();
            let child = servers.spawn(&config);
            servers.all.push(Server { child, port, config });
        }
        for server in &servers.all {
            server.answers().await;
        }
        Some(servers)
    }

    fn spawn(&self, config: &PathBuf) -> Child {
        let mut command = Command::new(&self.program);
        command.arg("-c").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.kill_on_drop(true).spawn().unwrap()
    }

    /// Breaks all routes, or lets them heal.
    pub(crate) fn set_routes_broken(&self, are_broken: bool) {
        self.proxies.iter().for_each(|proxy| proxy.set_broken(are_broken));
    }

    /// Ends a server at once.
    pub(crate) async fn kill(&mut self, server: usize) {
        self.all[server].child.kill().await.unwrap();
    }

    /// Starts a server again that was killed.
    pub(crate) async fn restart(&mut self, server: usize) {
        let config = self.all[server].config.clone();
        self.all[server].child = self.spawn(&config);
        self.all[server].answers().await;
    }

    /// Sends a server a signal.
    pub(crate) async fn signal(&self, server: usize, name: &str) {
        signal(&self.all[server].child, name).await;
    }

    /// The server that leads a stream.
    pub(crate) async fn leader_of(&self, stream: &str) -> usize {
        let client = async_nats::connect(self.url(0)).await.unwrap();
        let stream = async_nats::jetstream::new(client).get_stream(stream).await.unwrap();
        let leader = stream.cached_info().cluster.as_ref().and_then(|cluster| cluster.leader.clone()).unwrap();
        leader.strip_prefix("nats-").unwrap().parse().unwrap()
    }

    /// Waits until a stream has this many messages at least, and returns how many it has.
    pub(crate) async fn wait_for_messages(&self, stream: &str, count: u64) -> u64 {
        let context = async_nats::jetstream::new(async_nats::connect(self.url(0)).await.unwrap());
        let mut often = tokio::time::interval(Duration::from_millis(2));
        loop {
            often.tick().await;
            if let Ok(stream) = context.get_stream(stream).await
                && stream.cached_info().state.messages >= count
            {
                return stream.cached_info().state.messages;
            }
        }
    }

    /// Whether a file of a server has this text.
    pub(crate) fn have_on_disk(&self, text: &str) -> bool {
        let mut folders = vec![self.folder.path().to_owned()];
        let mut files = 0;
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                    continue;
                }
                files += 1;
                let bytes = std::fs::read(entry.path()).unwrap();
                if bytes.windows(text.len()).any(|part| part == text.as_bytes()) {
                    return true;
                }
            }
        }
        assert!(files > 5, "JetStream has no files here");
        false
    }

    /// What a server has logged.
    pub(crate) fn log(&self, server: usize) -> String {
        std::fs::read_to_string(self.folder.path().join(format!("nats-{server}.log"))).unwrap()
    }

    /// The address of a server.
    pub(crate) fn url(&self, server: usize) -> String {
        format!("nats://127.0.0.1:{}", self.all[server].port)
    }

    /// `[cluster]` of a node, which tries this server first.
    pub(crate) fn table(&self, node: &str, first: usize) -> String {
        let count = self.all.len();
        let urls: Vec<_> = (0..count).map(|it| format!("\"{}\"", self.url((first + it) % count))).collect();
        let key = self.folder.path().join("key");
        format!(
            "[cluster]\nname = \"test\"\nnode = \"{node}\"\nservers = [{}]\nkey_file = \"{}\"\n",
            urls.join(", "),
            key.display()
        )
    }

    /// The same with another file of keys.
    pub(crate) fn table_with_keys(&self, node: &str, keys: &str) -> String {
        let table = self.table(node, 0);
        let lines: Vec<_> = table.lines().filter(|line| !line.starts_with("key_file")).collect();
        format!("{}\nkey_file = \"{}\"\n", lines.join("\n"), self.key_file(keys).display())
    }

    /// A node in open mode, which tries this server first.
    pub(crate) async fn node(&self, node: &str, first: usize) -> Broker {
        Broker::open_with(&self.table(node, first)).await
    }

    /// Two nodes in open mode with admin listeners, each with what its file begins with: its tables, then `more` for both.
    pub(crate) async fn administered(&self, more: &str) -> [(Broker, String); 2] {
        let table = |node: &str| {
            let cluster = self.table(node, 0);
            format!("{cluster}[auth]\nmode = 'open'\n[admin]\nlisten = ['127.0.0.1:0']\n{more}")
        };
        let [one, two] = ["one", "two"].map(table);
        let nodes = tokio::join!(Broker::with_config(&one), Broker::with_config(&two));
        [(nodes.0, one), (nodes.1, two)]
    }

    /// Writes another file of keys. Returns its path.
    pub(crate) fn key_file(&self, text: &str) -> PathBuf {
        let files = std::fs::read_dir(self.folder.path()).unwrap().count();
        let path = self.folder.path().join(format!("key-{files}"));
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    }
}

impl Server {
    async fn answers(&self) {
        let mut often = tokio::time::interval(Duration::from_millis(10));
        within("a NATS server", async {
            while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
                often.tick().await;
            }
        })
        .await;
    }
}
