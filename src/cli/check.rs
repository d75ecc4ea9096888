//! `switchboard check`: finds all mistakes of a configuration, without starting anything. With `--salesforce`, it also
//! tries each step on the way to the org.

use std::path::PathBuf;

use serde::Serialize;

use crate::config::{self, Config, LoadOptions, Mistake, Mistakes, Place, Store};
use crate::salesforce::{Org, Outcome as Came, SalesforceVerifier, SetupError, Step, Whose};

use super::Exit;
use super::output::Output;

/// Check a configuration: print all mistakes with their lines
///
/// Reads what `serve` would read, environment variables included, and starts nothing. The exit code is 0, or 2 if there
/// are mistakes. With --salesforce, it then connects to the org; the exit code is 1 if a step failed.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  switchboard check --config switchboard.toml\n  switchboard check --json\n  switchboard \
                          check --config switchboard.toml --salesforce --user 005000000000001AAA"
)]
pub(crate) struct CheckArgs {
    /// The configuration file; default: only the environment is checked
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print {"ok":…,"mistakes":[…]} for programs; with --salesforce "steps" too
    #[arg(long)]
    json: bool,
    /// Try each step on the way to the Salesforce org, and print what to change in Setup
    #[arg(long)]
    salesforce: bool,
    /// Look up this user's credentials; the password is not printed
    #[arg(long, value_name = "USER", requires = "salesforce")]
    user: Option<String>,
    /// Print docs/configuration.md
    #[arg(long, hide = true, exclusive = true)]
    print_reference: bool,
}

/// Runs the command.
pub(crate) fn run(args: &CheckArgs, output: &mut Output) -> anyhow::Result<Exit> {
    if args.print_reference {
        return print(output, &config::document(), Exit::Done);
    }
    let outcome = Config::load(LoadOptions::from_process(args.config.clone()));
    if let Ok(config) = &outcome {
        let (org, verifier) =
            (asks_org(config, args).then(|| Org::open(&config.salesforce)), SalesforceVerifier::open(config));
        let (org, verifier) = match (org.transpose(), verifier) {
            (Ok(org), Ok(verifier)) => (org, verifier),
            (org, verifier) => {
                let unusable_files = verifier.as_ref().err().map_or(&[][..], |errors| errors.list());
                let errors: Vec<&SetupError> = org.as_ref().err().into_iter().chain(unusable_files).collect();
                return unusable(&errors, args, output);
            }
        };
        if args.salesforce {
            return salesforce((org.as_ref(), &verifier), config, args, output);
        }
    }
    let text = if args.json { in_json(outcome.as_ref().err()) } else { in_words(&outcome) };
    print(output, &text, if outcome.is_ok() { Exit::Done } else { Exit::Usage })
}

/// Prints the result. The exit code is that of the result, also if the output is closed early.
fn print(output: &mut Output, text: &str, exit: Exit) -> anyhow::Result<Exit> {
    match output.text(text) {
        Err(error) if exit == Exit::Done => Err(error.into()),
        Ok(()) | Err(_) => Ok(exit),
    }
}

/// Prints which files of the configuration cannot be used.
fn unusable(errors: &[&SetupError], args: &CheckArgs, output: &mut Output) -> anyhow::Result<Exit> {
    let text = if args.json {
        let mistakes = errors
            .iter()
            .map(|error| Entry { key: Some(error.key()), message: error.message(), ..Entry::default() })
            .collect();
        as_line(&Outcome { ok: false, mistakes, steps: args.salesforce.then(Vec::new) })
    } else {
        let lines = errors.iter().map(|error| format!("{error}\n"));
        lines.chain([count(errors.len())]).collect()
    };
    print(output, &text, Exit::Usage)
}

/// Returns whether the steps of `[salesforce]` are tried: the broker uses it, or `--salesforce` has nothing else to try.
fn asks_org(config: &Config, args: &CheckArgs) -> bool {
    let (org, proofs) = (&config.salesforce, &config.proofs);
    let serves = config.credentials.store == Store::Salesforce || writes_or_listens(config);
    let only_proofs = proofs.introspection.is_some() || proofs.userinfo.is_some();
    serves || args.salesforce && (org.client_id.is_some() || args.user.is_some() || !only_proofs)
}

