//! [`Listeners`]: every listener of the configuration, opened.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
#[cfg(unix)]
use std::sync::Weak;
use std::sync::atomic::Ordering;

use super::inherited::{Inherited, Place};
use super::listener::{self, Listener, Transport};
#[cfg(unix)]
use super::listener::{SocketFile, UnixError, UnixSocket};
use super::tls::{Acceptor, Tls};
use super::{BindError, Broker};
use crate::config::{AuthMode, Config, ListenAddress};

/// The listeners of a broker.
#[derive(Default)]
pub(super) struct Listeners {
    tcp: Vec<Listener>,
    #[cfg(unix)]
    unix: Vec<UnixSocket>,
    /// The addresses of those over TCP that do not encrypt.
    pub(super) addresses: Vec<SocketAddr>,
    /// The URLs of all of them, in the order of the configuration.
    pub(super) urls: Vec<String>,
}

impl Listeners {
    /// Opens them.
    pub(super) fn open(config: &Config, tls: Option<&Tls>, inherited: &mut Inherited) -> Result<Self, BindError> {
        if config.auth == AuthMode::Open
            && let Some(address) = all_addresses(config).find(|address| !address.is_loopback())
        {
            return Err(BindError::OpenBeyondLoopback(address));
        }
        let mut listeners = Self::default();
        for address in &config.listen {
            match listeners.add(config, address, inherited) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    return Err(BindError::InUse(address.clone()));
                }
                Err(error) if config.listen_is_default && is_ipv6(address) => {
                    tracing::warn!(
                        %address, %error,
                        "could not listen on the IPv6 loopback address; a browser that takes 'localhost' for it cannot connect"
                    );
                }
                Err(source) => return Err(BindError::Failed { address: address.clone(), source }),
            }
        }
        for (address, acceptor) in tls.into_iter().flat_map(|tls| encrypted(config, tls)) {
            let opened = listeners.add_tcp(address, Transport::Tls(acceptor), inherited.tcp(Place::Tls, address));
            opened.map_err(|source| match source.kind() {
                io::ErrorKind::AddrInUse => BindError::InUse(address.into()),
                _ => BindError::Failed { address: address.into(), source },
            })?;
        }
        if listeners.urls.is_empty() { Err(BindError::Nowhere) } else { Ok(listeners) }
    }

    fn add(&mut self, config: &Config, address: &ListenAddress, inherited: &mut Inherited) -> io::Result<()> {
        match address {
            ListenAddress::Tcp(address) => {
                let open = inherited.tcp(Place::Ws, *address);
                let address = self.add_tcp(*address, Transport::Plain, open)?;
                self.addresses.push(address);
            }
            #[cfg(unix)]
            ListenAddress::Unix(path) => {
                let socket = match inherited.unix(path) {
                    Some(open) => UnixSocket::inherited(path, open),
                    None => UnixSocket::open(path, !config.http.os_users.is_empty()),
                };
                let socket = socket.map_err(|error| match error {
                    UnixError::InUse => io::ErrorKind::AddrInUse.into(),
                    UnixError::Failed(error) => error,
                    UnixError::NotASocket | UnixError::Foreign => io::Error::other(error),
                })?;
                self.urls.push(socket.url());
                self.unix.push(socket);
            }
            #[cfg(not(unix))]
            ListenAddress::Unix(_) => return Err(io::ErrorKind::Unsupported.into()),
        }
        Ok(())
    }

    /// `open`: the listener, if it is open already.
    fn add_tcp(
        &mut self,
        address: SocketAddr,
        transport: Transport,
        open: Option<TcpListener>,
    ) -> io::Result<SocketAddr> {
        let is_inherited = open.is_some();
        let socket = match open {
            Some(open) => listener::inherited(open)?,
            None => listener::open(address)?,
        };
        let address = socket.local_addr()?;
        self.urls.push(format!("{}://{address}/ws", transport.scheme()));
        self.tcp.push(Listener { socket, transport, is_inherited });
        Ok(address)
    }

    /// Returns the files of the Unix sockets.
    pub(super) fn socket_files(&self) -> SocketFiles {
        SocketFiles {
            #[cfg(unix)]
            files: self.unix.iter().map(UnixSocket::file).collect(),
        }
    }

    /// Accepts and serves connections, each listener on a task of its own.
    pub(super) fn serve(self, broker: &Arc<Broker>) {
        let count = self.urls.len();
        broker.accepting.store(count, Ordering::Relaxed);
        for listener in self.tcp {
            broker.tasks.spawn(listener::serve(listener, Arc::clone(broker)));
        }
        #[cfg(unix)]
        for socket in self.unix {
            broker.tasks.spawn(listener::serve(socket, Arc::clone(broker)));
        }
    }
}

/// The files of the Unix sockets of a broker, as far as they are open.
pub(super) struct SocketFiles {
    #[cfg(unix)]
    files: Vec<Weak<SocketFile>>,
}

impl SocketFiles {
    /// Opens them to other users, or to the broker's alone. Returns a warning for each that stays as it is.
    #[cfg(unix)]
    pub(super) fn set_mode(&self, for_others: bool) -> Vec<String> {
        let open = self.files.iter().filter_map(Weak::upgrade);
        open.filter_map(|file| file.set_mode(for_others).err()).map(|error| error.to_string()).collect()
    }

    /// There are none.
    #[cfg(not(unix))]
    #[expect(clippy::unused_self, reason = "the same signature as on Unix")]
    pub(super) fn set_mode(&self, _for_others: bool) -> Vec<String> {
        Vec::new()
    }
}

fn all_addresses(config: &Config) -> impl Iterator<Item = ListenAddress> {
    config.listen.iter().cloned().chain(config.tls.addresses().map(|(_, address)| address.into()))
}

/// The addresses that encrypt, first those of `tls.listen`, with what shakes hands there.
fn encrypted(config: &Config, tls: &Tls) -> Vec<(SocketAddr, Arc<Acceptor>)> {
    let listen = config.tls.listen.iter().map(|address| (*address, tls.listen()));
    let for_clients = config.tls.client_listen.iter().zip(std::iter::repeat(tls.client_listen()));
    listen.chain(for_clients.filter_map(|(address, acceptor)| Some((*address, acceptor?)))).collect()
}

fn is_ipv6(address: &ListenAddress) -> bool {
    matches!(address, ListenAddress::Tcp(address) if address.is_ipv6())
}
