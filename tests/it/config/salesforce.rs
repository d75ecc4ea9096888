//! `[salesforce]` and the tables within.

use std::time::Duration;

use switchboard::config::{Mode, Start, Store, UserKey};

use super::{Given, check_file, load};

const JWT: &str = "auth.mode = 'open'\n[credentials]\nstore = 'salesforce'\n[salesforce]\nclient_id = '3MVG9'\n\
                   username = 'switchboard@example.com'\nprivate_key_file = 'key.pem'\n";

#[test]
fn the_tables_of_an_org_are_read() {
    let file = format!(
        "{JWT}login_url = 'https://ACME.my.salesforce.com/'\ninstance_hosts = ['.Salesforce.com', '127.0.0.1', '::1', '[::2]']\n\
         [salesforce.credentials]\nmode = 'external_id'\nkey = 'federation_id'\nkey_field = 'Fed__c'\nactive_field = ''\n\
         cache = '5m'\nfields = {{ username = 'A__c', password = '' }}\n"
    );
    let config = load(&Given { file: Some(&file), ..Given::default() }).unwrap();
    assert_eq!(config.credentials.store, Store::Salesforce);
    let org = config.salesforce;
    assert_eq!(org.login_url, "https://acme.my.salesforce.com");
    assert_eq!(org.instance_hosts, [".salesforce.com", "127.0.0.1", "::1", "::2"]);
    let lookup = org.credentials;
    assert_eq!((lookup.mode, lookup.key), (Mode::ExternalId, UserKey::FederationId));
    assert_eq!((lookup.fields.username.as_str(), lookup.fields.password.as_str()), ("A__c", ""));
    assert_eq!(lookup.fields.extension, "CTI_Extension__c");
    assert_eq!((lookup.active_field.as_str(), lookup.cache), ("", Duration::from_mins(5)));
}

#[test]
fn the_summary_says_which_org_and_as_whom() {
    check_file(
        JWT,
        "mode: open, for development: no token is asked
         listen: 127.0.0.1:7420, [::1]:7420
         credentials: Salesforce, https://login.salesforce.com as switchboard@example.com; CTI_Login__c by User_Id__c",
    );
}

#[test]
fn an_identifier_that_is_none_is_a_mistake() {
    check_file(
        "[salesforce.credentials]\nobject = \"CTI_Login__c WHERE Id != ''\"\nkey_field = 'a,b'\nactive_field = '1a'\n\
         apex_path = '/cti/../{user}'\n[salesforce.credentials.fields]\nusername = 'A__c.'\npassword = \"A'\"\nextention = 'A'\n",
        "2: salesforce.credentials.object: must be an API name, such as CTI_Login__c
         3: salesforce.credentials.key_field: must be the API name of a field, such as User_Id__c or User__r.Username
         4: salesforce.credentials.active_field: must be the API name of a field, such as User_Id__c or User__r.Username
         5: salesforce.credentials.apex_path: must be a path such as \"/cti/{user}\", with {user} once
         7: salesforce.credentials.fields.username: must be the API name of a field, such as User_Id__c or User__r.Username
         8: salesforce.credentials.fields.password: must be the API name of a field, such as User_Id__c or User__r.Username
         9: salesforce.credentials.fields.extention: unknown key
           hint: did you mean salesforce.credentials.fields.extension?",
    );
}

/// The mistakes about a line that needs a login, in a file that has none.
pub(super) fn no_login(line: usize) -> String {
    format!(
        "{line}: salesforce.client_id: is missing: the consumer key of the external client app
         {line}: salesforce.private_key_file: is missing: log in with username and private_key_file, or with client_secret_file"
    )
}

#[test]
fn a_store_in_an_org_needs_a_way_to_log_in() {
    check_file("[credentials]\nstore = 'salesforce'\n", &no_login(2));
    check_file(
        "credentials.store = 'salesforce'\n[salesforce]\nclient_id = 'x'\nusername = 'u'\nclient_secret_file = 's'",
        "1: salesforce.private_key_file: is missing: the key that logs username in
         1: salesforce.login_url: must be the org's My Domain (https://NAME.my.salesforce.com): client credentials work nowhere else
         5: salesforce.client_secret_file: cannot be combined with username or private_key_file",
    );
    check_file(
        &format!("{JWT}[salesforce.credentials]\nmode = 'apex'\nkey = 'id'\n"),
        "3: salesforce.credentials.apex_path: is missing: the mode \"apex\" needs a path such as \"/cti/{user}\"
         10: salesforce.credentials.key: must be \"user_id\" or \"username\" or \"federation_id\" or \"email\"",
    );
}

