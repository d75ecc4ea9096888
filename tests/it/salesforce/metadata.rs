//! clients/salesforce/sfdx, what an administrator deploys: it is what the Metadata API takes (judged by jsforce's types in
//! tests/node/metadata.cjs), and its names are the defaults of the configuration, of the stand-in org and of the page.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use switchboard::config::Salesforce;
use tokio::process::Command;
use tokio::time::timeout;

const SOURCE: &str = "clients/salesforce/sfdx/force-app/main/default";

/// The text of an element that occurs once.
fn element<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.split_once(&format!("<{name}>"))?.1.split_once(&format!("</{name}>")).map(|(inside, _)| inside)
}

/// The fields of the object that holds the logins, by name.
fn fields() -> BTreeMap<String, String> {
    let folder = Path::new(SOURCE).join("objects").join(Salesforce::default().credentials.object).join("fields");
    let entries = fs::read_dir(folder).expect("the object has the configuration's name");
    let texts = entries.map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap());
    texts.map(|text| (element(&text, "fullName").unwrap().to_owned(), text)).collect()
}

#[test]
fn the_objects_names_are_the_defaults_of_the_configuration() {
    let (found, lookup) = (fields(), Salesforce::default().credentials);
    let is = |name: &str, key: &str, value: &str| {
        let text = found.get(name).unwrap_or_else(|| panic!("no field {name}"));
        assert_eq!(element(text, key), Some(value), "{name}: {key}");
    };
    for (key, value) in
        [("type", "Text"), ("length", "18"), ("unique", "true"), ("caseSensitive", "true"), ("externalId", "true")]
    {
        is(&lookup.key_field, key, value);
    }
    for (key, value) in [("type", "EncryptedText"), ("maskType", "all"), ("maskChar", "asterisk"), ("length", "175")] {
        is(&lookup.fields.password, key, value);
    }
    for name in [&lookup.fields.username, &lookup.fields.extension, &lookup.fields.adfs_username] {
        is(name, "type", "Text");
    }
    is(&lookup.active_field, "type", "Checkbox");
    is(&lookup.active_field, "defaultValue", "true");
    is("User__c", "referenceTo", "User");
    let version = Salesforce::default().api_version;
    let project = fs::read_to_string("clients/salesforce/sfdx/sfdx-project.json").unwrap();
    assert_eq!(serde_json::from_str::<Value>(&project).unwrap()["sourceApiVersion"], *version);
}

#[test]
fn the_stand_in_has_the_same_object() {
    let seed: Value = serde_json::from_str(salesforce_stand_in::DEMO_SEED).unwrap();
    let object = seed["objects"].as_array().unwrap().iter().find(|it| it["name"] == "CTI_Login__c").unwrap();
    let stand_in: BTreeMap<String, Option<u64>> = object["fields"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["name"].as_str().unwrap().to_owned(), it["length"].as_u64()))
        .collect();
    let deployed =
        fields().into_iter().map(|(name, text)| (name, element(&text, "length").map(|it| it.parse().unwrap())));
    assert_eq!(stand_in, deployed.collect());
}

#[test]
fn the_page_asks_a_method_that_the_class_has() {
    let page = fs::read_to_string("clients/salesforce/opencti/bridge.js").unwrap();
    let class = fs::read_to_string(Path::new(SOURCE).join("classes/SwitchboardToken.cls")).unwrap();
    assert!(page.contains("apexClass = \"SwitchboardToken\"") && page.contains("methodName: \"issue\""));
    assert!(class.contains("global with sharing class SwitchboardToken {"));
    // runApex reaches this kind of method and no other.
    assert!(class.contains("webService static String issue()"));
}

/// The Apex code of a class: comments are blank, and texts empty.
fn code(class: &str) -> String {
    let mut code = String::new();
    let mut rest = class;
    while let Some(first) = rest.chars().next() {
        let end = match () {
            () if rest.starts_with("/*") => rest.find("*/").map(|at| at + 2),
            () if rest.starts_with("//") => rest.find('\n'),
            () if first == '\'' => {
                let escapes = rest.match_indices('\'').skip(1).find(|(at, _)| !rest[..*at].ends_with('\\'));
                escapes.map(|(at, _)| at + 1)
            }
            () => None,
        };
        let length = end.unwrap_or(first.len_utf8());
        if end.is_none() {
            code.push(first);
        }
        rest = &rest[length..];
    }
    code
}

