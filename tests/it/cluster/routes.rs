//! Routes between NATS servers that break and heal: every connection between two servers goes through a proxy.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::json;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::interval;

use super::servers::Servers;
use crate::support::{Peer, within};

/// What goes through connections to one port, until they break.
pub(super) struct Proxy {
    broken: watch::Sender<bool>,
    _task: JoinSet<()>,
}

impl Proxy {
    /// Passes connections to `listener` on to this port of this machine.
    pub(super) fn new(listener: std::net::TcpListener, port: u16) -> Self {
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let (broken, is_broken) = watch::channel(false);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut passed = JoinSet::new();
            loop {
                let Ok((mut near, _)) = listener.accept().await else { return };
                let mut is_broken = is_broken.clone();
                passed.spawn(async move {
                    let pass = async {
                        let Ok(mut far) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else { return };
                        copy_bidirectional(&mut near, &mut far).await.ok();
                    };
                    tokio::select! {
                        _ = is_broken.wait_for(|is_broken| *is_broken) => {}
                        () = pass => {}
                    }
                });
            }
        });
        Self { broken, _task: task }
    }

    pub(super) fn set_broken(&self, is_broken: bool) {
        self.broken.send_replace(is_broken);
    }
}

async fn publish(peer: &mut Peer, number: u64) {
    peer.send(json!({ "channel": "Calls", "topic": "Call", "subtopic": "Ringing", "data": number })).await;
}

/// Publishes 600 events in 3 s on one node while the routes break for a while, then until the last one arrives on another node.
/// Returns the numbers that arrived there, and how many gaps were told before the first one that was missing.
async fn broken_for(time: Duration) -> Option<(Vec<u64>, bool)> {
    const EVENTS: u64 = 600;
    let servers = Servers::start_with_proxies(3).await?;
    let (one, two) = tokio::join!(servers.node("one", 0), servers.node("two", 1));
    let mut crm = two.app_of("crm", "alice").await;
    let mut phone = one.app_of("phone", "alice").await;
    crm.subscribe("Calls/*/*").await;
    crm.subscribe("Broker/Cluster/Gap").await;
    let receive = async {
        let (mut numbers, mut gap_is_told) = (Vec::new(), false);
        while numbers.last().is_none_or(|number| *number < EVENTS) {
            let told = crm.next().await;
            if told["channel"] == "Broker" {
                gap_is_told = true;
                continue;
            }
            let number = told["data"].as_u64().unwrap();
            let is_next = numbers.last().is_none_or(|last| number == last + 1);
            assert!(is_next || gap_is_told, "{number} follows {:?}, and no gap was told", numbers.last());
            numbers.push(number);
        }
        (numbers, gap_is_told)
    };
    let send = async {
        let mut often = interval(Duration::from_millis(5));
        for number in 0..EVENTS {
            often.tick().await;
            if number == 100 {
                servers.set_routes_broken(true);
            }
            if number == 100 + u64::try_from(time.as_millis()).unwrap() / 5 {
                servers.set_routes_broken(false);
            }
            publish(&mut phone, number).await;
        }
        servers.set_routes_broken(false);
        // Those that come after the last one of interest show that the link is there again.
        for number in EVENTS.. {
            often.tick().await;
            publish(&mut phone, number).await;
        }
    };
    let both = async {
        tokio::select! {
            received = receive => received,
            () = send => unreachable!("it publishes until the last one has arrived"),
        }
    };
    Some(within("the last event", both).await)
}

#[tokio::test]
async fn nothing_is_lost_when_all_routes_break_for_a_moment() {
    let Some((numbers, gap_is_told)) = broken_for(Duration::from_millis(200)).await else { return };
    assert!(!gap_is_told, "no link broke");
    assert!(numbers.iter().copied().eq(0..=600), "lost, repeated or out of order: {numbers:?}");
}

#[tokio::test]
async fn a_gap_is_told_when_routes_are_broken_for_longer() {
    let Some((numbers, gap_is_told)) = broken_for(Duration::from_millis(2450)).await else { return };
    assert!(gap_is_told);
    assert!(numbers.is_sorted_by(|one, other| one < other), "repeated or out of order: {numbers:?}");
    assert!(numbers.iter().take(90).copied().eq(0..90), "what came before the break is there: {numbers:?}");
}
