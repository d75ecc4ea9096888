//! Mistakes with a hint: habits from other programs, shells and Windows.

use super::{HASH, check_file, check_variables};

#[test]
fn a_windows_path_belongs_in_single_quotes() {
    let escape = "is not TOML: a backslash in double quotes begins an escape; write a Windows path in single quotes: \
                  'C:\\folder\\file'";
    for path in ["C:\\Users\\a\\b.key", "C:\\data\\xyz", "\\\\server\\share", "C:\\Program Files\\switchboard"] {
        check_file(&format!("[credentials]\nkey_file = \"{path}\""), &format!("2: {escape}"));
    }
    let control = "must not have control characters; write a Windows path in single quotes, where a backslash is not \
                   an escape: 'C:\\folder\\file'";
    check_file("data_dir = \"C:\\new\\table\"", &format!("1: data_dir: {control}"));
    check_file("[credentials]\nkey_file = \"a\\u0000\"", &format!("2: credentials.key_file: {control}"));
    check_file(
        "auth.mode = 'open'\ndata_dir = 'C:\\new\\table'",
        "mode: open, for development: no token is asked
         listen: 127.0.0.1:7420, [::1]:7420
         data: C:\\new\\table",
    );
}

#[test]
fn a_path_that_a_shell_would_expand_is_a_mistake() {
    let expanded = "must be the whole path: '~', $NAME and %NAME% are not expanded";
    for path in
        ["~", "~/data", "~alice/data", "$HOME/data", "${HOME}/data", "/x/$USER", "%APPDATA%/x", "%ProgramFiles(x86)%"]
    {
        check_file(&format!("data_dir = '{path}'"), &format!("1: data_dir: {expanded}"));
        check_variables(
            &[("SWITCHBOARD__CREDENTIALS__KEY_FILE", path)],
            &format!("environment: SWITCHBOARD__CREDENTIALS__KEY_FILE: {expanded}"),
        );
    }
    for path in ["/a~b", "./~", "\\\\host\\C$\\data", "/100%/a", "/50% of 100%", "C$"] {
        check_file(
            &format!("auth.mode = 'open'\ndata_dir = '{path}'"),
            &format!(
                "mode: open, for development: no token is asked\nlisten: 127.0.0.1:7420, [::1]:7420\ndata: {path}"
            ),
        );
    }
}

#[test]
fn a_text_needs_quotes() {
    let quotes = "is not TOML: a text needs straight quotes around it: \"text\"";
    for line in [
        "auth.mode = tokens",
        "data_dir = /var/lib/switchboard",
        "limits.heartbeat = 25s # not in quotes",
        "listen = [127.0.0.1:7420]",
        "listen = [\"127.0.0.1:7420\", 127.0.0.2:7420]",
        "data_dir = \u{201c}/var/lib\u{201d}",
    ] {
        check_file(line, &format!("1: {quotes}"));
    }
}

#[test]
fn applications_with_one_bracket_are_one_mistake() {
    let row = |name: &str| format!("source = '{name}'\nuser = 'u'\ntoken_sha256 = '{HASH}'\n");
    let single = |names: &[&str]| -> String {
        names.iter().flat_map(|name| ["[applications]\n".to_owned(), row(name)]).collect()
    };
    let expected = "1: applications: must be an array of tables: [[applications]]";
    for file in [single(&["a"]), single(&["a", "b"]), single(&["a", "b", "c"])] {
        check_file(&file, expected);
    }
    check_file(&format!("{}[[applications]]\n{}", single(&["a"]), row("b")), expected);
    let mixed = format!("[[applications]]\n{}{}", row("a"), single(&["b", "c"]));
    check_file(&mixed, "5: applications: must be an array of tables: [[applications]]");
    check_file(
        &format!("[limits]\nrate = 1\nrate = 2\n{}", single(&["a", "b"])),
        "3: is not TOML: duplicate key
         4: applications: must be an array of tables: [[applications]]",
    );
}

