//! `[auth.jwt.NAME]`: issuers of JWTs. Its keys, what the program relies on ([`JwtIssuer`]), and its rules.

use std::path::PathBuf;
use std::time::Duration;

use super::Roles;
use super::file::quoted;
use super::mistake::{Place, Report, printable};
use super::reference::{Key, TICK};
use super::slot::Slot;
use super::text::{name as role_name, source, users_entry};
use super::value::{Fault, Item, Value};
use crate::auth::{Algorithm, ClaimPath, ClaimRules, JwtRules, Users};
use crate::http::PageUrl;

/// The tables.
pub(crate) const ISSUERS: &str = "auth.jwt";

/// The largest difference between clocks.
const LEEWAY_MAX: Duration = Duration::from_mins(5);

/// The shortest time between two fetches.
const REFRESH_MIN: Duration = Duration::from_secs(1);

/// The algorithms that can be configured.
const ALGORITHMS: [&str; 10] =
    ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA", "HS256"];

/// `[auth.jwt.NAME]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtIssuer {
    /// NAME, as logs show it.
    pub name: String,
    /// What a token has to be.
    pub rules: JwtRules,
    /// What its claims mean.
    pub claims: ClaimRules,
    /// Where the keys come from.
    pub keys: KeysFrom,
    /// Its tokens are good for calls over HTTP.
    pub over_http: bool,
}

/// Where the keys of an issuer come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeysFrom {
    /// `jwks_url`: a key set that is fetched.
    Url {
        /// The address; a [`PageUrl`].
        url: String,
        /// `ca_file`: certificates that are trusted beside the system's roots.
        ca_file: Option<PathBuf>,
        /// `refresh`: how often it is fetched.
        refresh: Duration,
    },
    /// `jwks_file`: a key set.
    Set(PathBuf),
    /// `key_file`: public keys in PEM.
    PublicKey(PathBuf),
    /// `secret_file`: a secret that the issuer shares.
    Secret(PathBuf),
}

impl JwtIssuer {
    /// Returns its table, as documents and messages write it: `auth.jwt.NAME`.
    #[must_use]
    pub fn table(&self) -> String {
        format!("{ISSUERS}.{}", quoted(&self.name))
    }
}

impl KeysFrom {
    /// The key that names the source.
    #[must_use]
    pub const fn key(&self) -> &'static str {
        match self {
            Self::Url { .. } => "jwks_url",
            Self::Set(_) => "jwks_file",
            Self::PublicKey(_) => "key_file",
            Self::Secret(_) => "secret_file",
        }
    }
}

/// `[auth.jwt.NAME]` while it is read: what is required may yet be absent.
#[derive(Clone)]
pub(crate) struct Draft {
    issuer: Option<String>,
    audience: Vec<String>,
    algorithms: Vec<String>,
    jwks_url: Option<String>,
    jwks_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    secret_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    refresh: Duration,
    leeway: Duration,
    lifetime: Duration,
    user: Option<String>,
    users: Option<Vec<String>>,
    require: Vec<(ClaimPath, serde_json::Value)>,
    service: Option<String>,
    source: Option<String>,
    sources: Option<Vec<String>>,
    roles: Option<String>,
    role: Option<String>,
    over_http: bool,
}

impl Default for Draft {
    fn default() -> Self {
        Self {
            issuer: None,
            audience: Vec::new(),
            algorithms: Vec::new(),
            jwks_url: None,
            jwks_file: None,
            key_file: None,
            secret_file: None,
            ca_file: None,
            refresh: Duration::from_mins(10),
            leeway: Duration::from_secs(30),
            lifetime: Duration::from_hours(24),
            user: None,
            users: None,
            require: Vec::new(),
            service: None,
            source: None,
            sources: None,
            roles: None,
            role: None,
            over_http: false,
        }
    }
}

