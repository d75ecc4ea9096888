//! The keys of `[salesforce]` and `[salesforce.credentials]`, in the form of `reference`.

use std::time::Duration;

use super::text;
use super::{Mode, UserKey};
use crate::config::Config;
use crate::config::reference::{Key, TICK};
use crate::config::slot::{Slot, Word};

/// The keys.
pub(crate) static SALESFORCE_KEYS: &[Key<Config>] = &[
    Key {
        name: "salesforce.login_url",
        slot: Slot::Text(text::login_url, |it, url| it.salesforce.login_url = url),
        default: r#""https://login.salesforce.com""#,
        unit: "",
        meaning: "Where the broker logs in: `https://login.salesforce.com`, `https://test.salesforce.com` (a sandbox), \
                  or the org's My Domain, which client credentials need. No path.",
    },
    Key {
        name: "salesforce.audience",
        slot: Slot::Text(text::printed, |it, text| it.salesforce.audience = Some(text)),
        default: "`login_url`",
        unit: "",
        meaning: "The `aud` of the assertion, with a private key. Where `login_url` is My Domain, \
                  `https://login.salesforce.com` or `https://test.salesforce.com` may be needed.",
    },
    Key {
        name: "salesforce.api_version",
        slot: Slot::Text(text::api_version, |it, version| it.salesforce.api_version = version),
        default: r#""67.0""#,
        unit: "",
        meaning: "The version of the REST API, at least `\"41.0\"`. `switchboard check --salesforce` says which the \
                  org has.",
    },
    Key {
        name: "salesforce.client_id",
        slot: Slot::Text(text::printed, |it, id| it.salesforce.client_id = Some(id)),
        default: "required",
        unit: "",
        meaning: "The consumer key of the external client app.",
    },
    Key {
        name: "salesforce.username",
        slot: Slot::Text(text::printed, |it, name| it.salesforce.username = Some(name)),
        default: "with `private_key_file`",
        unit: "",
        meaning: "The integration user that the private key logs in.",
    },
    Key {
        name: "salesforce.private_key_file",
        slot: Slot::Path(|it, path| it.salesforce.private_key_file = Some(path)),
        default: "this or `client_secret_file`",
        unit: "",
        meaning: "The RSA key (PEM) whose certificate the app has: login by JWT bearer.",
    },
    Key {
        name: "salesforce.client_secret_file",
        slot: Slot::Path(|it, path| it.salesforce.client_secret_file = Some(path)),
        default: "this or `private_key_file`",
        unit: "",
        meaning: "A file with the app's consumer secret: login by client credentials.",
    },
    Key {
        name: "salesforce.ca_file",
        slot: Slot::Path(|it, path| it.salesforce.ca_file = Some(path)),
        default: "none",
        unit: "",
        meaning: "Certificates (PEM) that are trusted beside the system's roots: of a proxy that decrypts TLS, or of \
                  a stand-in.",
    },
    Key {
        name: "salesforce.instance_hosts",
        slot: Slot::Texts(text::instance_host, |it| &mut it.salesforce.instance_hosts),
        default: r#"[".salesforce.com"]"#,
        unit: "",
        meaning: "Where the token may be sent, whatever Salesforce says its `instance_url` is: `.x` is any host that \
                  ends in it, `x` that host or address. Ports are not compared.",
    },
    Key {
        name: "salesforce.insecure_http",
        slot: Slot::Switch(|it| &mut it.salesforce.insecure_http),
        default: "false",
        unit: "",
        meaning: "Whether `http://` is accepted, for a stand-in on loopback only.",
    },
    Key {
        name: "salesforce.timeout",
        slot: Slot::Span(TICK, |it| &mut it.salesforce.timeout),
        default: r#""8s""#,
        unit: "",
        meaning: "How long a request to Salesforce may take: waiting for its turn, a new login and repetitions included. \
                  Below `requests.timeout`, or the requester gets `REQUEST_TIMEOUT` first.",
    },
    Key {
        name: "salesforce.concurrency",
        slot: Slot::Size(1, |it| &mut it.salesforce.concurrency),
        default: "8",
        unit: "calls",
        meaning: "Calls at once; an org has 25 places for slow ones (5 in a Developer or Trial one), for all its clients. At most \
                  half of them are writes.",
    },
    Key {
        name: "salesforce.breaker_failures",
        slot: Slot::Count(1, |it| &mut it.salesforce.breaker_failures),
        default: "5",
        unit: "requests in a row",
        meaning: "Failed requests in a row for one purpose (credentials, or an object) after which the org gets no request \
                  for it for `breaker_open`; after as many lost connections, 503 or failed logins it gets none at all.",
    },
    Key {
        name: "salesforce.breaker_open",
        slot: Slot::Span(TICK, |it| &mut it.salesforce.breaker_open),
        default: r#""5s""#,
        unit: "",
        meaning: "The first such pause. After it, one request is tried; if that fails, the next pause is twice as \
                  long, up to 60 s.",
    },
    Key {
        name: "salesforce.calls_per_user",
        slot: Slot::Count(0, |it| &mut it.salesforce.calls_per_user),
        default: "120",
        unit: "a minute, 0 = no limit",
        meaning: "How many fetches and writes of one user reach the org in a minute; further ones are answered \
                  `RATE_LIMITED`. Answers from the cache, and fetches that share the answer of another, do not count, \
                  nor do requests that are not sent because Salesforce fails.",
    },
    Key {
        name: "salesforce.credentials.mode",
        slot: Slot::Word(&[
            Word { word: "query", put: |it| it.salesforce.credentials.mode = Mode::Query },
            Word { word: "external_id", put: |it| it.salesforce.credentials.mode = Mode::ExternalId },
            Word { word: "apex", put: |it| it.salesforce.credentials.mode = Mode::Apex },
        ]),
        default: r#""query""#,
        unit: "",
        meaning: "How a row is looked up: by a SOQL query, by `key_field` as an External ID, or by an Apex REST \
                  resource of the org.",
    },
    Key {
        name: "salesforce.credentials.apex_path",
        slot: Slot::Text(text::apex_path, |it, path| it.salesforce.credentials.apex_path = Some(path)),
        default: "required with `\"apex\"`",
        unit: "",
        meaning: "The path of that resource under `/services/apexrest`, with `{user}` where the user goes: \
                  `\"/cti/{user}\"`.",
    },
    Key {
        name: "salesforce.credentials.allow_mask_like",
        slot: Slot::Switch(|it| &mut it.salesforce.credentials.allow_mask_like),
        default: "false",
        unit: "",
        meaning: "Whether a password that looks like a mask (`********`, `XXXX1234`) is accepted as a password.",
    },
    Key {
        name: "salesforce.credentials.object",
        slot: Slot::Text(text::object_name, |it, name| it.salesforce.credentials.object = name),
        default: r#""CTI_Login__c""#,
        unit: "",
        meaning: "The API name of the object that holds the logins.",
    },
    Key {
        name: "salesforce.credentials.key",
        slot: Slot::Word(&[
            Word { word: "user_id", put: |it| it.salesforce.credentials.key = UserKey::UserId },
            Word { word: "username", put: |it| it.salesforce.credentials.key = UserKey::Username },
            Word { word: "federation_id", put: |it| it.salesforce.credentials.key = UserKey::FederationId },
            Word { word: "email", put: |it| it.salesforce.credentials.key = UserKey::Email },
        ]),
        default: r#""user_id""#,
        unit: "",
        meaning: "What a session's user is. An id of 15 characters is completed to 18; the others are compared as \
                  they are.",
    },
    Key {
        name: "salesforce.credentials.key_field",
        slot: Slot::Text(text::field_name, |it, name| it.salesforce.credentials.key_field = name),
        default: r#""User_Id__c""#,
        unit: "",
        meaning: "The field that holds it; a related record's, such as `User__r.Username`, in the mode `query`.",
    },
    Key {
        name: "salesforce.credentials.active_field",
        slot: Slot::Text(text::field_name_or_none, |it, name| it.salesforce.credentials.active_field = name),
        default: r#""Active__c""#,
        unit: "",
        meaning: "The checkbox without which a row does not count; `\"\"` for none.",
    },
    Key {
        name: "salesforce.credentials.fields.username",
        slot: Slot::Text(text::field_name_or_none, |it, name| it.salesforce.credentials.fields.username = name),
        default: r#""CTI_Username__c""#,
        unit: "",
        meaning: "The field of `Username`; with `\"\"` it is not read, and the answer has `\"\"`. The same holds for \
                  the next three.",
    },
    Key {
        name: "salesforce.credentials.fields.password",
        slot: Slot::Text(text::field_name_or_none, |it, name| it.salesforce.credentials.fields.password = name),
        default: r#""CTI_Password__c""#,
        unit: "",
        meaning: "The field of `Password`.",
    },
    Key {
        name: "salesforce.credentials.fields.extension",
        slot: Slot::Text(text::field_name_or_none, |it, name| it.salesforce.credentials.fields.extension = name),
        default: r#""CTI_Extension__c""#,
        unit: "",
        meaning: "The field of `Extension`.",
    },
    Key {
        name: "salesforce.credentials.fields.adfs_username",
        slot: Slot::Text(text::field_name_or_none, |it, name| it.salesforce.credentials.fields.adfs_username = name),
        default: r#""ADFS_Username__c""#,
        unit: "",
        meaning: "The field of `ADFSUsername`; the only one that may be empty in a row.",
    },
    Key {
        name: "salesforce.credentials.cache",
        slot: Slot::Span(Duration::ZERO, |it| &mut it.salesforce.credentials.cache),
        default: r#""0s""#,
        unit: "",
        meaning: "How long a found answer is given again without asking, at most `\"1h\"`. `\"0s\"`: never; a change in the \
                  org then counts at once.",
    },
];
