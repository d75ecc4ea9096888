//! What each key takes, and what the operator is told of a value that it does not take.

use std::fs;

use switchboard::config::{Config, LoadOptions};

use super::{Given, HASH, check, check_file, check_variables, load, told};

#[test]
fn an_unknown_key_names_the_nearest_known_one() {
    check_file(
        "rate = 5\nlisen = []\n[limits]\njson_dept = 3\n[limit]\nrate = 1\n[nats]\nurl = 'x'\n[auth.jwt]\nissuer = 'x'\n\
         [http]\ntls_cert = 'x'\n\"\\u0007\" = 1",
        "1: rate: unknown key
           hint: did you mean limits.rate?
         2: lisen: unknown key
           hint: did you mean listen?
         4: limits.json_dept: unknown key
           hint: did you mean limits.json_depth?
         5: limit: unknown key
           hint: did you mean limits?
         7: nats: unknown key
         10: auth.jwt.issuer: must be a table: [auth.jwt.issuer]
         12: http.tls_cert: unknown key
         13: http.\\u{7}: unknown key",
    );
}

#[test]
fn a_value_has_its_keys_type() {
    check_file(
        "listen = 'x'\ndata_dir = ''\nlimits = 3\napplications = 1\nchannels = [1]\n[auth]\nmode = 'opn'\n\
         [http]\nallowed_origins = ['null', 1]\n[requests]\ntimeout = 10\n[credentials]\nkey_file = false\n\
         [protected]\npatterns = { a = 1 }",
        "1: listen: must be an array of addresses \"HOST:PORT\"
         2: data_dir: must not be empty
         3: limits: must be a table: [limits]
         4: applications: must be an array of tables: [[applications]]
         5: channels: must be tables: [channels.NAME]
         7: auth.mode: must be \"open\" or \"tokens\"
           hint: did you mean \"open\"?
         9: http.allowed_origins: must be an array of strings
         11: requests.timeout: must be a duration with a unit in quotes, such as \"250ms\" or \"10s\"
         13: credentials.key_file: must be a path in quotes
         15: protected.patterns: must be an array of patterns \"channel/topic/subtopic\"",
    );
}

#[test]
fn a_limit_that_cannot_work_is_a_mistake() {
    check_file(
        "[limits]\nsubscriptions = 0\nburst = 0\njson_depth = 0\nrate = -1\nmalformed = 4294967296\n\
         outbound_bytes = 1e3\nslow_consumer = '0s'\nheartbeat = '2years'\nregistration = '1 minuet'\n\
         message_bytes = 100\nregistration_bytes = 101\nretained_bytes = 0xFFFFFFFFFFFFFFFFFFFFFFFF\n",
        "2: limits.subscriptions: must be at least 1
         3: limits.burst: must be at least 1
         4: limits.json_depth: must be at least 1
         5: limits.rate: must be at least 0
         6: limits.malformed: is too large a number
         7: limits.outbound_bytes: must be a whole number
         8: limits.slow_consumer: must be at least 1ms
         9: limits.heartbeat: must be at most 365days
         10: limits.registration: must be a duration with a unit in quotes, such as \"250ms\" or \"10s\"
         12: limits.registration_bytes: must not be over limits.message_bytes, which is 100
         13: limits.retained_bytes: is too large a number",
    );
}

#[test]
fn the_size_before_registration_follows_a_smaller_message_size() {
    check_variables(
        &[("SWITCHBOARD__LIMITS__MESSAGE_BYTES", "4096")],
        "mode: open, for development: no token is asked
         listen: 127.0.0.1:7420, [::1]:7420
         not default: limits.message_bytes = 4096, limits.registration_bytes = 4096",
    );
}

