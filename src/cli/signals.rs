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
pub(super) struct Hangups(Arrivals);

impl Hangups {
    /// Keeps SIGHUP waiting until [`Hangups::new`], which has to be called on the same thread. Otherwise one that arrives
    /// during the start would end the broker. Threads that are started meanwhile leave it to this one.
    #[cfg(unix)]
    pub(super) fn hold() -> io::Result<()> {
        Ok(hangup().thread_block()?)
    }

    #[cfg(not(unix))]
    #[expect(clippy::unnecessary_wraps, reason = "the same signature as on Unix")]
    pub(super) fn hold() -> io::Result<()> {
        Ok(())
    }

    pub(super) fn new() -> io::Result<Self> {
        let arrivals = Arrivals::of(Repeated::Hangup)?;
        #[cfg(unix)]
        hangup().thread_unblock()?;
        Ok(Self(arrivals))
    }

    /// Waits for SIGHUP.
    pub(super) async fn next(&mut self) {
        self.0.next().await;
    }
}

/// Receives SIGUSR1, from the moment it is made. Several that arrive while none is waited for count as one.
pub(super) struct UserSignals(Arrivals);

impl UserSignals {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(Arrivals::of(Repeated::User)?))
    }

    /// Waits for SIGUSR1.
    pub(super) async fn next(&mut self) {
        self.0.next().await;
    }
}

/// A signal that does not end the broker.
#[derive(Clone, Copy)]
enum Repeated {
    /// SIGHUP.
    Hangup,
    /// SIGUSR1.
    User,
}

/// Receives such a signal. Other systems than Unix do not have them.
struct Arrivals {
    #[cfg(unix)]
    signal: tokio::signal::unix::Signal,
}

impl Arrivals {
    #[cfg(unix)]
    fn of(signal: Repeated) -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal as receive};
        let kind = match signal {
            Repeated::Hangup => SignalKind::hangup(),
            Repeated::User => SignalKind::user_defined1(),
        };
        Ok(Self { signal: receive(kind)? })
    }

    #[cfg(unix)]
    async fn next(&mut self) {
        self.signal.recv().await;
    }

    #[cfg(not(unix))]
    #[expect(clippy::unnecessary_wraps, reason = "the same signature as on Unix")]
    fn of(_signal: Repeated) -> io::Result<Self> {
        Ok(Self {})
    }

    /// Never returns.
    #[cfg(not(unix))]
    async fn next(&mut self) {
        std::future::pending::<()>().await;
    }
}

#[cfg(unix)]
fn hangup() -> nix::sys::signal::SigSet {
    let mut set = nix::sys::signal::SigSet::empty();
    set.add(nix::sys::signal::Signal::SIGHUP);
    set
}
