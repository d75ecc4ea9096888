//! The suite `resume`: a client that continues its session after a lost connection.

use std::time::Duration;

use serde_json::{Value, json};

use super::messages::{event, published, publishes, tell, tell_with};
use super::player::{Player, extend};
use super::script::{Failure, Outcome, Script, Suite};
use super::session::{Asked, Registration};
use wire::{ErrorCode, notice};

/// How many messages a client acknowledges together.
const TOGETHER: usize = 64;
/// How long it may keep an acknowledgement back: 5 s, and some time for a machine that is busy.
const ACKNOWLEDGING: Duration = Duration::from_secs(12);
/// How long a client is watched that must not send a message again.
const AGAIN: Duration = Duration::from_millis(500);

const ASKING: &str = "asking-for-it";
const COUNTING: &str = "counting-and-acknowledging";
const COMING_BACK: &str = "coming-back";

const COUNT: &str = "count every text message since the reply to the Register that began the session, over all its connections; not \
     Broker/Application/Register, not Broker/Connection/Replaced, no control frames";

pub(super) const SCRIPTS: &[Script] = &[
    Suite::Resume.script(
        "ask",
        ASKING,
        "asks for a resumable session, and returns with its ResumeToken",
        "send \"resume\":true in data of the first Register, and {\"token\":…,\"received\":…} in those after a lost connection",
        |it| Box::pin(ask(it)),
    ),
    Suite::Resume.script("count-events", COUNTING, "counts the events and answers that it has received", COUNT, |it| {
        Box::pin(count_events(it))
    }),
    Suite::Resume.script("count-notices", COUNTING, "counts notices and errors, also those that it does not know", COUNT, |it| {
        Box::pin(count_notices(it))
    }),
    Suite::Resume.script(
        "count-on",
        COUNTING,
        "counts on over all connections of a session, and takes each new token",
        COUNT,
        |it| Box::pin(count_on(it)),
    ),
    Suite::Resume.script("count-anew", COUNTING, "counts anew when its session was not resumed, and subscribes again", COUNT, |it| {
        Box::pin(count_anew(it))
    }),
    Suite::Resume.script(
        "acknowledge",
        COUNTING,
        "acknowledges after 64 messages",
        "send Broker/Connection/Acknowledge with data {\"received\":n} every 64 messages",
        |it| Box::pin(acknowledge(it)),
    ),
    Suite::Resume.script(
        "acknowledge-late",
        COUNTING,
        "acknowledges 5 s after the first message that it has not acknowledged",
        "start a timer of 5 s with the first message after an acknowledgement",
        |it| Box::pin(acknowledge_late(it)),
    ),
    Suite::Resume.script(
        "acknowledge-resumed",
        COUNTING,
        "acknowledges at once after a resume",
        "acknowledge when the reply with Resumed:true has arrived: the broker keeps the old token valid until then",
        |it| Box::pin(acknowledge_resumed(it)),
    ),
    Suite::Resume.script(
        "replay",
        COMING_BACK,
        "handles what is replayed after a resume once, in order",
        "take the messages after the reply with Resumed:true as the next ones of the session",
        |it| Box::pin(replay(it)),
    ),
    Suite::Resume.script(
        "send-again",
        COMING_BACK,
        "sends again what the broker has not taken in, in order, and nothing else",
        "keep each message until an answer to it or to a later one shows that it was taken in; after a resume, send those after \
         the first Received again",
        |it| Box::pin(send_again(it)),
    ),
    Suite::Resume.script(
        "subscribed-still",
        COMING_BACK,
        "does not subscribe again after a resume",
        "subscriptions go on in a session that was resumed: subscribing again repeats what is retained",
        |it| Box::pin(subscribed_still(it)),
    ),
    Suite::Resume.script(
        "lost-reply",
        COMING_BACK,
        "returns with the same token if the reply to its Register was lost",
        "take a new token only from a reply that has arrived",
        |it| Box::pin(lost_reply(it)),
    ),
    Suite::Resume.script(
        "refused",
        "when-a-session-does-not-continue",
        "returns with the same token after a Register that was refused",
        "a Register that is refused changes nothing: keep the token and the count",
        |it| Box::pin(refused(it)),
    ),
    Suite::Resume.script(
        "recover",
        "recover",
        "subscribes with recover after its session has ended, on a channel with history",
        "keep epoch and offset of the last event that was handled, and give them as recover of the next Subscribe",
        |it| Box::pin(recover(it)),
    ),
];

/// Registers the client for a resumable session.
async fn open(player: &mut Player) -> Outcome {
    let expected = "a Register with \"resume\":true";
    let registration = player.register(expected).await?;
    if registration.resume != Asked::Begin {
        let came = match registration.resume {
            Asked::No => "a Register without resume",
            Asked::Begin | Asked::Continue { .. } => "a Register that continues a session which it cannot have",
        };
        return Err(Failure::new(expected, came));
    }
    player.accept(json!({})).await;
    player.subscribed().await
}

