//! `switchboard doctor`: what can keep a page in a browser from reaching the broker.
//!
//! A browser does not tell a page why a socket to loopback fails, and a connection that a browser refuses never reaches the
//! broker. So this looks at all that can be known beside the page: `broker` at the listeners, their rules and the
//! certificate, `host` at the machine, `browsers` at what each browser does, `policies` at what an administrator has allowed,
//! `trust` at who trusts the certificate.

mod broker;
mod browsers;
mod host;
mod policies;
mod trust;

use serde::Serialize;
use utoipa::ToSchema;

pub use self::policies::{PolicyFile, policy_files};

use crate::config::{Config, canonical_origin};

/// Something that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Finding {
    /// What was looked at.
    pub side: Side,
    /// The name of the check.
    pub check: &'static str,
    /// Whether it is good.
    pub level: Level,
    /// What was found.
    pub what: String,
    /// Why it matters.
    pub why: String,
    /// The one thing to do about it; null if there is nothing to do.
    #[serde(rename = "do")]
    pub cure: Option<String>,
}

/// What was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = FindingSide)]
pub enum Side {
    /// The broker, its listeners and its rules.
    Broker,
    /// The machine that this runs on.
    Host,
    /// What a browser does to a page.
    Browser,
    /// The policies of browsers on this machine, and the authorities that it trusts.
    Policy,
}

/// Whether a finding is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = FindingLevel)]
pub enum Level {
    /// It is good.
    Good,
    /// It can keep some pages away, or is not known.
    Warning,
    /// It keeps the page away.
    Bad,
}

/// A browser with its relatives: Chrome is also any other Chromium.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = DoctorBrowser)]
pub enum Browser {
    /// Google Chrome, and Chromium.
    Chrome,
    /// Microsoft Edge.
    Edge,
    /// Mozilla Firefox.
    Firefox,
    /// Apple Safari.
    Safari,
}

impl Browser {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Chrome, Self::Edge, Self::Firefox, Self::Safari];

    /// The name that people know.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Chrome => "Chrome",
            Self::Edge => "Edge",
            Self::Firefox => "Firefox",
            Self::Safari => "Safari",
        }
    }
}

/// What is asked.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// The origin of the page, as a browser writes it.
    pub origin: Option<String>,
    /// The browser; `None`: all.
    pub browser: Option<Browser>,
}

impl Question {
    /// A question about this origin and browser.
    ///
    /// # Errors
    /// What is wrong with the origin.
    pub fn new(origin: Option<&str>, browser: Option<Browser>) -> Result<Self, String> {
        let origin =
            origin.map(|origin| canonical_origin(origin).map_err(|fault| format!("the origin {}", fault.message())));
        Ok(Self { origin: origin.transpose()?, browser })
    }

    fn browsers(&self) -> impl Iterator<Item = Browser> {
        let wanted = self.browser;
        Browser::ALL.into_iter().filter(move |browser| wanted.is_none_or(|wanted| wanted == *browser))
    }
}

/// Looks at everything. `running` has the URLs of the listeners of the broker that this is; `None`: it is another program,
/// which tries the addresses of the configuration. Blocks on files and on sockets.
#[must_use]
pub fn examine(config: &Config, running: Option<&[String]>, question: &Question) -> Vec<Finding> {
    let urls = running.map_or_else(|| broker::urls(config), <[String]>::to_vec);
    let mut findings = broker::look(config, running, question);
    findings.extend(examine_machine(config, &urls, question));
    findings
}

/// Looks at this machine, its browsers and their policies, and not at the broker. Blocks on files.
#[must_use]
pub fn examine_machine(config: &Config, urls: &[String], question: &Question) -> Vec<Finding> {
    let mut findings = host::look(config);
    findings.extend(browsers::look(urls, question));
    findings.extend(policies::look(question));
    findings.extend(trust::look(config, question));
    findings
}

/// Makes a finding.
fn finding(side: Side, check: &'static str, level: Level, what: impl Into<String>, why: impl Into<String>) -> Finding {
    Finding { side, check, level, what: what.into(), why: why.into(), cure: None }
}

impl Finding {
    fn cure(self, cure: impl Into<String>) -> Self {
        Self { cure: Some(cure.into()), ..self }
    }
}
