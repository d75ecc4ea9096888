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