#[test]
fn origins_and_hosts_are_kept_as_browsers_write_them() {
    let file = "[http]\nallowed_origins = ['HTTPS://CRM.Example.com:443', 'http://10.0.0.7:8080', 'http://[FD00::1]:80', \
                'chrome-extension://abcdef', 'null', 'FILE://', 'app://']\nallowed_hosts = ['CRM.example.com', 'FD00::1', '[fd00::2]', '10.0.0.7']";
    let http = load(&Given { file: Some(file), ..Given::default() }).unwrap().http;
    let origins = [
        "https://crm.example.com",
        "http://10.0.0.7:8080",
        "http://[fd00::1]",
        "chrome-extension://abcdef",
        "null",
        "file://",
        "app://",
    ];
    assert_eq!(http.allowed_origins, origins);
    assert_eq!(http.allowed_hosts, ["crm.example.com", "[fd00::1]", "[fd00::2]", "10.0.0.7"]);

    check_file(
        "[http]\nallowed_origins = [\n'*',\n'https://a.example/',\n'https://me:pw@a.example',\n'a.example',\n\
         'https://*.example',\n'https://ä.example',\n'https://a.example:x',\n'https://',\n'file:///']\n\
         allowed_hosts = ['a.example:80', 'https://a.example', '', '[x]']",
        "3: http.allowed_origins[0]: must be an origin as browsers write it, such as https://crm.example.com or http://10.0.0.7:8080
         4: http.allowed_origins[1]: an origin ends with its host or port: no path, not even a slash
         5: http.allowed_origins[2]: must be an origin as browsers write it, such as https://crm.example.com or http://10.0.0.7:8080
         6: http.allowed_origins[3]: must be an origin as browsers write it, such as https://crm.example.com or http://10.0.0.7:8080
         7: http.allowed_origins[4]: must be named in full: '*' stands for nothing here
         8: http.allowed_origins[5]: must be in ASCII: write a name of other letters as browsers send it, xn--…
         9: http.allowed_origins[6]: must be an origin as browsers write it, such as https://crm.example.com or http://10.0.0.7:8080
         10: http.allowed_origins[7]: must be a host name or an address, such as switchboard.example.com or 10.0.0.7
         11: http.allowed_origins[8]: must not have a path: the origin of every file is the same
           hint: did you mean file://?
         12: http.allowed_hosts[0]: must be a host without a port: every port of it is allowed
         12: http.allowed_hosts[1]: must be a host name or an address, such as switchboard.example.com or 10.0.0.7
         12: http.allowed_hosts[2]: must be a host name or an address, such as switchboard.example.com or 10.0.0.7
         12: http.allowed_hosts[3]: has brackets around something that is not an IPv6 address",
    );
}

#[test]
fn an_address_has_a_host_that_is_an_address_and_a_port() {
    check_file(
        "listen = ['localhost:7420',\n'127.0.0.1',\n'::1',\n'7420',\n'127.0.0.1:70000']",
        "1: listen[0]: must be an address: localhost may mean 127.0.0.1 or [::1]
           hint: did you mean 127.0.0.1:7420?
         2: listen[1]: lacks the port: write HOST:PORT, an IPv6 address in brackets
         3: listen[2]: lacks the port: write HOST:PORT, an IPv6 address in brackets
         4: listen[3]: must be HOST:PORT with an address as HOST, such as 127.0.0.1:7420 or [::1]:7420
         5: listen[4]: must be HOST:PORT with an address as HOST, such as 127.0.0.1:7420 or [::1]:7420",
    );
    check_file("listen = []", "1: listen: must name at least one address");
    check_file("listen = ['127.0.0.1:1', '127.0.0.1:1']", "1: listen: names 127.0.0.1:1 twice");
    check(
        &Given { listen: &["here"], data_dir: Some(""), ..Given::default() },
        "command line: --data-dir: must not be empty
         command line: --listen: must be HOST:PORT with an address as HOST, such as 127.0.0.1:7420 or [::1]:7420",
    );
}

