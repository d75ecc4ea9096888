//! [`Tokens`] of the configuration, and [`OwnToken`], which the broker makes where the configuration has none.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use rand::TryRng as _;
use rand::rngs::SysRng;
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use crate::auth::hash_token;
use crate::config::{Admin, May};
use crate::store::replace;

/// The length of a random token: 256 bits in base64.
const TOKEN_CHARS: usize = 43;

/// The name of the broker's own token in audit records.
const OWN_NAME: &str = "admin.token";

/// The hashes of `[[admin.tokens]]`.
#[derive(Default)]
pub(in crate::server) struct Tokens {
    by_hash: HashMap<[u8; 32], (Arc<str>, May)>,
}

impl Tokens {
    /// Those of a configuration.
    pub(in crate::server) fn new(admin: &Admin) -> Self {
        let by_hash = admin.tokens.iter().map(|it| (it.token_sha256, (Arc::from(it.name.as_str()), it.may))).collect();
        Self { by_hash }
    }

    /// Returns the name of a token and what it allows. It is looked up by its hash, so the time that this takes says nothing
    /// about the token.
    pub(super) fn find(&self, hash: &[u8; 32]) -> Option<(Arc<str>, May)> {
        self.by_hash.get(hash).cloned()
    }
}

/// The token in `admin.token` in the data folder, for an admin listener on loopback without `[[admin.tokens]]`.
pub(in crate::server) struct OwnToken {
    path: PathBuf,
    hash: Mutex<Option<[u8; 32]>>,
}

impl OwnToken {
    /// No token yet.
    pub(in crate::server) fn new(data_dir: &Path) -> Self {
        Self { path: data_dir.join("admin.token"), hash: Mutex::new(None) }
    }

    /// Makes a token if the configuration needs one, and removes it if not. Returns a warning if that failed. Blocks on the
    /// disk.
    pub(in crate::server) fn settle(&self, admin: &Admin) -> Option<String> {
        let is_needed = !admin.listen.is_empty() && admin.tokens.is_empty() && admin.is_loopback();
        let mut own = self.hash.lock();
        if !is_needed {
            *own = None;
            // A token of an earlier start is not valid any more.
            std::fs::remove_file(&self.path).ok();
            return None;
        }
        if own.is_some() {
            return None;
        }
        match self.write() {
            Ok(hash) => {
                *own = Some(hash);
                None
            }
            Err(error) => Some(format!(
                "the token of the admin API cannot be written to {}: {error}; only calls that need no token are answered",
                self.path.display()
            )),
        }
    }

    fn write(&self) -> std::io::Result<[u8; 32]> {
        let token = random_token()?;
        let mut line = Zeroizing::new(String::with_capacity(TOKEN_CHARS + 1));
        line.push_str(token.expose_secret());
        line.push('\n');
        replace(&self.path, line.as_bytes())?;
        Ok(hash_token(&token))
    }

    /// Returns the name of the token and what it allows, if it is this one.
    pub(super) fn find(&self, hash: &[u8; 32]) -> Option<(Arc<str>, May)> {
        (*self.hash.lock() == Some(*hash)).then(|| (Arc::from(OWN_NAME), May::Act))
    }
}

/// Returns a new token of 256 random bits.
///
/// # Errors
/// The system has no random numbers.
pub(super) fn random_token() -> std::io::Result<SecretString> {
    let mut bytes = Zeroizing::new([0; 32]);
    SysRng.try_fill_bytes(bytes.as_mut()).map_err(std::io::Error::other)?;
    let mut text = Zeroizing::new(String::with_capacity(TOKEN_CHARS));
    URL_SAFE_NO_PAD.encode_string(bytes.as_ref(), &mut text);
    Ok(SecretString::from(text.as_str()))
}
