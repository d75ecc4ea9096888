//! [`ATTACKS`]: what sessions of one user, or strangers, can do to make everybody else wait. Each is a process of its own.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::stream::{command, handshake_on, session};
use crate::wire;

/// One way to make others wait.
pub(crate) struct Attack {
    pub(crate) name: &'static str,
    run: fn(address: &str),
}

pub(crate) const ATTACKS: &[Attack] = &[
    Attack { name: "hints", run: hints },
    Attack { name: "groups", run: groups },
    Attack { name: "retained", run: retained },
    Attack { name: "deep JSON", run: deep_json },
    Attack { name: "fragments", run: fragments },
    Attack { name: "silent", run: silent },
    Attack { name: "registering", run: registering },
];

/// The user of the sessions that attack.
const USER: &str = "mallory";

/// What has been sent so far: messages, or connections of the silent ones.
static SENT: AtomicU64 = AtomicU64::new(0);

/// Attacks the broker until the process is killed. Prints `ready` and then, ten times a second, how much it has sent.
pub(crate) fn run(name: &str, address: &str) {
    let attack = ATTACKS.iter().find(|attack| attack.name == name).expect("an attack");
    (attack.run)(address);
    println!("ready");
    loop {
        thread::sleep(Duration::from_millis(100));
        println!("{}", SENT.load(Ordering::Relaxed));
    }
}

/// Sends `bytes`, which are `messages` messages, again and again, on `sessions` connections. One that the broker closes is
/// opened again.
fn flood(address: &str, sessions: usize, open: fn(&str) -> TcpStream, bytes: &[u8], messages: u64) {
    for _ in 0..sessions {
        let (address, bytes) = (address.to_owned(), bytes.to_vec());
        thread::spawn(move || {
            loop {
                let mut stream = open(&address);
                discard(&stream);
                while stream.write_all(&bytes).is_ok() {
                    SENT.fetch_add(messages, Ordering::Relaxed);
                }
            }
        });
    }
}

/// Reads everything that comes and drops it. Keeps the connection open.
fn discard(stream: &TcpStream) {
    let mut stream = stream.try_clone().unwrap();
    thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(1..) = stream.read(&mut buffer) {}
    });
}

fn attacker(address: &str) -> TcpStream {
    session(address, "attacker", USER)
}

fn unregistered(address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    handshake_on(&mut stream, address);
    stream
}