#[test]
fn open_mode_refuses_to_listen_beyond_loopback() {
    let refused = |address: &str| {
        format!(
            "listen: auth.mode \"open\" refuses to listen beyond loopback, and {address} is: use \"tokens\", or 127.0.0.1"
        )
    };
    for address in ["0.0.0.0:7420", "[::]:0", "192.168.1.7:7420", "[::ffff:10.0.0.1]:1"] {
        let expected = format!("command line: --{}", refused(address));
        check(&Given { listen: &[address], ..Given::default() }, &expected);
    }
    check_file("auth.mode = 'open'\nlisten = ['0.0.0.0:1']", &format!("2: {}", refused("0.0.0.0:1")));
    for address in ["127.0.0.2:1", "[::ffff:127.0.0.1]:1"] {
        assert!(load(&Given { listen: &[address], ..Given::default() }).is_ok(), "{address}");
    }
}

#[test]
fn plain_text_beyond_loopback_needs_http_insecure() {
    let refused = |address: &str| {
        format!(
            "listen: {address} is beyond loopback, where tokens and passwords are sent in the clear: use tls.listen; or \
             set http.insecure = true, for a pod's network or behind a proxy that ends TLS"
        )
    };
    for address in ["0.0.0.0:1", "[::]:1", "192.168.1.7:1"] {
        check_file(&format!("listen = ['127.0.0.1:1', '{address}']"), &format!("1: {}", refused(address)));
        let given = Given { file: Some(""), listen: &[address], ..Given::default() };
        check(&given, &format!("command line: --{}", refused(address)));
    }
    check_file(
        &format!(
            "listen = ['0.0.0.0:1']\nhttp.insecure = true\n[[applications]]\nsource = 'a'\nservice = true\n\
             token_sha256 = '{HASH}'"
        ),
        "mode: tokens
         listen: 0.0.0.0:1 (http.insecure)
         applications: 1, services among them: 1",
    );
    // Not even with it: any program of the network could be any user.
    check_file(
        "auth.mode = 'open'\nhttp.insecure = true\nlisten = ['0.0.0.0:1']",
        "3: listen: auth.mode \"open\" refuses to listen beyond loopback, and 0.0.0.0:1 is: use \"tokens\", or 127.0.0.1",
    );
}

#[test]
fn a_trusted_proxy_is_an_address_or_a_network() {
    check_file(
        "auth.mode = 'open'\n[http]\ntrusted_proxies = ['10.0.0.0/8', 'fd00::7']\nforwarded_header = 'forwarded'",
        "mode: open, for development: no token is asked
         listen: 127.0.0.1:7420, [::1]:7420
         trusted proxies (forwarded): 10.0.0.0/8, fd00::7",
    );
    check_file(
        "[http]\ntrusted_proxies = [\n'proxy.example.com',\n'10.0.0.1/8',\n'10.0.0.0/33']\nforwarded_header = 'x-real-ip'",
        "3: http.trusted_proxies[0]: must be an address or a network, such as 10.0.0.7 or 10.0.0.0/8
         4: http.trusted_proxies[1]: names an address inside the network in place of its first
           hint: did you mean 10.0.0.0/8?
         5: http.trusted_proxies[2]: must be an address or a network, such as 10.0.0.7 or 10.0.0.0/8
         6: http.forwarded_header: must be \"x-forwarded-for\" or \"forwarded\"",
    );
}

#[test]
fn a_wildcard_of_another_broker_is_a_mistake() {
    check_file(
        "protected.patterns = ['Cisco/#/x', 'C#/Agent/Login']\n[requests]\nonly = ['Phone/Call/>', 'Phone/Pho*/x']",
        "1: protected.patterns[0]: the topic '#' matches only itself; the one wildcard is '*', which stands for a whole part
         3: requests.only[0]: the subtopic '>' matches only itself; the one wildcard is '*', which stands for a whole part
         3: requests.only[1]: the topic of a pattern must not have '*' beside other characters: '*' stands for a whole part",
    );
}