/// The queries and changes of Apex code that leave it to the API version whose rights count.
fn without_mode(class: &str) -> Vec<String> {
    let code = code(class).to_ascii_lowercase();
    let words: Vec<&str> =
        code.split(|it: char| !(it.is_alphanumeric() || it == '_')).filter(|it| !it.is_empty()).collect();
    let mut found = Vec::new();
    for query in code.split('[').skip(1).filter_map(|rest| rest.split(']').next()) {
        if query.trim_start().starts_with("select")
            && !query.contains("with system_mode")
            && !query.contains("with user_mode")
        {
            found.push(format!("[{query}]"));
        }
    }
    for pair in words.windows(3) {
        let changes = ["insert", "update", "upsert", "delete", "undelete", "merge"].contains(&pair[0]);
        if changes && !(pair[1] == "as" && ["system", "user"].contains(&pair[2])) {
            found.push(pair.join(" "));
        }
        let by_method = pair[0] == "database" && !["executebatch", "querylocator"].contains(&pair[1]);
        if by_method && !code.contains("accesslevel") {
            found.push(pair.join(" "));
        }
    }
    found
}

#[test]
fn every_query_and_change_says_whose_rights_count() {
    let class = "String s = 'insert x; [SELECT'; // update x\n /* [SELECT Id FROM X] */ [SELECT Id FROM User WITH SYSTEM_MODE]; \
                 insert as system x; update as user y;";
    assert_eq!(without_mode(class), Vec::<String>::new());
    for class in
        ["[SELECT Id FROM User];", "a = [ select Id from User WHERE x = 'WITH SYSTEM_MODE'];", "update new User();"]
    {
        assert_eq!(without_mode(class).len(), 1, "{class}");
    }
    assert!(!without_mode("Database.insert(x, false);").is_empty());
    let mut classes = 0;
    for entry in fs::read_dir(Path::new(SOURCE).join("classes")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|it| it == "cls") {
            classes += 1;
            assert_eq!(without_mode(&fs::read_to_string(&path).unwrap()), Vec::<String>::new(), "{}", path.display());
        }
    }
    assert_eq!(classes, 4);
}

#[test]
fn agents_may_read_the_setting_and_call_the_class() {
    let set =
        fs::read_to_string(Path::new(SOURCE).join("permissionsets/Switchboard_Agent.permissionset-meta.xml")).unwrap();
    let inside = |name: &str| element(&set, name).unwrap_or_else(|| panic!("no {name}"));
    assert_eq!(element(inside("customMetadataTypeAccesses"), "name"), Some("Switchboard_Setting__mdt"));
    assert_eq!(element(inside("customMetadataTypeAccesses"), "enabled"), Some("true"));
    assert_eq!(element(inside("classAccesses"), "apexClass"), Some("SwitchboardToken"));
}

#[test]
fn the_readme_names_every_test_class_and_where_the_flow_is_switched_on() {
    let readme = fs::read_to_string("clients/salesforce/sfdx/README.md").unwrap();
    let readme = readme.split_whitespace().collect::<Vec<_>>().join(" ");
    for class in ["SwitchboardTokenTest", "CtiLoginTest"] {
        assert!(Path::new(SOURCE).join(format!("classes/{class}.cls")).exists());
        assert!(readme.contains(&format!("--tests {class}")), "{class}");
    }
    assert!(readme.contains("Setup > Process Automation > Flows > CTI Login Fill User Id"));
}

#[tokio::test]
async fn the_metadata_api_takes_every_file() {
    let target = PathBuf::from(env!("CARGO_BIN_EXE_switchboard")).parent().unwrap().parent().unwrap().to_owned();
    let modules = target.join("node/node_modules");
    if !modules.join("jsforce").exists() {
        eprintln!("SKIPPED: no jsforce in target/node; ./test installs it where there is an npm");
        return;
    }
    let mut judge = Command::new("node");
    judge.env("NODE_PATH", modules).arg("tests/node/metadata.cjs").arg("clients/salesforce/sfdx");
    let output = timeout(Duration::from_mins(1), judge.kill_on_drop(true).output()).await.expect("it hangs").unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(told.lines().count(), 6, "{told}");
}
