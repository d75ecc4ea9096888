//! [`Application`]: one of `[[applications]]`, its keys, and how it is read.

use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::file::{Contents, Reader};
use super::mistake::Mistake;
use super::reference::Key;
use super::roles::{RightsDraft, RowRights};
use super::slot::Slot;
use super::{text, tls};
use crate::auth::{CertificateName, Ends, Identity, Permissions, Principal, Proof};
use wire::Pattern;

/// What proves an application.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ProvedBy {
    /// `token_sha256`: SHA-256 of the token's text.
    Token([u8; 32]),
    /// `certificate` or `certificate_sha256`
    Certificate(CertificateName),
}

/// One of `[[applications]]`: a source, whose it is, and what proves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Application {
    /// The name it registers under.
    pub source: String,
    /// The agent; `None` for a service.
    pub user: Option<String>,
    /// A token or a client certificate.
    pub proved_by: ProvedBy,
    /// One session a user.
    pub exclusive: bool,
    /// `role`: the name of its role, if it has one.
    pub role: Option<String>,
    /// What it may do: by its role, and by its own keys.
    pub permissions: Permissions,
    /// `handle`: its own list of protected triples that it may handle.
    pub handle: Vec<Pattern>,
    /// `request`: its own list of protected triples that it may request, if it has one.
    pub request: Option<Vec<Pattern>>,
    /// Its token is good for calls over HTTP.
    pub over_http: bool,
}

impl Application {
    /// Its user, or that it is a service.
    #[must_use]
    pub fn principal(&self) -> Principal {
        self.user.as_deref().map_or(Principal::Service, |user| Principal::User(Arc::from(user)))
    }

    pub(super) fn identity(&self) -> Identity {
        let proof = match self.proved_by {
            ProvedBy::Token(hash) => Proof::Token(hash),
            // The table puts in the certificate that is shown.
            ProvedBy::Certificate(_) => Proof::Nothing,
        };
        let permissions = self.permissions.clone();
        Identity { principal: self.principal(), exclusive: self.exclusive, permissions, proof, ends: Ends::Never }
    }
}

/// `[[applications]]` while it is read: what is required may yet be absent.
#[derive(Default)]
pub(crate) struct Draft {
    /// `source`
    pub(crate) source: Option<String>,
    /// `user`
    pub(crate) user: Option<String>,
    /// `service`
    pub(crate) service: bool,
    /// `token_sha256`
    pub(crate) token_sha256: Option<[u8; 32]>,
    /// `certificate`
    pub(crate) certificate: Option<String>,
    /// `certificate_sha256`
    pub(crate) certificate_sha256: Option<[u8; 32]>,
    /// `exclusive`
    pub(crate) exclusive: bool,
    /// `over_http`
    pub(crate) over_http: bool,
    /// The keys about rights.
    pub(crate) rights: RowRights,
}

impl Draft {
    /// What proves it. `None` if nothing does.
    fn proved_by(&self) -> Option<ProvedBy> {
        let subject = || self.certificate.as_deref().map(|subject| CertificateName::Subject(subject.into()));
        let certificate = || self.certificate_sha256.map(CertificateName::Sha256).or_else(subject);
        self.token_sha256.map(ProvedBy::Token).or_else(|| certificate().map(ProvedBy::Certificate))
    }
}

/// The keys of an application that say what proves it.
const PROOFS: [&str; 3] = ["token_sha256", "certificate_sha256", "certificate"];

