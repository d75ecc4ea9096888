//! What differs between two configurations, and which keys need a restart.

use serde_json::json;
use switchboard::config::{Changes, Config, Row, TakesEffect, document, rows, takes_effect};

use super::table::{file_of, needed, other};
use super::{Given, HASH, load};

fn of(file: &str) -> Config {
    load(&Given { file: Some(file), ..Given::default() }).unwrap()
}

#[track_caller]
fn check(old: &str, new: &str, expected: &[&str]) {
    let Changes { mut reload, restart } = Changes::between(&of(old), &of(new));
    reload.extend(restart);
    reload.sort();
    assert_eq!(reload, expected);
}

#[test]
fn every_key_says_when_it_takes_effect() {
    let unclear: Vec<String> =
        rows().into_iter().map(|row| row.key).filter(|key| takes_effect(key).is_none()).collect();
    let hint = "add the key, or its table, to one of the two lists in src/config/changes.rs; if a reload cannot put it in \
                force, it belongs to WITH_RESTART";
    assert!(unclear.is_empty(), "{hint}: {unclear:?}");
}

/// In every single key that has another value by itself.
#[test]
fn a_change_is_named_by_its_key_and_no_other() {
    let rows = rows();
    let base = file_of(&rows, |row| needed(row).map(str::to_owned));
    let mut compared = 0;
    for row in rows.iter().filter(|row| row.variable.is_some() && needed(row).is_none() && row.key != "auth.mode") {
        let Some(value) = other(row) else { continue };
        let mut expected = vec![row.key.as_str()];
        if row.key == "limits.message_bytes" {
            // Its default follows the other key down.
            expected.push("limits.registration_bytes");
        }
        check(&base, &format!("{base}{} = {value}\n", row.key), &expected);
        compared += 1;
    }
    assert!(compared > 60, "{compared}");
}

#[test]
fn tables_that_can_be_repeated_are_compared_by_name() {
    let application =
        |user: &str| format!("[[applications]]\nsource = 'a'\nuser = '{user}'\ntoken_sha256 = '{HASH}'\n");
    check(&application("alice"), &application("bob"), &["applications"]);
    check("", &application("alice"), &["applications"]);
    let queue = "[channels.Queue]\nscope = 'shared'\n[channels.\"a b\"]\nfold_case = true\n";
    check("", queue, &["channels.\"a b\".fold_case", "channels.Queue.scope"]);
    check(queue, queue, &[]);
    check("", "[channels.Plain]\nscope = 'user'\n", &[]);
    let kept = |size: u32| format!("[channels.Phone]\nhistory = {{ size = {size}, ttl = '1m' }}\n");
    for (old, new) in [(String::new(), kept(1)), (kept(1), kept(2)), (kept(1), "[channels.Phone]\n".to_owned())] {
        check(&old, &new, &["channels.Phone.history"]);
    }
    let durable = "[channels.Phone]\nhistory = { size = 1, ttl = '1m', durable = true }\nretain = 'durable'\n";
    check(&kept(1), durable, &["channels.Phone.history.durable", "channels.Phone.retain"]);
    for key in ["channels.NAME.history.durable", "channels.NAME.retain"] {
        assert_eq!(takes_effect(key), Some(TakesEffect::Restart));
    }
    let role = "[roles.agent]\npublish = []\nsubscribe = []\nrequest = []\nhandle = []\n";
    check("", role, &["roles"]);
    let issuer = |sources: &str| {
        format!(
            "{role}[auth.jwt.idp]\nissuer = 'https://idp.example'\naudience = ['b']\nalgorithms = ['HS256']\n\
             secret_file = 's'\nuser = 'sub'\nrole = 'agent'\nsources = ['{sources}']\n"
        )
    };
    check(role, &issuer("a"), &["auth.jwt.idp"]);
    check(&issuer("a"), &issuer("b"), &["auth.jwt.idp"]);
    check(&issuer("a"), &issuer("a").replace("jwt.idp", "jwt.\"i.p\""), &["auth.jwt.\"i.p\"", "auth.jwt.idp"]);
    let org = "[salesforce]\nclient_id = 'x'\nclient_secret_file = 'y'\nlogin_url = 'https://a.my.salesforce.com'\n";
    let object = |fields: &str| format!("{org}[salesforce.objects.Task]\nupdate = true\nfields = {{ {fields} }}\n");
    check(org, &object(""), &["salesforce.objects"]);
    check(&object(""), &object("a = 'Subject'"), &["salesforce.objects"]);
    let topic = |name: &str| format!("{org}[salesforce.events.topics.{name}]\ntopic = '/event/A__e'\n");
    check(org, &topic("a"), &["salesforce.events.topics"]);
    check(&topic("a"), &topic("b"), &["salesforce.events.topics"]);
    for key in
        ["objects.NAME.update", "variables.keep", "creations.of_user", "events.topics.NAME.start", "events.settle"]
    {
        assert_eq!(takes_effect(&format!("salesforce.{key}")), Some(TakesEffect::Reload), "{key}");
    }
}

#[test]
fn a_table_that_proves_users_is_named_if_it_is_new_or_gone() {
    let rows: Vec<Row> = rows().into_iter().filter(|row| row.key.starts_with("auth.salesforce_userinfo.")).collect();
    let on = file_of(&rows, |row| needed(row).map(str::to_owned));
    let expected = ["auth.salesforce_userinfo", "auth.salesforce_userinfo.host", "auth.salesforce_userinfo.org_id"];
    check("", &on, &expected);
    check(&on, "", &expected);
}

