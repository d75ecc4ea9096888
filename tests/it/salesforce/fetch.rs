//! What is asked of an org, and what an agent gets of its answer.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{KeyPair, RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use serde_json::Value;
use switchboard::config::{Mode, UserKey};
use switchboard::salesforce::Org;

use super::stand_in::{Answer, StandIn};
use super::{ID, KEY, SECRET, behind_login, config, error, fetched, handled, handler, org, row, rows, token};
use crate::support::secret_file;

#[tokio::test]
async fn an_agent_gets_the_documented_reply_and_leaves_a_record() {
    let stand_in = StandIn::start(behind_login(|_| rows(&[row("")]))).await;
    let folder = tempfile::tempdir().unwrap();
    let handler = handler(org(&stand_in), folder.path());
    assert_eq!(
        handled(&handler, Some("005000000000001")).await,
        format!(
            "{{\"Username\":\"1245456\",\"Password\":\"{SECRET}\",\"Extension\":\"05051\",\"ADFSUsername\":\"\",\
             \"Success\":true,\"ErrorMessage\":null}}"
        )
    );
    assert!(handled(&handler, Some("alice")).await.starts_with("CREDENTIALS_NOT_FOUND"));
    assert!(handled(&handler, None).await.starts_with("USER_REQUIRED"));
    let seen = stand_in.seen();
    assert_eq!(seen.len(), 2, "a user that is not an id causes no call");
    assert_eq!(seen[1].path, "/services/data/v67.0/query");
    assert!(seen[1].query["q"].ends_with(&format!("FROM CTI_Login__c WHERE User_Id__c = '{ID}' LIMIT 50")));
    let records = fs::read_to_string(folder.path().join("audit.jsonl")).unwrap();
    let outcomes: Vec<String> = records
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["outcome"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(outcomes, ["ok", "CREDENTIALS_NOT_FOUND", "USER_REQUIRED"]);
    assert!(!records.contains(SECRET));
}

#[tokio::test]
async fn the_assertion_is_signed_and_says_who_for_whom_and_until_when() {
    let stand_in = StandIn::start(behind_login(|_| rows(&[row("")]))).await;
    let mut config = config(&stand_in.url);
    config.audience = Some("https://login.salesforce.com".to_owned());
    assert_eq!(fetched(&Org::open(&config).unwrap(), ID).await, SECRET);
    let login = stand_in.seen().remove(0);
    assert_eq!(login.form["grant_type"], "urn:ietf:params:oauth:grant-type:jwt-bearer");
    let (signed, signature) = login.form["assertion"].rsplit_once('.').unwrap();
    let key =
        RsaKeyPair::from_pkcs8(PrivatePkcs8KeyDer::from_pem_slice(KEY.as_bytes()).unwrap().secret_pkcs8_der()).unwrap();
    let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.public_key());
    public.verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
    let part = |at| -> Value {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(signed.split('.').nth(at).unwrap()).unwrap()).unwrap()
    };
    assert_eq!(part(0)["alg"], "RS256");
    let claims = part(1);
    assert_eq!(claims["iss"], "3MVG9.test");
    assert_eq!(claims["sub"], "switchboard@example.com");
    assert_eq!(claims["aud"], "https://login.salesforce.com");
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    assert!((now + 100..=now + 120).contains(&claims["exp"].as_u64().unwrap()));
}

#[tokio::test]
async fn client_credentials_log_in_too() {
    let stand_in = StandIn::start(behind_login(|_| rows(&[row("")]))).await;
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    secret_file(&secret, "s3cr&t=\n");
    let mut config = config(&stand_in.url);
    (config.username, config.private_key_file, config.client_secret_file) = (None, None, Some(secret));
    assert_eq!(fetched(&Org::open(&config).unwrap(), ID).await, SECRET);
    let form = stand_in.seen().remove(0).form;
    assert_eq!(form["grant_type"], "client_credentials");
    assert_eq!((form["client_id"].as_str(), form["client_secret"].as_str()), ("3MVG9.test", "s3cr&t="));
}

#[tokio::test]
async fn each_row_that_cannot_be_used_says_why() {
    let lower = row("").replace(ID, "005000000000001aaa");
    for (answer, expected) in [
        (rows(&[]), "CREDENTIALS_NOT_FOUND: no CTI login"),
        (rows(std::slice::from_ref(&lower)), "CREDENTIALS_NOT_FOUND: no CTI login"),
        (rows(&[lower, row("")]), SECRET),
        (rows(&[row(""), row("")]), "UPSTREAM_REJECTED: several"),
        (
            rows(&[row(",\"Active__c\":false")]),
            "CREDENTIALS_NOT_FOUND: the CTI login of this user in Salesforce is switched off",
        ),
        (rows(&[row(",\"CTI_Extension__c\":null")]), "UPSTREAM_REJECTED: the field CTI_Extension__c"),
        (rows(&[row(",\"CTI_Password__c\":\"********\"")]), "UPSTREAM_REJECTED: Salesforce shows the broker a mask"),
        (rows(&[row("").replace("CTI_Password__c", "x")]), "UPSTREAM_REJECTED: the broker may not read"),
        (error(400, "INVALID_FIELD", "No such column 'CTI_Password__c'"), "UPSTREAM_REJECTED: Salesforce refuses"),
        (Answer::Json(200, "[]".to_owned()), "UPSTREAM_REJECTED: Salesforce answers something"),
    ] {
        let answer = parking_lot::Mutex::new(Some(answer));
        let stand_in = StandIn::start(behind_login(move |_| answer.lock().take().unwrap_or(Answer::Gone))).await;
        let fetched = fetched(&org(&stand_in), ID).await;
        assert!(fetched.starts_with(expected), "{fetched}");
    }
}