/// The keys of `[[applications]]`.
pub(crate) static APPLICATION_KEYS: &[Key<Draft>] = &[
    Key {
        name: "source",
        slot: Slot::Text(text::source, |it, source| it.source = Some(source)),
        default: "required",
        unit: "",
        meaning: "The name it registers under.",
    },
    Key {
        name: "user",
        slot: Slot::Text(text::name, |it, user| it.user = Some(user)),
        default: "this or `service`",
        unit: "",
        meaning: "The agent whose session the token proves.",
    },
    Key {
        name: "service",
        slot: Slot::Switch(|it| &mut it.service),
        default: "false",
        unit: "",
        meaning: "A server-side application. It belongs to no user, and receives the envelopes of all users that it \
                  subscribes to.",
    },
    Key {
        name: "token_sha256",
        slot: Slot::Hash(text::hash, |it, hash| it.token_sha256 = Some(hash)),
        default: "this or a certificate",
        unit: "",
        meaning: "The SHA-256 of the token's text. `switchboard token new` prints a token and its hash.",
    },
    Key {
        name: "certificate_sha256",
        slot: Slot::Hash(text::fingerprint, |it, hash| it.certificate_sha256 = Some(hash)),
        default: "this or a token",
        unit: "",
        meaning: "The SHA-256 of a client certificate (its DER), which proves the application on `tls.client_listen` without a \
                  token.",
    },
    Key {
        name: "certificate",
        slot: Slot::Text(text::subject, |it, subject| it.certificate = Some(subject)),
        default: "this or a token",
        unit: "",
        meaning: "The same for every certificate with this subject, in its own order: `\"CN=cti,O=Example\"`. Attributes: CN, O, \
                  OU, C, ST, L, DC. Any authority in `tls.client_ca_file` can issue one; `certificate_sha256` is the better \
                  choice.",
    },
    Key {
        name: "exclusive",
        slot: Slot::Switch(|it| &mut it.exclusive),
        default: "false",
        unit: "",
        meaning: "One session a user: a second one is refused with `SOURCE_IN_USE`.",
    },
    Key {
        name: "over_http",
        slot: Slot::Switch(|it| &mut it.over_http),
        default: "false",
        unit: "",
        meaning: "Its token is good for `POST /v1/publish` and `POST /v1/request` too: messages without a WebSocket.",
    },
    Key {
        name: "role",
        slot: Slot::Text(text::name, |it, role| it.rights.role = Some(role)),
        default: "none",
        unit: "",
        meaning: "The name of its role: of a table `[roles.NAME]`. With neither a role nor `permissions`, it may \
                  publish, subscribe to, request and handle everything, except what needs a grant.",
    },
    Key {
        name: "permissions",
        slot: Slot::Table("table of lists of patterns", |it, key, item, report| {
            RightsDraft::read(&mut it.rights.permissions, key, item, report)
        }),
        default: "those of the role",
        unit: "",
        meaning: "Its own `publish`, `subscribe`, `request` and `handle`, as in `[roles.NAME]`. With `role`, a list \
                  replaces that of the role; without, all four are required. Patterns of its `deny` are added to those of the role.",
    },
    Key {
        name: "observe",
        slot: Slot::Observed(|it, users| it.rights.observe = Some(users)),
        default: "that of the role, or `false`",
        unit: "",
        meaning: "The users whose events it may subscribe to beside its own (a supervisor): names, or endings such \
                  as `\"*@team-a.example\"`. `true`: all users. Not for a service, which receives them anyway.",
    },
    Key {
        name: "users",
        slot: Slot::Users(|it, users| it.rights.users = Some(users)),
        default: "all users",
        unit: "",
        meaning: "For a service: the users whose envelopes it receives and handles, and whom it may name as `user`. \
                  Names, or endings such as `\"*@team-a.example\"`. Shared channels are not concerned.",
    },
    Key {
        name: "handle",
        slot: Slot::Patterns(|it, patterns| it.rights.handle = Some(patterns)),
        default: "those of the role, or `[]`",
        unit: "",
        meaning: "Protected triples, and triples of shared channels, that it may be a handler of. A service needs it \
                  for protected triples only.",
    },
    Key {
        name: "request",
        slot: Slot::Patterns(|it, patterns| it.rights.request = Some(patterns)),
        default: "those of the role; without: a user's application all, a service none",
        unit: "",
        meaning: "Protected triples that it may request; a user's application for its own user only.",
    },
];

