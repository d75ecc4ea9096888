//! The broker: whether it is up and where, which pages it lets in, and its certificate.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use super::{Finding, Level, Question, Side, finding};
use crate::certificates::Leaf;
use crate::config::{Config, ListenAddress};
use crate::server::calendar;
use crate::server::names::{is_allowed_origin, is_served_host};
use crate::store::read_regular;

/// How long a listener may take to accept a connection, and to answer.
const ANSWER_TIME: Duration = Duration::from_secs(1);

/// How much of an answer is read.
const ANSWER_BYTES_MAX: u64 = 4 << 10;

/// The most addresses that are tried.
const ADDRESSES_MAX: usize = 8;

const DAY: Duration = Duration::from_hours(24);

/// Looks at the broker of this configuration.
pub(super) fn look(config: &Config, running: Option<&[String]>, question: &Question) -> Vec<Finding> {
    let mut findings = match running {
        Some(urls) => vec![finding(
            Side::Broker,
            "listeners",
            Level::Good,
            format!("the broker listens on {}", urls.join(", ")),
            "applications connect to one of these addresses",
        )],
        None => plain(config).take(ADDRESSES_MAX).map(try_address).collect(),
    };
    findings.extend(families(config));
    findings.extend(origin(config, question));
    findings.extend(certificate(config));
    findings
}

/// Returns the URLs of the listeners of a configuration.
pub(super) fn urls(config: &Config) -> Vec<String> {
    let encrypted = config.tls.listen.iter().map(|address| format!("wss://{address}/ws"));
    plain(config).map(|address| format!("ws://{address}/ws")).chain(encrypted).collect()
}

/// Returns the addresses of listeners that do not encrypt.
fn plain(config: &Config) -> impl Iterator<Item = SocketAddr> {
    config.listen.iter().filter_map(|address| match address {
        ListenAddress::Tcp(address) => Some(*address),
        ListenAddress::Unix(_) => None,
    })
}

/// Says what answers at an address.
fn try_address(address: SocketAddr) -> Finding {
    let why = "a page gets nothing but the close code 1006, whatever is wrong there";
    let found = |level, what| finding(Side::Broker, "listeners", level, what, why);
    match ask(address) {
        Ok(text) if text.contains("\"server\":\"switchboard\"") => {
            found(Level::Good, format!("a broker answers on {address}"))
        }
        // The rules of the handshake: another operating-system user, too many connections.
        Ok(text) if text.starts_with("HTTP/1.1 4") || text.starts_with("HTTP/1.1 503") => {
            found(Level::Warning, format!("what answers on {address} refuses this program"))
                .cure("run this command as the user that the broker runs as, or list the user in http.os_users")
        }
        Ok(_) => another_program(address, why),
        // It has closed the connection without an answer, which a broker does not do.
        Err(error) if is_closed(error.kind()) => another_program(address, why),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            found(Level::Bad, format!("nothing listens on {address}")).cure("start the broker: switchboard serve")
        }
        Err(error) => found(Level::Bad, format!("{address} does not answer: {error}"))
            .cure(format!("look at which program holds port {}", address.port())),
    }
}

fn another_program(address: SocketAddr, why: &str) -> Finding {
    finding(Side::Broker, "listeners", Level::Bad, format!("another program holds {address}"), why)
        .cure(format!("end the program that listens on port {}, or set the key 'listen'", address.port()))
}

fn is_closed(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted)
}

/// Gets the first page of an address.
fn ask(address: SocketAddr) -> io::Result<String> {
    let ip = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(_) => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
    };
    let address = SocketAddr::new(ip, address.port());
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_TIME)?;
    stream.set_read_timeout(Some(ANSWER_TIME))?;
    stream.set_write_timeout(Some(ANSWER_TIME))?;
    write!(stream, "GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut read = Vec::new();
    match stream.take(ANSWER_BYTES_MAX).read_to_end(&mut read) {
        // A program that speaks first, or keeps the connection open, has answered too.
        Err(error) if read.is_empty() => Err(error),
        Ok(_) | Err(_) => Ok(String::from_utf8_lossy(&read).into_owned()),
    }
}

