//! The keys of `[auth.salesforce_jwt]`, `[auth.salesforce_introspection]` and `[auth.salesforce_userinfo]`, in the form
//! of `reference`. Any key of a table turns it on. `auth.session_max` applies to all three.

use std::time::Duration;

use super::proof::ProvenUser;
use super::text;
use crate::config::Config;
use crate::config::reference::{Key, TICK};
use crate::config::slot::{Slot, Word};
use crate::config::text::source;

/// All keys.
pub(crate) fn proof_keys() -> impl Iterator<Item = &'static Key<Config>> {
    let jwt = JWT_PROVING.iter().chain(JWT);
    let introspection = INTROSPECTION_PROVING.iter().chain(&INTROSPECTION_ASKED).chain(INTROSPECTION);
    let userinfo = USERINFO_PROVING.iter().chain(&USERINFO_ASKED);
    COMMON.iter().chain(jwt).chain(introspection).chain(userinfo)
}

static COMMON: &[Key<Config>] = &[Key {
    name: "auth.session_max",
    slot: Slot::Span(Duration::ZERO, |it| &mut it.proofs.session_max),
    default: r#""12h""#,
    unit: "",
    meaning: "How long a proof by Salesforce lasts. Then the session is closed with 4401, unless it has sent a new proof \
              (`Broker/Application/Renew`). `\"0s\"`: for ever. It does not apply to other proofs.",
}];

/// The keys of every table.
macro_rules! proving {
    ($way:ident, $table:literal) => {
        [
            Key {
                name: concat!($table, ".org_id"),
                slot: Slot::Text(text::org_id, |it, id| {
                    it.proofs.$way.get_or_insert_default().proving.org_id = Some(id);
                }),
                default: "required",
                unit: "",
                meaning: "The org whose users are accepted: its id of 15 or 18 characters (*Setup > Company \
                          Information*).",
            },
            Key {
                name: concat!($table, ".user"),
                slot: Slot::Word(&[
                    Word {
                        word: "user_id",
                        put: |it| it.proofs.$way.get_or_insert_default().proving.user = ProvenUser::UserId,
                    },
                    Word {
                        word: "username",
                        put: |it| it.proofs.$way.get_or_insert_default().proving.user = ProvenUser::Username,
                    },
                    Word {
                        word: "federation_id",
                        put: |it| it.proofs.$way.get_or_insert_default().proving.user = ProvenUser::FederationId,
                    },
                ]),
                default: r#""user_id""#,
                unit: "",
                meaning: "What becomes the session's user: the record id in 18 characters, the user name, or the \
                          federation id, which only a JWT has.",
            },
            Key {
                name: concat!($table, ".sources"),
                slot: Slot::Texts(source, |it| {
                    &mut it.proofs.$way.get_or_insert_default().proving.sources
                }),
                default: "any but a service's of `[[applications]]`",
                unit: "",
                meaning: "The names that such a user's applications may register under. A service's name is never among \
                          them.",
            },
            Key {
                name: concat!($table, ".request"),
                slot: Slot::Patterns(|it, patterns| {
                    it.proofs.$way.get_or_insert_default().proving.request = Some(patterns);
                }),
                default: "all",
                unit: "",
                meaning: "Protected triples that they may request, for their own user only.",
            },
        ]
    };
}

/// The keys of the tables that ask the org.
macro_rules! asked {
    ($way:ident, $table:literal) => {
        [
            Key {
                name: concat!($table, ".host"),
                slot: Slot::Text(text::login_url, |it, url| {
                    it.proofs.$way.get_or_insert_default().asked.host = Some(url);
                }),
                default: "required",
                unit: "",
                meaning: "The org's My Domain, `https://NAME.my.salesforce.com`. Tokens are sent there and nowhere else, \
                          whatever they or an answer say.",
            },
            Key {
                name: concat!($table, ".timeout"),
                slot: Slot::Span(TICK, |it| &mut it.proofs.$way.get_or_insert_default().asked.timeout),
                default: r#""5s""#,
                unit: "",
                meaning: "How long the question may take, below `limits.registration`; then the application gets \
                          `UPSTREAM_UNAVAILABLE`.",
            },
            Key {
                name: concat!($table, ".cache"),
                slot: Slot::Span(Duration::ZERO, |it| &mut it.proofs.$way.get_or_insert_default().asked.cache),
                default: r#""5m""#,
                unit: "",
                meaning: "How long a good answer serves again for the same token, at most `\"5m\"` and never beyond the \
                          token's end. A revoked token is accepted for that time.",
            },
            Key {
                name: concat!($table, ".ca_file"),
                slot: Slot::Path(|it, path| {
                    it.proofs.$way.get_or_insert_default().asked.ca_file = Some(path);
                }),
                default: "none",
                unit: "",
                meaning: "Certificates (PEM) that are trusted beside the system's roots.",
            },
            Key {
                name: concat!($table, ".insecure_http"),
                slot: Slot::Switch(|it| &mut it.proofs.$way.get_or_insert_default().asked.insecure_http),
                default: "false",
                unit: "",
                meaning: "Whether `http://` is accepted, for a stand-in on loopback only.",
            },
        ]
    };
}

