//! `switchboard check --permissions`: what each application may do, as a person and as a script see it.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

const SITE: &str = r#"
data_dir = "data"

[roles.agent]
publish = ["Phone/*/*"]
subscribe = ["*/*/*"]
request = ["*/User/*", "Phone/*/*"]
handle = ["Queue/Lamp/*"]
deny = { subscribe = ["Payroll/*/*"], request = ["Phone/Agent/Login", "Phone/Agent/Logout"] }
observe = ["*@team-a.example"]
protected_handle = ["Queue/*/*"]

[channels.Queue]
scope = "shared"
publish = "services"

[[applications]]
source = "softphone"
user = "alice@example.com"
role = "agent"
permissions = { publish = ["Queue/*/*", "Desktop/*/*"] }
token_sha256 = "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"

[[applications]]
source = "cti"
service = true
users = ["*@example.com"]
request = ["*/Agent/Login"]
token_sha256 = "6f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
"#;

/// Runs `check` on the site; gives its exit code, its standard output and its standard error.
fn check(arguments: &[&str]) -> (i32, String, String) {
    check_site(SITE, arguments)
}

fn check_site(site: &str, arguments: &[&str]) -> (i32, String, String) {
    check_in(&tempfile::tempdir().unwrap(), site, arguments)
}

/// The same in a folder that may have more files.
fn check_in(folder: &tempfile::TempDir, site: &str, arguments: &[&str]) -> (i32, String, String) {
    fs::write(folder.path().join("f.toml"), site).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
    let command = command.args(["check", "--config", "f.toml", "--permissions"]).args(arguments);
    let output = command.current_dir(folder.path()).output().unwrap();
    let [out, error] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    (output.status.code().unwrap(), out, error)
}

/// A line of the table without the spaces between its columns.
fn cells(line: &str) -> String {
    line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect::<Vec<_>>().join(" | ")
}

#[test]
fn the_table_has_a_line_for_each_right_of_each_application() {
    let (code, text, _) = check(&[]);
    let lines: Vec<String> = text.lines().map(cells).collect();
    let expected = [
        "SOURCE | USER | ROLE | RIGHT | ALLOWED | DENIED",
        // A rule of the channel, not of the rights.
        "softphone | alice@example.com | agent | publish | Queue/*/*, Desktop/*/* | Queue/*/*",
        "softphone | alice@example.com | agent | subscribe | */*/* | Payroll/*/*",
        "softphone | alice@example.com | agent | request | */User/*, Phone/*/* | Phone/Agent/Login, Phone/Agent/Logout",
        "softphone | alice@example.com | agent | handle | Queue/Lamp/*",
        // Those that grant and general right both allow: not the login, which is denied.
        "softphone | alice@example.com | agent | protected request | */User/FetchCredentials, Phone/Agent/SetUserInfo, \
         Phone/Connection/ReInit",
        "softphone | alice@example.com | agent | protected handle | nothing",
        "softphone | alice@example.com | agent | shared handle | Queue/Lamp/*",
        "softphone | alice@example.com | agent | observe | *@team-a.example",
        "cti | (service) | - | publish | */*/*",
        "cti | (service) | - | subscribe | */*/*",
        "cti | (service) | - | request | */*/*",
        "cti | (service) | - | handle | */*/*",
        "cti | (service) | - | protected request | */Agent/Login",
        "cti | (service) | - | protected handle | nothing",
        "cti | (service) | - | shared handle | Queue/*/*",
        "cti | (service) | - | users | *@example.com",
        "no mistakes",
    ];
    assert_eq!((code, lines), (0, expected.map(str::to_owned).to_vec()));
}