#[test]
fn what_is_hardly_meant_is_a_warning() {
    let application = format!("[[applications]]\nsource = 'a'\nservice = true\ntoken_sha256 = '{HASH}'");
    check_file(
        &format!("limits.outbound_bytes = 1\nprotected.patterns = []\n{application}"),
        "warning: protected.patterns is empty: requests that carry passwords are not protected
         warning: limits.outbound_bytes is below limits.message_bytes: the largest messages can be delivered to nobody
         mode: tokens
         listen: 127.0.0.1:7420, [::1]:7420
         applications: 1, services among them: 1
         protected: none
         not default: limits.outbound_bytes = 1",
    );
    check_file(
        &format!("auth.mode = 'open'\n{application}"),
        "warning: auth.mode is \"open\": [[applications]] is not used, any local program can name any user
         mode: open, for development: no token is asked
         listen: 127.0.0.1:7420, [::1]:7420",
    );
}

#[test]
fn an_application_is_a_users_or_a_service_and_proved_by_a_hash() {
    check_file(
        &format!(
            "[[applications]]\n\
             [[applications]]\nsource = 'switchboard'\nuser = 'u'\nservice = true\nobserve = true\ntoken_sha256 = '{HASH}'\n\
             [[applications]]\nsource = ''\nuser = \"a\\nb\"\ntoken_sha256 = 'the token itself'\nhandle = ['a/b']\n\
             [[applications]]\nsource = 'twin'\nuser = 'u'\ntoken_sha256 = '{HASH}'\n\
             [[applications]]\nsource = 'twin'\nservice = true\ntoken_sha256 = '{}'\n\
             [[applications]]\nsource = 'other'\nuser = 'u'\ntoken_sha256 = '{HASH}'\nrequest = ['*/*/*']\nservice = false\n\
             [[applications]]\nsource = 'a'\nuser = 'u'\ntoken_sha = '{HASH}'\nrequest = ['Broker/*/*']\nexclusive = 1\n",
            HASH.to_uppercase(),
        ),
        "1: applications[0].source: is missing: the name that the application registers under
         1: applications[0].token_sha256: is missing: 'switchboard token new' prints a token and its hash; or name a client certificate by certificate_sha256 or certificate
         1: applications[0].user: is missing: an application needs user = \"NAME\", or service = true
         3: applications[1].source: must not be 'switchboard', the source of handlers in the broker itself
         4: applications[1].user: cannot be combined with service = true: an application is a user's or a service, never both
         6: applications[1].observe: cannot be combined with service = true: a service receives the events of every user anyway
         9: applications[2].source: must not be empty
         10: applications[2].user: must not contain control characters
         11: applications[2].token_sha256: must be 64 hex digits: the SHA-256 of the token, not the token; 'switchboard token new' prints both
         12: applications[2].handle[0]: a pattern has three parts, channel/topic/subtopic, each a name or '*'
         17: applications[4].source: is listed before with the same token_sha256: a token proves a source once
         27: applications[6].token_sha256: is missing: 'switchboard token new' prints a token and its hash; or name a client certificate by certificate_sha256 or certificate
         30: applications[6].token_sha: unknown key
           hint: did you mean token_sha256?
         31: applications[6].request[0]: must not name the channel Broker, which is the broker's own
         32: applications[6].exclusive: must be true or false",
    );
    check_file(
        "applications = [{ source = 'a', service = true, \
         token_sha256 = 'E3B0C44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855' }]",
        "1: applications[0].token_sha256: is the hash of an empty token",
    );
}

#[test]
fn a_channel_has_a_name_a_scope_and_an_overflow() {
    check_file(
        "auth.mode = 'open'\n[channels.Queue]\nscope = 'shared'\noverflow = 'drop-oldest'\n\
         publish = 'services'\n\
         [channels.\"Call Events\"]\nfold_case = true\n[channels.Plain]",
        "mode: open, for development: no token is asked
         listen: 127.0.0.1:7420, [::1]:7420
         channel Call Events: user, case folded
         channel Plain: user
         channel Queue: shared, services publish, drops the oldest",
    );
    check_file(
        "[channels.Broker]\n[channels.\"*\"]\n[channels.\"a/b\"]\n[channels.Q]\nscope = 'shred'\noverflow = 'drop'\n\
         foldcase = true\nhistry = { size = 1 }\n[channels]\nR = 1",
        "1: channels.Broker: is the broker's own channel, which cannot be configured
         2: channels.\"*\": the name of a channel must not be '*', which only a pattern may have
         3: channels.\"a/b\": the name of a channel must not contain '/', which separates the parts of a written pattern
         5: channels.Q.scope: must be \"user\" or \"shared\"
           hint: did you mean \"shared\"?
         6: channels.Q.overflow: must be \"close\" or \"drop-oldest\"
         7: channels.Q.foldcase: unknown key
           hint: did you mean fold_case?
         8: channels.Q.histry: unknown key
           hint: did you mean history?
         10: channels.R: must be a table: [channels.R]",
    );
}