fn writes_or_listens(config: &Config) -> bool {
    !config.salesforce.objects.is_empty() || !config.salesforce.events.topics.is_empty()
}

fn salesforce(
    (org, verifier): (Option<&Org>, &SalesforceVerifier),
    config: &Config,
    args: &CheckArgs,
    output: &mut Output,
) -> anyhow::Result<Exit> {
    let whose = match (&args.user, config.credentials.store) {
        (Some(user), _) => Whose::Of(user),
        // If nothing else uses the org, the credentials are about to be kept there.
        (None, Store::Directory) if writes_or_listens(config) => Whose::Nobodys,
        (None, Store::Directory | Store::Salesforce) => Whose::Unnamed,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let steps = runtime.block_on(async {
        let mut steps = match org {
            Some(org) => org.diagnose(whose).await,
            None => Vec::new(),
        };
        steps.extend(verifier.diagnose().await);
        steps
    });
    let ok = steps.iter().all(|step| step.outcome != Came::Failed);
    let text = if args.json {
        as_line(&Outcome { ok, mistakes: Vec::new(), steps: Some(steps) })
    } else {
        steps.iter().map(step_in_words).collect()
    };
    print(output, &text, if ok { Exit::Done } else { Exit::Refused })
}

fn step_in_words(step: &Step) -> String {
    let came = match step.outcome {
        Came::Passed => "ok",
        Came::Warning => "warning",
        Came::Failed => "FAILED",
        Came::Skipped => "skipped",
    };
    // A row of the org comes from outside, and a terminal obeys control characters.
    let detail: String = step.detail.chars().map(|it| if it.is_control() { ' ' } else { it }).collect();
    format!("{came:8} {:13} {detail}\n", step.step)
}

fn in_words(outcome: &Result<Config, Mistakes>) -> String {
    match outcome {
        Ok(config) => {
            let warnings = config.warnings.iter().map(|warning| format!("warning: {warning}\n"));
            let summary = config.summary().into_iter().map(|line| format!("{line}\n"));
            warnings.chain(summary).chain(["no mistakes\n".to_owned()]).collect()
        }
        Err(mistakes) => format!("{mistakes}\n{}", count(mistakes.list().len())),
    }
}

fn count(mistakes: usize) -> String {
    if mistakes == 1 { "1 mistake\n".to_owned() } else { format!("{mistakes} mistakes\n") }
}

#[derive(Serialize)]
struct Outcome<'a> {
    ok: bool,
    mistakes: Vec<Entry<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    steps: Option<Vec<Step>>,
}

/// A mistake in JSON. A field that does not apply is `null`.
#[derive(Default, Serialize)]
struct Entry<'a> {
    file: Option<String>,
    line: Option<usize>,
    column: Option<usize>,
    /// The environment variable that has it.
    variable: Option<&'a str>,
    key: Option<&'a str>,
    message: &'a str,
    nearest: Option<&'a str>,
}

impl<'a> From<&'a Mistake> for Entry<'a> {
    fn from(mistake: &'a Mistake) -> Self {
        let (file, at, variable) = match &mistake.place {
            Place::File { path, at } => (Some(path.display().to_string()), *at, None),
            Place::Variable(name) => (None, None, Some(name.as_str())),
            Place::Flag(_) => (None, None, None),
        };
        Self {
            file,
            line: at.map(|(line, _)| line),
            column: at.map(|(_, column)| column),
            variable,
            key: mistake.key.as_deref(),
            message: &mistake.message,
            nearest: mistake.nearest.as_deref(),
        }
    }
}

fn in_json(mistakes: Option<&Mistakes>) -> String {
    let list = mistakes.map_or(&[][..], Mistakes::list);
    as_line(&Outcome { ok: mistakes.is_none(), mistakes: list.iter().map(Entry::from).collect(), steps: None })
}

fn as_line(outcome: &Outcome<'_>) -> String {
    // Cannot fail: strings and numbers only.
    serde_json::to_string(outcome).map(|line| line + "\n").unwrap_or_default()
}
