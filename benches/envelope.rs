//! What does it cost to read an envelope, beside building it as a `serde_json::Value`?

#![allow(clippy::unwrap_used, reason = "a bench fails loudly")]

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use serde_json::Value;
use switchboard::websocket::Frame;
use wire::{DecodeLimits, Field, Splice, decode};

#[path = "support/nested.rs"]
mod nested;

/// Bytes of the payload, about.
const SIZES: [usize; 3] = [256, 4 << 10, 64 << 10];

fn main() {
    divan::main();
}

#[divan::bench(args = SIZES)]
fn decode_in_one_pass(bencher: Bencher<'_, '_>, bytes: usize) {
    let text = nested::envelope(bytes);
    bencher.counter(BytesCount::of_str(&text)).bench_local(|| decode(black_box(&text), DecodeLimits::client(128)));
}

#[divan::bench(args = SIZES)]
fn decode_with_serde_json_value(bencher: Bencher<'_, '_>, bytes: usize) {
    let text = nested::envelope(bytes);
    bencher.counter(BytesCount::of_str(&text)).bench_local(|| serde_json::from_str::<Value>(black_box(&text)));
}

#[divan::bench(args = SIZES)]
fn splice_an_id(bencher: Bencher<'_, '_>, bytes: usize) {
    let text = nested::envelope(bytes);
    let envelope = decode(&text, DecodeLimits::client(128)).unwrap();
    bencher
        .counter(BytesCount::of_str(&text))
        .bench_local(|| Frame::from(Splice::new(black_box(&envelope)).cut(Field::Id).string("id", "r1")));
}

#[divan::bench(args = SIZES)]
fn splice_with_serde_json_value(bencher: Bencher<'_, '_>, bytes: usize) {
    let text = nested::envelope(bytes);
    bencher.counter(BytesCount::of_str(&text)).bench_local(|| {
        let mut value: Value = serde_json::from_str(black_box(&text)).unwrap();
        value.as_object_mut().unwrap().insert("id".into(), "r1".into());
        serde_json::to_string(&value)
    });
}
