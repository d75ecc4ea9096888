//! The arguments and the token that all commands share which connect to a broker.

use std::env;
use std::future::ready;
use std::path::{Path, PathBuf};

use clap::Args;
use secrecy::SecretString;

use switchboard_client::{Builder, Client};

use super::Usage;
use crate::short_text;
use crate::store::read_secret_or_pipe;

/// Where a broker listens without configuration.
pub(crate) const DEFAULT_URL: &str = "ws://127.0.0.1:7420/ws";

/// Holds the token if there is no `--token-file`.
pub(crate) const TOKEN_VARIABLE: &str = "SWITCHBOARD_TOKEN";

pub(crate) const TOKEN_HELP: &str = "A file with the token; default: the environment variable SWITCHBOARD_TOKEN";

/// The arguments of every client command.
#[derive(Args)]
pub(crate) struct Connection {
    // Not a doc comment, which would be a link.
    #[arg(
        help = "The address of the broker; wss:// for TLS, ws+unix://PATH:/ws for a Unix socket",
        long,
        value_name = "URL",
        default_value = DEFAULT_URL,
        env = "SWITCHBOARD_URL",
        hide_env_values = true,
        help_heading = "Connection"
    )]
    url: String,
    /// The name to register
    #[arg(long, value_name = "NAME", env = "SWITCHBOARD_SOURCE", hide_env_values = true, help_heading = "Connection")]
    source: String,
    // Not a doc comment: the terminal would show its backticks.
    #[arg(long, value_name = "FILE", help_heading = "Connection", help = TOKEN_HELP)]
    token_file: Option<PathBuf>,
    /// The user of this session, for a broker in open mode
    #[arg(long, value_name = "NAME", env = "SWITCHBOARD_USER", hide_env_values = true, help_heading = "Connection")]
    user: Option<String>,
    /// A PEM file with further certificate authorities to trust for wss://
    #[arg(long, value_name = "FILE", help_heading = "Connection")]
    ca_file: Option<PathBuf>,
}

impl Connection {
    /// Connects and registers. The session ends with its connection: nobody waits for a command that was killed.
    pub(crate) async fn connect(&self) -> anyhow::Result<Client> {
        self.connect_to_resume(false).await
    }

    /// Connects and registers. If `resume`, the session can continue after a lost connection.
    pub(crate) async fn connect_to_resume(&self, resume: bool) -> anyhow::Result<Client> {
        Ok(self.builder()?.resume(resume).connect().await?)
    }

    /// Returns whether this session may see all users: it names none and proves none, so the broker is in open mode.
    pub(crate) fn is_anyone(&self) -> bool {
        self.user.is_none() && self.token_file.is_none() && env::var_os(TOKEN_VARIABLE).is_none()
    }

    fn builder(&self) -> Result<Builder, Usage> {
        let mut builder = Client::builder(&self.url).source(&self.source);
        if let Some(first) = token(self.token_file.as_deref())? {
            // A pipe can be read only once.
            builder = match self.token_file.clone().filter(|path| path.is_file()) {
                Some(path) => builder.token_reader(move || ready(read_token(&path))),
                None => builder.token(first),
            };
        }
        if let Some(user) = &self.user {
            builder = builder.user(user);
        }
        if let Some(path) = &self.ca_file {
            builder = builder.ca_file(path);
        }
        Ok(builder)
    }
}

/// Returns the token from a file or from the environment.
pub(crate) fn token(file: Option<&Path>) -> Result<Option<SecretString>, Usage> {
    let Some(path) = file else {
        return match env::var(TOKEN_VARIABLE) {
            Ok(token) if token.trim().is_empty() => Err(Usage::new(format!("{TOKEN_VARIABLE} is empty"))),
            Ok(token) => Ok(Some(SecretString::from(short_text::trim(&token)))),
            Err(env::VarError::NotPresent) => Ok(None),
            Err(env::VarError::NotUnicode(_)) => Err(Usage::new(format!("{TOKEN_VARIABLE} is not UTF-8"))),
        };
    };
    read_token(path).map(Some).map_err(Usage::new)
}

/// Returns the token in a file, or what is wrong with the file.
fn read_token(path: &Path) -> Result<SecretString, String> {
    let wrong = |why: &dyn std::fmt::Display| format!("the token file {}: {why}", path.display());
    let text = read_secret_or_pipe(path).map_err(|error| wrong(&error))?;
    if text.trim().is_empty() {
        return Err(wrong(&"the file is empty"));
    }
    Ok(SecretString::from(text.as_str()))
}
