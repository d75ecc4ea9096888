//! `[admin]`: the listener of the admin API, and the tokens that it accepts.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::file::Reader;
use super::mistake::Report;
use super::reference::Key;
use super::rules::Places;
use super::slot::{Slot, Word};
use super::value::Fault;
use super::{AuthMode, Config, ProvedBy, text};

/// `[admin]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key")]
pub struct Admin {
    /// `listen`: where the admin API listens. Without an address, it does not. With port 0, the system chooses one.
    pub listen: Vec<SocketAddr>,
    /// Whether `listen` is the default of a start without a configuration file. If such an address cannot be used, the broker
    /// warns and starts; otherwise it does not start.
    pub listen_is_default: bool,
    /// `tls`: whether the listener uses the certificate of `[tls]`.
    pub tls: bool,
    /// `insecure`: whether `listen` may name addresses beyond loopback without `tls`.
    pub insecure: bool,
    /// `payloads`: whether the tap may show payloads.
    pub payloads: bool,
    /// `ready_requires`: checks that make the broker not ready, where they would only be a warning.
    pub ready_requires: Vec<String>,
    /// `[[admin.tokens]]`
    pub tokens: Vec<AdminToken>,
}

impl Admin {
    /// Where the listener is without a configuration file.
    pub(crate) const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7421);

    /// Whether only programs of this host can connect.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.listen.iter().all(is_loopback)
    }

    /// Whether the listener encrypts.
    #[must_use]
    pub fn encrypts(&self) -> bool {
        self.tls && !self.listen.is_empty()
    }
}

/// One of `[[admin.tokens]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminToken {
    /// `name`: names it in the audit log.
    pub name: String,
    /// `token_sha256`: SHA-256 of the token's text.
    pub token_sha256: [u8; 32],
    /// `may`
    pub may: May,
}

/// What a token of the admin API allows. Each allows what those before it do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum May {
    /// Calls that only read.
    #[default]
    Read,
    /// Calls that change something.
    Act,
    /// Payloads in the tap, if `admin.payloads` allows them.
    Payloads,
}

impl May {
    /// As `may` has it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Act => "act",
            Self::Payloads => "payloads",
        }
    }
}

/// The tables.
pub(crate) const TOKENS: &str = "admin.tokens";

const LISTEN: &str = "admin.listen";
const TLS: &str = "admin.tls";
const INSECURE: &str = "admin.insecure";
const PAYLOADS: &str = "admin.payloads";
const READY_REQUIRES: &str = "admin.ready_requires";

/// The checks of readiness that are warnings unless `ready_requires` names them.
const WARNINGS: [&str; 5] = ["history", "audit", "nats", "certificate", "salesforce"];

/// The keys.
pub(crate) static ADMIN_KEYS: &[Key<Config>] = &[
    Key {
        name: LISTEN,
        slot: Slot::TcpAddresses(|it| &mut it.admin.listen),
        default: "`[\"127.0.0.1:7421\"]` without a configuration file, otherwise none",
        unit: "",
        meaning: "Where the admin API listens, which docs/operate.md explains. Empty: there is none. Beyond loopback it needs \
                  `[[admin.tokens]]`, and `tls` or `insecure`.",
    },
    Key {
        name: TLS,
        slot: Slot::Switch(|it| &mut it.admin.tls),
        default: "false",
        unit: "",
        meaning: "Whether the admin listener uses the certificate of `[tls]`.",
    },
    Key {
        name: INSECURE,
        slot: Slot::Switch(|it| &mut it.admin.insecure),
        default: "false",
        unit: "",
        meaning: "Whether `admin.listen` may name addresses beyond loopback without `admin.tls`, where admin tokens are sent in \
                  the clear: in a pod's network, or behind a proxy that ends TLS.",
    },
    Key {
        name: PAYLOADS,
        slot: Slot::Switch(|it| &mut it.admin.payloads),
        default: "false",
        unit: "",
        meaning: "Whether tokens with `may = \"payloads\"` see payloads in the tap. Those of protected triples are never shown.",
    },
    Key {
        name: READY_REQUIRES,
        slot: Slot::Texts(requirement, |it| &mut it.admin.ready_requires),
        default: "[]",
        unit: "",
        meaning: "Checks that make `/readyz` answer 503 where they would only be a warning: `\"history\"`, `\"audit\"`, `\"nats\"`, \
                  `\"certificate\"`, `\"salesforce\"`.",
    },
];

