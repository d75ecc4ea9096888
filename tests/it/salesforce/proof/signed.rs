//! What is believed of a JWT: everything that the org's code signs for this broker, and nothing else, a table.

use std::sync::LazyLock;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use proptest::prelude::*;
use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RsaEncoding, RsaKeyPair};
use secrecy::SecretString;
use serde_json::{Value, json};
use switchboard::auth::{
    AuthError, Claim, Ends, Identity, JwtKeys, JwtRules, Permission, Permissions, Principal, Users, Verifier,
};
use switchboard::config::{Config, LoadOptions};
use switchboard::salesforce::SalesforceVerifier;

use super::{ALICE, ORG, now};

/// The org's key in these tests, and one that is not the org's.
const OURS: &str = include_str!("../key.pem");
const THEIRS: &str = include_str!("../../../../crates/salesforce-stand-in/src/org_key.pem");

const RS256: &str = r#"{"alg":"RS256"}"#;

fn pair(pem: &str) -> KeyPair {
    KeyPair::from_pem_and_sign_algo(pem, &PKCS_RSA_SHA256).unwrap()
}

fn certificate(pem: &str) -> String {
    CertificateParams::default().self_signed(&pair(pem)).unwrap().pem()
}

/// A token of just these texts, signed by this key.
fn signed_by(pem: &str, padding: &'static dyn RsaEncoding, header: &str, claims: &str) -> String {
    let key = RsaKeyPair::from_pkcs8(&pair(pem).serialize_der()).unwrap();
    let part = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    let signed = format!("{}.{}", part(header), part(claims));
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(padding, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
    format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

fn signed(claims: &str) -> String {
    signed_by(OURS, &RSA_PKCS1_SHA256, RS256, claims)
}

/// What the Apex class writes, with some of it changed; `null` takes a claim out.
fn claims(change: Value) -> String {
    let mut claims = json!({
        "iss": ORG, "sub": ALICE, "aud": "switchboard", "iat": now().as_secs(), "exp": now().as_secs() + 60,
        "jti": "f8e1", "username": "alice@example.com", "federation_id": "alice",
    });
    let Value::Object(change) = change else { panic!("an object") };
    claims.as_object_mut().unwrap().extend(change);
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    claims.to_string()
}

/// A verifier with these further lines in `[auth.salesforce_jwt]`, and these certificates.
fn verifier(lines: &str, pem: &str) -> SalesforceVerifier {
    let folder = tempfile::tempdir().unwrap();
    let (file, certificates) = (folder.path().join("f.toml"), folder.path().join("org.pem"));
    // As a Windows editor saves it, with a byte order mark.
    std::fs::write(&certificates, format!("\u{feff}{pem}")).unwrap();
    let iss = if lines.contains("issuer") { "" } else { "org_id = '00D000000000001'\n" };
    let toml = format!(
        "[auth.salesforce_jwt]\n{iss}audience = 'switchboard'\ncertificate_file = '{}'\n{lines}\n",
        certificates.display()
    );
    std::fs::write(&file, toml).unwrap();
    let config = Config::load(LoadOptions { file: Some(file), ..LoadOptions::default() }).unwrap();
    SalesforceVerifier::open(&config).unwrap()
}

async fn identity(verifier: &SalesforceVerifier, token: &str) -> Result<Identity, AuthError> {
    let token = Some(SecretString::from(token));
    verifier
        .verify(Claim { source: "softphone".to_owned(), user: Some("mallory".to_owned()), token, certificate: None })
        .await
}

/// The user that a token proves.
async fn user(verifier: &SalesforceVerifier, token: &str) -> Result<String, AuthError> {
    match identity(verifier, token).await?.principal {
        Principal::User(user) => Ok(user.to_string()),
        Principal::Service => panic!("nobody proves a service"),
    }
}

#[tokio::test]
async fn what_the_apex_class_writes_is_believed() {
    let verifier = verifier("", &certificate(OURS));
    let now = now().as_secs();
    for change in [
        json!({}),
        json!({ "iss": "00D000000000001" }),
        json!({ "sub": "005000000000002" }),
        json!({ "aud": ["other", "switchboard"] }),
        json!({ "iat": null, "jti": null, "username": null, "federation_id": null }),
        json!({ "nbf": now, "exp": f64::from(u32::try_from(now + 60).unwrap()) + 0.5 }),
        json!({ "nbf": now + 50, "iat": now + 50 }),
        json!({ "iat": now - 110, "exp": now - 50 }),
        json!({ "exp": now + 300, "unknown": { "deep": [1, { "sub": "x" }] } }),
    ] {
        assert_eq!(user(&verifier, &signed(&claims(change.clone()))).await, Ok(ALICE.to_owned()), "{change}");
    }
    for header in [
        r#"{"typ":"JWT","alg":"RS256"}"#,
        // No header says which key counts, or where one is.
        r#"{"alg":"RS256","kid":"../../etc/passwd","jku":"http://127.0.0.1:9/keys","x5u":"http://127.0.0.1:9/x"}"#,
        r#"{"alg":"RS256","jwk":{"kty":"RSA","n":"AQAB","e":"AQAB"}}"#,
    ] {
        let token = signed_by(OURS, &RSA_PKCS1_SHA256, header, &claims(json!({})));
        assert_eq!(user(&verifier, &token).await, Ok(ALICE.to_owned()), "{header}");
    }
}

#[tokio::test]
async fn a_claim_that_is_not_for_this_broker_and_this_moment_is_refused_with_its_reason() {
    let verifier = verifier("", &certificate(OURS));
    let now = now().as_secs();
    for (change, part) in [
        (json!({ "iss": "00D000000000002EAA" }), "another org"),
        (json!({ "iss": "00d000000000001eaa" }), "another org"),
        (json!({ "iss": null }), "another org"),
        (json!({ "iss": [ORG] }), "another org"),
        (json!({ "aud": "somebody" }), "another application"),
        (json!({ "aud": ["somebody"] }), "another application"),
        (json!({ "aud": [["switchboard"]] }), "another application"),
        (json!({ "aud": null }), "another application"),
        (json!({ "exp": now - 61 }), "expired"),
        (json!({ "exp": null }), "no 'exp'"),
        (json!({ "exp": (now + 60).to_string() }), "not a number of seconds"),
        (json!({ "exp": -1 }), "not a number of seconds"),
        (json!({ "exp": 1e300 }), "not a number of seconds"),
        (json!({ "nbf": now + 65 }), "from the future"),
        (json!({ "iat": now + 65, "exp": now + 70 }), "from the future"),
        (json!({ "nbf": "soon" }), "not a number of seconds"),
        (json!({ "exp": now + 365 }), "too long"),
        (json!({ "iat": now - 3600, "exp": now + 60 }), "too long"),
        // In milliseconds, as Apex has them.
        (json!({ "exp": now * 1000 }), "too long"),
        (json!({ "sub": "alice@example.com" }), "'sub'"),
        (json!({ "sub": "005000000000002AAB" }), "'sub'"),
        (json!({ "sub": "001000000000002AAA" }), "'sub'"),
        (json!({ "sub": null }), "'sub'"),
    ] {
        check_refused(&verifier, &signed(&claims(change)), part).await;
    }
    let twice = claims(json!({})).replacen('{', r#"{"sub":"005000000000009AAA","#, 1);
    check_refused(&verifier, &signed(&twice), "a key twice").await;
    for text in ["", "[]", "null", "{", "\u{feff}{}", r#"{"exp":1e999}"#] {
        check_refused(&verifier, &signed(text), "not a JSON object").await;
    }
}

/// It is refused for this reason, in words that have nothing of it.
async fn check_refused(verifier: &SalesforceVerifier, token: &str, part: &str) {
    match identity(verifier, token).await {
        Err(AuthError::Unauthenticated(why)) => {
            assert!(why.contains(part), "{part}: {why}");
            assert!(token.split('.').all(|it| it.len() < 8 || !why.contains(it)), "a token is never quoted: {why}");
        }
        other => panic!("{part}: {other:?}"),
    }
}

#[tokio::test]
async fn only_rs256_by_the_orgs_key_is_a_signature() {
    let verifier = verifier("", &certificate(OURS));
    let good = signed(&claims(json!({})));
    let (body, signature) = good.rsplit_once('.').unwrap();
    let part = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    let unsigned = |header: &str| format!("{}.{}", part(header), part(&claims(json!({}))));
    let mac = |secret: &[u8]| {
        let signed = unsigned(r#"{"alg":"HS256"}"#);
        let tag = ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret), signed.as_bytes());
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(tag))
    };
    let by = |pem, padding, header| signed_by(pem, padding, header, &claims(json!({})));
    let bobs = signed(&claims(json!({ "sub": "005000000000003AAA" })));
    let swapped = format!("{}.{signature}", bobs.rsplit_once('.').unwrap().0);
    for (token, part) in [
        (format!("{}.", unsigned(r#"{"alg":"none"}"#)), "RS256"),
        (format!("{}.", unsigned(r#"{"alg":"None"}"#)), "RS256"),
        (format!("{}.{signature}", unsigned(r#"{"alg":"none"}"#)), "RS256"),
        (mac(certificate(OURS).as_bytes()), "RS256"),
        (mac(pair(OURS).public_key_pem().as_bytes()), "RS256"),
        (by(OURS, &RSA_PKCS1_SHA512, r#"{"alg":"RS512"}"#), "RS256"),
        (by(OURS, &RSA_PKCS1_SHA256, r#"{"alg":"rs256"}"#), "RS256"),
        (by(OURS, &RSA_PKCS1_SHA256, r#"{"alg":["RS256"]}"#), "RS256"),
        (by(OURS, &RSA_PKCS1_SHA256, r#"{"typ":"JWT"}"#), "RS256"),
        (by(OURS, &RSA_PKCS1_SHA256, r#"{"alg":"RS256","crit":["exp"]}"#), "crit"),
        (by(OURS, &RSA_PKCS1_SHA256, r#"{"alg":"none","alg":"RS256"}"#), "header"),
        (by(OURS, &RSA_PKCS1_SHA256, "[]"), "header"),
        (by(OURS, &RSA_PKCS1_SHA512, RS256), "signature"),
        (by(THEIRS, &RSA_PKCS1_SHA256, RS256), "signature"),
        (swapped, "signature"),
        (format!("{body}."), "signature"),
        (format!("{body}.{}", &signature[..signature.len() - 2]), "signature"),
        (format!("{body}.{signature}="), "three parts"),
        (format!("{body}.{signature}\n"), "three parts"),
        (good.replacen('.', "=.", 1), "three parts"),
        (body.to_owned(), "is not known"),
        (format!("{good}.{signature}"), "is not known"),
        (signed(&claims(json!({ "padding": "x".repeat(8192) }))), "too long"),
        ("..".to_owned(), "header"),
        (String::new(), "is not known"),
    ] {
        check_refused(&verifier, &token, part).await;
    }
    let claim = Claim { source: "softphone".to_owned(), user: None, token: None, certificate: None };
    let Err(AuthError::Unauthenticated(why)) = verifier.verify(claim).await else { panic!("nothing proves nobody") };
    assert!(why.contains("data.token is missing") && why.contains("[auth.salesforce_jwt]"), "{why}");
}

#[tokio::test]
async fn any_certificate_of_the_file_counts_so_that_one_can_be_replaced() {
    let public = pair(THEIRS).public_key_pem();
    for pem in [certificate(OURS) + &certificate(THEIRS), certificate(OURS) + &public] {
        let verifier = verifier("", &pem);
        for key in [OURS, THEIRS] {
            let token = signed_by(key, &RSA_PKCS1_SHA256, RS256, &claims(json!({})));
            assert_eq!(user(&verifier, &token).await, Ok(ALICE.to_owned()));
        }
    }
    let small = "-----BEGIN PUBLIC KEY-----\nMFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAKj34GkxFhD90vcNLYLInFEX6Ppy1tPf\n\
                 9Cnzj4p4WGeKLs1Pt8QuKUpRKfFLfRYC9AIKjbJTWit+CqvjWYzvQwECAwEAAQ==\n-----END PUBLIC KEY-----\n";
    let elliptic = KeyPair::generate().unwrap().public_key_pem();
    for (pem, part) in [
        (small.to_owned(), "2048 bits"),
        (elliptic, "2048 bits"),
        (certificate(OURS) + OURS, "private key"),
        (certificate(OURS).repeat(9), "at most 8"),
        ("no pem".to_owned(), "in PEM"),
    ] {
        assert!(JwtKeys::from_pem(pem.as_bytes()).is_err_and(|why| why.contains(part)), "{part}");
    }
}

#[tokio::test]
async fn the_configuration_says_what_the_user_is_and_how_long_a_jwt_may_last() {
    let pem = certificate(OURS);
    let token = signed(&claims(json!({})));
    let renamed = signed(&claims(json!({ "login": "a@b", "fed": "f", "username": null, "federation_id": null })));
    let proves = async |lines: &str, token: &str| user(&verifier(lines, &pem), token).await;
    assert_eq!(proves("user = 'username'", &token).await.as_deref(), Ok("alice@example.com"));
    assert_eq!(proves("user = 'federation_id'", &token).await.as_deref(), Ok("alice"));
    assert_eq!(proves("user = 'username'\nusername_claim = 'login'", &renamed).await.as_deref(), Ok("a@b"));
    assert_eq!(proves("user = 'federation_id'\nfederation_id_claim = 'fed'", &renamed).await.as_deref(), Ok("f"));
    for bad in [json!({ "federation_id": null }), json!({ "federation_id": "" }), json!({ "federation_id": "a\u{7}" })]
    {
        let outcome = proves("user = 'federation_id'", &signed(&claims(bad.clone()))).await;
        assert!(matches!(outcome, Err(AuthError::Unauthenticated(why)) if why.contains("federation_id")), "{bad}");
    }
    let outcome = proves("sources = ['crm']", &token).await;
    assert!(matches!(outcome, Err(AuthError::Forbidden(why)) if why.contains("auth.salesforce_jwt.sources")));
    assert!(proves("lifetime = '30s'\nclock_skew = '0s'", &token).await.is_err());
    let old = signed(&claims(json!({ "iat": null, "exp": now().as_secs() - 5 })));
    assert_eq!((proves("", &old).await.is_ok(), proves("clock_skew = '0s'", &old).await.is_ok()), (true, false));
    let own_issuer = signed(&claims(json!({ "iss": "https://acme.my.salesforce.com" })));
    let lines = "issuer = 'https://acme.my.salesforce.com'";
    assert_eq!((proves(lines, &own_issuer).await.is_ok(), proves(lines, &token).await.is_ok()), (true, false));
}

#[tokio::test]
async fn a_proved_user_has_no_right_that_nobody_gave() {
    let identity =
        identity(&verifier("request = ['Salesforce/*/*']", &certificate(OURS)), &signed(&claims(json!({})))).await;
    let Identity { exclusive, permissions, ends, .. } = identity.unwrap();
    let Permissions { observe, handle, request, .. } = permissions;
    assert_eq!(ends, Ends::After(Duration::from_hours(12)));
    assert_eq!((observe, exclusive, handle), (Users::nobody(), false, Permission::none()));
    let triple = |channel| wire::Triple::new(channel, "User", "FetchCredentials");
    assert_eq!((request.allows(&triple("Salesforce")), request.allows(&triple("Cisco"))), (true, false));
}

/// Made once: a signature takes long without optimisation.
static RULES: LazyLock<JwtRules> = LazyLock::new(|| JwtRules {
    keys: JwtKeys::from_pem(certificate(OURS).as_bytes()).unwrap(),
    issuers: vec![ORG.to_owned()],
    audience: "switchboard".to_owned(),
    clock_skew: Duration::from_mins(1),
    lifetime: Duration::from_mins(5),
});

static GOOD: LazyLock<String> = LazyLock::new(|| signed(&claims(json!({}))));

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_reader_panic_or_believe(
        text in prop_oneof![".*", "[A-Za-z0-9_-]{0,60}\\.[A-Za-z0-9_-]{0,60}\\.[A-Za-z0-9_-]{0,400}"],
        header in prop_oneof![Just(RS256.to_owned()), "\\{\"alg\":\"RS256\",?.{0,20}\\}", ".{0,40}"],
    ) {
        prop_assert!(RULES.check(now(), &text).is_err());
        let part = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
        let token = [part(&header), part(&claims(json!({}))), part(&text)].join(".");
        prop_assert!(RULES.check(now(), &token).is_err());
    }

    #[test]
    fn a_token_of_which_one_character_was_changed_is_not_believed(at in 0_usize..1000, character in any::<char>(), how in 0..3) {
        let good = GOOD.as_str();
        let at = at % good.len();
        let mut changed = good.to_owned();
        match how {
            0 => changed.replace_range(at..=at, &character.to_string()),
            1 => changed.insert(at, character),
            _ => changed.truncate(at),
        }
        prop_assert!(changed == good || RULES.check(now(), &changed).is_err());
        prop_assert!(RULES.check(now(), good).is_ok());
    }
}
