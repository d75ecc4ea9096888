//! `switchboard check --permissions`: what each application may do, as a table or as JSON.

use serde::Serialize;

use crate::auth::{Permission, Right, Rights, Users};
use crate::config::{Application, Channel, Config, Publish, Scope, each_right, nearest};
use wire::Pattern;

use super::Usage;
use super::output::table;

/// Returns what the applications may do; with a source, those that register under it.
///
/// # Errors
/// No application has the source.
pub(crate) fn permissions<'c>(config: &'c Config, source: Option<&str>) -> Result<Vec<Allowance<'c>>, Usage> {
    let rows = config.applications.iter().filter(|row| source.is_none_or(|source| row.source == source));
    let found: Vec<_> = rows.map(|row| Allowance::of(config, row)).collect();
    match source {
        Some(source) if found.is_empty() => {
            let near = nearest(source, config.applications.iter().map(|row| row.source.as_str()));
            let near = near.map_or_else(String::new, |near| format!("; did you mean '{near}'?"));
            Err(Usage::new(format!("no application has this source: --source must be one of [[applications]]{near}")))
        }
        Some(_) | None => Ok(found),
    }
}

/// Returns the table, a line for each right of each application.
pub(crate) fn as_table(applications: &[Allowance<'_>]) -> Vec<String> {
    let head = ["SOURCE", "USER", "ROLE", "RIGHT", "ALLOWED", "DENIED"].map(str::to_owned);
    table(&std::iter::once(head).chain(applications.iter().flat_map(Allowance::lines)).collect::<Vec<_>>())
}

/// What one application may do.
#[derive(Clone, Serialize)]
pub(crate) struct Allowance<'c> {
    source: &'c str,
    /// `None`: a service.
    user: Option<&'c str>,
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
    fn of(config: &Config, row: &'c Application) -> Self {
        let permissions = &row.permissions;
        let rights = permissions.rights.as_deref();
        let [mut publish, subscribe, request, handle] = general(rights);
        if row.user.is_some() {
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
        let grant_on_shared = if row.user.is_some() { &permissions.handle } else { &Permission::All };
        Self {
            source: &row.source,
            user: row.user.as_deref(),
            role: row.role.as_deref(),
            protected_request: granted(&config.protected, &permissions.request, &request),
            protected_handle: granted(&config.protected, &permissions.handle, &handle),
            shared_handle: granted(&shared, grant_on_shared, &handle),
            publish,
            subscribe,
            request,
            handle,
            observe: row.user.is_some().then(|| entries(&permissions.observe)),
            users: row.user.is_none().then(|| entries(&permissions.users)),
        }
    }

    fn lines(&self) -> Vec<[String; 6]> {
        let line = |right: &str, allowed: String, denied: String| {
            let user = self.user.unwrap_or("(service)");
            [self.source, user, self.role.unwrap_or("-"), right, &allowed, &denied].map(str::to_owned)
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
