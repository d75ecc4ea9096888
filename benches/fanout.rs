//! What does one more receiver cost? An event for 1, 100 and 1,000 sessions through the router, each of which takes it,
//! beside a broker that copies the text for each.

#![allow(clippy::unwrap_used, reason = "a bench fails loudly")]

use std::sync::Arc;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use switchboard::router::{OnFull, Session};
use switchboard::websocket::Frame;
use wire::command::Role;

use crate::support::Broker;

mod support;

/// Receivers, and bytes of the payload.
const LOADS: [(usize, usize); 4] = [(1, 256), (100, 256), (1_000, 256), (1_000, 4 << 10)];

fn main() {
    divan::main();
}

struct Stage {
    broker: Broker,
    sender: Arc<Session>,
    receivers: Vec<Arc<Session>>,
    text: String,
}

impl Stage {
    fn new((receivers, bytes): (usize, usize)) -> Self {
        let broker = Broker::new();
        let sender = broker.attach("softphone");
        let receivers: Vec<_> = (0..receivers).map(|_| broker.attach("gadget")).collect();
        for receiver in &receivers {
            broker.subscribe(receiver, "Phone/Call/Ringing", Role::Subscriber);
        }
        Self { broker, sender, receivers, text: support::event(["Phone", "Call", "Ringing"], bytes) }
    }

    fn take_all(&self, batch: &mut Vec<Frame>) {
        for receiver in &self.receivers {
            black_box(support::take(self.broker.now, receiver, batch));
        }
    }
}

#[divan::bench(args = LOADS)]
fn share_one_frame(bencher: Bencher<'_, '_>, load: (usize, usize)) {
    let stage = Stage::new(load);
    let mut batch = Vec::new();
    bencher.counter(ItemsCount::new(load.0)).bench_local(|| {
        stage.broker.send(&stage.sender, black_box(&stage.text));
        stage.take_all(&mut batch);
    });
}

#[divan::bench(args = LOADS)]
fn copy_for_each_receiver(bencher: Bencher<'_, '_>, load: (usize, usize)) {
    let stage = Stage::new(load);
    let now = stage.broker.now;
    let mut batch = Vec::new();
    bencher.counter(ItemsCount::new(load.0)).bench_local(|| {
        for receiver in &stage.receivers {
            receiver.outbox().push(now, Frame::new(black_box(&stage.text)), OnFull::Close).unwrap();
        }
        stage.take_all(&mut batch);
    });
}
