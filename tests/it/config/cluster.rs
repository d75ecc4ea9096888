//! `[cluster]`: what it needs, and what cannot be used with it.

use std::time::Duration;

use super::{Given, check, load, told};

/// A table without a mistake.
const TABLE: &str = "[cluster]\nname = 'site-a'\nservers = ['nats://10.0.0.1:4222']\nkey_file = '/k'\n";

fn check_with(more: &str, expected: &str) {
    let file = format!("{TABLE}{more}");
    check(&Given { file: Some(&file), ..Given::default() }, expected);
}

#[test]
fn a_cluster_needs_a_name_servers_and_a_key() {
    let file = "[cluster]\nnode = 'a'";
    check(
        &Given { file: Some(file), ..Given::default() },
        "2: cluster.name: is required with [cluster]
         2: cluster.servers: is required with [cluster]
         2: cluster.key_file: is required with [cluster]",
    );
}

#[test]
fn names_and_servers_have_their_form() {
    check_with("node = 'a b'", "5: cluster.node: must be 1 to 64 letters, digits, '_' and '-'");
    let file = TABLE.replace("nats://10.0.0.1:4222", "http://x");
    check(&Given { file: Some(&file), ..Given::default() }, "3: cluster.servers[0]: must begin with nats:// or tls://");
    let file = TABLE.replace("10.0.0.1:4222", "10.0.0.1");
    check(
        &Given { file: Some(&file), ..Given::default() },
        "3: cluster.servers[0]: must be nats://HOST:PORT or tls://HOST:PORT",
    );
    let file = TABLE.replace("10.0.0.1", "me:secret@10.0.0.1");
    let said = told(&load(&Given { file: Some(&file), ..Given::default() }));
    assert!(said.contains("must not hold a user or a password") && !said.contains("secret"), "{said}");
}

#[test]
fn a_node_proves_itself_in_one_way() {
    check_with(
        "token_file = '/t'\nuser_file = '/u'",
        "5: cluster.token_file: cannot be used with cluster.user_file: a node proves itself in one way",
    );
    check_with("certificate_file = '/c'", "5: cluster.certificate_file: needs cluster.certificate_key_file beside it");
}

#[test]
fn ids_that_outlive_their_events_are_a_mistake() {
    check_with(
        "[history]\nretry = '3h'\n[channels.Queue]\nhistory = { size = 10, ttl = '1m' }",
        "6: history.retry: is longer than the channel Queue keeps its events in a cluster: ttl and at least an hour more",
    );
}

#[test]
fn a_drain_takes_longer_in_a_cluster_unless_its_time_is_written() {
    let drain = |more: &str| {
        let file = format!("{TABLE}{more}");
        load(&Given { file: Some(&file), ..Given::default() }).unwrap().limits.drain
    };
    assert_eq!(drain(""), Duration::from_secs(45));
    assert_eq!(drain("[limits]\ndrain = '7s'"), Duration::from_secs(7));
    assert_eq!(load(&Given::default()).unwrap().limits.drain, Duration::from_secs(30));
}
