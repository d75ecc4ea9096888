//! The suite `client`, first part: messages.

use std::time::Duration;

use serde_json::{Value, json};

use super::ours;
use super::peer::{End, Received};
use super::player::{Player, extend};
use super::script::{Failure, Outcome, Script, Suite};
use wire::notice;

pub(super) const SCRIPTS: &[Script] = &[
    Suite::Client.script(
        "register",
        "register",
        "registers first, and subscribes when it is registered",
        "send Register as the first message of each connection, and Subscribe after it",
        |it| Box::pin(register(it)),
    ),
    Suite::Client.script(
        "register-once",
        "register",
        "registers once on each connection, whatever arrives",
        "register when a connection opens, and not again because of a message",
        |it| Box::pin(register_once(it)),
    ),
    Suite::Client.script(
        "publish",
        "envelope",
        "passes payloads on unchanged, whatever text and nesting they have",
        "read and write the payload as JSON, and change nothing in it; texts are UTF-8",
        |it| Box::pin(publish(it)),
    ),
    Suite::Client.script(
        "request",
        "rule-1-reply",
        "knows the answer to a request by inReplyTo, on whatever triple it arrives",
        "give each request an id, and take the message whose inReplyTo is that id as its answer",
        |it| Box::pin(request(it)),
    ),
    Suite::Client.script(
        "request-refused",
        "errors-and-codes",
        "reports the ErrorCode of a request that failed",
        "an answer with Success:false is a failure; its code is data.ErrorCode",
        |it| Box::pin(request_refused(it)),
    ),
    Suite::Client.script(
        "request-more",
        "rule-1-reply",
        "waits for the last answer of a request, after those with more:true",
        "an answer with more:true is a part; the request ends with the answer that does not have it",
        |it| Box::pin(request_more(it)),
    ),
    Suite::Client.script(
        "stray-answers",
        "rule-1-reply",
        "ignores an answer to a request that it did not send",
        "an answer whose inReplyTo is not the id of a pending request belongs to nobody: drop it",
        |it| Box::pin(stray_answers(it)),
    ),
    Suite::Client.script(
        "unknown-fields",
        "envelope",
        "accepts fields and notices that it does not know",
        "ignore what you do not know: fields of an envelope, keys of data, notices on the channel Broker",
        |it| Box::pin(unknown_fields(it)),
    ),
    Suite::Client.script(
        "ping",
        "liveness",
        "answers a WebSocket ping with its payload",
        "most WebSocket libraries answer pings while the socket is read; keep reading, and change nothing about pongs",
        |it| Box::pin(ping(it)),
    ),
    Suite::Client.script(
        "fragments",
        "transport-and-handshake",
        "reads a message in fragments, with a ping between them",
        "join the fragments of a message, and answer control frames between them (RFC 6455, section 5.4)",
        |it| Box::pin(fragments(it)),
    ),
    Suite::Client.script(
        "large-message",
        "limits",
        "receives a message of 2 MiB, if the broker's MaxMessageBytes is 4 MiB",
        "raise the limit of your WebSocket library beyond MaxMessageBytes in the reply to Register",
        |it| Box::pin(large_message(it)),
    ),
    Suite::Client.script(
        "small-limit",
        "limits",
        "sends no message that is longer than MaxMessageBytes, and goes on",
        "compare each message with MaxMessageBytes in the reply to Register before it is sent",
        |it| Box::pin(small_limit(it)),
    ),
    Suite::Client.script(
        "leave",
        "when-the-connection-ends",
        "leaves with Unregister, or a Close with 1000 or without a code",
        "a lost connection or another code keeps a resumable session for its grace; say that the client leaves",
        |it| Box::pin(leave(it)),
    ),
];

/// Sends `Conformance/Do/…`.
pub(super) async fn tell(player: &mut Player, subtopic: &str, data: Value) {
    tell_with(player, subtopic, data, &json!({})).await;
}

/// As [`tell`], with further fields.
pub(super) async fn tell_with(player: &mut Player, subtopic: &str, data: Value, more: &Value) {
    player.send(event(subtopic, &data, more)).await;
}

/// Returns `Conformance/Do/…` as a broker delivers it.
pub(super) fn event(subtopic: &str, data: &Value, more: &Value) -> String {
    let mut envelope =
        json!({ "channel": "Conformance", "topic": "Do", "subtopic": subtopic, "source": "conformance", "data": data });
    extend(&mut envelope, more);
    envelope.to_string()
}

