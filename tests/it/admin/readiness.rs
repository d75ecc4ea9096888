//! What makes a broker not ready, and what is a warning.

use std::fs;
use std::time::{Duration, SystemTime};

use super::*;
use crate::support::envelope;
use crate::support::tls::TlsFiles;

/// Asks until the answer is this one.
#[track_caller]
fn until(site: &Site, status: u16, failing: &'static [&str], warnings: &'static [&str]) -> impl Future<Output = ()> {
    let expected = json!({"ready": status == 200, "failing": failing, "warnings": warnings});
    async move {
        let mut often = tokio::time::interval(Duration::from_millis(50));
        let mut last = Value::Null;
        let asking = async {
            loop {
                let ready = call_with(site.address, "GET", "/readyz", &[], None).await;
                last = ready.json();
                if (ready.status, &last) == (status, &expected) {
                    return;
                }
                often.tick().await;
            }
        };
        let found = tokio::time::timeout(crate::support::DEADLINE, asking).await;
        assert!(found.is_ok(), "{last} and not {expected}");
    }
}

#[tokio::test]
async fn a_full_disk_for_audit_records_is_a_warning_and_a_required_check_fails() {
    let toml = "credentials.audit_required = false";
    let site = Site::with_tokens(toml).await;
    let file = site.broker.data_dir().join("audit.jsonl");
    // A folder in the file's place stands for a disk that fails.
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert_eq!(site.call("actor", "PUT", "/v1/log", Some(&json!({"filter": "info"}))).await.status, 200);
    until(&site, 200, &[], &["audit"]).await;
    let file_of_broker = format!(
        "{toml}\n[auth]\nmode = \"open\"\n[admin]\nlisten = [\"127.0.0.1:0\"]\nready_requires = ['audit']\n{TOKENS}"
    );
    site.broker.configure(&file_of_broker);
    site.broker.reload().await;
    until(&site, 503, &["audit"], &[]).await;
    fs::remove_dir(&file).unwrap();
    assert_eq!(site.call("actor", "PUT", "/v1/log", Some(&json!({"filter": "info"}))).await.status, 200);
    until(&site, 200, &[], &[]).await;
}

#[tokio::test]
async fn a_store_that_cannot_be_read_fails() {
    let site = Site::with_tokens("").await;
    until(&site, 200, &[], &[]).await;
    let store = site.broker.data_dir().join("credentials.redb");
    // The open file is what the broker reads.
    let file = fs::File::options().write(true).open(&store).unwrap();
    file.set_len(0).unwrap();
    until(&site, 503, &["store"], &[]).await;
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "a certificate ends by the calendar")]
async fn a_certificate_near_its_end_or_with_another_key_is_a_warning() {
    let files = TlsFiles::new();
    let days = |days: u64| Duration::from_secs(days * 24 * 60 * 60);
    let now = rcgen::date_time_ymd(1970, 1, 1) + SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let soon = files.authority.issue_with(|params| {
        params.not_before = now - days(80);
        params.not_after = now + days(10);
    });
    files.write(&soon);
    let listen = files.table("listen = ['127.0.0.1:0']");
    let site = Site::with(&format!("[auth]\nmode = 'open'\n{listen}[admin]\nlisten = ['127.0.0.1:0']\n{TOKENS}")).await;
    until(&site, 200, &[], &["certificate"]).await;
    files.write(&files.authority.issue());
    site.broker.reload().await;
    until(&site, 200, &[], &[]).await;
}

#[tokio::test]
async fn a_history_that_can_be_written_again_is_ready_although_no_event_comes() {
    let toml = |more: &str| {
        format!(
            "[channels.Phone]\nscope = 'shared'\nhistory = {{ size = 10, ttl = '1h', durable = true }}\n\
             [auth]\nmode = 'open'\n[admin]\nlisten = ['127.0.0.1:0']\n{more}\n{TOKENS}"
        )
    };
    let site = Site::of(Broker::with_file_size(400, &toml("")).await).await;
    until(&site, 200, &[], &[]).await;
    let mut phone = site.broker.app("phone").await;
    let text = "x".repeat(20_000);
    let refused = async {
        for number in 1..=1000 {
            let more = json!({"id": number.to_string(), "data": text});
            phone.send(envelope("Phone/Call/Ringing", more)).await;
            let answer = phone.next().await;
            if answer["subtopic"] == "Error" {
                return answer;
            }
        }
        panic!("1000 events of 20 kB were written to files of 400 KiB")
    };
    assert_eq!(refused.await["data"]["ErrorCode"], "STORAGE_UNAVAILABLE");
    until(&site, 200, &[], &["history"]).await;
    site.broker.configure(&toml("ready_requires = ['history']"));
    site.broker.reload().await;
    until(&site, 503, &["history"], &[]).await;
    // The load balancer lets nobody through any more.
    phone.close().await;
    site.broker.lift_file_size().await;
    until(&site, 200, &[], &[]).await;
}
