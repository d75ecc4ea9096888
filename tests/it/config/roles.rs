//! `[roles.NAME]`, and the rights that rows of `[[applications]]` have by a role and by keys of their own.

use switchboard::auth::{Permission, Permissions, Principal, Right, Users};
use switchboard::config::{Application, Config};

use super::{Given, HASH, check_file, load, told};

/// A role with four lists, and further lines.
fn role(name: &str, patterns: [&str; 4], more: &str) -> String {
    let [publish, subscribe, request, handle] = patterns;
    format!(
        "[roles.{name}]\npublish = {publish}\nsubscribe = {subscribe}\nrequest = {request}\nhandle = {handle}\n{more}\n"
    )
}

fn config(file: &str) -> Config {
    let outcome = load(&Given { file: Some(file), ..Given::default() });
    outcome.unwrap_or_else(|_| panic!("{}", told(&load(&Given { file: Some(file), ..Given::default() }))))
}

/// The only application of a configuration with these roles.
fn application(roles: &str, lines: &str) -> Application {
    let file = format!("{roles}\n[[applications]]\nsource = 'a'\ntoken_sha256 = '{HASH}'\n{lines}");
    config(&file).applications.remove(0)
}

/// A right in words: allowed patterns, denied patterns with where they are configured, and where the right is.
fn shown(right: &Right) -> String {
    let allow: Vec<_> = right.allow.iter().map(|rule| rule.pattern.to_string()).collect();
    let deny: Vec<_> = right.deny.iter().map(|rule| format!("{} ({})", rule.pattern, rule.from)).collect();
    format!("{} - {}; {}", allow.join(" "), deny.join(" "), right.from)
}

fn rights(permissions: &Permissions) -> [String; 4] {
    let rights = permissions.rights.as_ref().unwrap();
    [&rights.publish, &rights.subscribe, &rights.request, &rights.handle].map(shown)
}

fn patterns(list: &[&str]) -> Permission {
    Permission::Patterns(list.iter().map(|it| it.parse().unwrap()).collect())
}

fn user() -> Principal {
    Principal::User("alice".into())
}