/// Says whether `localhost` leads to the broker in both families of addresses.
fn families(config: &Config) -> Option<Finding> {
    let addresses: Vec<SocketAddr> = plain(config).chain(config.tls.listen.iter().copied()).collect();
    let serves = |wanted: IpAddr| {
        let is_it = |address: &SocketAddr| {
            address.ip() == wanted || (address.ip().is_unspecified() && address.is_ipv6() == wanted.is_ipv6())
        };
        addresses.iter().find(|address| is_it(address))
    };
    let (v4, v6) = (serves(IpAddr::from([127, 0, 0, 1])), serves(IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])));
    let why = "some programs take 'localhost' for ::1, others for 127.0.0.1";
    let found = |level, what: &str| finding(Side::Broker, "families", level, what, why);
    let missing = |ip: &str, port: u16| {
        format!("add \"{ip}:{port}\" to the key 'listen', or use the other address in applications")
    };
    match (v4, v6) {
        (Some(_), Some(_)) => Some(found(Level::Good, "the broker listens on loopback in IPv4 and IPv6")),
        (Some(v4), None) => Some(
            found(Level::Warning, "the broker does not listen on the IPv6 loopback address")
                .cure(missing("[::1]", v4.port())),
        ),
        (None, Some(v6)) => Some(
            found(Level::Warning, "the broker does not listen on the IPv4 loopback address")
                .cure(missing("127.0.0.1", v6.port())),
        ),
        (None, None) => None,
    }
}

/// Says whether a page of the origin may connect.
fn origin(config: &Config, question: &Question) -> Option<Finding> {
    let origin = question.origin.as_deref()?;
    let why = "the broker refuses pages of other origins with 403, which a page cannot tell from a broker that is down";
    let found = |level, what| finding(Side::Broker, "origin", level, what, why);
    Some(match is_allowed_origin(origin, &config.http) {
        true => found(Level::Good, format!("the broker lets pages of {origin} connect")),
        false => found(Level::Bad, format!("the broker refuses pages of {origin}"))
            .cure(format!("add \"{origin}\" to the key 'http.allowed_origins', and reload")),
    })
}

/// Says what the certificate is good for, and for how long.
fn certificate(config: &Config) -> Vec<Finding> {
    let why = "a browser refuses wss:// with a certificate that has expired or has another name";
    let found = |level, what: String| finding(Side::Broker, "certificate", level, what, why);
    let Some(path) = config.tls.certificate_file.as_ref().filter(|_| !config.tls.listen.is_empty()) else {
        return Vec::new();
    };
    let read = read_regular(path).map_err(|error| error.to_string());
    let leaf = match read.and_then(|pem| Leaf::read_pem(&pem).map_err(|error| error.to_string())) {
        Ok(leaf) => leaf,
        Err(error) => {
            return vec![
                found(Level::Bad, format!("the certificate {}: {error}", path.display()))
                    .cure("make one with `switchboard cert`, or name another file in tls.certificate_file"),
            ];
        }
    };
    let now = calendar();
    let names = leaf.names.join(", ");
    let mut findings = vec![match leaf.not_after.duration_since(now) {
        Err(_) => found(Level::Bad, format!("the certificate for {names} has expired")).cure(RENEW),
        Ok(_) if leaf.not_before > now => found(Level::Bad, format!("the certificate for {names} is not valid yet"))
            .cure("set the clock of this machine"),
        Ok(left) => {
            let level = if leaf.is_warning_due(now) { Level::Warning } else { Level::Good };
            let good = found(level, format!("the certificate for {names} is valid for {}", days(left)));
            if level == Level::Good { good } else { good.cure(RENEW) }
        }
    }];
    let is_name = |name: &&String| name.parse::<IpAddr>().is_err() && !name.starts_with('*');
    for name in leaf.names.iter().filter(is_name).filter(|name| !is_served_host(name, &config.http)) {
        let why =
            "the broker answers 421 to a Host that it does not serve, so that no foreign name can lead a browser to it";
        let not_served = finding(
            Side::Broker,
            "host",
            Level::Warning,
            format!("the certificate names {name}, which is not served"),
            why,
        );
        findings.push(not_served.cure(format!("add \"{name}\" to the key 'http.allowed_hosts', and reload")));
    }
    findings
}

const RENEW: &str = "renew it: `switchboard cert renew`, or as the certificate authority says";

fn days(left: Duration) -> String {
    match left.as_secs() / DAY.as_secs() {
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    }
}