/// The keys.
pub(crate) static ISSUER_KEYS: &[Key<Draft>] = &[
    Key {
        name: "issuer",
        slot: Slot::Text(printed, |it, text| it.issuer = Some(text)),
        default: "required",
        unit: "",
        meaning: "The exact `iss` of the tokens. A token belongs to the table whose issuer it names.",
    },
    Key {
        name: "audience",
        slot: Slot::Texts(printed, |it| &mut it.audience),
        default: "required",
        unit: "",
        meaning: "The names of this broker at the issuer: `aud` must be, or contain, one of them.",
    },
    Key {
        name: "algorithms",
        slot: Slot::Texts(algorithm, |it| &mut it.algorithms),
        default: "required",
        unit: "",
        meaning: "The signatures that are accepted: `\"RS256\"`, `\"RS384\"`, `\"RS512\"`, `\"PS256\"`, `\"PS384\"`, \
                  `\"PS512\"`, `\"ES256\"`, `\"ES384\"`, `\"EdDSA\"`; or `\"HS256\"` alone, with `secret_file`.",
    },
    Key {
        name: "jwks_url",
        slot: Slot::Text(jwks_url, |it, url| it.jwks_url = Some(url)),
        default: "one of the sources of keys",
        unit: "",
        meaning: "Where the issuer publishes its key set (JSON, RFC 7517), at most 256 KiB and 64 keys: `https://…`, or \
                  `http://` on loopback. Redirects are not followed. A token names its key by `kid`.",
    },
    Key {
        name: "jwks_file",
        slot: Slot::Path(|it, path| it.jwks_file = Some(path)),
        default: "one of the sources of keys",
        unit: "",
        meaning: "The same in a file.",
    },
    Key {
        name: "key_file",
        slot: Slot::Path(|it, path| it.key_file = Some(path)),
        default: "one of the sources of keys",
        unit: "",
        meaning: "The public key that signs, or its certificate (PEM). Several in one file: any of them, so that a new one \
                  can be introduced. RSA keys have 2,048 bits or more.",
    },
    Key {
        name: "secret_file",
        slot: Slot::Path(|it, path| it.secret_file = Some(path)),
        default: "one of the sources of keys",
        unit: "",
        meaning: "The secret of `HS256`: all bytes of the file but one line end, at least 32. Only its owner may read the \
                  file. Everybody who has the secret can prove any user: prefer a public key.",
    },
    Key {
        name: "ca_file",
        slot: Slot::Path(|it, path| it.ca_file = Some(path)),
        default: "none",
        unit: "",
        meaning: "For `jwks_url`: certificates (PEM) that are trusted beside the system's roots.",
    },
    Key {
        name: "refresh",
        slot: Slot::Span(REFRESH_MIN, |it| &mut it.refresh),
        default: r#""10m""#,
        unit: "",
        meaning: "For `jwks_url`: how often it is fetched, at least every second. An unknown `kid` causes a fetch at once, but \
                  only one in 30 s.",
    },
    Key {
        name: "leeway",
        slot: Slot::Span(Duration::ZERO, |it| &mut it.leeway),
        default: r#""30s""#,
        unit: "",
        meaning: "How far the broker's clock and the issuer's may differ, at most `\"5m\"`. Counts in whole seconds.",
    },
    Key {
        name: "lifetime",
        slot: Slot::Span(TICK, |it| &mut it.lifetime),
        default: r#""24h""#,
        unit: "",
        meaning: "The longest life of a token, from `iat` to `exp` and from now to `exp`. Tokens that live longer are refused.",
    },
    Key {
        name: "user",
        slot: Slot::Text(claim_path, |it, path| it.user = Some(path)),
        default: "this or `service`",
        unit: "",
        meaning: "The claim that has the user's name, as keys that are joined by dots: `\"sub\"`, `\"realm.user\"`. With \
                  `\"email\"`, `require` should have `email_verified = true`.",
    },
    Key {
        name: "users",
        slot: Slot::Texts(users_entry, |it| it.users.get_or_insert_default()),
        default: r#"["*"]"#,
        unit: "",
        meaning: "The users that this issuer may prove: names, or endings such as `\"*@example.com\"`. Letter case counts. It \
                  must be written if there are several issuers. A service of this issuer receives the envelopes of these \
                  users only.",
    },
    Key {
        name: "require",
        slot: Slot::Table("table of claims and values", read_required),
        default: "{}",
        unit: "",
        meaning: "Claims, and the values that they must equal in type and content: `{ email_verified = true }`.",
    },
    Key {
        name: "service",
        slot: Slot::Text(claim_path, |it, path| it.service = Some(path)),
        default: "no token is a service's",
        unit: "",
        meaning: "The claim whose value `true` makes the session a service, which has no user.",
    },
    Key {
        name: "source",
        slot: Slot::Text(claim_path, |it, path| it.source = Some(path)),
        default: "this or `sources`",
        unit: "",
        meaning: "The claim that names the source. The session can register as this source only.",
    },
    Key {
        name: "sources",
        slot: Slot::Texts(source, |it| it.sources.get_or_insert_default()),
        default: "this or `source`",
        unit: "",
        meaning: "The sources that the issuer's tokens may register. A source that `[[applications]]` gives to a service is \
                  never among them.",
    },
    Key {
        name: "roles",
        slot: Slot::Text(claim_path, |it, path| it.roles = Some(path)),
        default: "this or `role`",
        unit: "",
        meaning: "The claim that names the session's roles, a text or a list of texts. It must name at least one of \
                  `[roles.NAME]`; unknown names beside it are ignored and logged once.",
    },
    Key {
        name: "role",
        slot: Slot::Text(role_name, |it, name| it.role = Some(name)),
        default: "this or `roles`",
        unit: "",
        meaning: "The role of a session whose token has no claim `roles`. Without it, the claim is required.",
    },
    Key {
        name: "over_http",
        slot: Slot::Switch(|it| &mut it.over_http),
        default: "false",
        unit: "",
        meaning: "The issuer's tokens are good for `POST /v1/publish` and `POST /v1/request` too: messages without a WebSocket.",
    },
];

