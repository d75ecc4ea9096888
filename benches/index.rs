//! Does matching cost the same among ten unrelated subscriptions and among a million? An event finds its one receiver,
//! through the router, beside a loop over all patterns.

#![allow(clippy::unwrap_used, reason = "a bench fails loudly")]

use divan::{Bencher, black_box};
use wire::command::Role;
use wire::{Pattern, Triple};

use crate::support::Broker;

mod support;

/// Unrelated subscriptions.
const CROWDS: [usize; 3] = [10, 1_000, 1_000_000];

/// Subscriptions that one session of the crowd holds.
const HELD: usize = 100;

const TRIPLE: [&str; 3] = ["Phone", "Call", "Ringing"];

fn main() {
    divan::main();
}

fn exact(number: usize) -> String {
    format!("Phone/topic{number}/Ringing")
}

/// Every shape of wildcards is in use, and none of these matches.
fn wildcard(number: usize) -> String {
    match number % 7 {
        0 => format!("Phone/topic{number}/Ringing"),
        1 => format!("Phone/topic{number}/*"),
        2 => format!("Phone/*/subtopic{number}"),
        3 => format!("channel{number}/*/*"),
        4 => format!("*/topic{number}/Ringing"),
        5 => format!("*/*/subtopic{number}"),
        _ => format!("*/topic{number}/*"),
    }
}

/// Publishes to one receiver among a crowd.
fn publish(bencher: Bencher<'_, '_>, crowd: usize, pattern: fn(usize) -> String) {
    let broker = Broker::new();
    let (sender, receiver) = (broker.attach("softphone"), broker.attach("gadget"));
    broker.subscribe(&receiver, "Phone/Call/*", Role::Subscriber);
    for first in (0..crowd).step_by(HELD) {
        let other = broker.attach("other");
        for number in first..crowd.min(first + HELD) {
            broker.subscribe(&other, &pattern(number), Role::Subscriber);
        }
    }
    let text = support::event(TRIPLE, 256);
    let mut batch = Vec::new();
    bencher.bench_local(|| {
        broker.send(&sender, black_box(&text));
        support::take(broker.now, &receiver, &mut batch)
    });
}

#[divan::bench(args = CROWDS)]
fn publish_among_exact(bencher: Bencher<'_, '_>, crowd: usize) {
    publish(bencher, crowd, exact);
}

#[divan::bench(args = CROWDS)]
fn publish_among_wildcards(bencher: Bencher<'_, '_>, crowd: usize) {
    publish(bencher, crowd, wildcard);
}

#[divan::bench(args = CROWDS, sample_count = 20)]
fn loop_over_all_patterns(bencher: Bencher<'_, '_>, crowd: usize) {
    let patterns: Vec<Pattern> = (0..crowd).map(|number| wildcard(number).parse().unwrap()).collect();
    let [channel, topic, subtopic] = TRIPLE;
    let triple = Triple::new(channel, topic, subtopic);
    bencher.bench_local(|| patterns.iter().filter(|pattern| pattern.matches(black_box(&triple))).count());
}
