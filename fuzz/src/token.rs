//! Targets `jwt` and `key_set`: a token, and the answer of an issuer that publishes its keys.

use std::sync::LazyLock;
use std::time::Duration;

use switchboard::auth::{Algorithm, AuthError, Jwt, JwtRules, KeySet, Keys};

/// The secret of the tokens in the corpus.
const SECRET: &[u8] = b"a-shared-secret-of-thirty-two-bytes-or-more";

const ALGORITHMS: [Algorithm; 5] =
    [Algorithm::RS256, Algorithm::PS512, Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA];

static KEYS: LazyLock<Keys> = LazyLock::new(|| Keys::from_secret(SECRET).expect("a secret"));

static RULES: LazyLock<JwtRules> = LazyLock::new(|| JwtRules {
    algorithms: vec![Algorithm::HS256],
    issuers: vec!["https://login.example.com/".to_owned()],
    audience: vec!["switchboard".to_owned()],
    leeway: Duration::from_secs(30),
    // The tokens of the corpus do not expire.
    lifetime: Duration::from_hours(24 * 365 * 1000),
});

/// Verifies a token. A refusal is short and quotes nothing of it.
pub fn jwt(bytes: &[u8]) -> String {
    let Ok(token) = str::from_utf8(bytes) else { return "not-utf8".to_owned() };
    if let Ok(jwt) = Jwt::read(token) {
        jwt.issuer().ok();
    }
    match RULES.check(Duration::from_secs(2_000_000_000), token, &KEYS) {
        Ok(claims) => {
            assert!(claims.text("sub").is_none_or(|sub| !sub.is_empty()));
            std::hint::black_box(claims.expires());
            "accepted".to_owned()
        }
        Err(AuthError::Unauthenticated(why)) => {
            assert!(!why.is_empty() && why.len() < 200, "{why}");
            "UNAUTHENTICATED".to_owned()
        }
        Err(error) => panic!("a token alone decides: {error}"),
    }
}

/// Reads a key set.
pub fn key_set(bytes: &[u8]) -> String {
    match KeySet::parse(bytes, &ALGORITHMS) {
        Ok(keys) => {
            assert!((1..=64).contains(&keys.len()), "{} keys", keys.len());
            "accepted".to_owned()
        }
        Err(why) => {
            assert!(!why.is_empty() && why.len() < 200, "{why}");
            "refused".to_owned()
        }
    }
}
