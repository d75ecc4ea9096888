//! What is accepted of a JWT: what a configured key has signed for this broker and this moment, and nothing else.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::json;

use super::signing::{OTHER_RSA, RSA, Signer};
use super::{Files, SECRET, broker, claims, issuer, now, proves, refused};
use crate::support::application;

#[tokio::test]
async fn a_shared_secret_or_a_public_key_proves_a_user() {
    let files = Files::new();
    let (secret, key) = (Signer::secret(SECRET), Signer::rsa(RSA));
    let shared = files.write("secret", [SECRET, b"\r\n"].concat());
    let public = files.write("key.pem", key.public_pem());
    let toml = [
        application("crm", Some("alice"), ""),
        issuer("shared", &format!("algorithms = ['HS256']\nsecret_file = '{shared}'\nusers = ['*']")),
        issuer(
            "public",
            &format!("issuer = 'other'\nalgorithms = ['RS256']\nkey_file = '{public}'\nusers = ['bob']\nuser = 'a.b'"),
        ),
    ];
    let broker = broker(&toml.concat()).await;
    assert_eq!(
        proves(&broker, "softphone", &secret.token("HS256", &claims(json!({})))).await.as_deref(),
        Some("alice")
    );
    let bob = claims(json!({ "iss": "other", "a": { "b": "bob" } }));
    assert_eq!(proves(&broker, "softphone", &key.token("RS256", &bob)).await.as_deref(), Some("bob"));
    // The other proofs go on as before.
    broker.app_by_token("crm").await;
    // One issuer's key proves nothing for another.
    let forged = Signer::secret(key.public_pem().as_bytes());
    refused(&broker, "softphone", &forged.token("HS256", &bob), "UNAUTHENTICATED", "'alg'").await;
    refused(&broker, "softphone", &key.token("RS256", &claims(json!({}))), "UNAUTHENTICATED", "'alg'").await;
    refused(
        &broker,
        "softphone",
        &secret.token("HS256", &claims(json!({ "iss": "nobody" }))),
        "UNAUTHENTICATED",
        "not known",
    )
    .await;
}

#[tokio::test]
async fn every_algorithm_verifies_with_a_key_of_its_kind() {
    let files = Files::new();
    for algorithm in ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"] {
        let signer = Signer::new(algorithm);
        let key = files.write("key.pem", signer.public_pem());
        let set = json!({ "keys": [{ "kty": "future" }, signer.jwk(json!({ "kid": "a", "use": "sig" }))] });
        let set = files.write("set.json", set.to_string());
        let one = issuer("one", &format!("algorithms = ['{algorithm}']\nkey_file = '{key}'\nusers = ['*']"));
        let two = format!("issuer = 'set'\nalgorithms = ['{algorithm}']\njwks_file = '{set}'\nusers = ['*']");
        let broker = broker(&(one + &issuer("two", &two))).await;
        for iss in [super::ISSUER, "set"] {
            let token = signer.token_by(algorithm, "a", &claims(json!({ "iss": iss })));
            assert_eq!(proves(&broker, "softphone", &token).await.as_deref(), Some("alice"), "{algorithm}");
            let other = if algorithm.starts_with(['R', 'P']) { Signer::rsa(OTHER_RSA) } else { Signer::new(algorithm) };
            let forged = other.token_by(algorithm, "a", &claims(json!({ "iss": iss })));
            refused(&broker, "softphone", &forged, "UNAUTHENTICATED", "signature").await;
        }
    }
}

