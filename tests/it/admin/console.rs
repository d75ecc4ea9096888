//! Signing in to the console, its files, and `switchboard console`.

use std::os::unix::fs::PermissionsExt;

use super::commands::{has, run, secret_file_in};
use super::*;

async fn new_code(site: &Site, token: &str) -> String {
    let answer = site.call(token, "POST", "/v1/console/code", None).await;
    assert_eq!((answer.status, &answer.json()["expiresInSeconds"]), (200, &json!(60)), "{answer:?}");
    answer.json()["code"].as_str().unwrap().to_owned()
}

/// Exchanges a code as the page does, without a token.
async fn exchange(site: &Site, code: &str) -> Answer {
    let own = format!("http://{}", site.address);
    let headers = [("Content-Type", "application/json"), ("Origin", own.as_str()), ("Sec-Fetch-Site", "same-origin")];
    call_with(site.address, "POST", "/v1/console/session", &headers, Some(&json!({ "code": code }).to_string())).await
}

async fn new_key(site: &Site, token: &str) -> String {
    let answer = exchange(site, &new_code(site, token).await).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["key"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_code_is_exchanged_once_for_a_key_with_the_rights_of_its_token() {
    let site = Site::with_tokens("").await;
    let code = new_code(&site, "actor").await;
    let answer = exchange(&site, &code).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let session = answer.json();
    assert_eq!(
        (&session["expiresInSeconds"], &session["token"], &session["may"]),
        (&json!(8 * 3600), &json!("actor"), &json!("act"))
    );
    let key = session["key"].as_str().unwrap();
    let info = site.call(key, "GET", "/v1/info", None).await.json();
    assert_eq!((&info["token"], &info["may"]), (&json!("actor"), &json!("act")));
    let filter = json!({ "filter": "info" });
    assert_eq!(site.call(key, "PUT", "/v1/log", Some(&filter)).await.status, 200);
    // An act by the page is an act of the token.
    assert_eq!(site.records_of(1).await[0]["token"], "actor");

    exchange(&site, &code).await.is_problem(401, "UNAUTHENTICATED");
    exchange(&site, "guess").await.is_problem(401, "UNAUTHENTICATED");
    let read = |record: &Value| json!([record["token"], record["target"], record["arguments"], record["outcome"]]);
    let records: Vec<Value> = site.records_of(3).await[1..].iter().map(read).collect();
    let call = "POST /v1/console/session";
    assert_eq!(
        records,
        [
            json!(["actor", call, { "code": "used" }, "UNAUTHENTICATED"]),
            json!([null, call, { "code": "unknown" }, "UNAUTHENTICATED"]),
        ]
    );
    for secret in [&code, key] {
        assert!(!site.broker.log().contains(secret));
    }
    // A code is not a key, and a key does not make codes.
    let other = new_code(&site, "actor").await;
    site.call(&other, "GET", "/v1/info", None).await.is_problem(401, "UNAUTHENTICATED");
    site.call(key, "POST", "/v1/console/code", None).await.is_problem(403, "FORBIDDEN");
}

#[tokio::test]
async fn a_key_allows_no_more_than_its_token_does_now() {
    let site = Site::with_tokens("").await;
    let reader = new_key(&site, "reader").await;
    let actor = new_key(&site, "actor").await;
    let filter = json!({ "filter": "info" });
    assert_eq!(site.call(&reader, "GET", "/v1/info", None).await.status, 200);
    site.call(&reader, "PUT", "/v1/log", Some(&filter)).await.is_problem(403, "FORBIDDEN");

    // The reader may act now, and its page still may not. The actor may only read.
    let swapped = TOKENS.replace("\"act\"", "\"x\"").replace("\"read\"", "\"act\"").replace("\"x\"", "\"read\"");
    let configuration = |tokens: &str| format!("[auth]\nmode = 'open'\n[admin]\nlisten = ['127.0.0.1:0']\n{tokens}");
    site.broker.configure(&configuration(&swapped));
    site.broker.reload().await;
    for key in [&reader, &actor] {
        site.call(key, "PUT", "/v1/log", Some(&filter)).await.is_problem(403, "FORBIDDEN");
        assert_eq!(site.call(key, "GET", "/v1/info", None).await.status, 200);
    }
    // Without its token, a key is not valid.
    let (_, without_reader) = TOKENS.split_once("may = \"read\"").unwrap();
    site.broker.configure(&configuration(without_reader));
    site.broker.reload().await;
    site.call(&reader, "GET", "/v1/info", None).await.is_problem(401, "UNAUTHENTICATED");
    assert_eq!(site.call(&actor, "PUT", "/v1/log", Some(&filter)).await.status, 200);
}

#[tokio::test]
async fn wrong_codes_are_limited_per_address_and_leave_no_more_records() {
    let site = Site::with_tokens("limits.failed_registrations = 3").await;
    let code = new_code(&site, "actor").await;
    for _ in 0..3 {
        exchange(&site, "guess").await.is_problem(401, "UNAUTHENTICATED");
    }
    for _ in 0..20 {
        exchange(&site, "guess").await.is_problem(429, "RATE_LIMITED");
    }
    // A good code still works, and the act after it is the fourth record.
    let key = exchange(&site, &code).await.json()["key"].as_str().unwrap().to_owned();
    assert_eq!(site.call(&key, "PUT", "/v1/log", Some(&json!({ "filter": "info" }))).await.status, 200);
    let records = site.records_of(4).await;
    assert_eq!((records.len(), &records[3]["target"]), (4, &json!("PUT /v1/log")));
}

#[tokio::test]
async fn the_files_need_no_token_and_say_what_a_page_may_do() {
    let site = Site::with_tokens("").await;
    let get =
        |path: &'static str, headers: &'static [(&str, &str)]| call_with(site.address, "GET", path, headers, None);
    let first = get("/", &[]).await;
    assert_eq!((first.status, first.header("content-type")), (200, Some("text/html; charset=utf-8")), "{first:?}");
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self' ws://{address} \
         http://{address}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
        address = site.broker.address()
    );
    for path in ["/", "/console/app.js", "/console/style.css", "/console/icon.svg"] {
        // A link on any page may lead here, and a file from the disk does.
        let answer = get(path, &[("Sec-Fetch-Site", "cross-site")]).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        for (header, value) in [
            ("content-security-policy", policy.as_str()),
            ("x-content-type-options", "nosniff"),
            ("cache-control", "no-store"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(answer.header(header), Some(value), "{path}");
        }
    }
    get("/console/none.js", &[]).await.is_problem(404, "NOT_FOUND");
    get("/console/../v1/info", &[]).await.is_problem(404, "NOT_FOUND");
    get("/", &[("Host", "evil.example")]).await.is_problem(421, "MISDIRECTED_REQUEST");
    get("/console/app.js", &[("Origin", "https://evil.example")]).await.is_problem(403, "FORBIDDEN");
    let posted = call_with(site.address, "POST", "/", &[("Sec-Fetch-Site", "cross-site")], None).await;
    posted.is_problem(403, "FORBIDDEN");
}

#[tokio::test]
async fn the_command_opens_a_file_that_nobody_else_can_read_with_the_code_in_it() {
    let site = Site::with_tokens("").await;
    let (url, token) = (format!("http://{}/", site.address), secret_file_in(&site, "actor"));
    let folder = tempfile::tempdir().unwrap();
    let opener = folder.path().join("xdg-open");
    std::fs::write(&opener, "#!/bin/sh\nprintf '%s\\n' \"$@\" > \"$XDG_RUNTIME_DIR/opened\"\n").unwrap();
    std::fs::set_permissions(&opener, PermissionsExt::from_mode(0o755)).unwrap();
    let runtime = folder.path().to_str().unwrap();
    let path = format!("{runtime}:{}", std::env::var("PATH").unwrap());
    let variables = [("PATH", path.as_str()), ("XDG_RUNTIME_DIR", runtime)];
    let arguments = ["console", "--admin", &url, "--admin-token-file", &token];
    has(&run(&arguments, &variables).await, 0, "", "opened ");
    let page = folder.path().join("switchboard-console.html");
    assert_eq!(std::fs::read_to_string(folder.path().join("opened")).unwrap().trim_end(), page.to_str().unwrap());
    assert_eq!(std::fs::metadata(&page).unwrap().permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(&page).unwrap();
    let code = text.split_once("content=\"0;url=").unwrap().1.split_once('"').unwrap().0;
    let code = code.strip_prefix(&format!("http://{}/#code=", site.address)).unwrap();
    assert_eq!(exchange(&site, code).await.status, 200);

    // The next one replaces the file, and a browser that does not start is said.
    std::fs::write(&opener, "#!/bin/sh\nexit 3\n").unwrap();
    has(&run(&arguments, &variables).await, 2, "", "switchboard console --print prints a link");
    assert_ne!(std::fs::read_to_string(&page).unwrap(), text);

    let printed = run(&["console", "--print", "--admin", &url, "--admin-token-file", &token], &[]).await;
    has(&printed, 0, &format!("http://{}/#code=", site.address), "");
    let link = String::from_utf8(printed.stdout).unwrap();
    assert_eq!(exchange(&site, link.trim_end().split_once("#code=").unwrap().1).await.status, 200);
}
