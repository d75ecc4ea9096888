//! For each script, an application that does one thing wrong: the script finds it, and says what.

use std::collections::BTreeMap;

use futures_util::future::join_all;

use super::application::Application;
use super::{Judge, judge_beside, script_of};

/// A script, the fault of an application, and words of the verdict: what was expected, and what came.
pub(super) const FAULTS: &[(&str, &str, &str, &str)] = &[
    ("client/register", "subscribes first", "a Register as the first message", "Broker/Subscription/Subscribe"),
    ("client/register", "does not mask", "frames that follow RFC 6455", "a frame without a mask"),
    ("client/register", "sends binary", "text messages", "a binary message"),
    ("client/register", "misspells a field", "follows the rules of docs/protocol.md#envelope", "INVALID_ENVELOPE"),
    ("client/register", "another source", "the source 'application' in every message", "another one"),
    ("client/register", "floods", "the messages that the script asks for", "10000 messages and more"),
    ("client/register-once", "registers again", "one Register on each connection", "a second one"),
    ("client/publish", "changes payloads", "with the data of Conformance/Do/Publish", "with other data"),
    ("client/request", "knows answers by triple", "with the data of the answer", "Done/Request with \"an event\""),
    ("client/request-refused", "takes failures for answers", "{\"ErrorCode\":\"NO_HANDLER\"}", "\"Success\":false"),
    ("client/request-more", "takes the first answer", "the data of the last answer", "\"dialling\""),
    ("client/stray-answers", "takes any answer", "the data of its own answer", "\"stray\""),
    ("client/unknown-fields", "knows every notice", "Conformance/Done/Publish", "closed the connection with 4000"),
    ("client/ping", "stops reading", "a pong with the payload of the ping", "nothing within 4s"),
    ("client/fragments", "reads the first fragment", "the data of Conformance/Do/Publish", "with other data"),
    ("client/large-message", "small buffer", "Conformance/Done/Publish", "the client"),
    ("client/small-limit", "checks no size", "messages of at most 1024 bytes", "one of 4"),
    ("client/leave", "just ends", "Unregister, or a Close with 1000", "a lost connection"),
    (
        "client/connection-lost",
        "stays away",
        "another connection after the connection was lost",
        "no connection within 4s",
    ),
    ("client/close-without-code", "stays away", "another connection after a Close without a code", "no connection"),
    ("client/close-1001", "stays away", "another connection after a Close with 1001", "no connection within 4s"),
    (
        "client/close-1002",
        "repeats",
        "no repetition of the message before a Close with 1002",
        "the same message once more",
    ),
    (
        "client/close-1007",
        "repeats",
        "no repetition of the message before a Close with 1007",
        "the same message once more",
    ),
    ("client/close-1008", "stays away", "another connection after a Close with 1008", "no connection within 4s"),
    (
        "client/close-1009",
        "repeats",
        "no repetition of the message before a Close with 1009",
        "the same message once more",
    ),
    ("client/close-1011", "stays away", "another connection after a Close with 1011", "no connection within 4s"),
    ("client/close-1012", "does not wait", "a connection 1.5s after the Close with 1012", "one after "),
    ("client/close-4401", "same token", "another token after a Close with 4401", "the same token"),
    ("client/close-4403", "never stops", "no connection after a Close with 4403", "another connection"),
    ("client/close-4404", "stays away", "another connection after a Close with 4404", "no connection within 4s"),
    ("client/close-4406", "stays away", "another connection after a Close with 4406", "no connection within 4s"),
    ("client/close-4408", "stays away", "another connection after a Close with 4408", "no connection within 4s"),
    ("client/close-4409", "never stops", "no connection after a Close with 4409", "another connection"),
    ("client/close-4410", "never stops", "no connection after a Close with 4410", "another connection"),
    ("client/close-4413", "stays away", "another connection after a Close with 4413", "no connection within 4s"),
    (
        "client/source-in-use",
        "gives up when refused",
        "another connection after SOURCE_IN_USE",
        "no connection within 4s",
    ),
    ("client/busy", "gives up when busy", "a handshake was refused with 503", "no connection within 4s"),
    ("client/back-off", "does not wait", "at most 10 connections within 4s", "11 and more"),
    (
        "handler/subscribe",
        "subscribes to events",
        "a Subscribe for Conformance/Ask/*, with the role handler",
        "nothing within 4s",
    ),
    ("handler/subscribe", "answers by requestId", "an answer with inReplyTo r-1", "inReplyTo of-r-1"),
    ("handler/answer-once", "answers twice", "an answer with inReplyTo r-2", "inReplyTo r-1"),
    ("handler/refuse", "fails in its own words", "Success false, ErrorCode BUSY", "{\"error\":\"busy\"}"),
    ("handler/progress", "does not say more", "an answer with more:true", "inReplyTo r-1 without it"),
    ("handler/side-by-side", "mixes requests up", "each with its own inReplyTo and data", "inReplyTo r-0"),
    ("handler/cancelled", "does one thing at a time", "an answer with inReplyTo r-2", "nothing within 4s"),
    ("handler/cancelled", "answers what is cancelled", "an answer with inReplyTo r-2", "inReplyTo r-1"),
    ("handler/unknown-fields", "knows every field", "an answer with inReplyTo r-1", "nothing within 4s"),
    ("handler/draining", "stops when draining", "an answer with inReplyTo r-1", "nothing within 4s"),
    ("handler/back-again", "answers in another session", "an answer with inReplyTo r-3", "inReplyTo r-1"),
    ("resume/ask", "does not resume", "a Register with \"resume\":true", "a Register without resume"),
    ("resume/count-events", "does not count receipts", "received: 11", "received: 6"),
    ("resume/count-notices", "does not count notices", "received: 11", "received: 10"),
    ("resume/count-on", "counts each connection", "received: 5", "received: 2"),
    ("resume/count-anew", "counts on in a new session", "received: 3", "received: 10"),
    ("resume/acknowledge", "acknowledges late only", "an Acknowledge at the 64th message", "0 messages acknowledged"),
    ("resume/acknowledge-late", "does not acknowledge", "5 s after the first", "0 messages acknowledged"),
    ("resume/acknowledge-resumed", "does not acknowledge a resume", "the first message after a resume", "before it"),
    ("resume/replay", "skips what is replayed", "Conformance/Done/Publish", "nothing within 4s"),
    (
        "resume/send-again",
        "sends everything again",
        "Conformance/Done/Publish with 2 again",
        "Conformance/Done/Publish",
    ),
    (
        "resume/subscribed-still",
        "subscribes after a resume",
        "no Subscribe in a session that was resumed",
        "a Subscribe",
    ),
    ("resume/lost-reply", "forgets a used token", "continues the session with the newest token", "\"resume\":true"),
    (
        "resume/refused",
        "forgets the token when refused",
        "continues the session with the newest token",
        "\"resume\":true",
    ),
    (
        "resume/recover",
        "does not recover",
        "recover {\"epoch\":\"epoch-1\",\"offset\":7}",
        "a Subscribe without recover",
    ),
];

