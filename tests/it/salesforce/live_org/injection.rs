//! A user name is text, whatever it says: nobody gets another's row, and nothing else of the org is asked.

use serde_json::json;

use super::{ALICE, ALICES, Fixture, demo, fetched};

/// What would be another's row, or another resource, if it were put into SOQL or a path as it is.
const HOSTILE: [&str; 12] = [
    "' OR Id != '",
    "a\\' OR CTI_Username__c != '",
    "alice' OR '1'='1",
    "x' LIMIT 1 OFFSET 1 --",
    "\\",
    "%",
    "_______________",
    "..",
    "../CTI_Login__c/User_Id__c/alice",
    "alice?fields=CTI_Password__c",
    "alice#",
    "%61lice",
];

#[tokio::test]
async fn no_user_name_brings_another_row() {
    for mode in ["mode = 'query'", "mode = 'external_id'", "mode = 'apex'\napex_path = '/cti/{user}'"] {
        let mut seed = demo();
        let rows = seed["records"]["CTI_Login__c"].as_array_mut().unwrap();
        rows[0]["User_Id__c"] = json!("alice");
        let lookup = format!("[salesforce.credentials]\nkey = 'username'\n{mode}");
        let fixture = Fixture::with(&lookup, seed, &[]).await;
        assert_eq!(fetched(&mut fixture.gadget("alice").await).await, ALICES, "{mode}");
        for user in HOSTILE {
            let told = fetched(&mut fixture.gadget(user).await).await;
            assert_eq!(told, "CREDENTIALS_NOT_FOUND", "{mode}, {user}");
        }
        let seen = fixture.org.seen();
        assert!(seen.iter().flat_map(|it| it.path.split('/')).all(|segment| segment != ".."), "{mode}");
    }
}

#[tokio::test]
async fn a_user_that_is_no_record_id_asks_the_org_for_nothing() {
    let fixture = Fixture::start().await;
    for user in HOSTILE.into_iter().chain(["005000000000002AAA ", "local"]) {
        assert_eq!(fetched(&mut fixture.gadget(user).await).await, "CREDENTIALS_NOT_FOUND", "{user}");
    }
    assert_eq!((fixture.org.logins(), fixture.org.calls()), (0, 0));
    assert_eq!(fetched(&mut fixture.gadget(&ALICE[..15]).await).await, ALICES);
}
