//! [`KeySet`]: the public keys of an issuer, as JSON (RFC 7517); [`FetchedKeys`]: a set that is fetched again and again.

mod fetched;

pub use fetched::FetchedKeys;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use super::jwt::{KeyKind, VerifyingKey, parse_unrepeated};

/// The largest key set, in bytes.
pub const KEY_SET_BYTES_MAX: usize = 256 << 10;

/// Keys in one set.
const KEYS_MAX: usize = 64;

/// What only a private or a shared key has. A key that was published with one of them is not secret any more.
const PRIVATE: [&str; 9] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"];

/// The usable keys of a set.
pub struct KeySet(Vec<VerifyingKey>);

/// What a set has for a token.
pub(super) enum Found<'k> {
    /// Keys that may have signed it.
    Keys(Vec<&'k VerifyingKey>),
    /// No key has the id that the token names: perhaps a new one.
    UnknownId,
    /// Nothing, and a newer set would hardly have more.
    Nothing(&'static str),
}

impl KeySet {
    /// Reads a set. Keys that cannot have signed a token with one of these algorithms are ignored, as are private and shared
    /// keys, keys for encryption, and RSA keys under 2,048 bits.
    ///
    /// # Errors
    /// What is wrong, without a word of the text.
    pub fn parse(json: &[u8], algorithms: &[Algorithm]) -> Result<Self, &'static str> {
        if json.len() > KEY_SET_BYTES_MAX {
            return Err("the key set is larger than 256 KiB");
        }
        let set = parse_unrepeated(json).map_err(|_| "the key set is not JSON, or has a key twice")?;
        let keys = set.get("keys").and_then(Value::as_array).ok_or("the key set has no list 'keys'")?;
        if keys.len() > KEYS_MAX {
            return Err("the key set has over 64 keys");
        }
        let usable = keys.iter().filter_map(Value::as_object).filter_map(|key| read(key, algorithms));
        let usable: Vec<_> = usable.collect();
        if usable.is_empty() { Err("the key set has no key that fits 'algorithms'") } else { Ok(Self(usable)) }
    }

    /// Returns what the set has for a token with this algorithm and key id.
    pub(super) fn find(&self, algorithm: Algorithm, id: Option<&str>) -> Found<'_> {
        let fitting = |keys: &[&'_ VerifyingKey]| keys.iter().any(|key| key.fits(algorithm));
        match id {
            Some(id) => {
                let named: Vec<_> = self.0.iter().filter(|key| key.id.as_deref() == Some(id)).collect();
                match named.as_slice() {
                    [] => Found::UnknownId,
                    keys if fitting(keys) => Found::Keys(named.into_iter().filter(|key| key.fits(algorithm)).collect()),
                    _ => Found::Nothing("the key that the JWT names is of another type than its 'alg'"),
                }
            }
            None => match self.0.iter().filter(|key| key.fits(algorithm)).collect::<Vec<_>>() {
                keys if keys.len() == 1 => Found::Keys(keys),
                keys if keys.is_empty() => Found::Nothing("no key of the issuer fits the JWT's 'alg'"),
                _ => Found::Nothing("the JWT names no key ('kid'), and several keys of the issuer fit its 'alg'"),
            },
        }
    }

    /// Returns how many keys can be used.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether no key can be used, which [`parse`](Self::parse) refuses.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Reads one key; `None` if it is to be ignored.
fn read(key: &Map<String, Value>, algorithms: &[Algorithm]) -> Option<VerifyingKey> {
    let text = |name: &str| key.get(name).and_then(Value::as_str);
    let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
    let is_private = PRIVATE.iter().any(|name| key.contains_key(*name));
    let is_for_signing = key.get("use").is_none_or(|purpose| purpose == "sig");
    if is_private || !is_for_signing {
        return None;
    }
    let algorithm = match key.get("alg") {
        Some(name) => Some(name.as_str()?.parse::<Algorithm>().ok()?),
        None => None,
    };
    let id = match key.get("kid") {
        Some(id) => Some(id.as_str()?.to_owned()),
        None => None,
    };
    let point = |kind, len: usize| {
        let (x, y) = (bytes("x")?, bytes("y")?);
        let is_whole = x.len() == len && y.len() == len;
        is_whole.then(|| VerifyingKey::point(kind, &[&[4], &*x, &*y].concat())).flatten()
    };
    let read = match (text("kty")?, text("crv")) {
        ("RSA", _) => VerifyingKey::rsa(&bytes("n")?, &bytes("e")?),
        ("EC", Some("P-256")) => point(KeyKind::P256, 32),
        ("EC", Some("P-384")) => point(KeyKind::P384, 48),
        ("OKP", Some("Ed25519")) => VerifyingKey::point(KeyKind::Ed25519, &bytes("x")?),
        _ => None,
    };
    read.map(|key| key.named(id, algorithm)).filter(|key| algorithms.iter().any(|it| key.fits(*it)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Algorithm; 4] = [Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::EdDSA];

    /// A key of 2,048 bits, as a set has it.
    fn rsa(more: &str) -> String {
        let n = URL_SAFE_NO_PAD.encode([0xff; 256]);
        format!(r#"{{"kty":"RSA","n":"{n}","e":"AQAB"{more}}}"#)
    }

    fn ec(more: &str) -> String {
        let part = URL_SAFE_NO_PAD.encode([7; 32]);
        format!(r#"{{"kty":"EC","crv":"P-256","x":"{part}","y":"{part}"{more}}}"#)
    }

    fn parse(keys: &[String]) -> Result<KeySet, &'static str> {
        KeySet::parse(format!(r#"{{"keys":[{}]}}"#, keys.join(",")).as_bytes(), &ALL)
    }

    #[test]
    fn keys_that_cannot_have_signed_are_ignored() {
        let short = URL_SAFE_NO_PAD.encode([0xff; 255]);
        let zeros = URL_SAFE_NO_PAD.encode([[0; 8].as_slice(), &[0xff; 250]].concat());
        let secret = URL_SAFE_NO_PAD.encode([7; 32]);
        for (key, count) in [
            (rsa(""), 1),
            (rsa(r#","x5c":["x"],"x5u":"http://evil.example""#), 1),
            (rsa(r#","use":"sig","alg":"PS256","kid":"a""#), 1),
            (rsa(r#","use":"enc""#), 0),
            (rsa(r#","use":null"#), 0),
            (rsa(r#","alg":"RS512""#), 0),
            (rsa(r#","alg":"ES256""#), 0),
            (rsa(r#","alg":"RSA-OAEP""#), 0),
            (rsa(r#","alg":null"#), 0),
            (rsa(r#","kid":7"#), 0),
            (rsa(r#","d":"AQAB""#), 0),
            (rsa(r#","qi":"""#), 0),
            (format!(r#"{{"kty":"RSA","n":"{short}","e":"AQAB"}}"#), 0),
            (format!(r#"{{"kty":"RSA","n":"{zeros}","e":"AQAB"}}"#), 0),
            (rsa("").replace("AQAB", ""), 0),
            (rsa("").replace("AQAB", "AQ=="), 0),
            (ec(""), 1),
            (ec("").replace("P-256", "P-384"), 0),
            (ec("").replace("P-256", "secp256k1"), 0),
            (ec(r#","d":"AQAB""#), 0),
            (format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{secret}"}}"#), 1),
            (format!(r#"{{"kty":"OKP","crv":"X25519","x":"{secret}"}}"#), 0),
            (format!(r#"{{"kty":"oct","k":"{secret}"}}"#), 0),
            (format!(r#"{{"kty":"oct","k":"{secret}","alg":"HS256"}}"#), 0),
            ("{}".to_owned(), 0),
            ("null".to_owned(), 0),
            ("[]".to_owned(), 0),
        ] {
            let found = parse(&[key.clone(), ec("")]).map_or(0, |set| set.len() - 1);
            assert_eq!(found, count, "{key}");
        }
    }

    #[test]
    fn a_set_that_is_too_large_or_has_no_usable_key_is_refused() {
        assert!(parse(&vec![rsa(""); 64]).is_ok());
        for (json, part) in [
            (format!(r#"{{"keys":[{}]}}"#, vec![rsa(""); 65].join(",")), "over 64"),
            (format!(r#"{{"keys":[{}],"x":"{}"}}"#, rsa(""), "x".repeat(KEY_SET_BYTES_MAX)), "256 KiB"),
            (format!(r#"{{"keys":[{}],"keys":[{}]}}"#, rsa(""), rsa("")), "not JSON"),
            (r#"{"keys":[]}"#.to_owned(), "no key"),
            (r#"{"keys":{}}"#.to_owned(), "no list"),
            ("[]".to_owned(), "no list"),
            ("<html>".to_owned(), "not JSON"),
            (String::new(), "not JSON"),
            ("[".repeat(200_000), "not JSON"),
            (r#"{"keys":"#.repeat(10_000), "not JSON"),
        ] {
            let why = KeySet::parse(json.as_bytes(), &ALL).err();
            assert!(why.is_some_and(|why| why.contains(part)), "{part}: {why:?}");
        }
    }

    #[test]
    fn a_key_is_found_by_its_id_and_without_an_id_only_if_it_is_the_only_one() {
        let set = parse(&[rsa(r#","kid":"a""#), ec(r#","kid":"b""#)]).unwrap();
        let found = |set: &KeySet, algorithm, id: Option<&str>| match set.find(algorithm, id) {
            Found::Keys(keys) => format!("{}", keys.len()),
            Found::UnknownId => "unknown".to_owned(),
            Found::Nothing(why) => why.to_owned(),
        };
        for (algorithm, id, expected) in [
            (Algorithm::RS256, Some("a"), "1"),
            (Algorithm::ES256, Some("b"), "1"),
            (Algorithm::RS256, None, "1"),
            (Algorithm::RS256, Some("c"), "unknown"),
            (Algorithm::RS256, Some(""), "unknown"),
            (Algorithm::RS256, Some("../../etc/passwd"), "unknown"),
            (Algorithm::RS256, Some("https://evil.example/keys"), "unknown"),
            (Algorithm::ES256, Some("a"), "the key that the JWT names is of another type than its 'alg'"),
            (Algorithm::EdDSA, None, "no key of the issuer fits the JWT's 'alg'"),
        ] {
            assert_eq!(found(&set, algorithm, id), expected, "{algorithm:?} {id:?}");
        }
        let two = parse(&[rsa(r#","kid":"a""#), rsa("")]).unwrap();
        assert!(found(&two, Algorithm::RS256, None).contains("names no key"));
        assert_eq!(found(&two, Algorithm::RS256, Some("a")), "1");
    }
}
