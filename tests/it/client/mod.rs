//! The Rust client, against a broker that the test plays.

mod chaos;
mod close_codes;
mod connecting;
mod cutting_proxy;
mod encrypted;
pub(crate) mod fake_broker;
mod publishing;
mod python;
mod reconnecting;
mod recovering;
mod requesting;
mod resuming;
mod serving;
mod subscribing;
mod timing;
pub(crate) mod tls_proxy;
mod tokens;
mod unix_socket;

use std::future::IntoFuture;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use serde_json::{Value, json};
use switchboard_client::{
    Builder, Client, Error, Failure, Gathered, Message, Payload, Reply, State, Subscription, Triple,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;
use wire::ErrorCode;

use crate::client::fake_broker::{FakeBroker, Peer, event, request, triple};

fn builder(broker: &FakeBroker) -> Builder {
    Client::builder(broker.url()).source("softphone").backoff(Duration::from_millis(1), Duration::from_millis(5))
}

/// A registered client and its broker's end.
async fn session() -> (FakeBroker, Client, Peer<TcpStream>) {
    let broker = FakeBroker::start().await;
    let (client, (peer, _)) = tokio::join!(builder(&broker).connect(), broker.session());
    (broker, client.unwrap(), peer)
}

async fn subscribe(client: &Client, peer: &mut Peer<TcpStream>, pattern: &str) -> Subscription {
    let (subscription, _) = tokio::join!(client.subscribe(pattern.parse().unwrap()).into_future(), peer.grant());
    subscription.unwrap()
}

fn find() -> Triple<'static> {
    Triple::new("Crm", "Contact", "Find")
}

async fn next(subscription: &mut Subscription) -> Value {
    let message = timeout(Duration::from_secs(5), subscription.next()).await.expect("no message");
    message.expect("the subscription has ended").data().unwrap()
}

async fn expect_state(states: &mut (impl Stream<Item = State> + Unpin), fits: impl Fn(&State) -> bool) -> State {
    let search = async {
        loop {
            let state = states.next().await.expect("the states have ended");
            if fits(&state) {
                return state;
            }
        }
    };
    timeout(Duration::from_hours(1), search).await.expect("the state never came")
}

fn is_connected(state: &State) -> bool {
    matches!(state, State::Connected(_))
}

#[tokio::test]
async fn debug_shows_no_payload() {
    let (_broker, client, mut peer) = session().await;
    let mut events = subscribe(&client, &mut peer, "Phone/*/*").await;
    peer.say(event("Phone/Call/Ringing", json!({ "Success": false, "Password": "acq@123" }))).await;
    let message: Message = events.next().await.unwrap();
    let failure = message.failure().unwrap();
    let shown = format!("{message:?} {failure:?} {:?}", Error::from(failure.clone()));
    assert!(shown.contains("Phone/Call/Ringing") && !shown.contains("acq@123"), "{shown}");
}
