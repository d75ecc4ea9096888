//! The suite `handler`: a client that answers requests.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::peer::Received;
use super::player::{Player, extend};
use super::script::{Failure, Outcome, Script, Suite};
use wire::notice;

/// How many requests are open at once in a script.
const SIDE_BY_SIDE: usize = 20;
/// How long a client is watched that must not send a second answer.
const AGAIN: Duration = Duration::from_millis(500);

pub(super) const SCRIPTS: &[Script] = &[
    Suite::Handler.script(
        "subscribe",
        "subscribe-and-unsubscribe",
        "subscribes with the role handler, and answers",
        "send Subscribe with data {\"channel\":\"Conformance\",\"topic\":\"Ask\",\"role\":\"handler\"}; name the channel",
        |it| Box::pin(subscribe(it)),
    ),
    Suite::Handler.script(
        "answer-once",
        "rule-1-reply",
        "sends one answer to each request, whose inReplyTo is the id with which the request was delivered",
        "copy the id of the delivered request (not requestId, which is the requester's own) to inReplyTo, once",
        |it| Box::pin(answer_once(it)),
    ),
    Suite::Handler.script(
        "refuse",
        "errors-and-codes",
        "refuses a request with Success:false, ErrorCode and ErrorMessage",
        "answer with data {\"Success\":false,\"ErrorCode\":\"BUSY\",\"ErrorMessage\":\"…\"}",
        |it| Box::pin(refuse(it)),
    ),
    Suite::Handler.script(
        "progress",
        "rule-1-reply",
        "sends a part of an answer with more:true, and the last one without",
        "mark every answer but the last with more:true at the top level of the envelope",
        |it| Box::pin(progress(it)),
    ),
    Suite::Handler.script(
        "side-by-side",
        "rule-2-request",
        "answers 20 requests that are open at once, each with its own data",
        "keep the id of each request with its work; the order of the answers is free",
        |it| Box::pin(side_by_side(it)),
    ),
    Suite::Handler.script(
        "cancelled",
        "rule-2-request",
        "gives up a request after Broker/Request/Cancelled, and answers the next one",
        "end the work on the request whose delivered id is inReplyTo of the notice, and do not answer it",
        |it| Box::pin(cancelled(it)),
    ),
    Suite::Handler.script(
        "unknown-fields",
        "envelope",
        "answers requests that have fields it does not know",
        "ignore fields that you do not know",
        |it| Box::pin(unknown_fields(it)),
    ),
    Suite::Handler.script(
        "draining",
        "drain",
        "answers requests after Broker/Connection/Draining, until the connection is closed",
        "Draining is a warning; go on until the Close frame",
        |it| Box::pin(draining(it)),
    ),
    Suite::Handler.script(
        "back-again",
        "resume",
        "is a handler again after a lost connection, and does not answer a request of the session that has ended",
        "subscribe as a handler again in each new session, and drop what the old session was asked",
        |it| Box::pin(back_again(it)),
    ),
];

/// Sends a request, as a broker delivers it.
async fn ask(player: &mut Player, subtopic: &str, id: &str, data: Value, more: &Value) {
    let mut request = json!({
        "channel": "Conformance", "topic": "Ask", "subtopic": subtopic, "id": id, "requestId": format!("of-{id}"),
        "source": "conformance", "user": "local", "timeout": 10_000, "data": data,
    });
    extend(&mut request, more);
    player.send(request.to_string()).await;
}

/// Waits for an answer to this request.
async fn answered(player: &mut Player, id: &str, expected: &str) -> Outcome<Received> {
    let received = player.next(expected).await?;
    match received.text("inReplyTo") {
        Some(own) if own == id => Ok(received),
        Some(_) | None => Err(Failure::new(expected, received.describe())),
    }
}

/// Sends a request, and waits for the answer with its data.
async fn echoes(player: &mut Player, id: &str, data: Value) -> Outcome {
    ask(player, "Echo", id, data.clone(), &json!({})).await;
    echoed(player, id, &data).await
}

async fn echoed(player: &mut Player, id: &str, data: &Value) -> Outcome {
    let expected = format!("an answer with inReplyTo {id}, without more, and with the data of the request");
    let answer = answered(player, id, &expected).await?;
    if is_last(&answer) && answer.payload() == data {
        return Ok(());
    }
    Err(Failure::new(expected, format!("{}, with other data or with more:true", answer.describe())))
}

