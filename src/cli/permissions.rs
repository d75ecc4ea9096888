//! `switchboard check --permissions`: what each application may do, as a table or as JSON. Applications are the rows of
//! `[[applications]]`, and whatever an issuer of JWTs may prove, with each role that a token can name.

use std::sync::Arc;

use serde::Serialize;

use crate::auth::{Permission, Permissions, Principal, Right, Rights, Users};
use crate::config::{Application, Channel, Config, JwtIssuer, Publish, Scope, each_right, nearest};
use wire::Pattern;

use super::Usage;
use super::output::table;

/// The source of an application whose token names it.
const ANY_SOURCE: &str = "(any)";

/// Returns what the applications may do; with a source, those that register under it.
///
/// # Errors
/// No application can have the source.
pub(crate) fn permissions<'c>(config: &'c Config, source: Option<&str>) -> Result<Vec<Allowance<'c>>, Usage> {
    let rows = config.applications.iter().map(Subject::row);
    let mut subjects: Vec<_> =
        rows.chain(config.issuers.iter().flat_map(|it| Subject::proved_by(config, it))).collect();
    // An issuer whose tokens name the source proves this one too.
    subjects.retain(|it| source.is_none_or(|source| it.source.is_none_or(|own| own == source)));
    let found: Vec<_> = subjects.into_iter().map(|it| Allowance::of(config, it)).collect();
    match source {
        Some(source) if found.is_empty() => {
            let rows = config.applications.iter().map(|row| row.source.as_str());
            let sources = config.issuers.iter().flat_map(|it| it.claims.sources.iter().flatten()).map(String::as_str);
            let near = nearest(source, rows.chain(sources));
            let near = near.map_or_else(String::new, |near| format!("; did you mean '{near}'?"));
            Err(Usage::new(format!(
                "no application has this source: --source must be one of [[applications]] or of an issuer{near}"
            )))
        }
        Some(_) | None => Ok(found),
    }
}

/// Returns the table, a line for each right of each application.
pub(crate) fn as_table(applications: &[Allowance<'_>]) -> Vec<String> {
    let head = ["SOURCE", "USER", "ROLE", "RIGHT", "ALLOWED", "DENIED"].map(str::to_owned);
    table(&std::iter::once(head).chain(applications.iter().flat_map(Allowance::lines)).collect::<Vec<_>>())
}

/// One application, or those that an issuer proves with one role.
struct Subject<'c> {
    /// `None`: the one that its token names.
    source: Option<&'c str>,
    issuer: Option<&'c str>,
    /// `None`: a service, or a user whom the token names.
    user: Option<&'c str>,
    is_service: bool,
    role: Option<&'c str>,
    permissions: Permissions,
}

impl<'c> Subject<'c> {
    fn row(row: &'c Application) -> Self {
        Self {
            source: Some(&row.source),
            issuer: None,
            user: row.user.as_deref(),
            is_service: row.user.is_none(),
            role: row.role.as_deref(),
            permissions: row.permissions.clone(),
        }
    }

    /// Returns what an issuer may prove: users and services, of each source, with each role.
    fn proved_by(config: &'c Config, issuer: &'c JwtIssuer) -> Vec<Self> {
        let claims = &issuer.claims;
        // A source that a row gives to a service is refused to every JWT.
        let of_service = |source: &str| config.applications.iter().any(|it| it.source == source && it.user.is_none());
        let sources: Vec<Option<&str>> = match &claims.sources {
            Some(sources) => sources.iter().map(String::as_str).filter(|it| !of_service(it)).map(Some).collect(),
            None => vec![None],
        };
        let roles: Vec<&str> = match &claims.roles {
            Some(_) => config.roles.names().collect(),
            None => claims.role.as_deref().into_iter().collect(),
        };
        let a_user = claims.user.as_ref().map(|_| Principal::User(Arc::from("")));
        let principals: Vec<_> =
            a_user.into_iter().chain(claims.service.as_ref().map(|_| Principal::Service)).collect();
        let mut found = Vec::new();
        for (source, role) in sources.iter().flat_map(|source| roles.iter().map(move |role| (*source, *role))) {
            for principal in &principals {
                let is_service = *principal == Principal::Service;
                let Ok(mut permissions) = config.roles.permissions(&[role], principal) else { continue };
                if is_service {
                    permissions.users = claims.users.clone();
                }
                let issuer = Some(issuer.name.as_str());
                found.push(Self { source, issuer, user: None, is_service, role: Some(role), permissions });
            }
        }
        found
    }
}

/// What one application may do.
#[derive(Clone, Serialize)]
pub(crate) struct Allowance<'c> {
    /// `None`: the one that the token of an issuer names.
    source: Option<&'c str>,
    /// The issuer whose tokens prove it; `None` for a row of `[[applications]]`.
    issuer: Option<&'c str>,
    /// `None`: a service, or a user whom the token of an issuer names.
    user: Option<&'c str>,
    service: bool,
    /// One role. If a token of an issuer names several, their patterns add up.
    role: Option<&'c str>,
    publish: Patterns,
    subscribe: Patterns,
    request: Patterns,
    handle: Patterns,
    /// The protected triples that it may request: those that a grant and the general right both allow.
    protected_request: Patterns,
    /// The protected triples that it may handle.
    protected_handle: Patterns,
    /// The triples of shared channels that it may handle.
    shared_handle: Patterns,
    /// The users whose events a user's application may subscribe to beside its own; `None` for a service.
    observe: Option<Vec<String>>,
    /// The users whose envelopes a service receives; `None` for a user's application.
    users: Option<Vec<String>>,
}

/// Patterns that are allowed, and those that are denied among them.
#[derive(Clone, Serialize)]
struct Patterns {
    #[serde(serialize_with = "as_texts")]
    allow: Vec<Pattern>,
    #[serde(serialize_with = "as_texts")]
    deny: Vec<Pattern>,
}

