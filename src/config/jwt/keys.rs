//! The keys of `[auth.jwt.NAME]`, in the form of `reference`, and how their values are read.

use std::time::Duration;

use super::Draft;
use crate::auth::ClaimPath;
use crate::config::mistake::{Report, printable};
use crate::config::reference::{Key, TICK};
use crate::config::slot::Slot;
use crate::config::text::{name as role_name, source, users_entry};
use crate::config::value::{Fault, Item, Value};
use crate::http::PageUrl;

/// The shortest time between two fetches.
const REFRESH_MIN: Duration = Duration::from_secs(1);

/// The algorithms that can be configured.
const ALGORITHMS: [&str; 10] =
    ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA", "HS256"];

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