#[test]
fn a_source_selects_its_applications_and_json_is_for_programs() {
    let (code, text, _) = check(&["--source", "softphone", "--json"]);
    let told: Value = serde_json::from_str(&text).unwrap();
    let expected = json!([{
        "source": "softphone", "issuer": null, "user": "alice@example.com", "service": false, "role": "agent",
        "publish": { "allow": ["Queue/*/*", "Desktop/*/*"], "deny": ["Queue/*/*"] },
        "subscribe": { "allow": ["*/*/*"], "deny": ["Payroll/*/*"] },
        "request": { "allow": ["*/User/*", "Phone/*/*"], "deny": ["Phone/Agent/Login", "Phone/Agent/Logout"] },
        "handle": { "allow": ["Queue/Lamp/*"], "deny": [] },
        "protected_request": {
            "allow": ["*/User/FetchCredentials", "Phone/Agent/SetUserInfo", "Phone/Connection/ReInit"], "deny": [],
        },
        "protected_handle": { "allow": [], "deny": [] },
        "shared_handle": { "allow": ["Queue/Lamp/*"], "deny": [] },
        "observe": ["*@team-a.example"], "users": null,
    }]);
    assert_eq!((code, &told["ok"], &told["permissions"]), (0, &Value::Bool(true), &expected));

    let (code, text, _) = check(&["--source", "cti"]);
    assert!(code == 0 && text.contains("cti") && !text.contains("softphone"), "{text}");
}

#[test]
fn a_source_that_no_application_has_is_refused_with_the_nearest_one() {
    let (code, text, error) = check(&["--source", "softfone"]);
    assert_eq!((code, text.as_str()), (2, ""));
    assert!(error.contains("no application has this source") && error.contains("did you mean 'softphone'?"), "{error}");
}

#[test]
fn the_table_of_the_page_is_that_of_its_example() {
    let page = switchboard::config::document();
    let block = |begin: &str, inside: &str| {
        let mut blocks = page.split(begin).skip(1).map(|rest| rest.split("```").next().unwrap());
        blocks.find(|block| block.contains(inside)).unwrap()
    };
    let example = format!("data_dir = 'data'\n{}", block("```toml\n", "[roles.telephony]"));
    let (code, text, _) = check_site(&example, &["--source", "cti"]);
    let table = block("```text\n", "SOURCE");
    assert_eq!((code, text), (0, format!("{table}no mistakes\n")));
}

/// Whom an issuer may prove, with each role that a token can name; a source of a service of `[[applications]]` is left out.
#[test]
fn an_issuer_has_lines_for_each_source_and_role() {
    const ISSUERS: &str = r#"
[roles.lead]
publish = ["*/*/*"]
subscribe = []
request = []
handle = []
observe = true

[auth.jwt.entra]
issuer = "https://login.example.com"
audience = ["switchboard"]
algorithms = ["HS256"]
secret_file = "secret"
user = "sub"
users = ["*@example.com"]
service = "svc"
sources = ["softphone", "cti"]
roles = "roles"

[auth.jwt.own]
issuer = "https://own.example.com"
audience = ["switchboard"]
algorithms = ["HS256"]
secret_file = "secret"
user = "sub"
users = ["*@own.example"]
source = "source"
role = "lead"
"#;
    let check = |arguments: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("secret"), "0123456789abcdef0123456789abcdef").unwrap();
        #[cfg(unix)]
        fs::set_permissions(folder.path().join("secret"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        check_in(&folder, &format!("{SITE}{ISSUERS}"), arguments)
    };
    let (code, text, _) = check(&[]);
    let lines: Vec<String> = text.lines().map(cells).filter(|line| line.contains(" of ")).collect();
    let kinds = |right: &str| -> Vec<String> {
        let with = format!(" | {right} | ");
        lines.iter().filter(|line| line.contains(&with)).map(|line| line.replace(&with, " | ")).collect()
    };
    assert_eq!(code, 0, "{text}");
    assert_eq!(
        kinds("publish"),
        [
            "softphone | (user of entra) | agent | Phone/*/*",
            "softphone | (service of entra) | agent | Phone/*/*",
            "softphone | (user of entra) | lead | */*/* | Queue/*/*",
            "softphone | (service of entra) | lead | */*/*",
            "(any) | (user of own) | lead | */*/* | Queue/*/*",
        ]
    );
    assert_eq!(
        kinds("users"),
        ["agent", "lead"].map(|role| format!("softphone | (service of entra) | {role} | *@example.com"))
    );
    assert_eq!(kinds("observe").last().unwrap(), "(any) | (user of own) | lead | *");

    // A token that names its source may name this one.
    let (_, text, _) = check(&["--source", "screenpop", "--json"]);
    let told: Value = serde_json::from_str(&text).unwrap();
    let [only] = told["permissions"].as_array().unwrap().as_slice() else { panic!("{told}") };
    let fields = ["source", "issuer", "user", "service", "role"].map(|key| only[key].clone());
    assert_eq!(json!(fields), json!([null, "own", null, false, "lead"]));
}