fn is_last(answer: &Received) -> bool {
    answer.fields.get("more") != Some(&Value::Bool(true))
}

async fn subscribe(player: &mut Player) -> Outcome {
    player.open().await?;
    echoes(player, "r-1", json!({ "number": "110" })).await
}

async fn answer_once(player: &mut Player) -> Outcome {
    player.open().await?;
    echoes(player, "r-1", json!("first")).await?;
    echoes(player, "r-2", json!("second")).await?;
    match player.next_within(AGAIN).await? {
        None => Ok(()),
        Some(received) => Err(Failure::new("one answer to each request", received.describe())),
    }
}

async fn refuse(player: &mut Player) -> Outcome {
    player.open().await?;
    ask(player, "Fail", "r-1", json!(1), &json!({})).await;
    let expected = "an answer with Success false, ErrorCode BUSY and an ErrorMessage";
    let answer = answered(player, "r-1", expected).await?;
    let data = answer.payload();
    let has = |key: &str, value: Value| data.get(key) == Some(&value);
    let has_words = data.get("ErrorMessage").is_some_and(Value::is_string);
    let is_refusal = has("Success", false.into()) && has("ErrorCode", "BUSY".into()) && has_words;
    if !is_refusal {
        return Err(Failure::new(expected, format!("an answer with {data:.200}")));
    }
    echoes(player, "r-2", json!("after a refusal")).await
}

async fn progress(player: &mut Player) -> Outcome {
    player.open().await?;
    ask(player, "Progress", "r-1", json!("data"), &json!({})).await;
    let expected = "an answer with more:true";
    let part = answered(player, "r-1", expected).await?;
    if is_last(&part) {
        return Err(Failure::new(expected, format!("{} without it", part.describe())));
    }
    echoed(player, "r-1", &json!("data")).await
}

async fn side_by_side(player: &mut Player) -> Outcome {
    player.open().await?;
    for number in 0..SIDE_BY_SIDE {
        ask(player, "Echo", &format!("r-{number}"), json!(format!("data of r-{number}")), &json!({})).await;
    }
    let expected = format!("{SIDE_BY_SIDE} answers, each with its own inReplyTo and data");
    let mut open: BTreeSet<String> = (0..SIDE_BY_SIDE).map(|number| format!("r-{number}")).collect();
    while !open.is_empty() {
        let answer = player.next(&expected).await?;
        let id = answer.text("inReplyTo").unwrap_or_default();
        if !open.remove(id) || *answer.payload() != format!("data of {id}") {
            return Err(Failure::new(expected, answer.describe()));
        }
    }
    Ok(())
}

async fn cancelled(player: &mut Player) -> Outcome {
    player.open().await?;
    ask(player, "Wait", "r-1", json!(1), &json!({})).await;
    player.send(notice::cancelled("r-1")).await;
    ask(player, "Echo", "r-2", json!("next"), &json!({})).await;
    echoed(player, "r-2", &json!("next")).await?;
    match player.next_within(AGAIN).await? {
        None => Ok(()),
        Some(received) => Err(Failure::new("no answer to a request that was cancelled", received.describe())),
    }
}

async fn unknown_fields(player: &mut Player) -> Outcome {
    player.open().await?;
    let more = json!({ "priority": 7, "trace": { "id": [1, 2] }, "x-note": null });
    ask(player, "Echo", "r-1", json!({ "inReplyTo": "nobody", "more": true }), &more).await;
    echoed(player, "r-1", &json!({ "inReplyTo": "nobody", "more": true })).await
}

async fn draining(player: &mut Player) -> Outcome {
    player.open().await?;
    player.send(notice::draining(200)).await;
    echoes(player, "r-1", json!("while draining")).await?;
    echoes(player, "r-2", json!("still draining")).await
}

async fn back_again(player: &mut Player) -> Outcome {
    player.open().await?;
    ask(player, "Wait", "r-1", json!(1), &json!({})).await;
    echoes(player, "r-2", json!("before")).await?;
    player.cut();
    player.open_again("the connection was lost").await?;
    echoes(player, "r-3", json!("after")).await?;
    match player.next_within(AGAIN).await? {
        None => Ok(()),
        Some(received) => {
            Err(Failure::new("no answer to a request of the session that has ended", received.describe()))
        }
    }
}