/// Runs each application against its script, and compares the verdicts.
async fn find(faults: BTreeMap<&'static str, &(&str, &'static str, &str, &str)>) {
    let scripts: Vec<_> = faults.keys().flat_map(|script| ["--script", script]).collect();
    let judge = Judge::start(&[&["--timeout", "4s"], &scripts[..]].concat()).await;
    let playing = judge.addresses.clone().into_iter().map(|url| {
        let fault = faults[script_of(&url).as_str()].1;
        Application::play(url, fault)
    });
    let judged = judge_beside(judge, join_all(playing)).await;
    let mut wrong = Vec::new();
    for (script, (_, fault, expected, came)) in faults {
        let verdict = &judged.verdicts[script];
        let has = |key: &str, words: &str| verdict[key].as_str().is_some_and(|it| it.contains(words));
        let is_found =
            verdict["verdict"] == "failed" && has("expected", expected) && has("came", came) && has("mend", " ");
        if !is_found {
            wrong.push(format!("an application that {fault}: {verdict}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(judged.code, Some(1));
}

#[tokio::test]
async fn every_script_finds_what_it_is_for() {
    // A run judges a script once. What else a script finds is shown by further runs.
    let mut runs: Vec<BTreeMap<_, _>> = Vec::new();
    for fault in FAULTS {
        match runs.iter_mut().find(|run| !run.contains_key(fault.0)) {
            Some(run) => {
                run.insert(fault.0, fault);
            }
            None => runs.push(BTreeMap::from([(fault.0, fault)])),
        }
    }
    join_all(runs.into_iter().map(find)).await;
}