/// Cuts the connection, and waits for a Register that continues the session. Returns the count of the client.
async fn back(player: &mut Player) -> Outcome<usize> {
    player.cut();
    let registration = player.register_again("the connection was lost").await?;
    count_of(player, &registration)
}

/// Returns the count with which the client continues, if its token is the newest.
fn count_of(player: &Player, registration: &Registration) -> Outcome<usize> {
    let expected = "a Register that continues the session with the newest token";
    match &registration.resume {
        Asked::No => Err(Failure::new(expected, "a Register without resume")),
        Asked::Begin => Err(Failure::new(expected, "a Register with \"resume\":true")),
        Asked::Continue { token, received } if *token == player.session.token() => {
            Ok(usize::try_from(*received).unwrap_or(usize::MAX))
        }
        Asked::Continue { .. } => Err(Failure::new(expected, "a Register with another token")),
    }
}

/// Fails if the client has not counted all that was sent.
fn counted_all(player: &Player, count: usize) -> Outcome {
    let sent = player.session.sent.len();
    if count == sent { Ok(()) } else { Err(Failure::new(format!("received: {sent}"), format!("received: {count}"))) }
}

/// Lets the session go on after its Register: the broker has taken `taken` messages, and sends again what the client has not
/// received.
async fn resume(player: &mut Player, count: usize, taken: usize) {
    let again: Vec<String> = player.session.sent.iter().skip(count).cloned().collect();
    player.session.taken = taken;
    player.accept(json!({ "Resumed": true, "Replayed": again.len(), "Received": taken })).await;
    for text in again {
        player.send_uncounted(text).await;
    }
}

/// Lets the session go on, with everything taken in.
async fn resume_all(player: &mut Player, count: usize) {
    let taken = player.session.taken;
    resume(player, count, taken).await;
}

/// Nothing of the client arrives for a moment.
async fn is_quiet(player: &mut Player, expected: &str) -> Outcome {
    match player.next_within(AGAIN).await? {
        None => Ok(()),
        Some(received) => Err(Failure::new(expected, received.describe())),
    }
}

async fn ask(player: &mut Player) -> Outcome {
    open(player).await?;
    let count = back(player).await?;
    resume_all(player, count).await;
    publishes(player, json!("resumed")).await
}

async fn count_events(player: &mut Player) -> Outcome {
    open(player).await?;
    for number in 0..5 {
        publishes(player, json!(number)).await?;
    }
    let count = back(player).await?;
    counted_all(player, count)
}

async fn count_notices(player: &mut Player) -> Outcome {
    open(player).await?;
    player.send(notice::lagging(notice::Depth { messages: 800, messages_max: 1024, bytes: 9, bytes_max: 10 })).await;
    player.send(notice::dropped(1)).await;
    let refusal = wire::Refusal::new(ErrorCode::Forbidden, "an error that the script invents");
    player.send(notice::error(None, &refusal)).await;
    player.send(notice::cancelled("never-asked")).await;
    let unknown = json!({ "channel": "Broker", "topic": "Future", "subtopic": "Notice", "data": {} });
    player.send(unknown.to_string()).await;
    player
        .send(json!({ "channel": "Other", "topic": "T", "subtopic": "S", "inReplyTo": "never-asked" }).to_string())
        .await;
    player.send_in_fragments(event("Publish", &json!("in fragments"), &json!({}))).await;
    published(player, &json!("in fragments")).await?;
    player.ponged(b"not counted").await?;
    publishes(player, json!("after notices")).await?;
    let count = back(player).await?;
    counted_all(player, count)
}

async fn count_on(player: &mut Player) -> Outcome {
    open(player).await?;
    for number in 0..3 {
        publishes(player, json!(number)).await?;
        let count = back(player).await?;
        counted_all(player, count)?;
        resume_all(player, count).await;
    }
    publishes(player, json!("at last")).await
}

async fn count_anew(player: &mut Player) -> Outcome {
    open(player).await?;
    for number in 0..3 {
        publishes(player, json!(number)).await?;
    }
    back(player).await?;
    player.accept(json!({ "ResumeReason": "UNKNOWN" })).await;
    player.subscribed().await?;
    publishes(player, json!("in another session")).await?;
    let count = back(player).await?;
    counted_all(player, count)
}

async fn acknowledge(player: &mut Player) -> Outcome {
    open(player).await?;
    for number in 0..TOGETHER {
        publishes(player, json!(number)).await?;
    }
    // At the 64th message a client has acknowledged up to there. Without that, it would take it 5 s.
    let expected = "an Acknowledge at the 64th message";
    player.acknowledged(TOGETHER, Duration::from_secs(2), expected).await
}