impl Draft {
    /// The keys that are missing or do not go together, and why. `has`: whether a key is written.
    pub(crate) fn wrong(&self, has: &dyn Fn(&str) -> bool, roles: &Roles) -> Vec<(&'static str, &'static str)> {
        let sources =
            ["jwks_url", "jwks_file", "key_file", "secret_file"].into_iter().filter(|key| has(key)).collect::<Vec<_>>();
        let hs256 = self.algorithms.iter().any(|it| it == "HS256");
        [
            (!has("issuer"), "issuer", "is missing: the exact 'iss' of the tokens"),
            (self.audience.is_empty(), "audience", NO_AUDIENCE),
            (self.algorithms.is_empty(), "algorithms", NO_ALGORITHMS),
            (
                hs256 && self.algorithms.len() > 1,
                "algorithms",
                "must have HS256 alone: a public key must never serve as its secret",
            ),
            (hs256 && !has("secret_file"), "secret_file", "is missing: HS256 needs the secret that the issuer shares"),
            (
                !hs256 && has("secret_file") && !self.algorithms.is_empty(),
                "secret_file",
                "does not fit these algorithms: a shared secret is for HS256 alone",
            ),
            (sources.is_empty() && !hs256, "jwks_url", NO_KEYS),
            (has("ca_file") && !has("jwks_url"), "ca_file", WITHOUT_URL),
            (has("refresh") && !has("jwks_url"), "refresh", WITHOUT_URL),
            (sources.len() > 1, sources.last().copied().unwrap_or_default(), ONE_SOURCE),
            (self.leeway > LEEWAY_MAX, "leeway", "must be at most 5m"),
            (!has("user") && !has("service"), "user", "is missing: the claim of the user's name; or write 'service'"),
            (self.sources.as_ref().is_some_and(Vec::is_empty), "sources", "must name at least one"),
            (
                !has("source") && !has("sources"),
                "sources",
                "is missing: the sources that may be registered; or write 'source'",
            ),
            (!has("roles") && !has("role"), "role", "is missing: the role of this issuer's sessions; or write 'roles'"),
            (
                self.role.as_ref().is_some_and(|role| !roles.contains(role)),
                "role",
                "is not a role: there is no table [roles.NAME] of this name",
            ),
        ]
        .into_iter()
        .filter(|(wrong, ..)| *wrong)
        .map(|(_, key, message)| (key, message))
        .collect()
    }

    /// Returns whether `users` is written.
    pub(crate) fn names_users(&self) -> bool {
        self.users.is_some()
    }

    /// The issuer, if nothing is missing.
    pub(crate) fn finish(self, name: &str) -> Option<JwtIssuer> {
        let path = |text: Option<String>| text.as_deref().and_then(ClaimPath::parse);
        Some(JwtIssuer {
            name: name.to_owned(),
            rules: JwtRules {
                algorithms: self.algorithms.iter().filter_map(|name| name.parse::<Algorithm>().ok()).collect(),
                issuers: vec![self.issuer?],
                audience: self.audience,
                leeway: self.leeway,
                lifetime: self.lifetime,
            },
            claims: ClaimRules {
                user: path(self.user),
                users: match &self.users {
                    Some(users) => Users::of(users.iter().map(String::as_str)),
                    None => Users::All,
                },
                require: self.require,
                service: path(self.service),
                source: path(self.source),
                sources: self.sources,
                roles: path(self.roles),
                role: self.role,
            },
            keys: (self.jwks_url)
                .map(|url| KeysFrom::Url { url, ca_file: self.ca_file, refresh: self.refresh })
                .or(self.jwks_file.map(KeysFrom::Set))
                .or(self.key_file.map(KeysFrom::PublicKey))
                .or(self.secret_file.map(KeysFrom::Secret))?,
            over_http: self.over_http,
        })
    }
}

