//! [`Example`]: the commands that `switchboard serve` prints in open mode, for a first try.

use std::path::Path;

use super::connect::DEFAULT_URL;
use crate::config::{Config, Store, UserKey};

/// The user whose credentials the example fetches, and how they get into the store.
pub(super) struct Example {
    user: &'static str,
    /// The arguments of the command that stores them; empty if Salesforce has them.
    stored: String,
}

impl Example {
    /// What open mode means.
    pub(super) const WARNING: &str = "open mode trusts every program that can connect: each can be any `user` and fetch \
        that user's credentials. Use auth.mode = \"tokens\" for anything but development.";

    /// Returns the example for a configuration. With Salesforce, the user is one of the simulated org.
    pub(super) fn of(config: &Config, own_folder: Option<&Path>) -> Self {
        let folder = own_folder.map(|folder| format!(" --data-dir '{}'", folder.display())).unwrap_or_default();
        match (config.credentials.store, config.salesforce.credentials.key) {
            (Store::Directory, _) => Self {
                user: "alice",
                stored: format!("credentials set alice --username 1245456 --extension 5051{folder}"),
            },
            (Store::Salesforce, UserKey::UserId) => Self { user: "005000000000002AAA", stored: String::new() },
            (Store::Salesforce, UserKey::Username | UserKey::Email) => {
                Self { user: "alice@example.com", stored: String::new() }
            }
            (Store::Salesforce, UserKey::FederationId) => Self { user: "alice", stored: String::new() },
        }
    }

    /// Returns the commands to try, for a broker at this URL.
    pub(super) fn text(&self, url: &str) -> String {
        let Self { user, stored } = self;
        let me = program();
        let stored = if stored.is_empty() { String::new() } else { format!("  {me} {stored}\n") };
        let at = if url == DEFAULT_URL { String::new() } else { format!(" --url {url}") };
        format!(
            "try it:\n  \
               {me} sub --source spy{at}\n  \
               {me} pub Demo Hello World '{{\"n\":1}}' --source demo{at}\n\
             {stored}  \
               {me} request Salesforce User FetchCredentials --source myapp --user {user}{at}\n\
             or with any WebSocket client at {url}, one line each:\n  \
               {{\"channel\":\"Broker\",\"topic\":\"Application\",\"subtopic\":\"Register\",\"source\":\"myapp\",\
             \"data\":{{\"user\":\"{user}\"}}}}\n  \
               {{\"channel\":\"Salesforce\",\"topic\":\"User\",\"subtopic\":\"FetchCredentials\",\"source\":\"myapp\"}}"
        )
    }
}

/// Returns the name under which this program was started: after `cargo run`, `switchboard` is not on the path.
fn program() -> String {
    let called = std::env::args_os().next().unwrap_or_default().to_string_lossy().into_owned();
    match called.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte)) {
        true if called.is_empty() => "switchboard".to_owned(),
        true => called,
        false => format!("'{called}'"),
    }
}