/// `[[admin.tokens]]` while it is read: what is required may yet be absent.
#[derive(Default)]
pub(crate) struct Draft {
    name: Option<String>,
    token_sha256: Option<[u8; 32]>,
    may: Option<May>,
}

/// The keys of `[[admin.tokens]]`.
pub(crate) static TOKEN_KEYS: &[Key<Draft>] = &[
    Key {
        name: "name",
        slot: Slot::Text(text::name, |it, name| it.name = Some(name)),
        default: "required",
        unit: "",
        meaning: "Who or what uses the token: audit records show it.",
    },
    Key {
        name: "token_sha256",
        slot: Slot::Hash(text::hash, |it, hash| it.token_sha256 = Some(hash)),
        default: "required",
        unit: "",
        meaning: "The SHA-256 of the token's text. `switchboard token new` prints a token and its hash.",
    },
    Key {
        name: "may",
        slot: Slot::Word(&[
            Word { word: "read", put: |it| it.may = Some(May::Read) },
            Word { word: "act", put: |it| it.may = Some(May::Act) },
            Word { word: "payloads", put: |it| it.may = Some(May::Payloads) },
        ]),
        default: "required",
        unit: "",
        meaning: "What it allows: to read; to read and act (close sessions, reload, drain); or also to see payloads in the tap.",
    },
];

fn requirement(text: &str) -> Result<String, Fault> {
    match WARNINGS.contains(&text) {
        true => Ok(text.to_owned()),
        false => Err(Fault::near(
            format!("must be one of {}", WARNINGS.map(|name| format!("\"{name}\"")).join(", ")),
            super::nearest(text, WARNINGS).map(|name| format!("\"{name}\"")),
        )),
    }
}

fn is_loopback(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

impl Reader<'_> {
    pub(super) fn admin_tokens(&mut self, value: &Spanned<DeValue<'_>>) {
        self.places.note(TOKENS, self.lines.place(value.span().start));
        let tables: Option<Vec<_>> = value.get_ref().as_array().and_then(|array| {
            array.iter().map(|it| it.get_ref().as_table().map(|table| (table, it.span().start))).collect()
        });
        let Some(tables) = tables else {
            let place = self.lines.place(value.span().start);
            return self.report.add(&place, TOKENS, "must be an array of tables: [[admin.tokens]]");
        };
        let (mut names, mut hashes) = (HashSet::new(), HashSet::new());
        for (at, (table, start)) in tables.into_iter().enumerate() {
            let Some(token) = self.admin_token(at, table, start) else { continue };
            let prefix = format!("{TOKENS}[{at}].");
            if !names.insert(token.name.clone()) {
                self.report.add(
                    &self.lines.place(start),
                    format!("{prefix}name"),
                    "names another token too: audit records could not tell them apart",
                );
            }
            if !hashes.insert(token.token_sha256) {
                self.report.add(
                    &self.lines.place(start),
                    format!("{prefix}token_sha256"),
                    "is listed before: a token has one name",
                );
            }
            self.config.admin.tokens.push(token);
        }
    }

    fn admin_token(&mut self, at: usize, table: &DeTable<'_>, start: usize) -> Option<AdminToken> {
        let prefix = format!("{TOKENS}[{at}].");
        let mut draft = Draft::default();
        let good = self.table(&prefix, table, TOKEN_KEYS, &mut draft);
        for key in TOKEN_KEYS.iter().map(|key| key.name).filter(|key| self.whole && !table.contains_key(*key)) {
            let why = match key {
                "name" => "is missing: audit records show it",
                "token_sha256" => "is missing: 'switchboard token new' prints a token and its hash",
                _ => "is missing: \"read\", \"act\" or \"payloads\"",
            };
            self.report.add(&self.lines.place(start), format!("{prefix}{key}"), why);
        }
        let Draft { name: Some(name), token_sha256: Some(token_sha256), may: Some(may) } = draft else { return None };
        good.then_some(AdminToken { name, token_sha256, may })
    }
}