const NO_AUDIENCE: &str = "is missing: the names of this broker at the issuer, one of which 'aud' must have";

const NO_ALGORITHMS: &str = "is missing: the signatures that are accepted, such as [\"RS256\"]";

const NO_KEYS: &str = "is missing: an issuer needs a jwks_url, a jwks_file, a key_file, or HS256 and a secret_file";

const WITHOUT_URL: &str = "has no effect without jwks_url";

const ONE_SOURCE: &str = "is a second source of keys: an issuer has exactly one";

/// The issuers that have something in common with an earlier one, or lack what several issuers need: table, key and why.
pub(crate) fn conflicts(issuers: &[(JwtIssuer, Place, bool)]) -> Vec<(&Place, String, &'static str)> {
    let mut found = Vec::new();
    for (at, (issuer, place, names_users)) in issuers.iter().enumerate() {
        let earlier = issuers.iter().take(at);
        if earlier.clone().any(|(other, ..)| other.rules.issuers == issuer.rules.issuers) {
            let message = "is also the issuer of another table: each needs its own";
            found.push((place, format!("{ISSUERS}.{}.issuer", issuer.name), message));
        }
        if issuers.len() > 1 && !names_users {
            let message = "is missing: with several issuers, each names the users that it may prove, or [\"*\"]";
            found.push((place, format!("{ISSUERS}.{}.users", issuer.name), message));
        }
    }
    found
}

/// Warns about settings that are valid but probably a mistake.
pub(crate) fn warnings(issuers: &[JwtIssuer]) -> Vec<String> {
    let mut warnings = Vec::new();
    for JwtIssuer { name, claims, .. } in issuers {
        let required = |wanted: &str| claims.require.iter().any(|(path, _)| path.to_string() == wanted);
        if claims.user.as_ref().is_some_and(|path| path.to_string() == "email") && !required("email_verified") {
            warnings.push(format!(
                "{ISSUERS}.{name}.user is \"email\", and require has no email_verified: at some issuers users can write any \
                 address there"
            ));
        }
    }
    warnings
}

/// A text that prints, and is not empty.
fn printed(text: &str) -> Result<String, Fault> {
    match text {
        "" => Err("must not be empty".into()),
        _ if text.chars().any(char::is_control) => Err("must not have control characters".into()),
        _ => Ok(text.to_owned()),
    }
}

fn jwks_url(text: &str) -> Result<String, Fault> {
    let url = PageUrl::parse(text)?;
    if url.base.https || url.base.is_loopback() {
        return Ok(url.to_string());
    }
    Err("must begin with https:// unless the host is a loopback address or localhost: somebody who can change the \
         answer on its way could be any user"
        .into())
}

fn algorithm(text: &str) -> Result<String, Fault> {
    if ALGORITHMS.contains(&text) {
        return Ok(text.to_owned());
    }
    let near = ALGORITHMS.into_iter().find(|known| known.eq_ignore_ascii_case(text)).map(str::to_owned);
    Err(Fault::near(format!("must be one of {}", ALGORITHMS.join(", ")), near))
}

fn claim_path(text: &str) -> Result<String, Fault> {
    printed(text)?;
    let path = ClaimPath::parse(text).ok_or(NOT_A_PATH)?;
    Ok(path.to_string())
}

/// Reads claims and the values that they have to equal. Tables become longer paths.
fn read_required(draft: &mut Draft, key: &str, item: &Item, report: &mut Report) -> bool {
    let Value::Table(entries) = &item.value else {
        report.add(&item.place, key, "must be a table of claims and values: { email_verified = true }");
        return false;
    };
    let before = report.len();
    required("", key, entries, &mut draft.require, report);
    report.len() == before
}

fn required(
    prefix: &str,
    key: &str,
    entries: &[(String, Item)],
    found: &mut Vec<(ClaimPath, serde_json::Value)>,
    report: &mut Report,
) {
    for (name, item) in entries {
        let (path, own) = (format!("{prefix}{name}"), format!("{key}.{}", printable(name)));
        match (&item.value, ClaimPath::parse(&path), item.value.json()) {
            (Value::Table(inner), _, _) => required(&format!("{path}."), &own, inner, found, report),
            (_, Some(path), Some(value)) => found.push((path, value)),
            (_, None, _) => report.add(&item.place, own, NOT_A_PATH),
            (_, _, None) => {
                report.add(&item.place, own, "must be a text, a whole number, true, false, or a list of those");
            }
        }
    }
}

const NOT_A_PATH: &str = "must be keys that are joined by dots, such as switchboard.roles";
