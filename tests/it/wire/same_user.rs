//! `http.same_user`: which operating-system users of this host may connect over TCP.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::support::http::{HANDSHAKE, http, read_response};
use crate::support::os_user::{OsUser, SharedProgram, outer_address};
use crate::support::{Broker, within};

const REFUSAL: &str = "this broker serves the user it runs as; see http.os_users and http.same_user";
const PROBE: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[track_caller]
fn assert_refused(response: &str) {
    assert!(response.starts_with("HTTP/1.1 403 ") && response.ends_with(&format!("\r\n\r\n{REFUSAL}\n")), "{response}");
}

fn port_of(url: &str) -> u16 {
    url.rsplit_once(':').unwrap().1.trim_end_matches("/ws").parse().unwrap()
}

#[tokio::test]
async fn a_neighbour_on_the_same_machine_is_refused_on_every_path_before_any_other_check() {
    let Some(neighbour) = OsUser::daemon() else { return };
    let broker = Broker::start().await;
    let port = broker.address().port();
    for head in [
        HANDSHAKE,
        PROBE,
        "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n",
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "BREW /nowhere?token=t HTTP/1.1\r\nHost: evil.example\r\nOrigin: null\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
    ] {
        assert_refused(&neighbour.http("127.0.0.1", port, head).await);
    }
    // By an IPv6 socket to the same listener.
    assert_refused(&neighbour.http("::ffff:127.0.0.1", port, HANDSHAKE).await);
    assert_eq!(http(broker.address(), PROBE).await.status, 200);
    broker
        .log_until("the refusal", |log| log.contains("reason=\"os_user\"") && log.contains("key=\"http.same_user\""))
        .await;
}

#[tokio::test]
async fn a_neighbour_is_refused_over_ipv6() {
    let Some(neighbour) = OsUser::daemon() else { return };
    let broker = Broker::launch(None, &["--listen", "[::1]:0"]).await;
    let port = port_of(&broker.urls()[1]);
    assert_refused(&neighbour.http("::1", port, HANDSHAKE).await);
    assert_eq!(http(format!("[::1]:{port}").parse().unwrap(), PROBE).await.status, 200);
}

#[tokio::test]
async fn the_users_of_os_users_may_connect_and_the_one_that_stands_for_unknown_users_never() {
    let (Some(named), Some(other), Some(nobody)) = (OsUser::daemon(), OsUser::mail(), OsUser::nobody()) else { return };
    let names = format!("['{}', '{}']", named.name(), nobody.name());
    let broker = Broker::open_with(&format!("http.os_users = {names}")).await;
    let port = broker.address().port();
    assert!(named.http("127.0.0.1", port, PROBE).await.starts_with("HTTP/1.1 200 "));
    assert_refused(&other.http("127.0.0.1", port, PROBE).await);
    assert_refused(&nobody.http("127.0.0.1", port, PROBE).await);
    assert!(broker.log().contains("http.os_users: 'nobody' has no effect"), "{}", broker.log());
}

#[tokio::test]
async fn written_as_false_every_user_may_connect_and_serve_warns() {
    let Some(neighbour) = OsUser::daemon() else { return };
    let broker = Broker::open_with("http.same_user = false").await;
    assert!(neighbour.http("127.0.0.1", broker.address().port(), PROBE).await.starts_with("HTTP/1.1 200 "));
    assert!(broker.log().contains("warning: http.same_user is false"), "{}", broker.log());
}

/// With a listener beyond loopback the default is false. Written as true, it also covers this host's other addresses.
#[tokio::test]
async fn beyond_loopback_it_is_off_and_written_as_true_it_covers_every_address_of_this_host() {
    let (Some(neighbour), Some(address)) = (OsUser::daemon(), outer_address()) else { return };
    for (more, is_refused) in [("", false), ("same_user = true", true)] {
        let toml = format!("[http]\ninsecure = true\n{more}");
        let broker = Broker::launch(Some(&toml), &["--listen", &format!("{address}:0")]).await;
        let port = port_of(&broker.urls()[1]);
        for (to, port) in [(address.to_string(), port), ("127.0.0.1".to_owned(), broker.address().port())] {
            let response = neighbour.http(&to, port, &PROBE.replace("localhost", "127.0.0.1")).await;
            assert_eq!(response.ends_with(&format!("{REFUSAL}\n")), is_refused, "{to}: {response}");
        }
        let own = http(format!("{address}:{port}").parse().unwrap(), PROBE).await;
        assert_eq!(own.status, 200, "{}", own.body);
    }
}