#[test]
fn an_address_of_an_org_is_https_and_in_its_usual_notation() {
    check_file(
        "[salesforce]\nlogin_url = 'https://0x7f.1'\ninstance_hosts = ['a.example:80', '.127.0.0.1', '*.salesforce.com']\n\
         api_version = 'v67.0'\ntimeout = '0s'\nconcurrency = 0\n",
        "2: salesforce.login_url: has an address in an unusual notation
         3: salesforce.instance_hosts[0]: must be without a port: ports are not compared
         3: salesforce.instance_hosts[1]: must be a host or an address, or the end of one behind a dot, such as \".salesforce.com\"
         3: salesforce.instance_hosts[2]: must be a host or an address, or the end of one behind a dot, such as \".salesforce.com\"
         4: salesforce.api_version: must be a version of the REST API from \"41.0\" on, such as \"67.0\"
         5: salesforce.timeout: must be at least 1ms
         6: salesforce.concurrency: must be at least 1",
    );
    check_file(
        "[salesforce]\nlogin_url = 'http://acme.example'\ninsecure_http = true",
        "3: salesforce.insecure_http: must be false unless salesforce.login_url is on loopback: tokens and passwords would cross the network in the clear",
    );
    check_file(
        "[salesforce]\nlogin_url = 'http://127.0.0.1:8080'\n[salesforce.credentials]\ncache = '2h'",
        "2: salesforce.login_url: must begin with https://, or salesforce.insecure_http be true (a stand-in on loopback)
         4: salesforce.credentials.cache: must be at most 1h",
    );
}

const EVENTS: &str = "auth.mode = 'open'\n[salesforce]\nclient_id = '3MVG9'\nusername = 'switchboard@example.com'\n\
                      private_key_file = 'key.pem'\n";

#[test]
fn the_topics_of_events_are_tables_with_names() {
    let file = format!(
        "{EVENTS}[salesforce.events]\nsettle = '1s'\n[salesforce.events.topics.notice]\ntopic = '/event/CTI_Notice__e'\n\
         user_field = 'ChangeEventHeader.commitUser'\nstart = 'earliest'\nfields = ['A__c', 'B__c']\n\
         [salesforce.events.topics.\"all changes\"]\ntopic = '/data/ChangeEvents'\n"
    );
    let config = load(&Given { file: Some(&file), ..Given::default() }).unwrap();
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    let events = config.salesforce.events;
    assert_eq!(events.settle, Duration::from_secs(1));
    let notice = &events.topics["notice"];
    assert_eq!((notice.topic.as_str(), notice.start), ("/event/CTI_Notice__e", Start::Earliest));
    assert_eq!(notice.user_field.as_deref(), Some("ChangeEventHeader.commitUser"));
    assert_eq!(notice.fields.as_deref(), Some(&["A__c".to_owned(), "B__c".to_owned()][..]));
    let all = &events.topics["all changes"];
    assert_eq!((all.start, &all.user_field, &all.fields), (Start::Latest, &None, &None));
    check_file(
        &file,
        "mode: open, for development: no token is asked
         listen: 127.0.0.1:7420, [::1]:7420
         events: /data/ChangeEvents, /event/CTI_Notice__e from https://api.pubsub.salesforce.com:7443
         not default: salesforce.events.settle = 1s",
    );
}

#[test]
fn a_topic_that_is_none_is_a_mistake() {
    check_file(
        &format!(
            "{EVENTS}[salesforce.events]\nendpoint = 'http://api.pubsub.salesforce.com'\nsettle = '1h'\n\
             [salesforce.events.topics.a]\ntopic = '/topic/X'\nuser_field = 'a b'\n\
             [salesforce.events.topics.b]\nstart = 'late'\nfields = ['a.b']\n\
             [salesforce.events.topics.c]\n[salesforce.events.topics.d]\ntopic = '/event/X__e'\ntopics = 1\n\
             [salesforce.events.topics.e]\ntopic = '/event/Y__e'\n[salesforce.events.topics.f]\ntopic = '/event/Y__e'\n"
        ),
        "7: salesforce.events.endpoint: must begin with https://, or be a stand-in on loopback, and \
           salesforce.insecure_http true
         8: salesforce.events.settle: must be at most 5m
         10: salesforce.events.topics.a.topic: must be a topic of the Pub/Sub API, such as /event/CTI_Notice__e or \
             /data/CTI_Login__ChangeEvent
         11: salesforce.events.topics.a.user_field: must be the API name of a field, such as User_Id__c or User__r.Username
         13: salesforce.events.topics.b.start: must be \"latest\" or \"earliest\"
           hint: did you mean \"latest\"?
         14: salesforce.events.topics.b.fields[0]: must be an API name, such as CTI_Login__c
         15: salesforce.events.topics.c.topic: is missing: what Salesforce calls the topic, such as /event/CTI_Notice__e
         18: salesforce.events.topics.d.topics: unknown key
           hint: did you mean topic?
         21: salesforce.events.topics.f.topic: is another table's too: a topic can have only one table",
    );
}