static JWT_PROVING: [Key<Config>; 4] = proving!(jwt, "auth.salesforce_jwt");

static INTROSPECTION_PROVING: [Key<Config>; 4] = proving!(introspection, "auth.salesforce_introspection");

static INTROSPECTION_ASKED: [Key<Config>; 5] = asked!(introspection, "auth.salesforce_introspection");

static USERINFO_PROVING: [Key<Config>; 4] = proving!(userinfo, "auth.salesforce_userinfo");

static USERINFO_ASKED: [Key<Config>; 5] = asked!(userinfo, "auth.salesforce_userinfo");

static JWT: &[Key<Config>] = &[
    Key {
        name: "auth.salesforce_jwt.certificate_file",
        slot: Slot::Path(|it, path| it.proofs.jwt.get_or_insert_default().certificate_file = Some(path)),
        default: "required",
        unit: "",
        meaning: "The certificate, or public key, of the key that the org signs with (PEM, RSA of 2048 bits or more). \
                  Several in one file: any of them, so that a new one can be introduced. Their dates are not checked.",
    },
    Key {
        name: "auth.salesforce_jwt.audience",
        slot: Slot::Text(text::printed, |it, text| it.proofs.jwt.get_or_insert_default().audience = Some(text)),
        default: "required",
        unit: "",
        meaning: "The `aud` of a JWT that is meant for this broker; the Apex class has the same text.",
    },
    Key {
        name: "auth.salesforce_jwt.issuer",
        slot: Slot::Text(text::printed, |it, text| it.proofs.jwt.get_or_insert_default().issuer = Some(text)),
        default: "`org_id`",
        unit: "",
        meaning: "The `iss`, if the org's code writes something other than the org's id there. `org_id` is then not \
                  needed: the certificate alone proves the org.",
    },
    Key {
        name: "auth.salesforce_jwt.clock_skew",
        slot: Slot::Span(Duration::ZERO, |it| &mut it.proofs.jwt.get_or_insert_default().clock_skew),
        default: r#""1m""#,
        unit: "",
        meaning: "How far the broker's clock and Salesforce's may differ, at most `\"5m\"`.",
    },
    Key {
        name: "auth.salesforce_jwt.lifetime",
        slot: Slot::Span(TICK, |it| &mut it.proofs.jwt.get_or_insert_default().lifetime),
        default: r#""5m""#,
        unit: "",
        meaning: "How long a JWT may be good for, at most `\"1h\"`; one that lasts longer is refused. The shorter, the less a \
                  stolen one is worth.",
    },
    Key {
        name: "auth.salesforce_jwt.username_claim",
        slot: Slot::Text(text::printed, |it, text| it.proofs.jwt.get_or_insert_default().username_claim = text),
        default: r#""username""#,
        unit: "",
        meaning: "The claim that has the user name; looked at with `user = \"username\"` only.",
    },
    Key {
        name: "auth.salesforce_jwt.federation_id_claim",
        slot: Slot::Text(text::printed, |it, text| it.proofs.jwt.get_or_insert_default().federation_id_claim = text),
        default: r#""federation_id""#,
        unit: "",
        meaning: "The claim that has the federation id; looked at with `user = \"federation_id\"` only.",
    },
];

static INTROSPECTION: &[Key<Config>] = &[
    Key {
        name: "auth.salesforce_introspection.client_id",
        slot: Slot::Text(text::printed, |it, text| {
            it.proofs.introspection.get_or_insert_default().client_id = Some(text);
        }),
        default: "required",
        unit: "",
        meaning: "The consumer key of the external client app that asks.",
    },
    Key {
        name: "auth.salesforce_introspection.client_secret_file",
        slot: Slot::Path(|it, path| it.proofs.introspection.get_or_insert_default().client_secret_file = Some(path)),
        default: "required",
        unit: "",
        meaning: "A file with its consumer secret.",
    },
    Key {
        name: "auth.salesforce_introspection.allowed_clients",
        slot: Slot::Texts(text::printed, |it| &mut it.proofs.introspection.get_or_insert_default().allowed_clients),
        default: "`client_id` alone",
        unit: "",
        meaning: "Consumer keys of the apps whose tokens count. A token that was given to another app proves nothing \
                  here.",
    },
];