#[test]
fn history_needs_its_size_and_its_age() {
    check_file(
        "auth.mode = 'open'\n[channels.Phone]\nhistory = { size = 1000, ttl = '10m' }\n\
         [channels.Queue]\nscope = 'shared'\n[channels.Queue.history]\nsize = 5\nttl = '1h'",
        "mode: open, for development: no token is asked
         listen: 127.0.0.1:7420, [::1]:7420
         channel Phone: user, history of 1000 events for 10m
         channel Queue: shared, history of 5 events for 1h",
    );
    check_file(
        "[channels.A]\nhistory = { size = 1 }\n[channels.B]\nhistory = { ttl = '1s' }\n[channels.C]\nhistory = {}\n\
         [channels.D]\nhistory = true\n[channels.E]\nhistory = { size = 0, ttl = 0, sise = 1 }",
        "2: channels.A.history.ttl: is missing: history needs `size` and `ttl`
         4: channels.B.history.size: is missing: history needs `size` and `ttl`
         6: channels.C.history.size: is missing: history needs `size` and `ttl`
         6: channels.C.history.ttl: is missing: history needs `size` and `ttl`
         8: channels.D.history: must be a table: { size = 1000, ttl = \"10m\" }
         10: channels.E.history.size: must be at least 1
         10: channels.E.history.ttl: must be a duration with a unit in quotes, such as \"250ms\" or \"10s\"
         10: channels.E.history.sise: unknown key
           hint: did you mean size?",
    );
}

#[test]
fn mistakes_are_told_beside_lines_that_are_not_toml() {
    check_file(
        "lisen = []\n[auth]\nmode = tokens\n[limits]\nrate = 1\nrate = 2\nburst = 0\n[[applications]]\nsource = 'a'\n",
        "1: lisen: unknown key
           hint: did you mean listen?
         3: is not TOML: a text needs straight quotes around it: \"text\"
         6: is not TOML: duplicate key
         7: limits.burst: must be at least 1",
    );
}

#[test]
fn a_file_that_cannot_be_read_is_a_mistake() {
    let folder = tempfile::tempdir().unwrap();
    let cases: &[(&str, Option<&[u8]>, &str)] = &[
        ("absent", None, "cannot be read: "),
        ("latin", Some(b"data_dir = '\xe4'"), "is not UTF-8 text"),
        ("", None, "cannot be read: "),
    ];
    for (name, bytes, expected) in cases {
        let path = folder.path().join(name);
        if let Some(bytes) = bytes {
            fs::write(&path, bytes).unwrap();
        }
        let mistakes = Config::load(LoadOptions { file: Some(path.clone()), ..LoadOptions::default() }).unwrap_err();
        let told = mistakes.to_string();
        assert!(told.starts_with(&format!("{}: {expected}", path.display())), "{told}");
        assert_eq!(mistakes.list().len(), 1);
    }
}

#[test]
fn a_text_may_nest_as_deep_as_the_parser_lets_it() {
    let parts = vec!["a"; 79].join(".");
    let file = format!("{}{}", format!("{parts}={{").repeat(79), "}".repeat(79));
    check_file(&file, "1: a: unknown key");
    for file in ["a=".to_owned() + &"[".repeat(50_000), vec!["a"; 50_000].join(".") + "=1"] {
        let outcome = load(&Given { file: Some(&file), ..Given::default() });
        assert!(told(&outcome).starts_with("1: is not TOML: "));
    }
}