async fn acknowledge_late(player: &mut Player) -> Outcome {
    open(player).await?;
    publishes(player, json!("one")).await?;
    let sent = player.session.sent.len();
    let expected = format!("an Acknowledge of {sent} messages, 5 s after the first");
    // What arrives meanwhile, such as the answer to a ping of the client, can wait for the next one.
    player.acknowledged(sent.saturating_sub(1), ACKNOWLEDGING, &expected).await
}

async fn acknowledge_resumed(player: &mut Player) -> Outcome {
    open(player).await?;
    publishes(player, json!(1)).await?;
    let count = back(player).await?;
    let answered = player.session.acknowledgements;
    resume_all(player, count).await;
    publishes(player, json!("resumed")).await?;
    match player.session.acknowledgements > answered {
        true => Ok(()),
        false => Err(Failure::new(
            "an Acknowledge as the first message after a resume",
            "Conformance/Done/Publish before it",
        )),
    }
}

async fn replay(player: &mut Player) -> Outcome {
    open(player).await?;
    publishes(player, json!("before")).await?;
    let count = back(player).await?;
    counted_all(player, count)?;
    // Sent while it was away, as far as the client knows.
    let missed: Vec<Value> = (0..5).map(|number| json!(format!("missed {number}"))).collect();
    player.session.sent.extend(missed.iter().map(|data| event("Publish", data, &json!({}))));
    resume_all(player, count).await;
    for data in &missed {
        published(player, data).await?;
    }
    publishes(player, json!("after")).await?;
    is_quiet(player, "each replayed event once").await
}

async fn send_again(player: &mut Player) -> Outcome {
    open(player).await?;
    // So that no answer shows the client what was taken in.
    player.receipts = false;
    let before = player.session.taken;
    for number in 1..=3 {
        publishes(player, json!(number)).await?;
    }
    // Of what the client has sent, the first event was taken in, and nothing after it.
    let taken = player.session.taken_at_event_after(before).unwrap_or(before);
    let count = back(player).await?;
    player.receipts = true;
    resume(player, count, taken).await;
    for number in 2..=3 {
        let expected = format!("Conformance/Done/Publish with {number} again");
        let received = player.next(&expected).await?;
        if *received.payload() != json!(number) {
            return Err(Failure::new(expected, format!("{} with {:.60}", received.describe(), received.payload())));
        }
    }
    is_quiet(player, "nothing else again").await
}

async fn subscribed_still(player: &mut Player) -> Outcome {
    open(player).await?;
    publishes(player, json!(1)).await?;
    let count = back(player).await?;
    let made = player.session.subscribes;
    resume_all(player, count).await;
    publishes(player, json!("resumed")).await?;
    is_quiet(player, "one event").await?;
    match player.session.subscribes == made {
        true => Ok(()),
        false => Err(Failure::new("no Subscribe in a session that was resumed", "a Subscribe")),
    }
}

async fn lost_reply(player: &mut Player) -> Outcome {
    open(player).await?;
    publishes(player, json!(1)).await?;
    let first = back(player).await?;
    // The connection is lost before the reply.
    let again = back(player).await?;
    if first != again {
        return Err(Failure::new(format!("received: {first}, as before"), format!("received: {again}")));
    }
    resume_all(player, again).await;
    publishes(player, json!("resumed")).await
}

async fn refused(player: &mut Player) -> Outcome {
    open(player).await?;
    publishes(player, json!(1)).await?;
    let first = back(player).await?;
    player.refuse_register(ErrorCode::SourceInUse, "the source is taken, since 2026-01-01T00:00:00Z").await;
    player.close(4404, "source in use").await;
    let registration = player.register_again("SOURCE_IN_USE").await?;
    let again = count_of(player, &registration)?;
    if first != again {
        return Err(Failure::new(format!("received: {first}, as before"), format!("received: {again}")));
    }
    resume_all(player, again).await;
    publishes(player, json!("resumed")).await
}

async fn recover(player: &mut Player) -> Outcome {
    player.subscribed_more = json!({ "Epoch": "epoch-1", "Offset": 4 });
    open(player).await?;
    for offset in 5..8 {
        let place = json!({ "offset": offset, "epoch": "epoch-1" });
        tell_with(player, "Publish", json!(offset), &place).await;
        published(player, &json!(offset)).await?;
    }
    back(player).await?;
    extend(&mut player.subscribed_more, &json!({ "Offset": 7, "Recovered": true, "Replayed": 0 }));
    player.accept(json!({ "ResumeReason": "UNKNOWN" })).await;
    player.subscribed().await?;
    let expected = "a Subscribe with recover {\"epoch\":\"epoch-1\",\"offset\":7}";
    match player.session.recovers() {
        Some(("epoch-1", 7)) => {}
        Some((epoch, offset)) => {
            return Err(Failure::new(expected, format!("recover with epoch {epoch:.60}, offset {offset}")));
        }
        None => return Err(Failure::new(expected, "a Subscribe without recover")),
    }
    tell(player, "Publish", json!("recovered")).await;
    published(player, &json!("recovered")).await
}
