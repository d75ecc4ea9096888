//! One row: its values ([`Entry`]) and the bytes that are encrypted.

use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::credentials::Credentials;
use wire::{NameFault, check_name};

/// The longest password, in bytes.
pub const PASSWORD_BYTES_MAX: usize = 1024;

/// Records are padded to a multiple of this, so that their length does not reveal the password's.
const PADDED_TO: usize = 256;

/// Credentials and their user.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The user of sessions, compared byte for byte.
    pub user: String,
    /// The credentials.
    pub credentials: Credentials,
}

/// A field that cannot be stored. The text names the broken rule, never the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {fault}")]
pub struct FieldFault {
    /// The name of the column.
    pub field: &'static str,
    /// The rule.
    pub fault: &'static str,
}

impl FieldFault {
    /// A password beyond [`PASSWORD_BYTES_MAX`].
    pub const PASSWORD_TOO_LONG: Self = Self { field: "password", fault: "must not be longer than 1024 bytes" };
}

impl Entry {
    /// Checks every field. An empty `adfs_username` counts as none.
    ///
    /// # Errors
    /// Names the first field that breaks a rule.
    pub fn new(user: String, credentials: Credentials) -> Result<Self, FieldFault> {
        let name = |field, text: &str| {
            check_name(text).map_err(|fault| {
                let fault = match fault {
                    NameFault::Empty => "must not be empty",
                    NameFault::TooLong => "must not be longer than 128 bytes",
                    NameFault::Control | NameFault::Slash | NameFault::Any | NameFault::PartlyAny => {
                        "must not contain control characters"
                    }
                };
                FieldFault { field, fault }
            })
        };
        let mut credentials = credentials;
        credentials.adfs_username = credentials.adfs_username.filter(|text| !text.is_empty());
        name("user", &user)?;
        name("username", &credentials.username)?;
        check_password(credentials.password.expose_secret())?;
        name("extension", &credentials.extension)?;
        credentials.adfs_username.as_deref().map_or(Ok(()), |text| name("adfs_username", text))?;
        Ok(Self { user, credentials })
    }

    /// The bytes that are encrypted: five fields with their lengths, padded with zeros.
    pub(super) fn encode(&self) -> Zeroizing<Vec<u8>> {
        let Credentials { username, password, extension, adfs_username } = &self.credentials;
        let fields = [
            self.user.as_str(),
            username.as_str(),
            password.expose_secret(),
            extension.as_str(),
            adfs_username.as_deref().unwrap_or_default(),
        ];
        let length: usize = fields.iter().map(|field| size_of::<u64>() + field.len()).sum();
        let padded = length.next_multiple_of(PADDED_TO);
        // Half a block of spare capacity, so that adding the authentication tag does not move the buffer.
        let mut bytes = Zeroizing::new(Vec::with_capacity(padded + PADDED_TO / 2));
        for field in fields {
            bytes.extend_from_slice(&(field.len() as u64).to_le_bytes());
            bytes.extend_from_slice(field.as_bytes());
        }
        bytes.resize(padded, 0);
        bytes
    }

    /// Reads what [`Entry::encode`] wrote.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let user = field(&mut rest)?.to_owned();
        let username = field(&mut rest)?.to_owned();
        let password = SecretString::from(field(&mut rest)?);
        let extension = field(&mut rest)?.to_owned();
        let adfs_username = Some(field(&mut rest)?.to_owned());
        Self::new(user, Credentials { username, password, extension, adfs_username }).ok()
    }
}

fn check_password(text: &str) -> Result<(), FieldFault> {
    let fault = |fault| Err(FieldFault { field: "password", fault });
    match text.len() {
        0 => fault("must not be empty"),
        1..=PASSWORD_BYTES_MAX if text.chars().any(char::is_control) => fault("must not contain control characters"),
        1..=PASSWORD_BYTES_MAX => Ok(()),
        _ => Err(FieldFault::PASSWORD_TOO_LONG),
    }
}

fn field<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let (length, after) = rest.split_first_chunk()?;
    let (text, after) = after.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    *rest = after;
    std::str::from_utf8(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_and_its_length_hides_the_passwords() {
        let entry = |password: &str, adfs: Option<&str>| {
            Entry::new(
                "alice@example.com".to_owned(),
                Credentials {
                    username: "1245456".to_owned(),
                    password: SecretString::from(password),
                    extension: "5051".to_owned(),
                    adfs_username: adfs.map(str::to_owned),
                },
            )
            .unwrap()
        };
        let (short, long) = (entry("x", None).encode(), entry("a much longer password", Some("")).encode());
        assert_eq!(short.len(), long.len());
        let read = Entry::decode(&long).unwrap();
        assert_eq!(read.user, "alice@example.com");
        assert_eq!(read.credentials.password.expose_secret(), "a much longer password");
        assert_eq!(read.credentials.adfs_username, None);
        for cut in 0..90 {
            assert!(Entry::decode(&long[..cut]).is_none(), "cut at {cut}");
        }
    }
}