fn event([channel, topic, subtopic]: [&str; 3], more: &str) -> String {
    format!(r#"{{"channel":"{channel}","topic":"{topic}","subtopic":"{subtopic}"{more}}}"#)
}

fn subscribe_with([channel, topic, subtopic]: [&str; 3], more: &str) -> String {
    let pattern = format!(r#""channel":"{channel}","topic":"{topic}","subtopic":"{subtopic}"{more}"#);
    format!(r#"{{"channel":"Broker","topic":"Subscription","subtopic":"Subscribe","data":{{{pattern}}}}}"#)
}

fn unsubscribe([channel, topic, subtopic]: [&str; 3]) -> String {
    let pattern = format!(r#""channel":"{channel}","topic":"{topic}","subtopic":"{subtopic}""#);
    format!(r#"{{"channel":"Broker","topic":"Subscription","subtopic":"Unsubscribe","data":{{{pattern}}}}}"#)
}

/// Frames of texts, one after the other.
fn frames(texts: impl IntoIterator<Item = String>) -> Vec<u8> {
    texts.into_iter().flat_map(|text| wire::frame(&text)).collect()
}

/// Triples that differ a little from those of many handlers.
fn hints(address: &str) {
    const HANDLERS: usize = 256;
    let mut handler = attacker(address);
    for number in 0..HANDLERS {
        let (topic, subtopic) = (format!("{number:0>3}{}", "x".repeat(28)), "y".repeat(31));
        command(&mut handler, &subscribe_with(["Hints", &topic, &subtopic], r#","role":"handler""#));
    }
    discard(&handler);
    let near = |number: usize, more: &str| {
        let (topic, subtopic) = (format!("{number:0>3}{}z", "x".repeat(27)), format!("{}z", "y".repeat(30)));
        event(["Hinst", &topic, &subtopic], more)
    };
    let events = (0..HANDLERS).flat_map(|number| {
        [near(number, r#","id":"e""#), near(number, ""), near(number, r#","id":"r","timeout":1000"#)]
    });
    flood(address, 2, attacker, &frames(events), 3 * HANDLERS as u64);
}

/// Sessions in as many groups as one may have, on the shared channel that everybody publishes to.
fn groups(address: &str) {
    const GROUPS: usize = 16;
    let pattern = ["Stall", "Paced", "*"];
    let join = |number: usize| subscribe_with(pattern, &format!(r#","group":"g{number}""#));
    for _ in 0..20 {
        let mut member = attacker(address);
        for number in 0..GROUPS {
            command(&mut member, &join(number));
        }
        discard(&member);
    }
    let again = (0..GROUPS).map(join).chain([unsubscribe(pattern)]);
    flood(address, 4, attacker, &frames(again), GROUPS as u64 + 1);
}

/// Subscriptions that bring thousands of retained values, again and again.
fn retained(address: &str) {
    const VALUES: usize = 5_000;
    let mut keeper = attacker(address);
    let payload = "v".repeat(1 << 10);
    for number in 0..VALUES {
        let value = event(["Kept", "Value", &number.to_string()], &format!(r#","retain":true,"data":"{payload}""#));
        keeper.write_all(&wire::frame(&value)).unwrap();
    }
    command(&mut keeper, r#"{"channel":"Broker","topic":"Connection","subtopic":"Ping"}"#);
    let pattern = ["Kept", "*", "*"];
    flood(address, 8, attacker, &frames([subscribe_with(pattern, ""), unsubscribe(pattern)]), 2);
}

/// The largest messages, which nest as deeply as the limit allows, or are full of escapes.
fn deep_json(address: &str) {
    const BYTES: usize = 1_000_000;
    let nested = format!("{}{}", "[".repeat(120), "]".repeat(120));
    let escaped = r#"{"\u006b\u0065y":"\ud83d\ude00\n"}"#;
    for element in [nested.as_str(), "[]", escaped, "-1.5e-9"] {
        let elements = vec![element; BYTES / (element.len() + 1)].join(",");
        let text = event(["Deep", "Json", "Event"], &format!(r#","data":[{elements}]"#));
        flood(address, 1, attacker, &wire::frame(&text), 1);
    }
}

/// Empty fragments and pings, before and after registration.
fn fragments(address: &str) {
    const FRAMES: usize = 10_000;
    // A mask of zeros is a mask.
    let empty = |first: u8| [first, 0x80, 0, 0, 0, 0];
    let message = [&empty(0x01), empty(0x00).repeat(FRAMES).as_slice(), &empty(0x80)].concat();
    for open in [attacker, unregistered] {
        flood(address, 2, open, &message, FRAMES as u64);
        flood(address, 2, open, &empty(0x89).repeat(FRAMES), FRAMES as u64);
    }
}

/// Connections that send nothing, or half a head. The oldest make room for new ones.
fn silent(address: &str) {
    const CONNECTIONS: usize = 3_000;
    let connect = |number: usize, address: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        if number.is_multiple_of(2) {
            stream.write_all(b"GET /ws HTTP/1.1\r\nHost: loc").unwrap();
        }
        SENT.fetch_add(1, Ordering::Relaxed);
        stream
    };
    let mut silent: VecDeque<TcpStream> = (0..CONNECTIONS).map(|number| connect(number, address)).collect();
    let address = address.to_owned();
    thread::spawn(move || {
        for number in 0.. {
            silent.pop_front();
            silent.push_back(connect(number, &address));
            thread::sleep(Duration::from_millis(1));
        }
    });
}

/// Sessions that register and unregister without a pause.
fn registering(address: &str) {
    const PAIRS: usize = 100;
    let unregister = r#"{"channel":"Broker","topic":"Application","subtopic":"Unregister"}"#;
    let texts = (0..PAIRS).flat_map(|_| [unregister.to_owned(), wire::register("attacker", USER)]);
    flood(address, 8, attacker, &frames(texts), 2 * PAIRS as u64);
}
