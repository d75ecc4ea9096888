//! `_catalogue.py` is printed from the broker's catalogue of codes.

use std::fmt::Write as _;
use std::path::Path;

use wire::{CloseCode, ErrorCode, Reconnect};

use crate::support::programs::PYTHON_CLIENT;

const FILE: &str = "src/switchboard_client/_catalogue.py";

/// The name of a member of the enum `Reconnect`.
const fn name(reconnect: Reconnect) -> &'static str {
    match reconnect {
        Reconnect::BackOff => "BACK_OFF",
        Reconnect::DropMessage => "DROP_MESSAGE",
        Reconnect::AfterDelay => "AFTER_DELAY",
        Reconnect::NewToken => "NEW_TOKEN",
        Reconnect::Stop => "STOP",
    }
}

fn printed() -> String {
    let (mut codes, mut retryable, mut closes) = (String::new(), String::new(), String::new());
    for code in ErrorCode::ALL {
        writeln!(codes, "    \"{code}\",").unwrap();
        let value = if code.retryable() { "True" } else { "False" };
        writeln!(retryable, "    \"{code}\": {value},").unwrap();
    }
    for code in CloseCode::ALL {
        writeln!(closes, "    {}: Reconnect.{},", code.code(), name(code.reconnect())).unwrap();
    }
    include_str!("catalogue.py.in")
        .replace("    CODES\n", &codes)
        .replace("    RETRYABLE\n", &retryable)
        .replace("    CLOSES\n", &closes)
}

#[test]
fn the_python_client_has_the_brokers_codes() {
    let found = std::fs::read_to_string(Path::new(PYTHON_CLIENT).join(FILE)).unwrap();
    assert_eq!(found, printed(), "{PYTHON_CLIENT}/{FILE} is stale; write what is on the right");
}