#[test]
fn a_role_has_all_four_lists_and_every_mistake_is_named() {
    check_file(
        "[roles.agent]\npublish = ['Phone/*/*']\nhandle = []\n\
         [roles.'']\npublish = []\nsubscribe = ['a/b', 'Broker/*/*']\nrequest = []\nhandle = 'x'\nobserve = ['*x*', '']\n\
         [roles.b]\npublish = []\nsubscribe = []\nrequest = []\nhandle = []\nobserve = 1\nobserves = true\n\
         deny = { subscribe = ['broker/x/y'], publsh = [], request = 'x' }\n\
         [roles.c]\npublish = []\nsubscribe = []\nrequest = []\nhandle = []\ndeny = ['a/b/c']\nprotected_handle = true\n\
         [roles]\nd = 1",
        "1: roles.agent.subscribe: is missing: a role must have it; [] allows nothing
         1: roles.agent.request: is missing: a role must have it; [] allows nothing
         4: roles.\"\": the name of a role must not be empty
         6: roles.\"\".subscribe[0]: a pattern has three parts, channel/topic/subtopic, each a name or '*'
         6: roles.\"\".subscribe[1]: must not name the channel Broker, which is the broker's own
         8: roles.\"\".handle: must be an array of patterns \"channel/topic/subtopic\"
         9: roles.\"\".observe[0]: must be a user, or an ending of users with '*' before it, such as *@example.com
         9: roles.\"\".observe[1]: must not be empty
         15: roles.b.observe: must be true, false, or an array of users
         16: roles.b.observes: unknown key
           hint: did you mean observe?
         17: roles.b.deny.subscribe[0]: must not name the channel Broker, which is the broker's own
         17: roles.b.deny.publsh: unknown key
           hint: did you mean publish?
         17: roles.b.deny.request: must be an array of patterns \"channel/topic/subtopic\"
         23: roles.c.deny: must be a table of lists of patterns: { publish = [\"channel/topic/subtopic\"] }
         24: roles.c.protected_handle: must be an array of patterns \"channel/topic/subtopic\"
         26: roles.d: must be a table: [roles.d]",
    );
    check_file("roles = []", "1: roles: must be tables: [roles.NAME]");
}

#[test]
fn a_row_names_a_role_that_exists_and_has_whole_permissions() {
    let role = role("agent", ["[]", "[]", "[]", "[]"], "");
    let row = |source: &str, lines: &str| {
        format!("[[applications]]\nsource = '{source}'\ntoken_sha256 = '{HASH}'\n{lines}\n")
    };
    let rows = [
        row("a", "user = 'u'\nrole = 'agnet'"),
        row("b", "user = 'u'\npermissions = { publish = ['x/y/z'], deny = { handel = [] } }"),
        row("c", "user = 'u'\nrole = 'agent'\npermissions = { subscribe = ['Broker/*/*'], roles = [] }\nusers = ['x']"),
        row("d", "service = true\nrole = 1\npermissions = []\nusers = true"),
        row("e", "service = true\nobserve = ['x']\npermissions = { publish = 1 }"),
    ];
    check_file(
        &format!("{role}{}", rows.concat()),
        "11: applications[0].role: is not a role: it needs a table [roles.NAME] of this name
           hint: did you mean \"agent\"?
         16: applications[1].permissions.subscribe: is missing: without a role, permissions must have it; [] allows nothing
         16: applications[1].permissions.request: is missing: without a role, permissions must have it; [] allows nothing
         16: applications[1].permissions.handle: is missing: without a role, permissions must have it; [] allows nothing
         16: applications[1].permissions.deny.handel: unknown key
           hint: did you mean handle?
         22: applications[2].permissions.subscribe[0]: must not name the channel Broker, which is the broker's own
         22: applications[2].permissions.roles: unknown key
         23: applications[2].users: is for services: a user's application receives the envelopes of its own user only
         28: applications[3].role: must be a text in quotes
         29: applications[3].permissions: must be a table of lists of patterns: { publish = [\"channel/topic/subtopic\"] }
         30: applications[3].users: must be an array of users
         35: applications[4].observe: cannot be combined with service = true: a service receives the events of every user anyway
         36: applications[4].permissions.subscribe: is missing: without a role, permissions must have it; [] allows nothing
         36: applications[4].permissions.request: is missing: without a role, permissions must have it; [] allows nothing
         36: applications[4].permissions.handle: is missing: without a role, permissions must have it; [] allows nothing
         36: applications[4].permissions.publish: must be an array of patterns \"channel/topic/subtopic\"",
    );
}

#[test]
fn a_row_without_role_and_permissions_is_not_restricted() {
    assert_eq!(application("", "user = 'u'").permissions.rights, None);
    let service = application("", "service = true\nusers = ['alice', '*@b']").permissions;
    assert_eq!((service.rights, service.users), (None, Users::of(["alice", "*@b"])));
}

#[test]
fn a_row_has_the_rights_of_its_role() {
    let role = role(
        "agent",
        ["['P/*/*']", "['*/*/*']", "[]", "['H/x/*']"],
        "deny = { subscribe = ['Pay/*/*'] }\nobserve = ['*@a']",
    );
    let permissions = application(&role, "user = 'u'\nrole = 'agent'").permissions;
    let expected = [
        "P/*/* - ; role 'agent'",
        "*/*/* - Pay/*/* (role 'agent'); role 'agent'",
        " - ; role 'agent'",
        "H/x/* - ; role 'agent'",
    ];
    assert_eq!(rights(&permissions), expected);
    assert_eq!((permissions.observe, permissions.request), (Users::of(["*@a"]), Permission::All));
    assert_eq!((permissions.users, permissions.handle), (Users::All, Permission::none()));
}

#[test]
fn a_key_of_a_row_replaces_that_of_its_role_and_denied_patterns_add_up() {
    let role = role(
        "agent",
        ["['P/*/*']", "['S/*/*']", "[]", "[]"],
        "deny = { subscribe = ['S/x/*'] }\nobserve = true\nprotected_request = ['a/b/c']\nprotected_handle = ['a/b/c']",
    );
    let lines = "user = 'u'\nrole = 'agent'\nobserve = false\nrequest = ['r/r/r']\nhandle = []\n\
                 permissions = { publish = ['Q/*/*'], deny = { publish = ['Q/x/*'], subscribe = ['S/y/*'] } }";
    let permissions = application(&role, lines).permissions;
    let own = "this application's 'permissions'";
    let expected = [
        format!("Q/*/* - Q/x/* ({own}); {own}"),
        format!("S/*/* - S/x/* (role 'agent') S/y/* ({own}); role 'agent'"),
        " - ; role 'agent'".to_owned(),
        " - ; role 'agent'".to_owned(),
    ];
    assert_eq!(rights(&permissions), expected);
    assert_eq!((permissions.request, permissions.handle), (patterns(&["r/r/r"]), Permission::none()));
    assert!(permissions.observe.is_nobody());
}

#[test]
fn permissions_without_a_role_have_all_four_lists() {
    let lines = "user = 'u'\npermissions = { publish = ['P/*/*'], subscribe = [], request = [], handle = [] }";
    let own = "this application's 'permissions'";
    let expected = [format!("P/*/* - ; {own}"), format!(" - ; {own}"), format!(" - ; {own}"), format!(" - ; {own}")];
    assert_eq!(rights(&application("", lines).permissions), expected);
}

#[test]
fn several_roles_are_joined() {
    let a = role(
        "a",
        ["['A/*/*']", "['*/*/*']", "[]", "[]"],
        "deny = { subscribe = ['x/*/*'] }\nobserve = ['*@a']\nprotected_request = ['a/b/c']",
    );
    let b = role(
        "b",
        ["['B/*/*']", "[]", "[]", "[]"],
        "deny = { subscribe = ['y/*/*'] }\nobserve = ['*@b']\nprotected_handle = ['b/b/b']",
    );
    let c = role(
        "c",
        ["[]", "[]", "[]", "[]"],
        "observe = true\nprotected_request = ['c/c/c']\nprotected_handle = ['c/c/c']",
    );
    let roles = config(&format!("{a}{b}{c}")).roles;

    let both = roles.permissions(&["b", "a", "b"], &user()).unwrap();
    let expected = [
        "A/*/* B/*/* - ; roles 'a' and 'b'",
        "*/*/* - x/*/* (role 'a') y/*/* (role 'b'); roles 'a' and 'b'",
        " - ; roles 'a' and 'b'",
        " - ; roles 'a' and 'b'",
    ];
    assert_eq!(rights(&both), expected);
    assert_eq!(both.observe, Users::of(["*@a", "*@b"]));
    // Role b has the default for requests on protected triples.
    assert_eq!((both.request, both.handle), (Permission::All, patterns(&["b/b/b"])));

    let three = roles.permissions(&["a", "b", "c"], &user()).unwrap();
    assert_eq!((three.observe, three.handle), (Users::All, patterns(&["b/b/b", "c/c/c"])));
    assert_eq!(three.rights.unwrap().handle.from.as_ref(), "roles 'a', 'b' and 'c'");
    let granted = roles.permissions(&["a", "c"], &user()).unwrap();
    assert_eq!(granted.request, patterns(&["a/b/c", "c/c/c"]));

    let service = roles.permissions(&["a", "b", "c"], &Principal::Service).unwrap();
    assert_eq!(service.request, patterns(&["a/b/c", "c/c/c"]), "the default of a service is nothing");
    assert!(service.observe.is_nobody());
    assert_eq!(roles.permissions(&["b"], &Principal::Service).unwrap().request, Permission::none());
}

#[test]
fn an_unknown_role_is_refused_with_the_nearest_name() {
    let roles = config(&role("agent", ["[]", "[]", "[]", "[]"], "")).roles;
    let unknown = roles.permissions(&["agent", "agnet"], &user()).unwrap_err();
    assert_eq!((unknown.name.as_str(), unknown.nearest.as_deref()), ("agnet", Some("agent")));
    assert!(roles.contains("agent") && !roles.contains("Agent"));
}

#[test]
fn no_role_allows_nothing() {
    let roles = config(&role("agent", ["['*/*/*']", "['*/*/*']", "['*/*/*']", "['*/*/*']"], "")).roles;
    let nothing = roles.permissions(&[], &user()).unwrap();
    assert!(rights(&nothing).iter().all(|right| right == " - ; any role"));
    assert_eq!((nothing.request, nothing.handle), (Permission::none(), Permission::none()));
}