impl Reader<'_> {
    pub(super) fn applications(&mut self, value: &Spanned<DeValue<'_>>) {
        let tables: Option<Vec<_>> = value.get_ref().as_array().and_then(|array| {
            array.iter().map(|it| it.get_ref().as_table().map(|table| (table, it.span().start))).collect()
        });
        let Some(tables) = tables else {
            let place = self.lines.place(value.span().start);
            return self.report.add(&place, "applications", "must be an array of tables: [[applications]]");
        };
        for (at, (table, start)) in tables.into_iter().enumerate() {
            self.application(at, table, start);
        }
    }

    fn application(&mut self, at: usize, table: &DeTable<'_>, start: usize) {
        let prefix = format!("applications[{at}].");
        let mut draft = Draft::default();
        let mut complete = self.table(&prefix, table, APPLICATION_KEYS, &mut draft);
        let written = |key: &str| table.get_key_value(key).map(|(name, _)| name.span().start);
        for (key, message) in incomplete(table, &draft) {
            complete = false;
            if self.whole || written(key).is_some() {
                self.report.add(&self.lines.place(written(key).unwrap_or(start)), format!("{prefix}{key}"), message);
            }
        }
        let permissions = self.permissions(&prefix, &draft, &written, start);
        let proved_by = draft.proved_by();
        let Draft { source, user, exclusive, over_http, rights, .. } = draft;
        let (true, Some(source), Some(proved_by), Some(permissions)) = (complete, source, proved_by, permissions)
        else {
            return;
        };
        if !self.places.note_proof(&proved_by, &source) {
            let message = match proved_by {
                ProvedBy::Token(_) => "is listed before with the same token_sha256: a token proves a source once",
                ProvedBy::Certificate(_) => "is listed before with the same certificate, which proves a source once",
            };
            self.report.add(&self.lines.place(start), format!("{prefix}source"), message);
        }
        if matches!(proved_by, ProvedBy::Certificate(_)) {
            self.places.note(tls::CERTIFICATE_ROW, self.lines.place(start));
        }
        let place = (self.contents == Contents::Applications).then(|| self.lines.place(start));
        self.places.note_application(at, place);
        let RowRights { role, handle, request, .. } = rights;
        let handle = handle.unwrap_or_default();
        self.config.applications.push(Application {
            source,
            user,
            proved_by,
            exclusive,
            role,
            permissions,
            handle,
            request,
            over_http,
        });
    }

    /// Returns what an application may do; `None` if that is not known because of a mistake.
    fn permissions(
        &mut self,
        prefix: &str,
        draft: &Draft,
        written: &impl Fn(&str) -> Option<usize>,
        start: usize,
    ) -> Option<Permissions> {
        let principal = match &draft.user {
            Some(user) => Principal::User(Arc::from(user.as_str())),
            None => Principal::Service,
        };
        let missing = if self.whole { draft.rights.missing() } else { Vec::new() };
        for list in missing {
            let place = self.lines.place(written("permissions").unwrap_or(start));
            let key = format!("{prefix}permissions.{list}");
            self.report.add(&place, key, "is missing: without a role, permissions must have it; [] allows nothing");
        }
        match draft.rights.permissions(&principal, &self.config.roles) {
            Ok(permissions) => Some(permissions),
            Err(unknown) => {
                let place = self.lines.place(written("role").unwrap_or(start));
                let key = Some(format!("{prefix}role"));
                let message = "is not a role: it needs a table [roles.NAME] of this name".to_owned();
                let nearest = unknown.nearest.map(|role| format!("\"{role}\""));
                self.report.push(Mistake { place, key, message, nearest });
                None
            }
        }
    }
}

/// The keys that an application lacks, or that do not go together, and why.
fn incomplete(table: &DeTable<'_>, draft: &Draft) -> impl Iterator<Item = (&'static str, &'static str)> {
    let has = |key: &str| table.contains_key(key);
    [
        (!has("source"), "source", "is missing: the name that the application registers under"),
        (
            !PROOFS.iter().any(|key| has(key)),
            "token_sha256",
            "is missing: 'switchboard token new' prints a token and its hash; or name a client certificate by \
             certificate_sha256 or certificate",
        ),
        (
            PROOFS.iter().filter(|key| has(key)).count() > 1,
            PROOFS.into_iter().rfind(|key| has(key)).unwrap_or("token_sha256"),
            "cannot be combined with another proof: an application has one of token_sha256, certificate_sha256 and \
             certificate; list it twice for two",
        ),
        (
            has("user") && draft.service,
            "user",
            "cannot be combined with service = true: an application is a user's or a service, never both",
        ),
        (!has("user") && !draft.service, "user", "is missing: an application needs user = \"NAME\", or service = true"),
        (
            draft.service && draft.rights.observe.as_ref().is_some_and(|users| !users.is_nobody()),
            "observe",
            "cannot be combined with service = true: a service receives the events of every user anyway",
        ),
        (
            draft.over_http && !has("token_sha256"),
            "over_http",
            "needs token_sha256: a call over HTTP is proved by a token, never by a certificate",
        ),
        (
            has("users") && !draft.service,
            "users",
            "is for services: a user's application receives the envelopes of its own user only",
        ),
    ]
    .into_iter()
    .filter(|(wrong, _, _)| *wrong)
    .map(|(_, key, message)| (key, message))
}