/// Waits for `Conformance/Done/…`, and returns its payload.
pub(super) async fn done(player: &mut Player, subtopic: &str, expected: &str) -> Outcome<Value> {
    let received = player.next(expected).await?;
    if received.triple == ours("Done", subtopic) {
        return Ok(received.payload().clone());
    }
    Err(Failure::new(expected, received.describe()))
}

/// Has the client publish a payload.
pub(super) async fn publishes(player: &mut Player, data: Value) -> Outcome {
    tell(player, "Publish", data.clone()).await;
    published(player, &data).await
}

/// Waits for the event that the client publishes on `Conformance/Do/Publish`.
pub(super) async fn published(player: &mut Player, data: &Value) -> Outcome {
    let expected = "Conformance/Done/Publish with the data of Conformance/Do/Publish";
    let came = done(player, "Publish", expected).await?;
    if came == *data { Ok(()) } else { Err(Failure::new(expected, "Conformance/Done/Publish with other data")) }
}

/// Waits for the request that the client sends on `Conformance/Do/Request`.
async fn asked(player: &mut Player, data: &Value) -> Outcome<Received> {
    let expected = "the request Conformance/Ask/Echo, with an id and the data of Conformance/Do/Request";
    let received = player.next(expected).await?;
    let is_asked =
        received.triple == ours("Ask", "Echo") && received.text("id").is_some() && received.payload() == data;
    if is_asked { Ok(received) } else { Err(Failure::new(expected, received.describe())) }
}

/// Answers a request.
async fn answer(player: &mut Player, id: &str, subtopic: &str, data: Value) {
    answer_with(player, id, subtopic, data, &json!({})).await;
}

/// As [`answer`], with further fields.
async fn answer_with(player: &mut Player, id: &str, subtopic: &str, data: Value, more: &Value) {
    let mut reply =
        json!({ "channel": "Conformance", "topic": "Ask", "subtopic": subtopic, "inReplyTo": id, "data": data });
    extend(&mut reply, more);
    player.send(reply.to_string()).await;
}

fn id(request: &Received) -> &str {
    request.text("id").unwrap_or_default()
}

/// Waits for the outcome of the request.
async fn answered(player: &mut Player, expected: &str, data: &Value) -> Outcome {
    let came = done(player, "Request", expected).await?;
    if came == *data {
        Ok(())
    } else {
        Err(Failure::new(expected, format!("Conformance/Done/Request with {came:.200}")))
    }
}

async fn register(player: &mut Player) -> Outcome {
    player.open().await?;
    publishes(player, json!(1)).await
}

async fn register_once(player: &mut Player) -> Outcome {
    player.open().await?;
    player.send(notice::lagging(notice::Depth { messages: 800, messages_max: 1024, bytes: 9, bytes_max: 10 })).await;
    player.send(notice::dropped(1)).await;
    player.send(notice::expiring(3600)).await;
    let refusal = wire::Refusal::new(wire::ErrorCode::Forbidden, "an error that the script invents");
    player.send(notice::error(None, &refusal)).await;
    player.send(notice::presence("Joined", "other", Some("local"), "s-1")).await;
    publishes(player, json!("after notices")).await
}

async fn publish(player: &mut Player) -> Outcome {
    player.open().await?;
    let payloads = [
        json!({ "from": "+49 30 1234", "tags": [], "nested": { "a": { "b": [1, [2, [3]]] } }, "empty": "" }),
        json!("Grüße, 漢字, 😀, \u{2028}, \"quotes\" and \\ back\tslashes\n"),
        json!([0, -1, 1.5, 4_294_967_296_u64, true, false, null]),
        json!({ "channel": "Broker", "topic": "Application", "subtopic": "Register", "source": "somebody" }),
        json!("a bare text"),
    ];
    for payload in payloads {
        publishes(player, payload).await?;
    }
    Ok(())
}

