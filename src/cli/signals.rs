//! [`Signals`]: the signals that end the broker. [`Hangups`]: SIGHUP, which reloads its configuration.
//! [`UserSignals`]: SIGUSR1, which writes the flight recorder to a file.

use std::io;

/// Receives the signals that end the broker, from the moment it is made.
pub(super) struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    pub(super) fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for SIGTERM or SIGINT.
    #[cfg(unix)]
    pub(super) async fn ending(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    #[cfg(not(unix))]
    #[expect(clippy::unnecessary_wraps, reason = "the same signature as on Unix")]
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {})
    }

    /// Waits for Ctrl-C.
    #[cfg(not(unix))]
    pub(super) async fn ending(&mut self) {
        tokio::signal::ctrl_c().await.ok();
    }
}

/// Receives SIGHUP, from the moment it is made. Several that arrive while none is waited for count as one.
pub(super) struct Hangups {
    #[cfg(unix)]
    signal: tokio::signal::unix::Signal,
}

impl Hangups {
    /// Keeps SIGHUP waiting until [`Hangups::new`], which has to be called on the same thread. Otherwise one that arrives
    /// during the start would end the broker. Threads that are started meanwhile leave it to this one.
    #[cfg(unix)]
    pub(super) fn hold() -> io::Result<()> {
        Ok(hangup().thread_block()?)
    }

    #[cfg(unix)]
    pub(super) fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let signal = signal(SignalKind::hangup())?;
        hangup().thread_unblock()?;
        Ok(Self { signal })
    }

    /// Waits for SIGHUP.
    #[cfg(unix)]
    pub(super) async fn next(&mut self) {
        self.signal.recv().await;
    }

    #[cfg(not(unix))]
    #[expect(clippy::unnecessary_wraps, reason = "the same signature as on Unix")]
    pub(super) fn hold() -> io::Result<()> {
        Ok(())
    }

    #[cfg(not(unix))]
    #[expect(clippy::unnecessary_wraps, reason = "the same signature as on Unix")]
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {})
    }

    /// Never returns: this system has no SIGHUP.
    #[cfg(not(unix))]
    pub(super) async fn next(&mut self) {
        std::future::pending::<()>().await;
    }
}

/// Receives SIGUSR1, from the moment it is made. Several that arrive while none is waited for count as one.
pub(super) struct UserSignals {
    #[cfg(unix)]
    signal: tokio::signal::unix::Signal,
}

impl UserSignals {
    #[cfg(unix)]
    pub(super) fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { signal: signal(SignalKind::user_defined1())? })
    }

    /// Waits for SIGUSR1.
    #[cfg(unix)]
    pub(super) async fn next(&mut self) {
        self.signal.recv().await;
    }

    #[cfg(not(unix))]
    #[expect(clippy::unnecessary_wraps, reason = "the same signature as on Unix")]
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {})
    }

    /// Never returns: this system has no SIGUSR1.
    #[cfg(not(unix))]
    pub(super) async fn next(&mut self) {
        std::future::pending::<()>().await;
    }
}

#[cfg(unix)]
fn hangup() -> nix::sys::signal::SigSet {
    let mut set = nix::sys::signal::SigSet::empty();
    set.add(nix::sys::signal::Signal::SIGHUP);
    set
}
