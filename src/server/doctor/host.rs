//! The machine: who else uses it, its clock, and the proxies that programs are told to use.

use std::env;
use std::time::{Duration, SystemTime};

use super::{Finding, Level, Side, finding};
use crate::config::Config;
use crate::server::calendar;

/// When this version was written. A clock that is before it is wrong: 2026-11-01.
const WRITTEN: Duration = Duration::from_hours(498_192);

/// The variables by which programs find a proxy.
const PROXIES: &[&str] = &["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"];

/// The variables that name what is reached without a proxy.
const EXCEPTIONS: &[&str] = &["NO_PROXY", "no_proxy"];

/// Where systemd says that the clock was set by a time server.
#[cfg(target_os = "linux")]
const TIME_SYNC: &str = "/run/systemd/timesync";

/// Looks at this machine.
pub(super) fn look(config: &Config) -> Vec<Finding> {
    let mut findings = vec![clock(calendar()), proxies(&|name| env::var(name).ok())];
    findings.extend(users(config));
    findings
}

/// Says whether the clock can be right.
fn clock(now: SystemTime) -> Finding {
    let why = "tokens and certificates are judged by this clock";
    let found = |level, what: &str| finding(Side::Host, "clock", level, what, why);
    let cure = "let a time server set the clock of this machine";
    if now < SystemTime::UNIX_EPOCH + WRITTEN {
        return found(Level::Bad, "the clock is years behind").cure(cure);
    }
    #[cfg(target_os = "linux")]
    {
        let folder = std::path::Path::new(TIME_SYNC);
        if folder.is_dir() && !folder.join("synchronized").exists() {
            return found(Level::Warning, "no time server has set the clock since the start of this machine")
                .cure(cure);
        }
    }
    found(Level::Good, "the clock is plausible")
}

/// Says whether programs of this user are sent to a proxy.
fn proxies(variable: &dyn Fn(&str) -> Option<String>) -> Finding {
    let why = "a program that sends loopback addresses to a proxy does not reach the broker";
    let found = |level, what: String| finding(Side::Host, "proxy", level, what, why);
    let is_set = |name: &&&str| variable(name).is_some_and(|value| !value.is_empty());
    let set: Vec<&str> = PROXIES.iter().filter(is_set).copied().collect();
    if set.is_empty() {
        return found(Level::Good, "no variable names a proxy".to_owned());
    }
    let exceptions = EXCEPTIONS.iter().find_map(|name| variable(name)).unwrap_or_default();
    let is_excepted =
        exceptions.split(',').any(|it| matches!(it.trim(), "localhost" | "127.0.0.1" | "127.0.0.0/8" | "*"));
    // The values may have passwords.
    match is_excepted {
        true => found(Level::Good, format!("{} name a proxy, not for loopback addresses", set.join(", "))),
        false => found(Level::Warning, format!("{} name a proxy, for loopback addresses too", set.join(", ")))
            .cure("set NO_PROXY=localhost,127.0.0.1,::1 for the applications"),
    }
}

/// Says whether other people use this machine.
#[cfg(unix)]
fn users(config: &Config) -> Option<Finding> {
    let accounts = std::fs::read_to_string("/etc/passwd").ok()?;
    let count = people(&accounts);
    let why = "every program on a machine can connect to its loopback addresses";
    let found = |level, what: String| finding(Side::Host, "os_users", level, what, why);
    Some(match (count, config.is_for_same_user()) {
        (0 | 1, _) => found(Level::Good, "this machine has one person's account at most".to_owned()),
        (_, true) => found(
            Level::Good,
            format!(
                "this machine has accounts of {count} people, and the broker accepts its own user's programs only (http.same_user)"
            ),
        ),
        (_, false) => found(
            Level::Warning,
            format!("this machine has accounts of {count} people, and the broker accepts programs of all of them"),
        )
        .cure("set http.same_user = true, or list the users in http.os_users: docs/guides/shared-hosts.md"),
    })
}

/// The accounts of people are those of a login shell and a number that systems give to people.
#[cfg(unix)]
fn people(accounts: &str) -> usize {
    let is_person = |line: &&str| {
        let fields: Vec<&str> = line.split(':').collect();
        let number = fields.get(2).and_then(|number| number.parse::<u32>().ok());
        let shell = fields.get(6).copied().unwrap_or_default();
        number.is_some_and(|number| (1000..60_000).contains(&number))
            && !shell.ends_with("nologin")
            && !shell.ends_with("false")
    };
    accounts.lines().filter(is_person).count()
}

#[cfg(not(unix))]
fn users(config: &Config) -> Option<Finding> {
    let why = "every program on a machine can connect to its loopback addresses";
    (!config.is_for_same_user()).then(|| {
        let what = "the broker accepts programs of every user of this machine";
        finding(Side::Host, "os_users", Level::Warning, what, why)
            .cure("on a machine with several users, use tokens: docs/guides/shared-hosts.md")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_before_this_version_is_wrong() {
        assert_eq!(clock(SystemTime::UNIX_EPOCH).level, Level::Bad);
        assert_ne!(clock(SystemTime::UNIX_EPOCH + WRITTEN).level, Level::Bad);
    }

    #[test]
    fn a_proxy_matters_unless_loopback_is_excepted() {
        let level = |variables: &[(&str, &str)]| {
            let value =
                |wanted: &str| variables.iter().find(|(name, _)| *name == wanted).map(|(_, value)| (*value).to_owned());
            let found = proxies(&value);
            assert!(!found.what.contains("secret"), "{found:?}");
            found.level
        };
        assert_eq!(level(&[]), Level::Good);
        assert_eq!(level(&[("HTTPS_PROXY", "http://u:secret@proxy:3128")]), Level::Warning);
        assert_eq!(level(&[("https_proxy", "http://proxy:3128"), ("no_proxy", "example.com, localhost")]), Level::Good);
        assert_eq!(level(&[("http_proxy", "http://proxy:3128"), ("NO_PROXY", "example.com")]), Level::Warning);
    }

    #[cfg(unix)]
    #[test]
    fn accounts_of_services_are_not_people() {
        let accounts = "root:x:0:0:root:/:/bin/bash\nalice:x:1000:1000::/:/bin/bash\nbob:x:1001:1001::/:/usr/sbin/nologin\n\
                        nobody:x:65534:65534::/:/usr/sbin/nologin\n";
        assert_eq!(people(accounts), 1);
    }
}