/// Checks what the keys of `[admin]` say to each other and to other keys.
pub(crate) fn check(config: &Config, places: &Places, report: &mut Report) {
    let admin = &config.admin;
    check_tokens(config, places, report);
    let Some(place) = places.written(LISTEN) else { return };
    let plain = config.listen.iter().map(|address| ("listen", address.clone()));
    let others: Vec<_> = plain.chain(config.tls.addresses().map(|(key, address)| (key, address.into()))).collect();
    for (at, address) in admin.listen.iter().enumerate() {
        if address.port() != 0 && admin.listen.iter().take(at).any(|earlier| earlier == address) {
            report.add(place, LISTEN, format!("names {address} twice"));
        }
        if let Some((key, _)) = others.iter().find(|(_, other)| address.port() != 0 && *other == (*address).into()) {
            report.add(place, LISTEN, format!("names {address}, as {key} does"));
        }
    }
    if admin.encrypts() && (config.tls.certificate_file.is_none() || config.tls.key_file.is_none()) {
        report.add(places.written(TLS).unwrap_or(place), TLS, "needs tls.certificate_file and tls.key_file".to_owned());
    }
    let Some(beyond) = admin.listen.iter().find(|address| !is_loopback(address)) else { return };
    if config.auth == AuthMode::Open {
        let message = format!(
            "auth.mode \"open\" refuses to listen beyond loopback, and {beyond} is: use \"tokens\", or 127.0.0.1"
        );
        return report.add(place, LISTEN, message);
    }
    if admin.tokens.is_empty() && !report.has_within(TOKENS) {
        report.add(place, LISTEN, format!("{beyond} is beyond loopback, which needs at least one [[{TOKENS}]]"));
    }
    if !admin.tls && !admin.insecure {
        let message = format!(
            "{beyond} is beyond loopback, where admin tokens are sent in the clear: set {TLS} = true; or set {INSECURE} = \
             true, for a pod's network or behind a proxy that ends TLS"
        );
        report.add(place, LISTEN, message);
    }
}

/// An application's token is never one of the admin API.
fn check_tokens(config: &Config, places: &Places, report: &mut Report) {
    let Some(place) = places.written(TOKENS) else { return };
    for (at, token) in config.admin.tokens.iter().enumerate() {
        if config.applications.iter().any(|it| it.proved_by == ProvedBy::Token(token.token_sha256)) {
            let message = "is the token of an application too: make another one with 'switchboard token new'";
            report.add(place, format!("{TOKENS}[{at}].token_sha256"), message);
        }
    }
}

/// Warnings about settings that are valid but probably a mistake.
pub(crate) fn warnings(config: &Config) -> Vec<String> {
    let admin = &config.admin;
    let mut warnings = Vec::new();
    if admin.listen.is_empty() {
        let unused = [
            (TOKENS, !admin.tokens.is_empty()),
            (TLS, admin.tls),
            (INSECURE, admin.insecure),
            (PAYLOADS, admin.payloads),
            (READY_REQUIRES, !admin.ready_requires.is_empty()),
        ];
        let unused = unused.into_iter().filter(|(_, is_set)| *is_set);
        warnings.extend(unused.map(|(key, _)| format!("{key} has no effect without {LISTEN}")));
        return warnings;
    }
    if admin.insecure && admin.is_loopback() {
        warnings.push(format!("{INSECURE} has no effect: {LISTEN} names only loopback addresses"));
    }
    if admin.payloads && !admin.tokens.iter().any(|token| token.may == May::Payloads) {
        warnings.push(format!("{PAYLOADS} has no effect: no [[{TOKENS}]] has may = \"payloads\""));
    }
    warnings
}
