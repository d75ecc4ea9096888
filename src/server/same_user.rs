//! [`SameUser`]: which operating-system users of this host may connect (`http.same_user`, `http.os_users`).

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use hyper::StatusCode;

use super::listener::{PeerOwners, Remote};
use super::refusal::{Reason, Refusal};
use super::trial::Unusable;
use crate::config::Config;

/// The key that decides.
const KEY: &str = "http.same_user";

/// The answer to programs of other users.
const TEXT: &str = "this broker serves the user it runs as; see http.os_users and http.same_user";

/// Decides whether a connection is from an accepted user of this host, or from another host.
pub(super) struct SameUser {
    users: OsUsers,
    /// `None`: connections over TCP are accepted from all users.
    owners: Option<Arc<PeerOwners>>,
}

impl SameUser {
    /// Looks the users up, and tries whether the system names the user of a connection. Returns warnings, too.
    ///
    /// A reload keeps what `before` looks owners up with: it needs nothing from the system then that a program of another
    /// user could have used up.
    pub(super) fn open(config: &Config, before: Option<&Self>) -> Result<(Self, Vec<String>), Unusable> {
        let owners = match before.and_then(|before| before.owners.clone()) {
            _ if !config.is_for_same_user() => Ok(None),
            Some(owners) => Ok(Some(owners)),
            None => PeerOwners::open().map(|owners| owners.map(Arc::new)),
        };
        Self::with(config, owners)
    }

    fn with(config: &Config, owners: io::Result<Option<Arc<PeerOwners>>>) -> Result<(Self, Vec<String>), Unusable> {
        let users = OsUsers::find(&config.http.os_users)?;
        let owners = owners.map_err(|error| {
            Unusable::new(
                KEY,
                format!("the attempt to look up the operating-system user of a connection failed: {error}"),
            )
        })?;
        let mut warnings = Vec::new();
        if config.is_for_same_user() && owners.is_none() {
            let lack = "this system does not name the operating-system user of a connection";
            if config.http.same_user == Some(true) {
                return Err(Unusable::new(KEY, format!("cannot be true: {lack}")));
            }
            warnings.push(format!("http.same_user is off: {lack}, so programs of every user of this host can connect"));
        }
        if owners.is_some() {
            warnings.extend(users.warnings(&config.http.os_users));
        }
        Ok((Self { users, owners }, warnings))
    }

    /// Returns whether connections over TCP are looked up.
    pub(super) fn is_on(&self) -> bool {
        self.owners.is_some()
    }

    /// Returns whether this connection may be served. Asks the kernel, once for each connection over TCP.
    pub(super) async fn accepts(&self, from: Remote) -> bool {
        let (peer, local) = match from {
            Remote::Unix { uid } => return self.users.judge(uid),
            Remote::Tcp { peer, local } => (peer, local),
        };
        let Some(owners) = &self.owners else { return true };
        match owners.owner(peer, local).await {
            Some(uid) => self.users.judge(Some(uid)),
            // No open socket of this host is the other end.
            None if local.ip().to_canonical().is_loopback() || is_of_this_host(peer) => self.users.judge(None),
            None => true,
        }
    }
}

/// The refusal of a program of another user.
pub(super) fn refusal() -> Refusal {
    Refusal::new(StatusCode::FORBIDDEN, Reason::OsUser, TEXT).decided_by(KEY)
}

/// Returns whether an address may be one of this host's. The system refuses to bind a socket to any other; an error of
/// another kind says nothing about the address. With the system's setting `ip_nonlocal_bind`, all addresses are.
fn is_of_this_host(peer: SocketAddr) -> bool {
    let mut any_port = peer;
    any_port.set_port(0);
    !matches!(UdpSocket::bind(any_port), Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable)
}

/// The accepted users, by id.
struct OsUsers {
    accepted: Vec<u32>,
    /// Stands for all users that the kernel cannot name here, such as those of other user namespaces.
    overflow: u32,
}

#[cfg(unix)]
impl OsUsers {
    /// The user that the broker runs as, and those with these names.
    fn find(names: &[String]) -> Result<Self, Unusable> {
        let mut accepted = vec![rustix::process::geteuid().as_raw()];
        for (at, name) in names.iter().enumerate() {
            let wrong = |why: String| Unusable::new("http.os_users", format!("entry {at} {why}"));
            match nix::unistd::User::from_name(name) {
                Ok(Some(user)) => accepted.push(user.uid.as_raw()),
                Ok(None) => return Err(wrong(format!("names '{name}', which is not a user of this system"))),
                Err(error) => return Err(wrong(format!("names '{name}', which cannot be looked up: {error}"))),
            }
        }
        Ok(Self { accepted, overflow: overflow_uid() })
    }

    fn warnings(&self, names: &[String]) -> Vec<String> {
        let Self { accepted, overflow } = self;
        let is_overflow = |uid: Option<&u32>| uid == Some(overflow);
        let why =
            format!("the user id {overflow} stands for every user that the kernel cannot name, and is never accepted");
        let own = is_overflow(accepted.first()).then(|| {
            format!("the broker runs as a user that http.same_user refuses, and so do its applications: {why}")
        });
        let named = names.iter().zip(accepted.iter().skip(1)).filter(|(_, uid)| is_overflow(Some(uid)));
        own.into_iter().chain(named.map(|(name, _)| format!("http.os_users: '{name}' has no effect: {why}"))).collect()
    }
}

