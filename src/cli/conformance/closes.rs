//! The suite `client`, second part: what a client does when its connection has ended (the table of close codes).

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::messages::{publishes, tell};
use super::player::Player;
use super::script::{Failure, Outcome, Play, Script, Suite};
use wire::{ErrorCode, notice};

/// The pause that the script of 1012 announces.
const DRAIN: Duration = Duration::from_millis(1500);
/// How much earlier a client may be: timers count in milliseconds, and the two clocks start at different ends of a socket.
const TOLERANCE: Duration = Duration::from_millis(50);
/// How long the script of the back-off watches, and how many connections it allows meanwhile. With a back-off that begins with
/// 250 ms, doubles and is jittered, there are about five.
const WATCHED: Duration = Duration::from_secs(4);
const CONNECTIONS_MAX: usize = 10;
/// How long a client is watched that must not send a message again.
const AGAIN: Duration = Duration::from_millis(500);

const BACK_OFF: &str = "back-off";
const RECONNECTS: &str = "reconnects with a back-off, registers and subscribes again";
const RECONNECT: &str = "after this end, connect again with a back-off of full jitter from 250 ms to 30 s; then register, and subscribe \
     to everything again unless the session was resumed";
const STOPS: &str = "stops, and does not connect again";
const STOP: &str = "after this code, connecting again cannot help or would harm: stop, and say why";
const DROPS: &str = "reconnects, and does not send the message again because of which the connection was closed";
const DROP: &str =
    "the broker closed because of a message: report it, connect again with a back-off, and do not repeat the message";

const fn script(name: &'static str, judges: &'static str, mend: &'static str, play: Play) -> Script {
    Suite::Client.script(name, "close-codes", judges, mend, play)
}

pub(super) const SCRIPTS: &[Script] = &[
    script("connection-lost", RECONNECTS, RECONNECT, |it| Box::pin(connection_lost(it))),
    script("close-without-code", RECONNECTS, RECONNECT, |it| Box::pin(close_without_code(it))),
    script("close-1001", RECONNECTS, RECONNECT, |it| Box::pin(reconnects(it, 1001))),
    script("close-1002", DROPS, DROP, |it| Box::pin(drops(it, 1002))),
    script("close-1007", DROPS, DROP, |it| Box::pin(drops(it, 1007))),
    script("close-1008", RECONNECTS, RECONNECT, |it| Box::pin(reconnects(it, 1008))),
    script("close-1009", DROPS, DROP, |it| Box::pin(drops(it, 1009))),
    script("close-1011", RECONNECTS, RECONNECT, |it| Box::pin(reconnects(it, 1011))),
    script(
        "close-1012",
        "reconnects when ReconnectAfterMs has passed since the Close frame",
        "keep ReconnectAfterMs of Broker/Connection/Draining, and begin to count it when the Close frame arrives",
        |it| Box::pin(restart(it)),
    ),
    script(
        "close-4401",
        "asks its token provider for a new token; with a fixed token, stops",
        "the token was refused: the same one is refused again, so get another before you connect, or stop",
        |it| Box::pin(unauthenticated(it)),
    ),
    script("close-4403", STOPS, STOP, |it| Box::pin(stops(it, 4403))),
    script("close-4404", RECONNECTS, RECONNECT, |it| Box::pin(reconnects(it, 4404))),
    script("close-4406", RECONNECTS, RECONNECT, |it| Box::pin(reconnects(it, 4406))),
    script("close-4408", RECONNECTS, RECONNECT, |it| Box::pin(reconnects(it, 4408))),
    script("close-4409", STOPS, STOP, |it| Box::pin(stops(it, 4409))),
    script("close-4410", STOPS, STOP, |it| Box::pin(stops(it, 4410))),
    script("close-4413", RECONNECTS, RECONNECT, |it| Box::pin(reconnects(it, 4413))),
    script("source-in-use", "tries again after a Register that was refused with SOURCE_IN_USE", RECONNECT, |it| {
        Box::pin(source_in_use(it))
    }),
    script("busy", "tries again after a handshake that was refused with 503", RECONNECT, |it| Box::pin(busy(it))),
    script(
        BACK_OFF,
        "connects at most 10 times within 4 s, if each connection is closed at once",
        "wait longer before each attempt, with jitter, and begin anew only after a connection that lasted a while; otherwise \
         the clients of a broker that restarts keep it down",
        |it| Box::pin(back_off(it)),
    ),
];

/// The client is connected again, registered and subscribed, and works.
async fn works_again(player: &mut Player, after: &str) -> Outcome {
    player.open_again(after).await?;
    publishes(player, json!("again")).await
}