impl<'c> Allowance<'c> {
    fn of(config: &Config, subject: Subject<'c>) -> Self {
        let Subject { source, issuer, user, is_service, role, permissions } = subject;
        let rights = permissions.rights.as_deref();
        let [mut publish, subscribe, request, handle] = general(rights);
        if !is_service {
            publish.deny_also(channels(config, |it| it.scope == Scope::Shared && it.publish == Publish::Services));
        }
        let shared = channels(config, |it| it.scope == Scope::Shared);
        let granted = |within: &[Pattern], grant: &Permission, general: &Patterns| {
            let granted = match grant {
                Permission::All => within.to_vec(),
                Permission::Patterns(patterns) => common(within, patterns),
            };
            Patterns { allow: common(&granted, &general.allow), deny: general.deny.clone() }.relevant()
        };
        // A service needs no grant there.
        let grant_on_shared = if is_service { &Permission::All } else { &permissions.handle };
        Self {
            source,
            issuer,
            user,
            service: is_service,
            role,
            protected_request: granted(&config.protected, &permissions.request, &request),
            protected_handle: granted(&config.protected, &permissions.handle, &handle),
            shared_handle: granted(&shared, grant_on_shared, &handle),
            publish,
            subscribe,
            request,
            handle,
            observe: (!is_service).then(|| entries(&permissions.observe)),
            users: is_service.then(|| entries(&permissions.users)),
        }
    }

    fn lines(&self) -> Vec<[String; 6]> {
        let kind = if self.service { "service" } else { "user" };
        let whose = match (self.user, self.issuer) {
            (Some(user), _) => user.to_owned(),
            (None, Some(issuer)) => format!("({kind} of {issuer})"),
            (None, None) => format!("({kind})"),
        };
        let line = |right: &str, allowed: String, denied: String| {
            let source = self.source.unwrap_or(ANY_SOURCE);
            [source, &whose, self.role.unwrap_or("-"), right, &allowed, &denied].map(str::to_owned)
        };
        let rights = [
            ("publish", &self.publish),
            ("subscribe", &self.subscribe),
            ("request", &self.request),
            ("handle", &self.handle),
            ("protected request", &self.protected_request),
            ("protected handle", &self.protected_handle),
            ("shared handle", &self.shared_handle),
        ];
        let users = [("observe", &self.observe), ("users", &self.users)];
        let users = users.into_iter().filter_map(|(right, users)| Some((right, users.as_ref()?)));
        let rights =
            rights.into_iter().map(|(right, it)| line(right, joined(&it.allow, "nothing"), joined(&it.deny, "")));
        rights.chain(users.map(|(right, users)| line(right, joined(users, "nobody"), String::new()))).collect()
    }
}

impl Patterns {
    /// Adds patterns that are denied for another reason.
    fn deny_also(&mut self, patterns: Vec<Pattern>) {
        let overlaps = |pattern: &Pattern| self.allow.iter().any(|allowed| allowed.overlaps_any_case(pattern));
        self.deny.extend(patterns.into_iter().filter(|pattern| overlaps(pattern)));
    }

    /// Leaves out the patterns that are denied whole, and the denied ones that deny none of the others.
    fn relevant(mut self) -> Self {
        self.allow.retain(|allowed| !self.deny.iter().any(|denied| denied.covers_any_case(allowed)));
        self.deny.retain(|denied| self.allow.iter().any(|allowed| allowed.overlaps_any_case(denied)));
        self
    }
}

/// The four general rights, as they are configured.
fn general(rights: Option<&Rights>) -> [Patterns; 4] {
    let everything = || Patterns { allow: vec![EVERYTHING], deny: Vec::new() };
    let of = |right: &Right| {
        let [allow, deny] =
            [&right.allow, &right.deny].map(|rules| rules.iter().map(|it| it.pattern.clone()).collect());
        Patterns { allow, deny }
    };
    match rights {
        None => [everything(), everything(), everything(), everything()],
        Some(rights) => each_right(rights).map(|(_, right)| of(right)),
    }
}

const EVERYTHING: Pattern = Pattern { channel: None, topic: None, subtopic: None };

/// The patterns of some channels.
fn channels(config: &Config, wanted: impl Fn(&Channel) -> bool) -> Vec<Pattern> {
    let channels = config.channels.iter().filter(|(_, channel)| wanted(channel));
    let mut patterns: Vec<_> =
        channels.map(|(name, _)| Pattern { channel: Some(Box::from(name.as_str())), ..EVERYTHING }).collect();
    patterns.sort();
    patterns
}

/// Returns the triples that both lists allow. A pattern that another one covers is left out.
fn common(some: &[Pattern], others: &[Pattern]) -> Vec<Pattern> {
    let mut found: Vec<Pattern> = Vec::new();
    for pattern in some.iter().flat_map(|some| others.iter().filter_map(|other| other.common(some))) {
        if !found.iter().any(|it| it.covers_any_case(&pattern)) {
            found.retain(|it| !pattern.covers_any_case(it));
            found.push(pattern);
        }
    }
    found
}

/// The entries of a list of users; `*` for all.
fn entries(users: &Users) -> Vec<String> {
    match users {
        Users::All => vec!["*".to_owned()],
        Users::Listed(entries) => entries.iter().map(ToString::to_string).collect(),
    }
}

fn joined<T: ToString>(items: &[T], none: &str) -> String {
    match items {
        [] => none.to_owned(),
        items => items.iter().map(T::to_string).collect::<Vec<_>>().join(", "),
    }
}

fn as_texts<S: serde::Serializer>(patterns: &[Pattern], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(patterns.iter().map(ToString::to_string))
}