#[tokio::test]
async fn a_token_that_is_not_for_this_broker_and_this_moment_is_refused_with_the_reason() {
    let files = Files::new();
    let signer = Signer::secret(SECRET);
    let secret = files.write("secret", SECRET);
    let lines = format!(
        "algorithms = ['HS256']\nsecret_file = '{secret}'\naudience = ['switchboard', 'desk']\nlifetime = '1h'"
    );
    let broker = broker(&issuer("idp", &lines)).await;
    let now = now();
    for change in [
        json!({ "aud": ["other", "desk"] }),
        json!({ "iat": "(none)" }),
        json!({ "exp": now - 20, "iat": now - 600 }),
        json!({ "nbf": now + 20, "iat": now + 20 }),
        json!({ "exp": f64::from(u32::try_from(now + 60).unwrap()) + 0.5 }),
        json!({ "iat": now, "exp": now + 3600 }),
        json!({ "unknown": { "deep": [{ "sub": "mallory" }] } }),
    ] {
        let token = signer.token("HS256", &claims(change.clone()));
        assert_eq!(proves(&broker, "softphone", &token).await.as_deref(), Some("alice"), "{change}");
    }
    for (change, part) in [
        (json!({ "aud": "other" }), "'aud'"),
        (json!({ "aud": [] }), "'aud'"),
        (json!({ "aud": "(none)" }), "'aud'"),
        (json!({ "exp": now - 60, "iat": now - 600 }), "expired"),
        (json!({ "exp": "(none)" }), "'exp'"),
        (json!({ "exp": (now + 60).to_string() }), "'exp'"),
        (json!({ "exp": -1 }), "'exp'"),
        (json!({ "exp": 1e300 }), "'exp'"),
        (json!({ "nbf": now + 90 }), "'nbf'"),
        (json!({ "nbf": "soon" }), "'nbf'"),
        (json!({ "nbf": null }), "'nbf'"),
        (json!({ "iat": now + 90 }), "'iat'"),
        (json!({ "iat": "now" }), "'iat'"),
        (json!({ "iat": [now] }), "'iat'"),
        (json!({ "exp": now + 3660, "iat": "(none)" }), "too long"),
        (json!({ "exp": now + 300, "iat": now - 3400 }), "too long"),
        // In milliseconds.
        (json!({ "exp": now * 1000 }), "too long"),
        (json!({ "cnf": { "jkt": "x" } }), "'cnf'"),
    ] {
        let token = signer.token("HS256", &claims(change));
        refused(&broker, "softphone", &token, "UNAUTHENTICATED", part).await;
    }
    // Nothing but a text belongs to an issuer.
    for (iss, part) in [
        (json!([super::ISSUER]), "not a text"),
        (json!(null), "not a text"),
        (json!("(none)"), "'iss' is missing"),
        (json!("https://login.example.com"), "not known"),
        (json!("HTTPS://LOGIN.EXAMPLE.COM/"), "not known"),
    ] {
        let token = signer.token("HS256", &claims(json!({ "iss": iss })));
        refused(&broker, "softphone", &token, "UNAUTHENTICATED", part).await;
    }
    let good = claims(json!({})).to_string();
    for (text, part) in [
        (good.replacen('{', r#"{"sub":"mallory","#, 1), "key twice"),
        (good.replacen('{', r#"{"x":{"y":1,"y":2},"#, 1), "key twice"),
        (good.replacen('{', r#"{"\u0069ss":"other","#, 1), "key twice"),
        (format!("\u{feff}{good}"), "not a JSON object"),
        ("[]".to_owned(), "not a JSON object"),
    ] {
        let token = signer.sign("HS256", r#"{"alg":"HS256"}"#, &text);
        refused(&broker, "softphone", &token, "UNAUTHENTICATED", part).await;
    }
}

#[tokio::test]
async fn a_header_decides_nothing_and_asks_for_nothing() {
    let files = Files::new();
    let signer = Signer::rsa(RSA);
    let key = files.write("key.pem", signer.public_pem());
    let broker = broker(&issuer("idp", &format!("algorithms = ['RS256', 'PS256']\nkey_file = '{key}'"))).await;
    let body = claims(json!({})).to_string();
    for header in [
        r#"{"typ":"JWT","alg":"RS256"}"#,
        r#"{"typ":"at+jwt","alg":"RS256"}"#,
        r#"{"alg":"RS256","kid":"../../etc/passwd"}"#,
        r#"{"alg":"RS256","kid":"'; DROP TABLE keys","jku":"http://127.0.0.1:9/keys","x5u":"http://127.0.0.1:9/x"}"#,
        r#"{"alg":"RS256","jwk":{"kty":"RSA","n":"AQAB","e":"AQAB"},"x5c":["AAAA"]}"#,
    ] {
        let token = signer.sign("RS256", header, &body);
        assert_eq!(proves(&broker, "softphone", &token).await.as_deref(), Some("alice"), "{header}");
    }
    for (header, part) in [
        (r#"{"alg":"none"}"#, "'alg'"),
        (r#"{"alg":"None"}"#, "'alg'"),
        (r#"{"alg":"nOnE"}"#, "'alg'"),
        (r#"{"alg":""}"#, "'alg'"),
        (r#"{"alg":["RS256"]}"#, "'alg'"),
        (r#"{"alg":"rs256"}"#, "'alg'"),
        (r#"{"alg":"RS384"}"#, "'alg'"),
        (r#"{"typ":"JWT"}"#, "'alg'"),
        (r#"{"alg":"PS256"}"#, "signature"),
        (r#"{"alg":"RS256","crit":["exp"]}"#, "'crit'"),
        (r#"{"alg":"RS256","crit":["b64"],"b64":true}"#, "'crit'"),
        (r#"{"alg":"RS256","b64":false}"#, "'crit'"),
        (r#"{"alg":"RS256","typ":"dpop+jwt"}"#, "'typ'"),
        (r#"{"alg":"RS256","typ":"logout+jwt"}"#, "'typ'"),
        (r#"{"alg":"none","alg":"RS256"}"#, "key twice"),
        (r#"{"alg":"RS256","x":{"y":1,"y":2}}"#, "key twice"),
        ("[]", "not a JSON object"),
    ] {
        refused(&broker, "softphone", &signer.sign("RS256", header, &body), "UNAUTHENTICATED", part).await;
    }
    let part = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    let good = signer.token("RS256", &claims(json!({})));
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let unsigned = format!("{}.{}", part(r#"{"alg":"none"}"#), part(&body));
    let with_secret = |secret: String| Signer::secret(secret.as_bytes()).token("HS256", &claims(json!({})));
    for (token, part) in [
        (format!("{unsigned}."), "'alg'"),
        (format!("{unsigned}.{signature}"), "'alg'"),
        // The public key as the secret of HS256.
        (with_secret(signer.public_pem()), "'alg'"),
        (with_secret(signer.public_pem().trim().to_owned()), "'alg'"),
        (format!("{signed}."), "signature"),
        (format!("{signed}.{}", &signature[..signature.len() - 2]), "signature"),
        (
            format!(
                "{}.{}.{signature}",
                part(r#"{"alg":"RS256"}"#),
                part(&claims(json!({ "sub": "bob" })).to_string())
            ),
            "signature",
        ),
        (format!("{signed}.{signature}="), "three parts"),
        (format!("{good}."), "not known"),
        (signer.token("RS256", &claims(json!({ "x": "x".repeat(8192) }))), "8192 bytes"),
    ] {
        refused(&broker, "softphone", &token, "UNAUTHENTICATED", part).await;
    }
}