#[test]
fn the_page_lists_the_keys_that_need_a_restart() {
    let page = document();
    let section = page.split("### Keys that need a restart").nth(1).unwrap().split("###").next().unwrap();
    for key in ["`listen`", "`data_dir`", "`auth.mode`", "`credentials.*`"] {
        assert!(section.contains(key), "{key}: {section}");
    }
    for row in rows() {
        let table = row.key.split('.').next().unwrap();
        let listed = section.contains(&format!("`{}`", row.key)) || section.contains(&format!("`{table}.*`"));
        if takes_effect(&row.key) == Some(TakesEffect::Reload) {
            assert!(!listed, "{} is listed", row.key);
        }
    }
}

/// A configuration that keeps the keys that need a restart differs in none of them from the one in force.
#[test]
fn what_needs_a_restart_can_be_kept_and_the_rest_taken_over() {
    let rows = rows();
    let base = file_of(&rows, |row| needed(row).map(str::to_owned));
    let tables = "[channels.Phone]\nfold_case = true\nretain = 'durable'\nhistory = { size = 5, ttl = '1m', durable = true }\n\
                  [channels.Gone]\nretain = 'durable'\n";
    let (old, new) = (of(&format!("{base}{tables}")), {
        let mut text = file_of(&rows, |row| needed(row).map(str::to_owned).or_else(|| other(row)));
        text.push_str("[channels.Phone]\nscope = 'shared'\n[channels.New]\nretain = 'durable'\nscope = 'shared'\n");
        of(&text)
    });
    let changes = Changes::between(&old, &new);
    assert!(changes.restart.len() > 10, "{:?}", changes.restart);
    let mut kept = new.clone();
    kept.keep_restart_keys(&old);
    let left = Changes::between(&old, &kept);
    assert_eq!(left.restart, [] as [&str; 0]);
    let taken: Vec<_> = changes.reload.iter().filter(|key| !left.reload.contains(key)).collect();
    // `admin.insecure` stays with the listener that it is about.
    let follows = |key: &str| key.starts_with("channels.") || key == "admin.insecure";
    assert!(taken.iter().all(|key| follows(key)), "{taken:?}");
    assert!(
        kept.channels["Phone"].durable && kept.channels["Gone"].retain_durable && !kept.channels["New"].retain_durable
    );
}

/// `GET /v1/config` lists what is in force.
#[test]
fn the_settings_of_kept_keys_are_those_in_force() {
    let old = of("data_dir = 'old'\n[channels.Gone]\nretain = 'durable'\n[channels.Phone]\nretain = 'durable'\n");
    let mut kept = of("data_dir = 'new'\nlimits.rate = 7\nrecorder.bytes = 0\n[channels.New]\nretain = 'durable'\n\
                       [channels.Phone]\nscope = 'shared'\n");
    kept.keep_restart_keys(&old);
    for (key, expected) in [
        ("data_dir", Some(json!("old"))),
        ("limits.rate", Some(json!(7))),
        ("recorder.bytes", Some(json!(0))),
        ("channels.Gone.retain", Some(json!("durable"))),
        ("channels.New.retain", None),
        ("channels.Phone.retain", Some(json!("durable"))),
        ("channels.Phone.scope", Some(json!("shared"))),
    ] {
        let found = kept.settings.list().iter().find(|it| it.key == key);
        assert_eq!(found.map(|it| it.value.clone()), expected, "{key}");
    }
}

/// The admin listener stays beyond loopback, so it goes on to encrypt, although the new file no longer has a certificate.
#[test]
fn what_a_kept_listener_cannot_do_without_is_kept_with_it() {
    let tls = "tls = { certificate_file = 'c', key_file = 'k', client_ca_file = 'a', listen = ['0.0.0.0:1'], \
               client_listen = ['0.0.0.0:2'] }\n";
    let hash = "0".repeat(64);
    let tokens = format!("tokens = [{{ name = 'a', token_sha256 = '{hash}', may = 'read' }}]");
    let old = of(&format!("auth.mode = 'tokens'\n{tls}[admin]\nlisten = ['0.0.0.0:7421']\ntls = true\n{tokens}\n"));
    let mut kept = of(&format!("auth.mode = 'tokens'\n[admin]\nlisten = ['127.0.0.1:7421']\n{tokens}\n"));
    kept.keep_restart_keys(&old);
    assert!(kept.admin.tls && kept.tls == old.tls);
    assert_eq!(Changes::between(&old, &kept), Changes::default());
    for key in ["admin.tls", "tls.certificate_file", "tls.key_file", "tls.client_ca_file"] {
        let of = |config: &Config| config.settings.list().iter().find(|it| it.key == key).map(|it| it.value.clone());
        assert_eq!(of(&kept), of(&old), "{key}");
    }
}

/// Under `tokens` it is 100, although the new file says `open`, under which there is no limit.
#[test]
fn the_default_of_sessions_per_user_is_that_of_the_kept_mode() {
    let old = of("auth.mode = 'tokens'\n");
    for (more, expected) in [("", 100), ("limits.sessions_per_user = 7\n", 7)] {
        let mut kept = of(&format!("auth.mode = 'open'\n{more}"));
        kept.keep_restart_keys(&old);
        assert_eq!(kept.limits.sessions_per_user, expected, "{more}");
        let shown = kept.settings.list().iter().find(|it| it.key == "limits.sessions_per_user").unwrap();
        assert_eq!(shown.value, json!(expected), "{more}");
    }
}