#[test]
fn events_need_a_way_to_log_in_with_either_store() {
    check_file("[salesforce.events.topics.a]\ntopic = '/event/X__e'\n", &no_login(1));
    check_file(
        "[salesforce]\nclient_id = 'x'\n[salesforce.events]\ntopics = 1\n",
        "4: salesforce.events.topics: must be tables: [salesforce.events.topics.NAME]",
    );
}

#[test]
fn events_of_a_user_on_a_shared_channel_are_hardly_meant() {
    let topics = "[salesforce.events.topics.own]\ntopic = '/event/A__e'\nuser_field = 'User__c'\n\
                  [salesforce.events.topics.all]\ntopic = '/event/B__e'\n";
    for (scope, expected) in [
        ("user", &[][..]),
        (
            "shared",
            &[
                "[salesforce.events.topics.own] has user_field, and channels.Salesforce.scope is \"shared\": its events \
               reach everybody",
            ],
        ),
    ] {
        let file = format!("{JWT}{topics}[channels.Salesforce]\nscope = '{scope}'\n");
        let config = load(&Given { file: Some(&file), ..Given::default() }).unwrap();
        assert_eq!(config.warnings, expected, "{scope}");
    }
}

#[test]
fn a_host_of_pages_is_not_one_to_log_in_at() {
    let message = "2: salesforce.login_url: names a host of Salesforce's pages, which issues no tokens: write \
                   https://login.salesforce.com, https://test.salesforce.com, or My Domain (Setup > Company Settings > My \
                   Domain), which ends in .my.salesforce.com";
    for host in [
        "acme.lightning.force.com",
        "ACME.Lightning.Force.com:443",
        "acme--c.vf.force.com.visualforce.com",
        "acme.my.salesforce-setup.com",
        "www.salesforce.com",
        "HELP.salesforce.com",
        "salesforce.com",
    ] {
        check_file(&format!("[salesforce]\nlogin_url = 'https://{host}'\n"), message);
    }
    for host in
        ["acme.my.salesforce.com", "acme--uat.sandbox.my.salesforce.com", "login.salesforce.com", "127.0.0.1:8443"]
    {
        let file = format!("{JWT}login_url = 'https://{host}'\n");
        let config = load(&Given { file: Some(&file), ..Given::default() }).unwrap();
        assert_eq!(config.salesforce.login_url, format!("https://{host}"));
    }
}

#[test]
fn a_value_that_cannot_be_read_is_one_mistake() {
    let store = "[credentials]\nstore = 'salesforce'\n[salesforce]\n";
    let host = "must name a host and nothing else: no user, path or query";
    let text = "must be a text of at most 1024 bytes, without spaces or control characters";
    for (keys, mistake) in [
        (
            "client_id = 'x'\nusername = 'u'\nprivate_key_file = 'k'\nlogin_url = 'https://127.0.0.1:8443/services/oauth2/token'\n\
             insecure_http = true\n",
            format!("7: salesforce.login_url: {host}"),
        ),
        (
            "client_id = 'x'\nclient_secret_file = 's'\nlogin_url = 'https://acme.my.salesforce.com/x'\n",
            format!("6: salesforce.login_url: {host}"),
        ),
        ("client_id = 'x y'\nusername = 'u'\nprivate_key_file = 'k'\n", format!("4: salesforce.client_id: {text}")),
        ("client_id = 'x'\nusername = 'u v'\n", format!("5: salesforce.username: {text}")),
        ("client_id = 'x'\nusername = 'u v'\nprivate_key_file = 'k'\n", format!("5: salesforce.username: {text}")),
        (
            "client_id = 'x'\nusername = 'u'\nprivate_key_file = 5\n",
            "6: salesforce.private_key_file: must be a path in quotes".to_owned(),
        ),
        (
            "client_id = 'x'\nclient_secret_file = 5\nlogin_url = 'https://acme.my.salesforce.com'\n",
            "5: salesforce.client_secret_file: must be a path in quotes".to_owned(),
        ),
        (
            "client_id = 'x'\nusername = 'u'\nprivate_key_file = 'k'\n[salesforce.credentials]\nmode = 'apex'\n\
             apex_path = 'x'\n",
            "9: salesforce.credentials.apex_path: must be a path such as \"/cti/{user}\", with {user} once".to_owned(),
        ),
    ] {
        check_file(&format!("{store}{keys}"), &mistake);
    }
}