#[cfg(not(unix))]
impl OsUsers {
    fn find(names: &[String]) -> Result<Self, Unusable> {
        if names.is_empty() {
            return Ok(Self { accepted: Vec::new(), overflow: 0 });
        }
        Err(Unusable::new("http.os_users", "needs a system that names the operating-system user of a connection"))
    }

    fn warnings(&self, _names: &[String]) -> Vec<String> {
        Vec::new()
    }
}

impl OsUsers {
    /// Returns whether a connection of this user is accepted. `None`: its user is not known.
    fn judge(&self, uid: Option<u32>) -> bool {
        let is_accepted = uid.is_some_and(|uid| uid != self.overflow && self.accepted.contains(&uid));
        if !is_accepted {
            tracing::debug!(uid, "the connection is not from an accepted operating-system user");
        }
        is_accepted
    }
}

/// The user id that stands for those that do not fit into this user namespace.
#[cfg(unix)]
fn overflow_uid() -> u32 {
    let text = std::fs::read_to_string("/proc/sys/kernel/overflowuid").unwrap_or_default();
    text.trim().parse().unwrap_or(65_534)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Http;

    fn same_user(same_user: Option<bool>) -> Result<(SameUser, Vec<String>), Unusable> {
        let config = Config { http: Http { same_user, ..Http::default() }, ..Config::default() };
        SameUser::with(&config, Ok(None))
    }

    #[tokio::test]
    async fn where_the_system_names_no_users_it_is_off_and_said_so_and_true_is_an_error() {
        let from = |peer: &str| Remote::Tcp { peer: peer.parse().unwrap(), local: "127.0.0.1:7420".parse().unwrap() };
        let (off, warnings) = same_user(None).ok().unwrap();
        assert!(warnings.len() == 1 && warnings[0].starts_with("http.same_user is off: "), "{warnings:?}");
        assert!(off.accepts(from("127.0.0.1:40000")).await);
        let (_, warnings) = same_user(Some(false)).ok().unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        let fault = same_user(Some(true)).err().unwrap();
        assert_eq!(fault.key(), "http.same_user");
    }

    #[test]
    fn an_attempt_that_fails_is_an_error_and_does_not_turn_it_off() {
        let failed = || Err(io::Error::from_raw_os_error(24));
        let fault = SameUser::with(&Config::default(), failed()).err().unwrap();
        assert_eq!(fault.key(), "http.same_user");
        assert!(fault.message().contains("the attempt to look up"), "{fault}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_reload_keeps_the_way_in_which_owners_are_looked_up() {
        let owners = |same_user: &SameUser| same_user.owners.as_ref().map(Arc::as_ptr);
        let config = Config::default();
        let (first, _) = SameUser::open(&config, None).ok().unwrap();
        let (second, _) = SameUser::open(&config, Some(&first)).ok().unwrap();
        assert!(owners(&first).is_some() && owners(&first) == owners(&second));
        let off = Config { http: Http { same_user: Some(false), ..Http::default() }, ..Config::default() };
        assert_eq!(owners(&SameUser::open(&off, Some(&first)).ok().unwrap().0), None);
    }

    #[test]
    fn an_address_of_this_host_is_known() {
        for (address, expected) in
            [("127.0.0.1:1", true), ("127.1.2.3:1", true), ("[::1]:1", true), ("198.51.100.1:1", false)]
        {
            assert_eq!(is_of_this_host(address.parse().unwrap()), expected, "{address}");
        }
    }

    /// Without the interface that it belongs to, the system cannot bind a link-local address.
    #[test]
    fn an_address_that_cannot_be_tried_counts_as_one_of_this_host() {
        let address = "[fe80::1]:1".parse().unwrap();
        let error = UdpSocket::bind(address).unwrap_err();
        assert_ne!(error.kind(), io::ErrorKind::AddrNotAvailable);
        assert!(is_of_this_host(address));
    }

    #[cfg(unix)]
    #[test]
    fn only_the_own_user_and_named_ones_are_accepted_and_the_overflow_user_never() {
        let own = rustix::process::geteuid().as_raw();
        let alone = OsUsers::find(&[]).ok().unwrap();
        assert!(alone.judge(Some(own)) && !alone.judge(Some(own + 1)) && !alone.judge(None));
        let both = OsUsers { accepted: vec![own, 7, 65_534], overflow: 65_534 };
        assert!(both.judge(Some(7)) && !both.judge(Some(65_534)));
        let warnings = OsUsers { accepted: vec![65_534], overflow: 65_534 }.warnings(&[]);
        assert!(
            warnings.len() == 1 && warnings[0].contains("runs as a user that http.same_user refuses"),
            "{warnings:?}"
        );
        let unknown = OsUsers::find(&["no such user".to_owned()]).err().unwrap();
        assert!(unknown.key() == "http.os_users" && unknown.message().contains("entry 0"), "{unknown}");
    }
}
