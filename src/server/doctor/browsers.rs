//! What each browser does to a page that connects to loopback: the table in browsers.toml.

use std::net::IpAddr;

use serde::Deserialize;

use super::{Browser, Finding, Level, Question, Side, finding};

/// The table.
const TABLE: &str = include_str!("browsers.toml");

/// The page that is meant if no origin is given.
const ANY_PAGE: &str = "a page of https://";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    version: String,
    rows: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    browsers: Vec<Browser>,
    /// The first version that does so.
    since: String,
    page: Page,
    sockets: Vec<Socket>,
    effect: Effect,
    what: String,
    #[serde(rename = "do")]
    cure: Option<String>,
}

/// Where a page is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Page {
    PublicHttps,
    PublicHttp,
    Private,
    Loopback,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Socket {
    Ws,
    Wss,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Effect {
    Opens,
    Permission,
    Blocked,
    Unknown,
}

/// Says what browsers do to the page, with each kind of socket that the broker has.
pub(super) fn look(urls: &[String], question: &Question) -> Vec<Finding> {
    let Ok(table) = toml::from_str::<Table>(TABLE) else { return Vec::new() };
    let page = question.origin.as_deref().map_or(Page::PublicHttps, page_of);
    let has = |scheme: &str| urls.iter().any(|url| url.starts_with(scheme));
    let sockets: Vec<Socket> = [(Socket::Ws, has("ws://")), (Socket::Wss, has("wss://"))]
        .into_iter()
        .filter_map(|(socket, is_there)| is_there.then_some(socket))
        .collect();
    let mut findings: Vec<Finding> = Vec::new();
    for browser in question.browsers() {
        let found: Vec<&Row> = sockets.iter().filter_map(|socket| table.row(browser, page, *socket)).collect();
        // If one kind of socket opens, the page can use that one.
        let best = found.iter().min_by_key(|row| row.effect as u8);
        findings.extend(best.map(|row| table.finding(row, browser, question)));
    }
    findings
}

impl Table {
    fn row(&self, browser: Browser, page: Page, socket: Socket) -> Option<&Row> {
        self.rows
            .iter()
            .rfind(|row| row.browsers.contains(&browser) && row.page == page && row.sockets.contains(&socket))
    }

    fn finding(&self, row: &Row, browser: Browser, question: &Question) -> Finding {
        let level = match row.effect {
            Effect::Opens => Level::Good,
            Effect::Permission | Effect::Unknown => Level::Warning,
            Effect::Blocked => Level::Bad,
        };
        let origin = question.origin.as_deref().unwrap_or(ANY_PAGE);
        let since = if row.since == "any" { String::new() } else { format!(" {} and later", row.since) };
        let why = format!(
            "the broker does not see a connection that a browser refuses ({origin}; table of {})",
            self.version
        );
        let found = finding(Side::Browser, "browser", level, format!("{}{since} {}", browser.name(), row.what), why);
        let origin = question.origin.as_deref().unwrap_or("ORIGIN");
        row.cure.as_ref().map_or(found.clone(), |cure| found.cure(cure.replace("ORIGIN", origin)))
    }
}

/// Returns whether a page of this origin is itself from loopback.
pub(super) fn is_from_loopback(origin: &str) -> bool {
    page_of(origin) == Page::Loopback
}

/// Returns where a page is from, by its origin. A name may lead to a private address, which is not looked up.
fn page_of(origin: &str) -> Page {
    let (scheme, host) = origin.split_once("://").unwrap_or((origin, ""));
    let name = host
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
        .map_or_else(|| host.split(':').next().unwrap_or_default(), |(name, _)| name);
    match name.parse::<IpAddr>() {
        Ok(address) if address.is_loopback() => return Page::Loopback,
        Ok(IpAddr::V4(address)) if address.is_private() || address.is_link_local() => return Page::Private,
        Ok(IpAddr::V6(address)) if address.is_unique_local() || address.is_unicast_link_local() => {
            return Page::Private;
        }
        Err(_) if name == "localhost" || name.ends_with(".localhost") => return Page::Loopback,
        Ok(_) | Err(_) => {}
    }
    if scheme == "http" { Page::PublicHttp } else { Page::PublicHttps }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(origin: &str, browser: Browser, url: &str) -> Level {
        let question = Question::new(Some(origin), Some(browser)).unwrap();
        let found = look(&[url.to_owned()], &question);
        assert_eq!(found.len(), 1, "{origin} {browser:?} {url}: {found:?}");
        found[0].level
    }

    #[test]
    fn the_table_has_a_row_for_every_browser_page_and_socket() {
        let table: Table = toml::from_str(TABLE).unwrap();
        for browser in Browser::ALL {
            for page in [Page::PublicHttps, Page::PublicHttp, Page::Private, Page::Loopback] {
                for socket in [Socket::Ws, Socket::Wss] {
                    let row = table.row(browser, page, socket);
                    let row = row.unwrap_or_else(|| panic!("{browser:?} {page:?} {socket:?}"));
                    assert!(row.effect == Effect::Opens || row.cure.is_some(), "{browser:?} {page:?} {socket:?}");
                }
            }
        }
    }

    #[test]
    fn what_was_measured_is_what_is_said() {
        let (ws, wss) = ("ws://127.0.0.1:7420/ws", "wss://127.0.0.1:7443/ws");
        let public = "https://crm.example.com";
        assert_eq!(level(public, Browser::Chrome, ws), Level::Warning);
        assert_eq!(level(public, Browser::Edge, wss), Level::Warning);
        assert_eq!(level(public, Browser::Firefox, ws), Level::Good);
        assert_eq!(level(public, Browser::Safari, ws), Level::Bad);
        assert_eq!(level(public, Browser::Safari, wss), Level::Good);
        assert_eq!(level("http://crm.example.com", Browser::Chrome, ws), Level::Bad);
        assert_eq!(level("http://10.0.0.7:8080", Browser::Chrome, ws), Level::Warning);
        for loopback in ["http://localhost:3000", "http://127.0.0.1:3000", "http://[::1]:3000"] {
            assert_eq!(level(loopback, Browser::Safari, ws), Level::Good, "{loopback}");
        }
    }

    #[test]
    fn a_page_uses_the_socket_that_opens() {
        let urls = ["ws://127.0.0.1:7420/ws".to_owned(), "wss://127.0.0.1:7443/ws".to_owned()];
        let question = Question::new(Some("https://crm.example.com"), Some(Browser::Safari)).unwrap();
        assert_eq!(look(&urls, &question)[0].level, Level::Good);
        assert_eq!(look(&urls, &Question::default()).len(), 4);
    }
}
