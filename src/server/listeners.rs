//! [`Listeners`]: every listener of the configuration, opened.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;

use super::listener;
#[cfg(unix)]
use super::listener::{UnixError, UnixSocket};
use super::{BindError, Broker};
use crate::config::{AuthMode, Config, ListenAddress};

/// The listeners of a broker.
#[derive(Default)]
pub(super) struct Listeners {
    tcp: Vec<TcpListener>,
    #[cfg(unix)]
    unix: Vec<UnixSocket>,
    /// The addresses of those over TCP.
    pub(super) addresses: Vec<SocketAddr>,
    /// The URLs of all of them, in the order of the configuration.
    pub(super) urls: Vec<String>,
}

impl Listeners {
    /// Opens them.
    pub(super) fn open(config: &Config) -> Result<Self, BindError> {
        if config.auth == AuthMode::Open
            && let Some(address) = config.listen.iter().find(|address| !address.is_loopback())
        {
            return Err(BindError::OpenBeyondLoopback(address.clone()));
        }
        let mut listeners = Self::default();
        for address in &config.listen {
            match listeners.add(config, address) {
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
        if listeners.urls.is_empty() { Err(BindError::Nowhere) } else { Ok(listeners) }
    }

    fn add(&mut self, config: &Config, address: &ListenAddress) -> io::Result<()> {
        match address {
            ListenAddress::Tcp(address) => {
                let listener = listener::open(*address)?;
                let address = listener.local_addr()?;
                self.urls.push(format!("ws://{address}/ws"));
                self.addresses.push(address);
                self.tcp.push(listener);
            }
            #[cfg(unix)]
            ListenAddress::Unix(path) => {
                let socket = UnixSocket::open(path, !config.http.os_users.is_empty()).map_err(|error| match error {
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

    /// Accepts and serves connections, each listener on a task of its own.
    pub(super) fn serve(self, broker: &Arc<Broker>) {
        for listener in self.tcp {
            broker.tasks.spawn(listener::serve(listener, Arc::clone(broker)));
        }
        #[cfg(unix)]
        for socket in self.unix {
            broker.tasks.spawn(listener::serve(socket, Arc::clone(broker)));
        }
    }
}

fn is_ipv6(address: &ListenAddress) -> bool {
    matches!(address, ListenAddress::Tcp(address) if address.is_ipv6())
}