async fn request(player: &mut Player) -> Outcome {
    player.open().await?;
    let question = json!({ "number": "110" });
    tell(player, "Request", question.clone()).await;
    let request = asked(player, &question).await?;
    // The vendor's handlers answer on another subtopic. An event on the triple of the request is not its answer.
    let event =
        json!({ "channel": "Conformance", "topic": "Ask", "subtopic": "Echo", "source": "other", "data": "an event" });
    player.send(event.to_string()).await;
    let data = json!({ "Success": true, "ErrorMessage": null, "callId": "c-1" });
    answer(player, id(&request), "EchoSuccess", data.clone()).await;
    answered(player, "Conformance/Done/Request with the data of the answer", &data).await
}

async fn request_refused(player: &mut Player) -> Outcome {
    player.open().await?;
    tell(player, "Request", json!(1)).await;
    let request = asked(player, &json!(1)).await?;
    let data = json!({ "Success": false, "ErrorCode": "NO_HANDLER", "ErrorMessage": "there is no handler" });
    answer(player, id(&request), "Echo", data).await;
    answered(
        player,
        "Conformance/Done/Request with {\"ErrorCode\":\"NO_HANDLER\"}",
        &json!({ "ErrorCode": "NO_HANDLER" }),
    )
    .await
}

async fn request_more(player: &mut Player) -> Outcome {
    player.open().await?;
    tell(player, "Request", json!(1)).await;
    let request = asked(player, &json!(1)).await?;
    for part in ["dialling", "ringing"] {
        answer_with(player, id(&request), "Echo", json!(part), &json!({ "more": true })).await;
    }
    answer(player, id(&request), "Echo", json!("connected")).await;
    answered(player, "Conformance/Done/Request with the data of the last answer", &json!("connected")).await
}

async fn stray_answers(player: &mut Player) -> Outcome {
    player.open().await?;
    answer(player, "never-asked", "Echo", json!("stray")).await;
    tell(player, "Request", json!(1)).await;
    let request = asked(player, &json!(1)).await?;
    answer(player, "never-asked", "Echo", json!("stray")).await;
    answer(player, id(&request), "Echo", json!("right")).await;
    answered(player, "Conformance/Done/Request with the data of its own answer", &json!("right")).await
}

async fn unknown_fields(player: &mut Player) -> Outcome {
    player.open().await?;
    let notice = json!({ "channel": "Broker", "topic": "Future", "subtopic": "Notice", "data": { "Reason": ["new"] } });
    player.send(notice.to_string()).await;
    let more = json!({ "priority": 7, "trace": { "id": [1, 2] }, "x-note": null, "user": "local" });
    tell_with(player, "Publish", json!("with unknown fields"), &more).await;
    published(player, &json!("with unknown fields")).await
}

async fn ping(player: &mut Player) -> Outcome {
    player.open().await?;
    player.ponged(b"").await?;
    player.ponged(b"switchboard").await?;
    publishes(player, json!("after pings")).await
}

async fn fragments(player: &mut Player) -> Outcome {
    player.open().await?;
    let data = json!("Grüße in Stücken, 漢字 ".repeat(40));
    player.send_in_fragments(event("Publish", &data, &json!({}))).await;
    player.pong(b"between", "a pong while the message is incomplete").await?;
    published(player, &data).await
}

async fn large_message(player: &mut Player) -> Outcome {
    player.message_bytes_max = 4 << 20;
    player.open().await?;
    publishes(player, json!("0123456789abcdef".repeat(2 << 16))).await
}

async fn small_limit(player: &mut Player) -> Outcome {
    player.message_bytes_max = 1024;
    player.open().await?;
    tell(player, "Publish", json!("x".repeat(4096))).await;
    // The client may report that it sent nothing, or be silent.
    tell(player, "Publish", json!("short")).await;
    published(player, &json!("short")).await
}

async fn leave(player: &mut Player) -> Outcome {
    player.open().await?;
    tell(player, "Leave", Value::Null).await;
    let expected = "Unregister, or a Close with 1000 or without a code";
    let end = player.ended(expected).await?;
    let leaves = player.session.is_unregistered || matches!(end, End::Closed(None | Some(1000)));
    if leaves {
        // What a client does after it has left is judged too: nothing.
        return match player.connected_before(tokio::time::Instant::now() + Duration::from_secs(1)).await {
            None => Ok(()),
            Some(_) => Err(Failure::new("no connection after the client has left", "another connection")),
        };
    }
    Err(Failure::new(
        expected,
        match end {
            End::Closed(code) => format!("a Close with {}", code.unwrap_or_default()),
            End::Lost => "a lost connection".to_owned(),
        },
    ))
}