#[tokio::test]
async fn a_row_is_had_by_external_id_and_from_apex() {
    let stand_in = StandIn::start(behind_login(|seen| match seen.path.rsplit('/').next().unwrap() {
        "alice%40x" | "ALICE%40x" => Answer::Json(200, row("").replace(ID, "alice@x")),
        "twice" => Answer::Json(300, r#"["/a","/b"]"#.to_owned()),
        "none" => error(404, "NOT_FOUND", "The requested resource does not exist"),
        "empty" => Answer::Json(200, String::new()),
        _ => Answer::Html(404),
    }))
    .await;
    let mut config = config(&stand_in.url);
    config.credentials.key = UserKey::Username;
    for (mode, path, cases) in [
        (
            Mode::ExternalId,
            "/services/data/v67.0/sobjects/CTI_Login__c/User_Id__c/alice%40x",
            [
                ("alice@x", SECRET),
                ("ALICE@x", "CREDENTIALS_NOT_FOUND"),
                ("twice", "UPSTREAM_REJECTED: several"),
                ("none", "CREDENTIALS_NOT_FOUND"),
                ("..", "CREDENTIALS_NOT_FOUND"),
                ("odd", "UPSTREAM_REJECTED: Salesforce refuses"),
            ],
        ),
        (
            Mode::Apex,
            "/services/apexrest/cti/alice%40x",
            [
                ("alice@x", SECRET),
                ("ALICE@x", "CREDENTIALS_NOT_FOUND"),
                ("empty", "CREDENTIALS_NOT_FOUND"),
                ("none", "CREDENTIALS_NOT_FOUND"),
                (".", "CREDENTIALS_NOT_FOUND"),
                ("odd", "CREDENTIALS_NOT_FOUND"),
            ],
        ),
    ] {
        config.credentials.mode = mode;
        config.credentials.apex_path = Some("/cti/{user}".to_owned());
        let org = Org::open(&config).unwrap();
        for (user, expected) in cases {
            let fetched = fetched(&org, user).await;
            assert!(fetched.starts_with(expected), "{user}: {fetched}");
        }
        assert!(stand_in.seen().iter().any(|seen| seen.path == path), "{path}");
    }
    assert!(stand_in.seen().iter().all(|seen| !seen.path.contains("..")));
}

#[tokio::test]
async fn an_injection_stays_the_text_that_it_is() {
    let stand_in = StandIn::start(behind_login(|_| rows(&[row("")]))).await;
    let mut config = config(&stand_in.url);
    config.credentials.key = UserKey::Email;
    let org = Org::open(&config).unwrap();
    for user in ["' OR Id != '", "a\\' OR Name != '", "x' LIMIT 1 --", "\\"] {
        assert!(fetched(&org, user).await.starts_with("CREDENTIALS_NOT_FOUND"), "another's row came along");
        let query = stand_in.seen().pop().unwrap().query["q"].clone();
        let escaped = user.replace('\\', "\\\\").replace('\'', "\\'");
        assert!(query.ends_with(&format!("WHERE User_Id__c = '{escaped}' LIMIT 50")), "{query}");
    }
}

#[tokio::test]
async fn a_found_answer_is_given_again_only_where_a_cache_is_configured() {
    let stand_in = StandIn::start(behind_login(|_| rows(&[row("")]))).await;
    let mut config = config(&stand_in.url);
    for (span, calls) in [(Duration::ZERO, 3), (Duration::from_mins(1), 1)] {
        config.credentials.cache = span;
        let org = Org::open(&config).unwrap();
        let before = stand_in.calls();
        for user in [ID, "005000000000001", ID] {
            assert_eq!(fetched(&org, user).await, SECRET);
        }
        assert!(fetched(&org, "alice").await.starts_with("CREDENTIALS_NOT_FOUND"));
        assert_eq!(stand_in.calls() - before, calls);
    }
}

#[tokio::test]
async fn two_hundred_fetches_over_an_expiring_token_log_in_once_more_and_none_fails() {
    let (logins, served) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let stand_in = StandIn::start(move |seen| {
        if seen.is_login() {
            let number = logins.fetch_add(1, Ordering::SeqCst) + 1;
            return Answer::Late(Duration::from_millis(50), Box::new(token(&format!("t{number}"))));
        }
        let expired = served.fetch_add(1, Ordering::SeqCst) >= 60 && seen.token.as_deref() == Some("t1");
        let answer = if expired { error(401, "INVALID_SESSION_ID", "Session expired") } else { rows(&[row("")]) };
        Answer::Late(Duration::from_millis(5), Box::new(answer))
    })
    .await;
    let org = Arc::new(org(&stand_in));
    let fetches = (0..200).map(|_| fetched(&org, ID));
    let fetched = futures_util::future::join_all(fetches).await;
    assert!(fetched.iter().all(|it| it == SECRET), "{fetched:?}");
    assert_eq!(stand_in.logins(), 2);
    assert!(stand_in.at_once() <= 8, "{} at once", stand_in.at_once());
    let stats = org.stats();
    assert_eq!((stats.logins, stats.answered, stats.failed), (2, 200, 0));
    assert_eq!(stats.api_usage, Some((18, 5000)));
    assert!(stats.token_age.is_some() && stats.latency.iter().sum::<u64>() == 200);
}
