//! `[tls]`: the certificate, and the listeners that encrypt.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::Config;
use super::mistake::Report;
use super::reference::Key;
use super::rules::Places;
use super::slot::{Slot, Word};

/// `[tls]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// `certificate_file`: the chain, the broker's own certificate first.
    pub certificate_file: Option<PathBuf>,
    /// `key_file`
    pub key_file: Option<PathBuf>,
    /// `minimum`
    pub minimum: TlsVersion,
    /// `listen`; port 0 asks the system for one.
    pub listen: Vec<SocketAddr>,
    /// `client_listen`: listeners that ask for a client certificate.
    pub client_listen: Vec<SocketAddr>,
    /// `client_ca_file`: the authorities of client certificates.
    pub client_ca_file: Option<PathBuf>,
    /// `client_required`: whether `client_listen` refuses clients without a certificate.
    pub client_required: bool,
}

impl Tls {
    /// Whether there is a listener that encrypts.
    #[must_use]
    pub fn listens(&self) -> bool {
        !self.listen.is_empty() || !self.client_listen.is_empty()
    }

    /// Returns its listeners with the key that names each: first those of `listen`.
    pub fn addresses(&self) -> impl Iterator<Item = (&'static str, SocketAddr)> {
        let listen = self.listen.iter().map(|address| (LISTEN, *address));
        listen.chain(self.client_listen.iter().map(|address| (CLIENT_LISTEN, *address)))
    }
}

impl Config {
    /// Whether some listener encrypts, the admin listener included.
    #[must_use]
    pub fn uses_tls(&self) -> bool {
        self.tls.listens() || self.admin.encrypts()
    }
}

/// `tls.minimum`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2 and 1.3.
    #[default]
    Tls12,
    /// TLS 1.3 alone.
    Tls13,
}

const CERTIFICATE_FILE: &str = "tls.certificate_file";
const KEY_FILE: &str = "tls.key_file";
const LISTEN: &str = "tls.listen";
const CLIENT_LISTEN: &str = "tls.client_listen";
const CLIENT_CA_FILE: &str = "tls.client_ca_file";

/// Where an application that a certificate proves is written.
pub(crate) const CERTIFICATE_ROW: &str = "applications.certificate";

/// The keys.
pub(crate) static TLS_KEYS: &[Key<Config>] = &[
    Key {
        name: CERTIFICATE_FILE,
        slot: Slot::Path(|it, path| it.tls.certificate_file = Some(path)),
        default: "required with `tls.listen`",
        unit: "",
        meaning: "The broker's certificate (PEM), followed by those of the authorities between it and the root.",
    },
    Key {
        name: KEY_FILE,
        slot: Slot::Path(|it, path| it.tls.key_file = Some(path)),
        default: "required with `tls.listen`",
        unit: "",
        meaning: "The private key of the certificate (PEM, without a passphrase). Its group may read the file, others may not.",
    },
    Key {
        name: "tls.minimum",
        slot: Slot::Word(&[
            Word { word: "1.2", put: |it| it.tls.minimum = TlsVersion::Tls12 },
            Word { word: "1.3", put: |it| it.tls.minimum = TlsVersion::Tls13 },
        ]),
        default: r#""1.2""#,
        unit: "",
        meaning: "The oldest version of TLS that is accepted.",
    },
    Key {
        name: LISTEN,
        slot: Slot::TcpAddresses(|it| &mut it.tls.listen),
        default: "[]",
        unit: "",
        meaning: "Where to listen for `wss://`, beside `listen`. With it, `listen` can be empty.",
    },
    Key {
        name: CLIENT_LISTEN,
        slot: Slot::TcpAddresses(|it| &mut it.tls.client_listen),
        default: "[]",
        unit: "",
        meaning: "The same, where clients are asked for a certificate. Not for browsers: Chromium drops a WebSocket whose \
                  server asks for one.",
    },
    Key {
        name: CLIENT_CA_FILE,
        slot: Slot::Path(|it, path| it.tls.client_ca_file = Some(path)),
        default: "required with `tls.client_listen`",
        unit: "",
        meaning: "The authorities (PEM) whose client certificates are accepted.",
    },
    Key {
        name: "tls.client_required",
        slot: Slot::Switch(|it| &mut it.tls.client_required),
        default: "false",
        unit: "",
        meaning: "Whether `tls.client_listen` refuses a client that has no certificate.",
    },
];

/// Checks what the keys of `[tls]` say to each other.
pub(crate) fn check(config: &Config, places: &Places, report: &mut Report) {
    let tls = &config.tls;
    for (key, listens) in [(LISTEN, !tls.listen.is_empty()), (CLIENT_LISTEN, !tls.client_listen.is_empty())] {
        let Some(place) = places.written(key).filter(|_| listens) else { continue };
        for (needed, written) in [(CERTIFICATE_FILE, &tls.certificate_file), (KEY_FILE, &tls.key_file)] {
            if written.is_none() {
                report.add(place, key, format!("needs {needed}"));
            }
        }
    }
    if let Some(place) = places.written(CLIENT_LISTEN)
        && !tls.client_listen.is_empty()
        && tls.client_ca_file.is_none()
    {
        report.add(
            place,
            CLIENT_LISTEN,
            format!("needs {CLIENT_CA_FILE}: the authorities of the clients' certificates"),
        );
    }
    if let Some(place) = places.written(CERTIFICATE_ROW)
        && tls.client_ca_file.is_none()
    {
        let message = "is missing: an application with certificate or certificate_sha256 needs the authorities of its \
                       certificates";
        report.add(place, CLIENT_CA_FILE, message);
    }
    for (written, other, missing) in
        [(CERTIFICATE_FILE, KEY_FILE, &tls.key_file), (KEY_FILE, CERTIFICATE_FILE, &tls.certificate_file)]
    {
        if let (Some(place), None, false) = (places.written(written), missing, config.uses_tls()) {
            report.add(place, written, format!("needs {other} beside it"));
        }
    }
}

/// Warnings about settings that are valid but probably a mistake.
pub(crate) fn warnings(config: &Config) -> impl Iterator<Item = String> {
    let tls = &config.tls;
    let unused = [
        (tls.certificate_file.is_some() && !config.uses_tls(), CERTIFICATE_FILE, LISTEN),
        (tls.client_ca_file.is_some() && tls.client_listen.is_empty(), CLIENT_CA_FILE, CLIENT_LISTEN),
        (tls.client_required && tls.client_listen.is_empty(), "tls.client_required", CLIENT_LISTEN),
    ];
    unused
        .into_iter()
        .filter(|(applies, _, _)| *applies)
        .map(|(_, key, needed)| format!("{key} has no effect without {needed}"))
}
