//! A crowd that comes at once: room is made for it before it comes (Linux).

#![cfg(target_os = "linux")]

use std::net::TcpStream;
use std::path::PathBuf;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Broker, DEADLINE, envelope, within};

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

#[tokio::test]
async fn without_descriptors_sessions_go_on_and_files_can_be_opened() {
    const FILES: u32 = 200;
    let broker = Broker::with_open_files(FILES).await;
    broker.credentials_set("local", "1001", "s3cret", "5051").await;
    let (mut app, mut other) = (broker.app("app").await, broker.app("other").await);
    other.subscribe("Phone/Call/Ringing").await;
    let connect = || tokio::net::TcpStream::connect(broker.address());
    let mut crowd = Vec::new();
    for _ in 0..FILES {
        crowd.push(connect().await.unwrap());
    }
    broker.log_until("a line about the descriptors", |log| log.contains("nearly out of file descriptors")).await;
    let mut late = connect().await.unwrap();
    late.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let in_use = || std::fs::read_dir(format!("/proc/{}/fd", broker.process())).unwrap().count();
    assert!(in_use() <= FILES as usize - 64, "{} of {FILES}", in_use());
    app.send(envelope("Phone/Call/Ringing", json!({"data": 1}))).await;
    assert_eq!(other.next().await["data"], 1);
    // Opens the store and the audit log.
    app.send(envelope("Salesforce/User/FetchCredentials", json!({"id": "1"}))).await;
    assert_eq!(app.next().await["data"]["Success"], true);
    assert_eq!(late.try_read(&mut [0; 1]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    drop(crowd);
    assert_eq!(within("an answer", late.read_u8()).await.unwrap(), b'H');
    assert_eq!(broker.log().matches("file descriptors").count(), 1, "{}", broker.log());
}
