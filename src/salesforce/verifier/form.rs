//! [`Form`]: what a token looks like, which decides who is asked about it. A text that does not look like one of
//! Salesforce's tokens is sent nowhere, because it may be another system's secret.

use crate::auth::Jwt;

/// What a token looks like.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Form<'t> {
    /// A JWT signed by code of the org.
    Jwt,
    /// An access token.
    AccessToken {
        /// The first 15 characters of the org's id; `None` if the token does not contain it.
        org: Option<&'t str>,
    },
    /// Anything else.
    Other,
}

/// In the header of every access token of Salesforce that is a JWT.
const ACCESS_TOKEN_TYPE: &str = "sfdc-core-token";

/// Longer texts are not access tokens. Today's have about 110 characters, or about a thousand as a JWT.
const ACCESS_TOKEN_BYTES_MAX: usize = 4096;

impl<'t> Form<'t> {
    /// Returns the form of a token.
    pub(super) fn of(token: &'t str) -> Self {
        let sendable = token.len() <= ACCESS_TOKEN_BYTES_MAX && token.bytes().all(|it| it.is_ascii_graphic());
        match token.split_once('!') {
            // `00D000000000001!AQ…`
            Some((org, rest)) if sendable && is_org(org) && !rest.is_empty() => Self::AccessToken { org: Some(org) },
            Some(_) => Self::Other,
            None if token.split('.').count() != 3 => Self::Other,
            None => match Jwt::read(token) {
                Ok(jwt) if sendable && jwt.header_text("tty") == Some(ACCESS_TOKEN_TYPE) => {
                    Self::AccessToken { org: None }
                }
                Ok(_) | Err(_) => Self::Jwt,
            },
        }
    }
}

fn is_org(text: &str) -> bool {
    text.len() == 15 && text.starts_with("00D") && text.bytes().all(|it| it.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_told_by_its_look() {
        let (core, own) = ("eyJhbGciOiJSUzI1NiIsInR0eSI6InNmZGMtY29yZS10b2tlbiJ9", "eyJhbGciOiJSUzI1NiJ9");
        let long = format!("00D000000000001!{}", "A".repeat(5000));
        for (token, form) in [
            ("00D000000000001!AQ.x_y.z", Form::AccessToken { org: Some("00D000000000001") }),
            ("00D000000000001!AQ\r\nX: y", Form::Other),
            ("00D000000000001!AQ é", Form::Other),
            ("00D000000000001!", Form::Other),
            ("00D000000000001EAA!AQ", Form::Other),
            ("005000000000001!AQ", Form::Other),
            (&long, Form::Other),
            (&format!("{own}.e30.c2ln"), Form::Jwt),
            (&format!("{core}.e30.c2ln"), Form::AccessToken { org: None }),
            (&format!("{core}.{}.c2ln", "A".repeat(5000)), Form::Jwt),
            ("a.b.c", Form::Jwt),
            ("..", Form::Jwt),
            ("a.b", Form::Other),
            ("a.b.c.d", Form::Other),
            ("5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef", Form::Other),
            ("", Form::Other),
        ] {
            assert_eq!(Form::of(token), form, "{token}");
        }
    }
}
