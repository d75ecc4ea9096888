//! Issuers of JWTs, against a real broker: what is verified (`verifying`), what claims mean (`claims`), keys that
//! are fetched (`key_sets`, from a `key_server`), tokens in the `handshake`, and issuers that a `reload` changes, also under
//! load (`reload_load`). `signing` signs as an issuer does.

mod claims;
mod handshake;
pub(crate) mod key_server;
mod key_sets;
mod reload;
mod reload_load;
pub(crate) mod signing;
mod verifying;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Broker, Peer, secret_file};

/// The issuer of these tests.
const ISSUER: &str = "https://login.example.com/";

/// Its shared secret.
const SECRET: &[u8] = b"a-shared-secret-of-thirty-two-bytes-or-more";

/// A role that allows everything, and one that allows almost nothing.
const ROLES: &str = "[roles.agent]\npublish = ['*/*/*']\nsubscribe = ['*/*/*']\nrequest = ['*/*/*']\nhandle = ['*/*/*']\n\
                     [roles.listener]\npublish = []\nsubscribe = ['Phone/*/*']\nrequest = []\nhandle = []\n";

/// The time since 1970, in seconds.
fn now() -> u64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

/// The claims of a good token, with some of them changed; the value "(none)" takes one out.
fn claims(change: Value) -> Value {
    let mut claims = json!({
        "iss": ISSUER, "sub": "alice", "aud": "switchboard", "iat": now(), "exp": now() + 600,
    });
    let Value::Object(change) = change else { panic!("an object") };
    claims.as_object_mut().unwrap().extend(change);
    claims.as_object_mut().unwrap().retain(|_, value| value != "(none)");
    claims
}

/// A folder with the files of an issuer, and the table that names them.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Writes a file and returns its path.
    fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> String {
        let path = self.0.path().join(name);
        secret_file(&path, contents);
        path.display().to_string()
    }
}

/// A table `[auth.jwt.NAME]` of the issuer, for the source `softphone` in the role `agent` unless these lines say otherwise.
fn issuer(name: &str, lines: &str) -> String {
    let unless = |key: &str, line: &str| match lines.lines().any(|it| it.starts_with(&format!("{key} ="))) {
        true => String::new(),
        false => format!("{line}\n"),
    };
    let rest = [
        unless("issuer", &format!("issuer = '{ISSUER}'")),
        unless("audience", "audience = ['switchboard']"),
        unless("user", "user = 'sub'"),
        if lines.contains("source =") { String::new() } else { unless("sources", "sources = ['softphone']") },
        if lines.contains("roles =") { String::new() } else { unless("role", "role = 'agent'") },
    ];
    format!("[auth.jwt.{name}]\n{}{lines}\n", rest.concat())
}

/// A broker that does not slow down addresses whose registrations fail.
async fn broker(toml: &str) -> Broker {
    Broker::with_config(&format!("limits.failed_registrations = 1000\n{toml}{ROLES}")).await
}

/// Registers, and returns the connection with `data` of the reply.
async fn register(broker: &Broker, source: &str, token: &str) -> (Peer, Value) {
    let mut peer = broker.raw(source).await;
    let reply = peer.register(source, json!({ "token": token })).await["data"].clone();
    (peer, reply)
}

/// Registers, and returns the user; `None` for a service.
async fn proves(broker: &Broker, source: &str, token: &str) -> Option<String> {
    let (_, reply) = register(broker, source, token).await;
    assert_eq!(reply["Success"], true, "{reply}");
    reply["User"].as_str().map(str::to_owned)
}

/// Is refused with this code, and words that contain this part and nothing of the token.
async fn refused(broker: &Broker, source: &str, token: &str, code: &str, part: &str) {
    let (mut peer, reply) = register(broker, source, token).await;
    assert_eq!(reply["ErrorCode"], code, "{part}: {reply}");
    let words = reply["ErrorMessage"].as_str().unwrap();
    assert!(words.contains(part), "{part}: {words}");
    assert!(token.split('.').all(|it| it.len() < 8 || !words.contains(it)), "a token is never quoted: {words}");
    let close = if code == "FORBIDDEN" { 4403 } else { 4401 };
    assert_eq!(peer.closed().await, close, "{reply}");
}
