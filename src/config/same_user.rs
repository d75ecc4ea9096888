//! `http.same_user` and `http.os_users`: which operating-system users of the broker's own host may connect.

use super::reference::Key;
use super::slot::Slot;
use super::text;
use super::{Config, ListenAddress};

/// The keys.
pub(crate) static SAME_USER_KEYS: &[Key<Config>] = &[
    Key {
        name: "http.same_user",
        slot: Slot::Choice(|it, is_on| it.http.same_user = Some(is_on)),
        default: "`true` if every listener is loopback or a Unix socket, otherwise `false`",
        unit: "",
        meaning: "Whether connections of programs on the broker's own host are accepted only from the operating-system user \
                  that the broker runs as, and from `http.os_users`. Others get 403. On a system that cannot name the \
                  user of a connection (all but Linux), the default is off, and `true` is an error.",
    },
    Key {
        name: "http.os_users",
        slot: Slot::Texts(text::name, |it| &mut it.http.os_users),
        default: "[]",
        unit: "",
        meaning: "Names of further operating-system users of this host that may connect. With an entry, Unix sockets have \
                  mode 0666 instead of 0600.",
    },
];

impl Config {
    /// Whether `http.same_user` is on, by itself or by its default.
    #[must_use]
    pub fn is_for_same_user(&self) -> bool {
        self.http.same_user.unwrap_or_else(|| self.is_local())
    }

    /// Whether every listener is loopback or a Unix socket.
    fn is_local(&self) -> bool {
        let mut encrypted = self.tls.addresses();
        self.listen.iter().all(ListenAddress::is_loopback)
            && encrypted.all(|(_, address)| address.ip().to_canonical().is_loopback())
    }
}

/// Warnings about settings that are valid but probably a mistake.
pub(crate) fn warnings(config: &Config) -> Vec<String> {
    let has_sockets = config.listen.iter().any(|address| matches!(address, ListenAddress::Unix(_)));
    let turned_off = config.http.same_user == Some(false) && config.is_local();
    let without_effect = !config.http.os_users.is_empty() && !config.is_for_same_user() && !has_sockets;
    let off = "http.same_user is false: programs of every user of this host can connect";
    let nobody_else = "http.os_users has no effect: http.same_user is off, and there is no Unix socket";
    let all = [(turned_off, off), (without_effect, nobody_else)];
    all.into_iter().filter(|(applies, _)| *applies).map(|(_, text)| text.to_owned()).collect()
}
