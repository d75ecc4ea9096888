//! `switchboard check --salesforce`, as an administrator sees it.

use std::fs;
use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::Command;

use super::stand_in::{Answer, Seen, StandIn};
use super::{ID, SECRET, behind_login, error, key_file, row, rows};
use crate::support::within;

/// An org in which everything is as it should be, but for what `but` answers.
async fn org(but: impl Fn(&Seen) -> Option<Answer> + Send + Sync + 'static) -> StandIn {
    StandIn::start(behind_login(move |seen| {
        if let Some(answer) = but(seen) {
            return answer;
        }
        let field = |name: &str, kind: &str| format!(r#"{{"name":"{name}","type":"{kind}","filterable":true}}"#);
        let last = seen.path.trim_end_matches('/').rsplit('/').next().unwrap().to_owned();
        let query = seen.query.get("q").cloned().unwrap_or_default();
        match last.as_str() {
            "data" => Answer::Json(200, r#"[{"version":"66.0"},{"version":"67.0"},{"version":"68.0"}]"#.to_owned()),
            "describe" => {
                let fields = [
                    field("User_Id__c", "string"),
                    field("CTI_Username__c", "string"),
                    field("CTI_Password__c", "encryptedstring"),
                    field("CTI_Extension__c", "string"),
                    field("ADFS_Username__c", "string"),
                    field("Active__c", "boolean"),
                ];
                Answer::Json(200, format!(r#"{{"name":"CTI_Login__c","fields":[{}]}}"#, fields.join(",")))
            }
            "limits" => Answer::Json(200, r#"{"DailyApiRequests":{"Max":15000,"Remaining":14000}}"#.to_owned()),
            "query" if query.contains("PermissionSetAssignment") => rows(&[r#"{"Id":"0Pa"}"#.to_owned()]),
            "query" if query.contains("COUNT()") => count(if query.ends_with("= null") { 0 } else { 7 }),
            "query" => rows(&[row("")]),
            _ => Answer::Html(404),
        }
    }))
    .await
}

/// The answer to a query that counts.
fn count(number: u32) -> Answer {
    Answer::Json(200, format!(r#"{{"totalSize":{number},"done":true,"records":[]}}"#))
}

/// Exit code and output.
async fn check(stand_in: &StandIn, more: &str, arguments: &[&str]) -> (i32, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("f.toml");
    let key = key_file();
    let text = format!(
        "[credentials]\nstore = 'salesforce'\n[salesforce]\nlogin_url = '{}'\nclient_id = 'x'\nusername = 'u@example.com'\n\
         private_key_file = '{key}'\ninstance_hosts = ['127.0.0.1']\ninsecure_http = true\n{more}",
        stand_in.url
    );
    fs::write(&file, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
    command.args(["check", "--salesforce", "--config"]).arg(&file).args(arguments);
    let output = command.stdin(Stdio::null()).output().await.unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

#[tokio::test]
async fn a_good_org_passes_every_step_and_shows_no_password() {
    let stand_in = org(|_| None).await;
    let (code, text) = check(&stand_in, "", &["--user", ID]).await;
    assert_eq!(code, 0, "{text}");
    let steps: Vec<(&str, &str)> = text
        .lines()
        .map(|line| {
            let mut words = line.split_whitespace();
            (words.next().unwrap(), words.next().unwrap())
        })
        .collect();
    let names: Vec<&str> = steps.iter().map(|(_, name)| *name).collect();
    let all =
        ["network", "tls", "clock", "login", "api_version", "object", "fields", "keys", "mask", "limits", "lookup"];
    assert_eq!(names, all);
    assert!(steps.iter().all(|(came, name)| *came == "ok" || ["tls", "clock"].contains(name)), "{text}");
    assert!(!text.contains(SECRET) && text.contains("username 1245456, extension 05051"), "{text}");

    let (code, text) = check(&stand_in, "", &["--json"]).await;
    let told: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &told["ok"], told["steps"].as_array().unwrap().len()), (0, &Value::Bool(true), 11));
    assert_eq!((&told["steps"][10]["step"], &told["steps"][10]["outcome"]), (&"lookup".into(), &"skipped".into()));
    assert_eq!(told["mistakes"], Value::Array(Vec::new()));
}

#[tokio::test]
async fn a_broken_link_is_named_with_its_place_in_setup() {
    type But = fn(&Seen) -> Option<Answer>;
    let cases: [(But, &str, &str); 6] = [
        (
            |seen| seen.path.ends_with("/data/").then(|| Answer::Json(200, r#"[{"version":"66.0"}]"#.to_owned())),
            "api_version",
            "at most to 66.0",
        ),
        (|seen| seen.path.ends_with("describe").then(|| error(404, "NOT_FOUND", "x")), "object", "'View All'"),
        (
            |seen| {
                let fields = r#"{"fields":[{"name":"User_Id__c"},{"name":"CTI_Username__c"},{"name":"CTI_Extension__c"},
                    {"name":"ADFS_Username__c"},{"name":"Active__c"}]}"#;
                seen.path.ends_with("describe").then(|| Answer::Json(200, fields.to_owned()))
            },
            "fields",
            "CTI_Password__c: no such field",
        ),
        (
            |seen| seen.query.get("q").filter(|q| q.contains("COUNT()")).map(|_| count(7)),
            "keys",
            "User_Id__c is empty in 7 of 7 rows",
        ),
        (
            |seen| seen.query.get("q").filter(|q| q.contains("Assignment")).map(|_| rows(&[])),
            "mask",
            "View Encrypted Data",
        ),
        (
            |seen| {
                seen.query
                    .get("q")
                    .filter(|q| q.contains("CTI_Password"))
                    .map(|_| rows(&[row(",\"CTI_Password__c\":\"****\"")]))
            },
            "lookup",
            "View Encrypted Data",
        ),
    ];
    for (but, step, words) in cases {
        let stand_in = org(but).await;
        let (code, text) = check(&stand_in, "", &["--user", ID]).await;
        assert_eq!(code, 1, "{text}");
        let failed: Vec<&str> = text.lines().filter(|line| line.starts_with("FAILED")).collect();
        assert!(failed.len() == 1 && failed[0].contains(step) && failed[0].contains(words), "{step}: {text}");
        assert!(!text.contains(SECRET) && !text.contains("****"), "{text}");
    }
}

#[tokio::test]
async fn rows_without_a_key_are_counted_and_what_to_do_is_said() {
    let stand_in = org(|seen| seen.query.get("q").filter(|q| q.ends_with("User_Id__c = null")).map(|_| count(3))).await;
    let (code, text) = check(&stand_in, "", &[]).await;
    let line = text.lines().find(|line| line.contains(" keys ")).unwrap();
    assert!(line.contains("User_Id__c is empty in 3 of 7 rows of CTI_Login__c"), "{text}");
    assert!(line.contains("Setup > Process Automation > Flows > CTI Login Fill User Id > Activate"), "{text}");
    // The permission set lets nobody edit the key field, and the flow replaces what is typed.
    assert!(line.contains("save those rows again (Data Loader: any update)") && !line.contains("fill"), "{text}");
    assert_eq!(code, 0, "some logins are found: {text}");
}

#[tokio::test]
async fn the_flow_is_named_only_for_the_field_that_it_fills() {
    let stand_in =
        org(|seen| seen.query.get("q").filter(|q| q.ends_with("Extension__c = null")).map(|_| count(3))).await;
    let (_, text) = check(&stand_in, "[salesforce.credentials]\nkey_field = 'CTI_Extension__c'\n", &[]).await;
    let line = text.lines().find(|line| line.contains(" keys ")).unwrap();
    assert!(line.contains("CTI_Extension__c is empty in 3 of 7 rows") && !line.contains("CTI Login Fill"), "{text}");
}

#[tokio::test]
async fn an_object_may_be_described_in_megabytes_but_not_without_end() {
    fn described(bytes: usize) -> Answer {
        let names =
            ["User_Id__c", "CTI_Username__c", "CTI_Password__c", "CTI_Extension__c", "ADFS_Username__c", "Active__c"];
        let fields = names.map(|name| format!(r#"{{"name":"{name}","type":"encryptedstring","filterable":true}}"#));
        Answer::Json(200, format!(r#"{{"fields":[{}],"rest":"{}"}}"#, fields.join(","), "x".repeat(bytes)))
    }
    let stand_in = org(|seen| seen.path.ends_with("describe").then(|| described(15 << 20))).await;
    let (code, text) = check(&stand_in, "", &[]).await;
    assert_eq!(code, 0, "{text}");
    let stand_in = org(|seen| seen.path.ends_with("describe").then(|| described(17 << 20))).await;
    let (code, text) = check(&stand_in, "", &[]).await;
    let failed = text.lines().find(|line| line.starts_with("FAILED")).unwrap_or_default();
    assert!(code == 1 && failed.contains("object") && failed.contains("larger than 16 MiB"), "{text}");
}

#[tokio::test]
async fn a_refused_login_ends_the_way_and_a_bad_key_file_is_2() {
    let stand_in = StandIn::start(|_| {
        Answer::Json(
            400,
            r#"{"error":"invalid_grant","error_description":"user hasn't approved this consumer"}"#.to_owned(),
        )
    })
    .await;
    let (code, text) = check(&stand_in, "", &["--json"]).await;
    let told: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &told["ok"]), (1, &Value::Bool(false)));
    assert_eq!(told["steps"][3]["outcome"], "failed");
    assert!(told["steps"][3]["detail"].as_str().unwrap().contains("pre-authorized"), "{text}");
    assert_eq!(told["steps"][4]["outcome"], "skipped");

    let (code, text) = check(&stand_in, "ca_file = 'absent.pem'", &[]).await;
    assert!(code == 2 && text.starts_with("salesforce.ca_file: absent.pem: "), "{code} {text}");
    let (code, text) = check(&stand_in, "ca_file = 'absent.pem'", &["--json"]).await;
    let told: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &told["mistakes"][0]["key"]), (2, &"salesforce.ca_file".into()));
    // Without --salesforce too: what would end a start is a mistake.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("f.toml");
    let login = "client_id = 'x'\nusername = 'u'\nprivate_key_file = 'absent.key'";
    fs::write(&file, format!("[credentials]\nstore = 'salesforce'\n[salesforce]\n{login}\n")).unwrap();
    let mut plain = Command::new(env!("CARGO_BIN_EXE_switchboard"));
    let output = plain.args(["check", "--config"]).arg(&file).output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.code() == Some(2) && text.starts_with("salesforce.private_key_file: absent.key: "), "{text}");
    let (code, text) = check(&stand_in, "[salesforce.credentials]\nobject = 'a b'", &[]).await;
    assert!(code == 2 && text.contains("salesforce.credentials.object: must be an API name"), "{code} {text}");
}

#[tokio::test]
async fn the_way_to_salesforce_goes_through_the_proxy_of_the_environment() {
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("f.toml");
    let key = key_file();
    let text = format!(
        "[credentials]\nstore = 'salesforce'\n[salesforce]\nlogin_url = 'https://acme.my.salesforce.com'\nclient_id = 'x'\n\
         username = 'u@example.com'\nprivate_key_file = '{key}'\n"
    );
    fs::write(&file, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
    command.args(["check", "--salesforce", "--config"]).arg(&file).stdin(Stdio::null());
    command.env("HTTPS_PROXY", format!("http://{}", proxy.local_addr().unwrap())).env_remove("NO_PROXY");
    let refuse_all = async {
        loop {
            let (mut connection, _) = proxy.accept().await.unwrap();
            let mut head = String::new();
            BufReader::new(&mut connection).read_line(&mut head).await.unwrap();
            assert_eq!(head.trim(), "CONNECT acme.my.salesforce.com:443 HTTP/1.1");
            connection.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        }
    };
    let output = tokio::select! {
        output = within("the check", command.output()) => output.unwrap(),
        () = refuse_all => unreachable!(),
    };
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.lines().any(|line| line.starts_with("FAILED") && line.contains("network")), "{text}");
}
