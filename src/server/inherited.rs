//! [`Inherited`]: listeners that a service manager has opened for the broker (socket activation, `sd_listen_fds(3)`).

use std::env;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
#[cfg(unix)]
use std::os::unix::net::UnixListener;
#[cfg(unix)]
use std::path::{Path, PathBuf};

use listenfd::ListenFd;

/// Listeners that are open already. Each takes the place of one that the broker would open at the same address.
#[derive(Default)]
pub struct Inherited {
    tcp: Vec<(Place, SocketAddr, TcpListener)>,
    #[cfg(unix)]
    unix: Vec<(PathBuf, UnixListener)>,
}

/// Which listener of the configuration a socket is for: `FileDescriptorName=` of its socket unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// `ws`: in place of those of `listen`.
    Ws,
    /// `tls`: an address of `tls.listen` or `tls.client_listen`.
    Tls,
    /// `admin`: an address of `admin.listen`.
    Admin,
}

impl Place {
    fn of(name: &str) -> Option<Self> {
        [Self::Ws, Self::Tls, Self::Admin].into_iter().find(|place| place.name() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Ws => "ws",
            Self::Tls => "tls",
            Self::Admin => "admin",
        }
    }

    /// The keys that name its addresses.
    fn keys(self) -> &'static str {
        match self {
            Self::Ws => "listen",
            Self::Tls => "tls.listen or tls.client_listen",
            Self::Admin => "admin.listen",
        }
    }
}

/// Why a socket of the service manager cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    /// Its name does not say which listener it is.
    #[error("the service manager passed a socket named '{0}'; FileDescriptorName= must be ws, tls or admin")]
    Name(String),
    /// It is not a listener that the broker can use.
    #[error("the socket '{name}' of the service manager cannot be used")]
    Socket {
        /// Its name.
        name: String,
        /// The system's error.
        source: io::Error,
    },
    /// The configuration has no such listener.
    #[error("the service manager passed {address} as '{name}', but {keys} does not have this address")]
    Unused {
        /// Its address.
        address: String,
        /// Its name.
        name: &'static str,
        /// The keys that would have it.
        keys: &'static str,
    },
}

impl Inherited {
    /// Takes the sockets that the environment names, and removes its variables. To be called before there are other threads.
    ///
    /// # Errors
    /// [`InheritError`].
    pub fn take() -> Result<Self, InheritError> {
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut sockets = ListenFd::from_env();
        let mut inherited = Self::default();
        for at in 0..sockets.len() {
            let name = names.next().unwrap_or_default();
            let place = Place::of(name).ok_or_else(|| InheritError::Name(name.to_owned()))?;
            inherited
                .add(place, &mut sockets, at)
                .map_err(|source| InheritError::Socket { name: name.to_owned(), source })?;
        }
        Ok(inherited)
    }

    fn add(&mut self, place: Place, sockets: &mut ListenFd, at: usize) -> io::Result<()> {
        #[cfg(unix)]
        if place == Place::Ws
            && let Ok(Some(listener)) = sockets.take_unix_listener(at)
        {
            let path = listener.local_addr()?.as_pathname().map(Path::to_owned);
            let path = path.ok_or_else(|| io::Error::other("a Unix socket needs a path"))?;
            listener.set_nonblocking(true)?;
            self.unix.push((path, listener));
            return Ok(());
        }
        let listener = sockets.take_tcp_listener(at)?.ok_or(io::ErrorKind::NotFound)?;
        listener.set_nonblocking(true)?;
        self.tcp.push((place, listener.local_addr()?, listener));
        Ok(())
    }

    /// The addresses that take the place of those of `listen`, as `--listen` takes them.
    #[must_use]
    pub fn listen(&self) -> Vec<String> {
        let tcp = self.tcp.iter().filter(|(place, ..)| *place == Place::Ws).map(|(_, address, _)| address.to_string());
        #[cfg(unix)]
        let tcp = tcp.chain(self.unix.iter().map(|(path, _)| format!("unix:{}", path.display())));
        tcp.collect()
    }

    /// Takes the listener at this address.
    pub(super) fn tcp(&mut self, wanted: Place, at: SocketAddr) -> Option<TcpListener> {
        let found = self.tcp.iter().position(|(place, address, _)| (*place, *address) == (wanted, at))?;
        Some(self.tcp.swap_remove(found).2)
    }

    /// Takes the listener at this path.
    #[cfg(unix)]
    pub(super) fn unix(&mut self, at: &Path) -> Option<UnixListener> {
        let found = self.unix.iter().position(|(path, _)| path == at)?;
        Some(self.unix.swap_remove(found).1)
    }

    /// Checks that each has been taken.
    ///
    /// # Errors
    /// The first that was not.
    pub(super) fn check_taken(&self) -> Result<(), InheritError> {
        let unused = |place: Place, address: &dyn fmt::Display| InheritError::Unused {
            address: address.to_string(),
            name: place.name(),
            keys: place.keys(),
        };
        #[cfg(unix)]
        if let Some((path, _)) = self.unix.first() {
            return Err(unused(Place::Ws, &path.display()));
        }
        self.tcp.first().map_or(Ok(()), |(place, address, _)| Err(unused(*place, address)))
    }
}