/// The kernel shows the user id 0 for a socket that is closed. The broker, which is stopped meanwhile, finds such a one.
async fn assert_closed_end_is_refused(broker: &Broker) {
    broker.signal("STOP").await;
    let mut stream = TcpStream::connect(broker.address()).await.unwrap();
    stream.write_all(PROBE.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    broker.signal("CONT").await;
    let response = read_response(&mut stream).await;
    assert_eq!((response.status, response.body.trim_end()), (403, REFUSAL));
    assert_eq!(http(broker.address(), PROBE).await.status, 200);
}

#[tokio::test]
async fn a_connection_whose_other_end_is_closed_is_nobodys() {
    assert_closed_end_is_refused(&Broker::start().await).await;
}

/// A program of another user can use up descriptors and ports of the system. Here the broker has one descriptor left, with
/// which it can read its files.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_reload_that_lacks_descriptors_does_not_turn_it_off() {
    let broker = Broker::open_with("limits.rate = 100").await;
    assert_closed_end_is_refused(&broker).await;
    broker.configure("limits.rate = 101\nauth.mode = 'open'\n");
    let before = descriptor_limits(&broker);
    limit_descriptors(&broker, (second_free_descriptor(&broker), before.1));
    let line = broker.reload().await;
    limit_descriptors(&broker, before);
    assert!(line.contains("changed=\"limits.rate\""), "{line}");
    assert!(!broker.log().contains("http.same_user is off"), "{}", broker.log());
    assert_closed_end_is_refused(&broker).await;
}

/// The soft and the hard limit.
#[cfg(target_os = "linux")]
fn descriptor_limits(broker: &Broker) -> (u64, u64) {
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", broker.process())).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let mut limits = line.split_ascii_whitespace().map(|limit| limit.parse().unwrap());
    (limits.next().unwrap(), limits.next().unwrap())
}

#[cfg(target_os = "linux")]
fn second_free_descriptor(broker: &Broker) -> u64 {
    let is_free = |number: &u64| !std::fs::exists(format!("/proc/{}/fd/{number}", broker.process())).unwrap();
    (0..).filter(is_free).nth(1).unwrap()
}

#[cfg(target_os = "linux")]
fn limit_descriptors(broker: &Broker, (soft, hard): (u64, u64)) {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let process = Pid::from_raw(broker.process().try_into().unwrap());
    prlimit(process, Resource::Nofile, Rlimit { current: Some(soft), maximum: Some(hard) }).unwrap();
}

/// Proxies such as docker-proxy and `kubectl port-forward` run as root.
#[tokio::test]
async fn root_is_a_neighbour_like_any_other() {
    let Some(user) = OsUser::daemon() else { return };
    let program = SharedProgram::new();
    for (toml, status) in [("", 403), ("http.os_users = ['root']", 200)] {
        let folder = tempfile::tempdir().unwrap();
        user.owns(folder.path());
        let config = folder.path().join("switchboard.toml");
        std::fs::write(&config, toml).unwrap();
        let mut serve = Command::new(program.path());
        serve.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(folder.path().join("data"));
        serve.arg("--config").arg(&config).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = user.runs(&mut serve).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = within("the listener", lines.next_line()).await.unwrap().unwrap();
        let address = line.trim_start_matches("listening on ws://").trim_end_matches("/ws").parse().unwrap();
        assert_eq!(http(address, PROBE).await.status, status, "{toml}");
    }
}

#[tokio::test]
async fn an_unknown_name_is_a_mistake() {
    for command in ["check", "serve"] {
        let mut program = Command::new(env!("CARGO_BIN_EXE_switchboard"));
        program.arg(command).env("SWITCHBOARD__HTTP__OS_USERS", "root, no-such-user").kill_on_drop(true);
        let output = within(command, program.output()).await.unwrap();
        let told = [output.stdout.clone(), output.stderr.clone()].concat();
        let expected = "http.os_users: entry 1 names 'no-such-user', which is not a user of this system";
        assert!(String::from_utf8_lossy(&told).contains(expected), "{output:?}");
        assert_eq!(output.status.code(), Some(2));
    }
}

/// A web socket client prints the refusal.
#[tokio::test]
async fn the_command_line_of_a_neighbour_shows_why() {
    let Some(neighbour) = OsUser::daemon() else { return };
    let (broker, program) = (Broker::start().await, SharedProgram::new());
    let mut command = Command::new(program.path());
    let url = format!("ws://{}/ws", broker.address());
    neighbour.runs(command.args(["pub", "A", "B", "C", "1", "--source", "spy", "--url", &url]));
    let output = within("the command", command.output()).await.unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains(REFUSAL), "{output:?}");
}