async fn connection_lost(player: &mut Player) -> Outcome {
    player.open().await?;
    player.cut();
    works_again(player, "the connection was lost").await
}

async fn close_without_code(player: &mut Player) -> Outcome {
    player.open().await?;
    player.close_without_code().await;
    works_again(player, "a Close without a code").await
}

/// The words for a close in what was expected.
fn close_words(code: u16) -> String {
    format!("a Close with {code}")
}

async fn reconnects(player: &mut Player, code: u16) -> Outcome {
    player.open().await?;
    player.close(code, "the script closes").await;
    works_again(player, &close_words(code)).await
}

async fn stops(player: &mut Player, code: u16) -> Outcome {
    player.open().await?;
    player.close(code, "the script closes").await;
    player.stays_away(&close_words(code)).await
}

async fn drops(player: &mut Player, code: u16) -> Outcome {
    player.open().await?;
    player.receipts = false;
    publishes(player, json!("to be dropped")).await?;
    player.close(code, "the script closes because of this message").await;
    player.receipts = true;
    player.open_again(&close_words(code)).await?;
    tell(player, "Publish", json!("another")).await;
    let expected = format!("no repetition of the message before {}", close_words(code));
    let received = player.next("Conformance/Done/Publish with other data").await?;
    let repeated = match received.payload() == "to be dropped" {
        true => Some(received),
        false => player.next_within(AGAIN).await?,
    };
    match repeated {
        None => Ok(()),
        Some(received) if received.payload() == "to be dropped" => {
            Err(Failure::new(expected, "the same message once more"))
        }
        Some(received) => Err(Failure::new("one Conformance/Done/Publish", received.describe())),
    }
}

async fn restart(player: &mut Player) -> Outcome {
    player.open().await?;
    let pause = u64::try_from(DRAIN.as_millis()).unwrap_or(u64::MAX);
    player.send(notice::draining(pause)).await;
    publishes(player, json!("while draining")).await?;
    // Measured from before the Close frame, because the client can only count from later.
    let closed = Instant::now();
    player.close(1012, "restarting").await;
    let expected = format!("a connection {DRAIN:?} after the Close with 1012");
    let waited = player.connected(&expected).await?.duration_since(closed);
    if waited + TOLERANCE < DRAIN {
        return Err(Failure::new(expected, format!("one after {waited:.1?}")));
    }
    let registration = player.register("a Register on the connection after the restart").await?;
    player.accept(registration.not_resumed("UNKNOWN")).await;
    player.subscribed().await?;
    publishes(player, json!("again")).await
}

async fn unauthenticated(player: &mut Player) -> Outcome {
    let first = player.register("a Register as the first message").await?;
    player.accept(json!({})).await;
    player.subscribed().await?;
    player.close(4401, "the proof has expired").await;
    let watched = Instant::now() + Duration::from_secs(3);
    if player.connected_before(watched).await.is_none() {
        return Ok(());
    }
    let again = player.register("a Register with another token").await?;
    if again.token.is_none() || again.token == first.token {
        return Err(Failure::new(
            "another token after a Close with 4401, or no connection",
            "a connection with the same token",
        ));
    }
    Ok(())
}

async fn source_in_use(player: &mut Player) -> Outcome {
    player.open().await?;
    player.cut();
    player.register_again("the connection was lost").await?;
    player.refuse_register(ErrorCode::SourceInUse, "the source is taken, since 2026-01-01T00:00:00Z").await;
    player.close(4404, "source in use").await;
    works_again(player, "SOURCE_IN_USE").await
}

async fn busy(player: &mut Player) -> Outcome {
    player.open().await?;
    player.refuse(1);
    player.cut();
    works_again(player, "the connection was lost and a handshake was refused with 503").await?;
    match player.refusals_left() {
        0 => Ok(()),
        _ => Err(Failure::new("a handshake that is refused with 503", "no handshake")),
    }
}

async fn back_off(player: &mut Player) -> Outcome {
    player.open().await?;
    player.close(1001, "the script closes").await;
    player.connected("another connection after a Close with 1001").await?;
    let until = Instant::now() + WATCHED;
    let mut connections = 1;
    loop {
        // Some clients begin their back-off anew as soon as they are registered.
        let registration = player.register("a Register on each connection").await?;
        player.accept(registration.not_resumed("UNKNOWN")).await;
        player.close(1001, "the script closes").await;
        if player.connected_before(until).await.is_none() {
            return Ok(());
        }
        connections += 1;
        if connections > CONNECTIONS_MAX {
            let expected = format!("at most {CONNECTIONS_MAX} connections within {WATCHED:?}");
            return Err(Failure::new(expected, format!("{connections} and more")));
        }
    }
}
