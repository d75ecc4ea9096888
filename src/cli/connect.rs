//! What the commands that speak to a broker have in common: where it is, and who they are.

use std::env;
use std::path::{Path, PathBuf};

use clap::Args;
use secrecy::SecretString;

use super::Usage;
use crate::client::{Builder, Client};
use crate::store::read_secret;

/// Holds the token where there is no `--token-file`.
pub(crate) const TOKEN_VARIABLE: &str = "SWITCHBOARD_TOKEN";

const TOKEN_HELP: &str = "A file that holds the token; without it, the environment variable SWITCHBOARD_TOKEN does";

/// Where the broker is, and who this is.
#[derive(Args)]
pub(crate) struct Connection {
    /// The broker's address
    #[arg(long, value_name = "URL", default_value = "ws://127.0.0.1:7420/ws", help_heading = "Connection")]
    url: String,
    /// The name to register under
    #[arg(long, value_name = "NAME", help_heading = "Connection")]
    source: String,
    // Not a doc comment: the terminal would show its backticks.
    #[arg(long, value_name = "FILE", help_heading = "Connection", help = TOKEN_HELP)]
    token_file: Option<PathBuf>,
    /// The user to be; a broker in open mode believes it
    #[arg(long, value_name = "NAME", help_heading = "Connection")]
    user: Option<String>,
}

impl Connection {
    /// Connects and registers.
    pub(crate) async fn connect(&self) -> anyhow::Result<Client> {
        Ok(self.builder()?.connect().await?)
    }

    /// The connection, before it is made.
    pub(crate) fn builder(&self) -> Result<Builder, Usage> {
        let mut builder = Client::builder(&self.url).source(&self.source);
        if let Some(token) = token(self.token_file.as_deref())? {
            builder = builder.token(token);
        }
        if let Some(user) = &self.user {
            builder = builder.user(user);
        }
        Ok(builder)
    }
}

/// The token: of a file, or of the environment.
pub(crate) fn token(file: Option<&Path>) -> Result<Option<SecretString>, Usage> {
    let (text, origin) = match file {
        Some(path) => {
            let text = read_secret(path)
                .map_err(|error| Usage::new(format!("cannot read the token file {}: {error}", path.display())))?;
            (SecretString::from(text.as_str()), format!("the token file {}", path.display()))
        }
        None => match env::var(TOKEN_VARIABLE) {
            Ok(text) => (SecretString::from(text), TOKEN_VARIABLE.to_owned()),
            Err(env::VarError::NotPresent) => return Ok(None),
            Err(env::VarError::NotUnicode(_)) => {
                return Err(Usage::new(format!("{TOKEN_VARIABLE} is not UTF-8")));
            }
        },
    };
    match secrecy::ExposeSecret::expose_secret(&text).trim() {
        "" => Err(Usage::new(format!("{origin} is empty"))),
        token => Ok(Some(SecretString::from(token))),
    }
}
