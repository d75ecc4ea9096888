//! A crowd that comes at once: room is made for it before it comes (Linux).

#![cfg(target_os = "linux")]

use std::net::TcpStream;
use std::path::PathBuf;

use crate::support::{Broker, DEADLINE};

#[tokio::test]
async fn the_table_of_open_files_is_as_large_as_it_will_have_to_be() {
    let broker = Broker::open_with("[limits]\nconnections = 3000").await;
    let status = PathBuf::from(format!("/proc/{}/status", broker.process()));
    let status = std::fs::read_to_string(status).unwrap();
    // proc_pid_status(5): the slots of the table. A table of a new process has 64, or what its parent had.
    let slots = status.lines().find_map(|line| line.strip_prefix("FDSize:")).unwrap();
    assert!(slots.trim().parse::<u32>().unwrap() >= 3064, "{slots}");
}

#[tokio::test]
async fn who_comes_while_the_broker_is_held_up_is_kept_by_the_system() {
    // What the system allows at most; a connection without room tries again a second later, here without success.
    let allowed = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    let crowd = allowed.trim().parse().unwrap_or(4096).min(3000);
    switchboard::cli::open_files::raise_limit().unwrap();
    let broker = Broker::start().await;
    let address = broker.address();
    broker.signal("STOP").await;
    let connected = tokio::task::spawn_blocking(move || {
        let connect = |_| TcpStream::connect_timeout(&address, DEADLINE);
        (0..crowd).map(connect).collect::<Result<Vec<_>, _>>().map(|streams| streams.len())
    });
    let connected = connected.await.unwrap();
    broker.signal("CONT").await;
    assert_eq!(connected.ok(), Some(crowd));
}
