//! The rules of docs/protocol.md for commands, "Life of a session".

#![expect(clippy::panic, reason = "helpers of tests fail loudly")]

use secrecy::ExposeSecret;
use switchboard_wire::ErrorCode::{self, InvalidEnvelope, ReservedChannel, UnknownCommand};
use switchboard_wire::command::{
    Command, Recover, Register, Resume, Retained, Role, RoleName, State, Subscribe, Unsubscribe, WillOption,
};
use switchboard_wire::{DecodeLimits, Refusal, decode};

const REGISTER: &str = "Application/Register";
const ACKNOWLEDGE: &str = "Connection/Acknowledge";
const RENEW: &str = "Application/Renew";
const SUBSCRIBE: &str = "Subscription/Subscribe";
const UNSUBSCRIBE: &str = "Subscription/Unsubscribe";

/// Reads a command with these further members.
fn read_with(command: &str, members: &str) -> Result<Command, Refusal> {
    let (topic, subtopic) = command.split_once('/').unwrap_or_default();
    let text = format!(r#"{{"channel":"Broker","topic":"{topic}","subtopic":"{subtopic}"{members}}}"#);
    match decode(&text, DecodeLimits::default()) {
        Ok(envelope) => Command::read(&envelope),
        Err(malformed) => panic!("{}: {text}", malformed.refusal),
    }
}

fn read(command: &str, data: &str) -> Result<Command, Refusal> {
    read_with(command, &format!(",\"data\":{data}"))
}

#[track_caller]
fn accepted(command: &str, data: &str) -> Command {
    read(command, data).unwrap_or_else(|refusal| panic!("{refusal}: {data}"))
}

/// Checks the code of a refusal and that its message contains this.
#[track_caller]
fn refused(command: &str, data: &str, code: ErrorCode, names: &str) {
    let Err(refusal) = read(command, data) else { panic!("accepted: {command} {data}") };
    assert_eq!(refusal.code, code, "{data}: {refusal}");
    assert!(refusal.message.contains(names), "{data}: '{names}' is not in: {refusal}");
    assert!(refusal.message.len() < 300, "{data}: {refusal}");
}

#[track_caller]
fn register(data: &str) -> Register {
    let Command::Register(register) = accepted(REGISTER, data) else { panic!("another command") };
    *register
}

#[track_caller]
fn subscribe(data: &str) -> Subscribe {
    let Command::Subscribe(subscribe) = accepted(SUBSCRIBE, data) else { panic!("another command") };
    *subscribe
}

#[track_caller]
fn unsubscribe(data: &str) -> Unsubscribe {
    let Command::Unsubscribe(unsubscribe) = accepted(UNSUBSCRIBE, data) else { panic!("another command") };
    unsubscribe
}

#[test]
fn a_command_has_its_own_topic_and_subtopic() {
    refused("Coffee/Brew", "{}", UnknownCommand, "no command");
    for (command, meant) in [
        ("application/List", "Application/List"),
        ("Subscription/subscribe", "Subscription/Subscribe"),
        ("Subscription/Unsubscibe", "Subscription/Unsubscribe"),
        ("APPLICATION/REGISTER", "Application/Register"),
    ] {
        let words = format!("Broker/{command} is not a command; did you mean Broker/{meant}?");
        refused(command, "{}", UnknownCommand, &words);
    }
    refused(&format!("Application/{}", "x".repeat(128)), "{}", UnknownCommand, "no command");
    for notice in [
        "Message/Receipt",
        "Application/Joined",
        "Subscription/Ended",
        "Connection/Draining",
        "Connection/Expiring",
        "Cluster/Gap",
    ] {
        refused(notice, "{}", ReservedChannel, notice);
    }
    for (topic, subtopic) in Command::all() {
        let refusal = read_with(&format!("{topic}/{subtopic}"), r#","user":"alice""#).err();
        assert!(refusal.is_some_and(|it| it.code == InvalidEnvelope && it.message.contains("data.user")), "{subtopic}");
    }
    assert!(read_with("Connection/Ping", r#","user":null"#).is_ok());
}

#[test]
fn data_is_an_object_with_known_options_each_once() {
    for data in ["[]", "\"Sales\"", "7", "true"] {
        refused(SUBSCRIBE, data, InvalidEnvelope, "'data' of a command must be an object");
        refused("Application/List", data, InvalidEnvelope, "'data' of a command must be an object");
    }
    let cases = [
        (SUBSCRIBE, r#"{"Channel":"Sales"}"#, "unknown option 'Channel'; did you mean 'channel'?"),
        (SUBSCRIBE, r#"{"channel":"Sales","subtpoic":"x"}"#, "unknown option 'subtpoic'; did you mean 'subtopic'?"),
        (UNSUBSCRIBE, r#"{"subscriptionID":"s1"}"#, "unknown option 'subscriptionID'; did you mean 'SubscriptionId'?"),
        (UNSUBSCRIBE, r#"{"answers":true}"#, "unknown option 'answers'; this command has SubscriptionId, "),
        (REGISTER, r#"{"tokn":"acq@123"}"#, "unknown option 'tokn'; did you mean 'token'?"),
        (REGISTER, r#"{"password":1}"#, "unknown option 'password'; this command has token, user, echo, resume, will"),
        (REGISTER, r#"{"\ud800":1}"#, "unknown option with a lone surrogate in its name"),
        (REGISTER, r#"{"ec\u0068o":true,"echo":true}"#, "the option 'echo' occurs twice"),
        (SUBSCRIBE, r#"{"group":null,"group":"g"}"#, "the option 'group' occurs twice"),
        ("Application/List", r#"{"user":"*"}"#, "unknown option 'user'; this command has no options"),
        ("Application/Unregister", r#"{"":1}"#, "unknown option ''; this command has no options"),
    ];
    for (command, data, names) in cases {
        refused(command, data, InvalidEnvelope, names);
    }
    let long = format!(r#"{{"{}":1}}"#, "x".repeat(100_000));
    refused(SUBSCRIBE, &long, InvalidEnvelope, "unknown option with a name of 100000 bytes; this command has channel");
    for data in ["null", "{}", r#""x""#, r#"{"x":1,"x":2}"#] {
        assert!(matches!(accepted("Connection/Ping", data), Command::Ping), "Ping ignores its data");
    }
}

#[test]
fn each_option_has_its_type() {
    let cases = [
        (REGISTER, r#"{"token":1}"#, "data.token must be a string, not a number"),
        (REGISTER, r#"{"token":"\ud800"}"#, "data.token has a lone surrogate"),
        (REGISTER, r#"{"user":""}"#, "data.user must not be empty"),
        (REGISTER, r#"{"echo":"yes"}"#, "data.echo must be true or false, not a string"),
        (REGISTER, r#"{"resume":1}"#, "data.resume must be true, false or an object, not a number"),
        (REGISTER, r#"{"resume":{}}"#, "data.resume.token must be a string"),
        (REGISTER, r#"{"resume":{"token":1,"received":0}}"#, "data.resume.token must be a string"),
        (REGISTER, r#"{"resume":{"token":"t"}}"#, "data.resume.received must be a whole number, at least 0"),
        (
            REGISTER,
            r#"{"resume":{"token":"t","received":"0"}}"#,
            "data.resume.received must be a whole number, at least 0",
        ),
        (
            REGISTER,
            r#"{"resume":{"token":"t","received":-1}}"#,
            "data.resume.received must be a whole number, at least 0",
        ),
        (
            REGISTER,
            r#"{"resume":{"token":"t","received":1.5}}"#,
            "data.resume.received must be a whole number, at least 0",
        ),
        (REGISTER, r#"{"resume":{"tokn":"t"}}"#, "unknown option 'tokn'; did you mean 'token'?"),
        (REGISTER, r#"{"resume":{"token":"t","token":"t"}}"#, "the option 'token' occurs twice in 'data.resume'"),
        (ACKNOWLEDGE, "{}", "data.received is missing"),
        (ACKNOWLEDGE, r#"{"received":null}"#, "data.received is missing"),
        (ACKNOWLEDGE, r#"{"received":true}"#, "data.received must be a whole number, at least 0, not a boolean"),
        (ACKNOWLEDGE, r#"{"received":1e3}"#, "data.received must be a whole number, at least 0"),
        (REGISTER, r#"{"will":[]}"#, "data.will must be an object or false, not an array"),
        ("Application/SetState", r#"{"state":"drowsy"}"#, "data.state must be"),
        ("Application/SetState", "{}", "data.state must be"),
        ("Request/Cancel", "{}", "data.id is missing"),
        ("Request/Cancel", r#"{"id":7}"#, "data.id must be a string"),
        (SUBSCRIBE, r#"{"channel":1}"#, "data.channel must be a string"),
        (SUBSCRIBE, r#"{"role":"boss"}"#, "data.role must be"),
        (SUBSCRIBE, r#"{"role":true}"#, "data.role must be a string"),
        (SUBSCRIBE, r#"{"group":""}"#, "data.group must not be empty"),
        (SUBSCRIBE, r#"{"user":{}}"#, "data.user must be a string"),
        (SUBSCRIBE, r#"{"retained":"no"}"#, "data.retained must be true or false"),
        (SUBSCRIBE, r#"{"recover":true}"#, "data.recover must be an object"),
        (UNSUBSCRIBE, r#"{"SubscriptionId":1}"#, "data.SubscriptionId must be a string"),
        (UNSUBSCRIBE, r#"{"channel":"A","role":"boss"}"#, "data.role must be"),
    ];
    for (command, data, names) in cases {
        refused(command, data, InvalidEnvelope, names);
    }
}

#[test]
fn register_reads_its_options() {
    let all = register(r#"{"token":"a\u0062c","user":"alice","echo":true,"resume":true,"will":{}}"#);
    assert_eq!(all.token.map(|token| token.expose_secret().to_owned()).as_deref(), Some("abc"));
    assert_eq!((all.user.as_deref(), all.echo), (Some("alice"), Some(true)));
    assert!(matches!(all.resume, Resume::Begin));
    assert_eq!(all.will, WillOption::Given("{}".into()));
    assert_eq!(register(r#"{"will":false}"#).will, WillOption::None);
    for data in ["null", "{}", r#"{"token":null,"user":null,"echo":null,"resume":null,"will":null}"#] {
        let none = register(data);
        assert!(none.token.is_none() && none.user.is_none() && none.echo.is_none());
        assert!(matches!(none.resume, Resume::No));
        assert_eq!(none.will, WillOption::Absent);
    }
    assert!(matches!(register(r#"{"resume":false}"#).resume, Resume::No));
}

#[test]
fn register_names_the_session_that_continues() {
    for (received, read) in
        [("0", 0), ("17", 17), ("18446744073709551615", u64::MAX), ("99999999999999999999", u64::MAX)]
    {
        let resume = register(&format!(r#"{{"resume":{{"token":"a\u0062c","received":{received}}}}}"#)).resume;
        let Resume::Continue { token, received } = resume else { panic!("{resume:?}") };
        assert_eq!((token.expose_secret(), received), ("abc", read));
    }
}

#[test]
fn acknowledge_reads_a_count() {
    let Command::Acknowledge(received) = accepted(ACKNOWLEDGE, r#"{"received":64}"#) else { panic!("another command") };
    assert_eq!(received, 64);
}

#[test]
fn renew_needs_a_token() {
    let Command::Renew(renew) = accepted(RENEW, r#"{"token":"a\u0062c"}"#) else { panic!("another command") };
    assert_eq!(renew.token.expose_secret(), "abc");
    for data in ["null", "{}", r#"{"token":null}"#] {
        refused(RENEW, data, InvalidEnvelope, "data.token is missing");
    }
    refused(RENEW, r#"{"token":7}"#, InvalidEnvelope, "data.token must be a string, not a number");
    refused(RENEW, r#"{"tokn":"acq@123"}"#, InvalidEnvelope, "unknown option 'tokn'; did you mean 'token'?");
}

#[test]
fn a_pattern_has_names_or_a_whole_wildcard() {
    let pattern = |data: &str| subscribe(data).pattern.to_string();
    assert_eq!(pattern("{}"), "*/*/*");
    assert_eq!(pattern(r#"{"channel":"Sales","topic":"*","subtopic":null}"#), "Sales/*/*");
    let cases = [
        (r#"{"topic":"Pho*"}"#, "data.topic must not have '*' beside other characters"),
        (r#"{"topic":"**"}"#, "data.topic must not have '*' beside other characters"),
        (r#"{"channel":""}"#, "data.channel must not be empty"),
        (r#"{"topic":"a/b"}"#, "data.topic must not contain '/'"),
        (r#"{"subtopic":"\u0007"}"#, "data.subtopic must not contain control"),
    ];
    for (data, names) in cases {
        refused(SUBSCRIBE, data, InvalidEnvelope, names);
        refused(UNSUBSCRIBE, data, InvalidEnvelope, names);
    }
    refused(SUBSCRIBE, r#"{"channel":"broker"}"#, ReservedChannel, "'Broker'");
}

#[test]
fn wildcards_of_other_brokers_get_a_hint() {
    let cases = [("#", true), (">", true), ("+", true), ("a.>", true), ("a.+.b", true), ("a.#", true)];
    let plain = [("C#", false), ("a>b", false), ("1+1", false), ("a.b", false)];
    for (part, hinted) in cases.into_iter().chain(plain) {
        let hint = subscribe(&format!(r#"{{"channel":"Sales","subtopic":"{part}"}}"#)).pattern.hint();
        assert_eq!(hint.is_some(), hinted, "{part}");
        let quoted = format!("'{part}'");
        assert!(hint.is_none_or(|hint| hint.contains("subtopic") && hint.contains(&quoted)), "{part}");
    }
}

#[test]
fn a_handler_has_options_of_its_own() {
    let role = |data: &str| subscribe(data).role;
    let handler = |answers, ordered, replies: &[(&str, &str)]| Role::Handler {
        answers,
        ordered,
        replies: replies.iter().map(|(topic, subtopic)| ((*topic).to_owned(), (*subtopic).to_owned())).collect(),
    };
    assert_eq!(role(r#"{"role":null}"#), Role::Subscriber);
    assert_eq!(role(r#"{"role":"handler","channel":"A"}"#), handler(true, false, &[]));
    assert_eq!(role(r#"{"role":"handler","channel":"A","answers":false}"#), handler(false, false, &[]));
    let replies = r#"{"role":"handler","channel":"A","ordered":true,"replies":["User/LoginSuccess","\u0041/B"]}"#;
    assert_eq!(role(replies), handler(true, true, &[("User", "LoginSuccess"), ("A", "B")]));
    let cases = [
        (r#"{"role":"handler"}"#, "a handler must name its channel"),
        (r#"{"role":"handler","channel":"*","topic":"Call"}"#, "a handler must name its channel"),
        (r#"{"answers":true}"#, "options of a handler"),
        (r#"{"ordered":true}"#, "options of a handler"),
        (r#"{"replies":["A/B"]}"#, "options of a handler"),
        (r#"{"role":"handler","channel":"A","replies":["A/B"]}"#, "option of an ordered handler"),
        (r#"{"role":"handler","channel":"A","ordered":true,"answers":false}"#, "exclude each other"),
        (r#"{"role":"handler","channel":"A","ordered":true,"replies":"A/B"}"#, "data.replies must be an array"),
        (r#"{"role":"handler","channel":"A","ordered":true,"replies":["A"]}"#, "data.replies must be an array"),
        (r#"{"role":"handler","channel":"A","ordered":true,"replies":["A/*"]}"#, "data.replies must be an array"),
        (r#"{"role":"handler","channel":"A","ordered":true,"replies":["A/B/C"]}"#, "data.replies must be an array"),
        (r#"{"role":"handler","channel":"A","ordered":true,"replies":[7]}"#, "data.replies must be an array"),
    ];
    for (data, names) in cases {
        refused(SUBSCRIBE, data, InvalidEnvelope, names);
    }
}

#[test]
fn replies_lists_at_most_16_triples() {
    let data = |count: usize| {
        let replies = vec![r#""A/B""#; count].join(",");
        format!(r#"{{"role":"handler","channel":"A","ordered":true,"replies":[{replies}]}}"#)
    };
    accepted(SUBSCRIBE, &data(16));
    refused(SUBSCRIBE, &data(17), InvalidEnvelope, "lists 17 triples; 16 are allowed");
    refused(SUBSCRIBE, &data(100_000), InvalidEnvelope, "16 are allowed");
}

#[test]
fn subscribe_reads_its_other_options() {
    let all = subscribe(r#"{"channel":"A","group":"g","user":"*"}"#);
    assert_eq!((all.group.as_deref(), all.user.as_deref(), all.recover), (Some("g"), Some("*"), None));
    for (data, retained) in [
        ("{}", Retained::WhenNew),
        (r#"{"retained":null}"#, Retained::WhenNew),
        (r#"{"retained":false}"#, Retained::Never),
        (r#"{"retained":true}"#, Retained::Again),
    ] {
        assert_eq!(subscribe(data).retained, retained, "{data}");
    }
    refused(SUBSCRIBE, r#"{"channel":"Broker","group":"g"}"#, InvalidEnvelope, "data.group does not apply");
}

#[test]
fn recover_is_a_position_or_a_number_of_events() {
    let after = |epoch: &str, offset| Some(Recover::After { epoch: epoch.to_owned(), offset });
    for (recover, expected) in [
        ("null", None),
        (r#"{"epoch":"e","offset":0}"#, after("e", 0)),
        (r#"{"offset":18446744073709551615,"epoch":"\u0065"}"#, after("e", u64::MAX)),
        (r#"{"epoch":"","offset":7,"last":null}"#, after("", 7)),
        (r#"{"last":1}"#, Some(Recover::Last(1))),
        (r#"{"last":9999,"epoch":null}"#, Some(Recover::Last(9999))),
    ] {
        assert_eq!(subscribe(&format!(r#"{{"channel":"A","recover":{recover}}}"#)).recover, expected, "{recover}");
    }
    for (recover, names) in [
        ("[]", "data.recover must be an object, not an array"),
        ("7", "data.recover must be an object, not a number"),
        ("{}", "data.recover must have either"),
        (r#"{"epoch":"e"}"#, "data.recover must have either"),
        (r#"{"offset":1}"#, "data.recover must have either"),
        (r#"{"epoch":"e","offset":1,"last":1}"#, "data.recover must have either"),
        (r#"{"epoch":"e","offset":-1}"#, "data.recover.offset must be a whole number, 0 or more"),
        (r#"{"epoch":"e","offset":1.0}"#, "data.recover.offset must be a whole number"),
        (r#"{"epoch":"e","offset":"1"}"#, "data.recover.offset must be a whole number"),
        (r#"{"epoch":"e","offset":18446744073709551616}"#, "data.recover.offset must be a whole number"),
        (r#"{"epoch":7,"offset":1}"#, "data.recover.epoch must be a string"),
        (r#"{"last":0}"#, "data.recover.last must be a whole number, 1 or more"),
        (r#"{"last":1e2}"#, "data.recover.last must be a whole number"),
        (r#"{"Last":1}"#, "unknown option 'Last'; did you mean 'last'?"),
        (r#"{"last":1,"last":1}"#, "the option 'last' occurs twice in 'data.recover'"),
    ] {
        let data = format!(r#"{{"channel":"A","recover":{recover}}}"#);
        refused(SUBSCRIBE, &data, InvalidEnvelope, names);
    }
}

#[test]
fn unsubscribe_is_by_id_or_by_pattern() {
    for data in [r#"{"SubscriptionId":"s1"}"#, r#"{"subscriptionId":"s1","SubscriptionId":null}"#] {
        assert!(matches!(unsubscribe(data), Unsubscribe::Id(id) if id == "s1"), "{data}");
    }
    let data = r#"{"channel":"Sales","role":"handler","group":"g","user":"alice"}"#;
    let Unsubscribe::Matching(filter) = unsubscribe(data) else { panic!("not a pattern") };
    assert_eq!(filter.pattern.to_string(), "Sales/*/*");
    assert_eq!(filter.role, Some(RoleName::Handler));
    assert_eq!((filter.group.as_deref(), filter.user.as_deref()), (Some("g"), Some("alice")));
    let Unsubscribe::Matching(filter) = unsubscribe(r#"{"topic":"*"}"#) else { panic!("not a pattern") };
    assert_eq!((filter.role, filter.group, filter.user), (None, None, None));
    for data in ["null", "{}", r#"{"channel":null}"#, r#"{"role":"handler","group":"g","user":"alice"}"#] {
        refused(UNSUBSCRIBE, data, InvalidEnvelope, "neither SubscriptionId nor channel");
    }
    for data in [r#"{"SubscriptionId":"s1","topic":"*"}"#, r#"{"subscriptionId":"s1","group":"g"}"#] {
        refused(UNSUBSCRIBE, data, InvalidEnvelope, "without other options");
    }
    refused(UNSUBSCRIBE, r#"{"SubscriptionId":"a","subscriptionId":"a"}"#, InvalidEnvelope, "the same option");
}

#[test]
fn the_other_commands_read_their_options() {
    assert!(matches!(accepted("Application/SetState", r#"{"state":"asleep"}"#), Command::SetState(State::Asleep)));
    assert!(matches!(accepted("Application/SetState", r#"{"state":"active"}"#), Command::SetState(State::Active)));
    assert!(matches!(accepted("Request/Cancel", r#"{"id":"r1"}"#), Command::Cancel(id) if id == "r1"));
    assert!(matches!(accepted("Application/List", "{}"), Command::ListApplications));
    assert!(matches!(accepted("Subscription/List", "null"), Command::ListSubscriptions));
    assert!(matches!(accepted("Application/Unregister", "{}"), Command::Unregister));
}