#[test]
fn the_usual_names_for_listen_lead_to_it() {
    let hint = "unknown key\n  hint: did you mean listen?";
    check_file(
        "port = 7420\nhost = 'x'\nbind = 'x'\naddress = 'x'\n[http]\nport = 1",
        &format!("1: port: {hint}\n2: host: {hint}\n3: bind: {hint}\n4: address: {hint}\n6: http.port: {hint}"),
    );
    check_variables(
        &[("SWITCHBOARD__PORT", "1")],
        "environment: SWITCHBOARD__PORT: unknown variable\n  hint: did you mean SWITCHBOARD__LISTEN?",
    );
}

#[test]
fn a_key_of_an_unrelated_table_is_no_hint() {
    check_file(
        "timeout = '1s'\nmode = 'open'\n[http]\ntimeout = '1s'\nrate = 1\n[limits]\nmode = 'open'\ntimeuot = 1\n\
         [requests]\ntimeuot = 1\n[salesforce]\nhost = 'x'\n[[applications]]\nport = 1",
        "1: timeout: unknown key
         2: mode: unknown key
           hint: did you mean auth.mode?
         4: http.timeout: unknown key
         5: http.rate: unknown key
         7: limits.mode: unknown key
         8: limits.timeuot: unknown key
         10: requests.timeuot: unknown key
           hint: did you mean requests.timeout?
         12: salesforce.host: unknown key
         13: applications[0].source: is missing: the name that the application registers under
         13: applications[0].token_sha256: is missing: 'switchboard token new' prints a token and its hash; or name a client certificate by certificate_sha256 or certificate
         13: applications[0].user: is missing: an application needs user = \"NAME\", or service = true
         14: applications[0].port: unknown key",
    );
}

#[test]
fn an_origin_that_no_browser_sends_is_a_mistake() {
    let page = "must be the origin of a page, http:// or https://: no browser sends ws:// or wss://";
    let decimal = "must be an address as browsers write it, four decimal numbers such as 10.0.0.7";
    let file = "must not have a path: the origin of every file is the same\n  hint: did you mean file://?";
    for (origin, expected) in [
        ("ws://crm.example.com", page),
        ("wss://crm.example.com", page),
        ("http://10.7", decimal),
        ("http://0x7f.0.0.1", decimal),
        ("http://010.0.0.256:80", decimal),
        ("file:///", file),
        ("file:///C:/page.html", file),
        ("NULL", "must be in lower case\n  hint: did you mean null?"),
    ] {
        check_file(&format!("http.allowed_origins = ['{origin}']"), &format!("1: http.allowed_origins[0]: {expected}"));
    }
}

#[test]
fn patterns_without_effect_are_warnings() {
    let file = format!(
        "[limits]\nrate = 10\nburst = 9\n[channels.Queue]\nscope = 'shared'\n\
         [[applications]]\nsource = 'a'\nservice = true\ntoken_sha256 = '{HASH}'\n\
         handle = ['Phone/Call/Dial', 'Cisco/agent/*', 'Queue/Stats/*']\nrequest = ['Phone/Call/*', '*/*/*']\n\
         [[applications]]\nsource = 'b'\nuser = 'u'\ntoken_sha256 = '{HASH}'\n\
         handle = ['Phone/Call/Dial', 'Queue/Stats/*']\n"
    );
    let config = super::load(&super::Given { file: Some(&file), ..super::Given::default() }).unwrap();
    assert_eq!(
        config.warnings,
        [
            "limits.burst is below limits.rate: a session that sends a second's messages at once is slowed down",
            "applications[0].handle[0] has no effect: a service needs it for protected triples only",
            "applications[0].handle[2] has no effect: a service needs it for protected triples only",
            "applications[0].request[0] has no effect: it is about protected triples only",
            "applications[1].handle[0] has no effect: an agent's application needs it for protected triples and shared \
             channels only",
        ]
    );
}
