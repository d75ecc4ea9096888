//! [`ServiceManager`]: tells systemd how the broker is (`sd_notify(3)`), and feeds its watchdog. Without systemd, does nothing.

use std::env;
use std::time::Duration;

#[cfg(unix)]
use std::os::unix::net::UnixDatagram;

use tokio::time::{Instant, sleep_until};

use crate::router::Router;

/// How often the number of sessions is looked at if there is no watchdog.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The shortest time between two looks.
const LOOK_MIN: Duration = Duration::from_millis(50);

/// The service manager that started the broker, if there is one.
#[derive(Default)]
pub(super) struct ServiceManager {
    #[cfg(unix)]
    socket: Option<UnixDatagram>,
    /// The time after which the broker is restarted if nothing has fed the watchdog.
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// The one that `NOTIFY_SOCKET` names. The variables are left to `serve` alone: it starts no programs.
    pub(super) fn from_environment() -> Self {
        let microseconds = env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse().ok());
        let is_own = env::var("WATCHDOG_PID").map_or(true, |process| process == std::process::id().to_string());
        Self {
            #[cfg(unix)]
            socket: env::var_os("NOTIFY_SOCKET").and_then(|name| match connect(&name) {
                Ok(socket) => Some(socket),
                Err(error) => {
                    tracing::warn!(%error, "the service manager cannot be notified (NOTIFY_SOCKET)");
                    None
                }
            }),
            watchdog: microseconds.filter(|_| is_own).filter(|it| *it > 0).map(Duration::from_micros),
        }
    }

    /// Connections are accepted, or a reload is over.
    pub(super) fn ready(&self) {
        self.notify("READY=1");
    }

    /// A reload begins.
    pub(super) fn reloading(&self) {
        #[cfg(unix)]
        {
            let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
            let (seconds, nanos) = (now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs());
            let microseconds = seconds.saturating_mul(1_000_000).saturating_add(nanos / 1000);
            self.notify(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}"));
        }
    }

    /// The drain begins.
    pub(super) fn stopping(&self) {
        self.notify("STOPPING=1\nSTATUS=draining");
    }

    /// Reports the number of sessions when it has changed. Feeds the watchdog after taking the router's locks, so that a stuck
    /// router does not feed it. Never ready. For a task of the runtime that serves the sessions.
    pub(super) async fn watch(&self, router: &Router) {
        if !self.is_there() {
            return std::future::pending().await;
        }
        let every = self.watchdog.map_or(LOOK_EVERY, |limit| (limit / 3).clamp(LOOK_MIN, LOOK_EVERY));
        let mut told = None;
        loop {
            let sessions = router.size().sessions;
            if told.replace(sessions) != Some(sessions) {
                let noun = if sessions == 1 { "session" } else { "sessions" };
                self.notify(&format!("STATUS={sessions} {noun}"));
            }
            if self.watchdog.is_some() {
                self.notify("WATCHDOG=1");
            }
            sleep_until(Instant::now() + every).await;
        }
    }

    #[cfg(unix)]
    fn is_there(&self) -> bool {
        self.socket.is_some()
    }

    #[cfg(not(unix))]
    #[expect(clippy::unused_self, reason = "the same signature as on Unix")]
    fn is_there(&self) -> bool {
        false
    }

    /// Sends a message. If it is lost, the broker goes on.
    #[cfg(unix)]
    fn notify(&self, message: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(message.as_bytes())
        {
            tracing::debug!(%error, "the service manager was not notified");
        }
    }

    #[cfg(not(unix))]
    #[expect(clippy::unused_self, reason = "the same signature as on Unix")]
    fn notify(&self, _message: &str) {}
}

/// Connects to a socket at a path, or to an abstract one (`@NAME`, Linux).
#[cfg(unix)]
fn connect(name: &std::ffi::OsStr) -> std::io::Result<UnixDatagram> {
    use std::os::unix::ffi::OsStrExt as _;

    let socket = UnixDatagram::unbound()?;
    // A manager that reads nothing must not stop the broker.
    socket.set_nonblocking(true)?;
    match name.as_bytes().strip_prefix(b"@") {
        #[cfg(target_os = "linux")]
        Some(name) => {
            use std::os::linux::net::SocketAddrExt as _;
            socket.connect_addr(&std::os::unix::net::SocketAddr::from_abstract_name(name)?)?;
        }
        _ => socket.connect(name_of(name))?,
    }
    Ok(socket)
}

#[cfg(unix)]
fn name_of(name: &std::ffi::OsStr) -> &std::path::Path {
    std::path::Path::new(name)
}
