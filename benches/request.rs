//! What does a request and its answer cost in the router? From the requester's text to the answer in its outbox, with one
//! handler and among many.

#![allow(clippy::unwrap_used, reason = "a bench fails loudly")]

use divan::{Bencher, black_box};
use wire::command::Role;
use wire::{DecodeLimits, decode};

use crate::support::Broker;

mod support;

fn main() {
    divan::main();
}

/// `handlers`: those of one triple, the least busy of which is asked.
#[divan::bench(args = [1, 10])]
fn request_and_reply(bencher: Bencher<'_, '_>, handlers: usize) {
    let broker = Broker::new();
    let asker = broker.attach("gadget");
    let handlers: Vec<_> = (0..handlers).map(|_| broker.attach("crm")).collect();
    for handler in &handlers {
        broker.subscribe(handler, "Crm/Contact/Find", Role::Handler { answers: true, ordered: false, replies: vec![] });
    }
    let question = support::event(["Crm", "Contact", "Find"], 256).replace("softphone", "gadget");
    let reply = support::event(["Crm", "Contact", "Find"], 256).replace("softphone", "crm");
    let mut batch = Vec::new();
    bencher.bench_local(|| {
        broker.send(&asker, black_box(&question));
        let asked = handlers.iter().find(|handler| !handler.outbox().is_empty()).unwrap();
        let frame = support::take(broker.now, asked, &mut batch);
        let id = decode(frame.text(), DecodeLimits::OWN).unwrap().id().unwrap().to_owned();
        broker.send(asked, &reply.replacen('{', &format!(r#"{{"inReplyTo":"{id}","#), 1));
        support::take(broker.now, &asker, &mut batch)
    });
}
