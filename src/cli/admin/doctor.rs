//! `switchboard doctor`: says what can keep a page in a browser from reaching the broker.

use clap::{Args, Subcommand, ValueEnum};
use reqwest::Method;
use serde_json::{Value, json};

use super::client::{Arguments, CallError, Client};
use crate::cli::output::{self, Output};
use crate::cli::{Exit, Usage};
use crate::config::Config;
use crate::http::encode;
use crate::server::doctor::{self, Question, policy_files};

/// See the help text.
#[derive(Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  switchboard doctor --origin https://crm.example.com
  switchboard doctor --origin https://crm.example.com --browser safari --config /etc/switchboard/switchboard.toml
  switchboard doctor policy --origin https://crm.example.com --browser edge

Run it on the machine of the browser, as its user. If a broker answers, it says what it knows of itself; otherwise the addresses of \
the configuration are tried.

Exit codes:
  0  nothing was found that keeps the page away
  1  something was found; what a browser does counts only with --browser"
)]
pub(crate) struct Doctor {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    about: About,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: Arguments,
}

#[derive(Subcommand)]
enum Command {
    /// Print policy files that let pages of an origin connect without asking the user
    Policy(Policy),
}

/// See the help text.
#[derive(Args)]
struct Policy {
    /// The origin of the top page, as in the address bar: of a gadget, that of the page around it
    #[arg(long)]
    origin: String,
    /// The browser; default: each that has such a policy
    #[arg(long, value_name = "NAME")]
    browser: Option<Browser>,
}

#[derive(Args)]
struct About {
    // Not a doc comment, which would be a link.
    #[arg(long, help = "The origin of the page, such as https://crm.example.com")]
    origin: Option<String>,
    /// The browser; default: all
    #[arg(long, value_name = "NAME")]
    browser: Option<Browser>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Browser {
    Chrome,
    Edge,
    Firefox,
    Safari,
}

impl Browser {
    fn word(self) -> &'static str {
        match self {
            Self::Chrome => "chrome",
            Self::Edge => "edge",
            Self::Firefox => "firefox",
            Self::Safari => "safari",
        }
    }
}

impl From<Browser> for doctor::Browser {
    fn from(browser: Browser) -> Self {
        match browser {
            Browser::Chrome => Self::Chrome,
            Browser::Edge => Self::Edge,
            Browser::Firefox => Self::Firefox,
            Browser::Safari => Self::Safari,
        }
    }
}

/// Looks, and prints what was found.
pub(crate) async fn run(arguments: Doctor, output: &mut Output) -> anyhow::Result<Exit> {
    if let Some(Command::Policy(policy)) = &arguments.command {
        return print_policies(policy, output);
    }
    let About { origin, browser } = &arguments.about;
    let question = Question::new(origin.as_deref(), browser.map(Into::into))
        .map_err(|why| Usage::new(format!("--{}", why.trim_start_matches("the "))))?;
    let config = arguments.admin.load()?;
    let findings = match ask(&arguments, *browser, &question).await {
        Ok(findings) => {
            // What a browser and its policies do is a matter of this machine; the broker's findings are about its own.
            let is_its_own = |it: &Value| matches!(it.get("side").and_then(Value::as_str), Some("broker" | "browser"));
            findings.into_iter().filter(is_its_own).chain(own(&config, &question, true)).collect()
        }
        Err(unanswered) => {
            let mut findings: Vec<Value> = vec![unanswered];
            findings.extend(own(&config, &question, false));
            findings
        }
    };
    let is_bad = findings.iter().any(|it| {
        // Of all browsers, one that nobody here may use keeps no page away.
        let counts = browser.is_some() || it.get("side").is_none_or(|side| side != "browser");
        counts && it.get("level").is_some_and(|level| level == "bad")
    });
    match arguments.json {
        true => output.line(&json!({ "findings": findings }).to_string())?,
        false => findings.iter().try_for_each(|finding| print(finding, output))?,
    }
    Ok(if is_bad { Exit::Refused } else { Exit::Done })
}

/// Asks the broker. The error is a finding.
async fn ask(arguments: &Doctor, browser: Option<Browser>, question: &Question) -> Result<Vec<Value>, Value> {
    let origin = question.origin.as_ref().map(|origin| format!("origin={}", encode(origin)));
    let browser = browser.map(|browser| format!("browser={}", browser.word()));
    let query: Vec<String> = origin.into_iter().chain(browser).collect();
    let path = format!("/v1/doctor?{}", query.join("&"));
    let asked = async {
        let client = Client::open(&arguments.admin)?;
        let answer = client.call(Method::GET, &path, None, None).await?.body;
        Ok::<_, anyhow::Error>(answer.get("findings").and_then(Value::as_array).cloned().unwrap_or_default())
    };
    asked.await.map_err(|error| {
        let hint = error.downcast_ref::<CallError>().and_then(CallError::hint);
        json!({
            "side": "broker",
            "check": "admin",
            "level": "warning",
            "what": format!("the broker was not asked: {error:#}"),
            "why": "the addresses of the configuration are tried instead",
            "do": hint,
        })
    })
}

/// Looks from here: at this machine, and unless the broker has answered, at its addresses too.
fn own(config: &Config, question: &Question, has_answered: bool) -> Vec<Value> {
    let findings = match has_answered {
        true => doctor::examine_machine(config, &[], question),
        false => doctor::examine(config, None, question),
    };
    findings.iter().filter_map(|finding| serde_json::to_value(finding).ok()).collect()
}

fn print(finding: &Value, output: &mut Output) -> std::io::Result<()> {
    let text = |key: &str| finding.get(key).and_then(Value::as_str);
    let level = text("level").unwrap_or_default();
    output.line(&format!("{level:8} {}", text("what").unwrap_or_default()))?;
    if level == "good" {
        return Ok(());
    }
    for (label, key) in [("why", "why"), ("do", "do")] {
        if let Some(words) = text(key) {
            output.line(&format!("         {label}: {words}"))?;
        }
    }
    Ok(())
}

fn print_policies(policy: &Policy, output: &mut Output) -> anyhow::Result<Exit> {
    let question = Question::new(Some(&policy.origin), policy.browser.map(Into::into));
    let question = question.map_err(|why| Usage::new(format!("--{}", why.trim_start_matches("the "))))?;
    let files = policy_files(&question);
    if files.is_empty() {
        let hint = "it needs a wss:// listener with a certificate that the keychain trusts: switchboard cert";
        return Err(Usage::new("Safari has no policy for this").hint(hint).into());
    }
    for file in files {
        output.line(&format!("==> {}: {}", file.title, file.path))?;
        output.text(&file.text.replace("\r\n", "\n"))?;
        output.line("")?;
    }
    output::note("after the browser has read the file: chrome://policy, edge://policy or about:policies lists it");
    Ok(Exit::Done)
}
