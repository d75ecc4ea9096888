//! `switchboard doctor` and `GET /v1/doctor`: what keeps a page in a browser from connecting.

use super::commands::{has, run, secret_file_in};
use super::*;

/// The level of a check, of this browser if it has one.
fn level<'f>(findings: &'f Value, check: &str, part: &str) -> &'f str {
    let all = findings["findings"].as_array().unwrap();
    let found: Vec<&Value> =
        all.iter().filter(|it| it["check"] == check && it["what"].as_str().unwrap().contains(part)).collect();
    let [found] = found[..] else { panic!("{check} {part}: {findings:#}") };
    // What is not good has something to do about it.
    assert!(found["level"] == "good" || found["do"].is_string(), "{found}");
    assert!(found["why"].as_str().is_some_and(|why| !why.is_empty()), "{found}");
    found["level"].as_str().unwrap()
}

#[tokio::test]
async fn a_page_is_judged_by_its_origin_and_its_browser() {
    let site = Site::with_tokens("http.allowed_origins = ['https://crm.example.com']").await;
    let allowed = site.get("/v1/doctor?origin=https%3A%2F%2Fcrm.example.com").await;
    assert_eq!(level(&allowed, "origin", "https://crm.example.com"), "good");
    assert_eq!(level(&allowed, "listeners", &site.broker.address().to_string()), "good");
    assert_eq!(level(&allowed, "families", "IPv6"), "warning");
    for (browser, expected) in [("Chrome", "warning"), ("Edge", "warning"), ("Firefox", "good"), ("Safari", "bad")] {
        assert_eq!(level(&allowed, "browser", browser), expected, "{browser}");
    }
    let other = site.get("/v1/doctor?origin=https%3A%2F%2Fevil.example&browser=safari").await;
    assert_eq!(level(&other, "origin", "https://evil.example"), "bad");
    assert_eq!(level(&other, "browser", "Safari"), "bad");
    for wrong in ["origin=crm", "origin=https%3A%2F%2Fcrm.example.com%2Fpage", "browser=lynx", "colour=red"] {
        site.call("reader", "GET", &format!("/v1/doctor?{wrong}"), None).await.is_problem(400, "INVALID_REQUEST");
    }
}

#[tokio::test]
async fn the_command_asks_the_broker_or_tries_its_addresses() {
    let site = Site::with_tokens("").await;
    let (url, token) = (format!("http://{}/", site.address), secret_file_in(&site, "reader"));
    let page = ["doctor", "--origin", "http://localhost:3000"];
    let asked = run(&[&page[..], &["--admin", &url, "--admin-token-file", &token]].concat(), &[]).await;
    has(&asked, 0, &format!("good     the broker listens on ws://{}/ws", site.broker.address()), "");
    let refused = ["doctor", "--origin", "https://crm.example.com", "--browser", "firefox", "--json"];
    let refused = run(&[&refused[..], &["--admin", &url, "--admin-token-file", &token]].concat(), &[]).await;
    has(&refused, 1, "the broker refuses pages of https://crm.example.com", "");
    let findings: Value = serde_json::from_slice(&refused.stdout).unwrap();
    assert_eq!(level(&findings, "origin", "crm"), "bad");

    let all = ["doctor", "--origin", "https://crm.example.com", "--browser", "safari"];
    let all = run(&[&all[..], &["--admin", &url, "--admin-token-file", &token]].concat(), &[]).await;
    has(&all, 1, "bad      Safari blocks ws://", "");

    // Without the admin API: one address has a broker, one another program, and one nothing.
    let other = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let no_admin = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (own, foreign, free) = (site.broker.address(), other.local_addr().unwrap(), closed.local_addr().unwrap());
    let no_admin_at = no_admin.local_addr().unwrap();
    drop((closed, no_admin));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("switchboard.toml");
    let data = folder.path().join("data");
    let text = format!(
        "listen = ['{own}', '{foreign}', '{free}']\ndata_dir = {data:?}\nadmin.listen = ['{no_admin_at}']\nauth.mode = 'open'\n"
    );
    crate::support::secret_file(&path, text);
    let answering = async {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut stream, _) = other.accept().await.unwrap();
        // What is not read would reset the connection, and the answer with it.
        assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").await.unwrap();
        stream.shutdown().await.unwrap();
    };
    let config = path.to_str().unwrap();
    let tried = ["doctor", "--json", "--config", config];
    let (tried, ()) = tokio::join!(run(&tried, &[]), within("a look at the other program", answering));
    has(&tried, 1, "", "");
    let findings: Value = serde_json::from_slice(&tried.stdout).unwrap();
    assert_eq!(level(&findings, "admin", "the broker was not asked"), "warning");
    assert_eq!(level(&findings, "listeners", &format!("a broker answers on {own}")), "good");
    assert_eq!(level(&findings, "listeners", &format!("another program holds {foreign}")), "bad");
    assert_eq!(level(&findings, "listeners", &format!("nothing listens on {free}")), "bad");
}

#[tokio::test]
async fn policies_are_printed_for_each_browser_that_has_them() {
    let policy = |browser: &'static str| async move {
        run(&["doctor", "policy", "--origin", "https://crm.example.com", "--browser", browser], &[]).await
    };
    has(&policy("edge").await, 0, "/etc/opt/edge/policies/managed/switchboard.json", "edge://policy");
    has(&policy("firefox").await, 0, "\"SkipDomains\"", "");
    has(&policy("safari").await, 2, "", "Safari has no policy for this");
    has(&run(&["doctor", "policy", "--origin", "crm"], &[]).await, 2, "", "--origin must be an origin");
}
