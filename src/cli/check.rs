//! `switchboard check`: finds all mistakes of a configuration, and files that cannot be used, without starting anything.
//! With `--salesforce`, it also tries each step on the way to the org, with `--cluster` the NATS servers. With `--permissions`, it prints what each application may
//! do.

use std::borrow::Cow;
use std::path::PathBuf;
use std::time::SystemTime;

use serde::Serialize;

use crate::config::{self, Config, LoadOptions, Mistake, Mistakes, Place, Store};
use crate::salesforce::{Org, Outcome as Came, SalesforceVerifier, Step, Whose};
use crate::server;
use crate::telemetry::metrics::reference;

use super::Exit;
use super::cluster;
use super::output::{Output, counted};
use super::permissions::{Allowance, as_table, permissions};
use super::secret::credentials_key;
use super::serve::wrong_variables;

/// Check a configuration: print all mistakes with their lines
///
/// Reads what `serve` would read, environment variables included, and tries the data folder, the credential store, keys,
/// secrets, certificates and addresses. Starts nothing and changes nothing. The exit code is 0, or 2 if there are
/// mistakes. With --salesforce, it then connects to the org; the exit code is 1 if a step failed.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  switchboard check --config switchboard.toml\n  switchboard check --json --strict\n  \
                          switchboard check --config switchboard.toml --salesforce --user 005000000000001AAA\n  \
                          switchboard check --config switchboard.toml --permissions --source softphone"
)]
#[expect(clippy::struct_excessive_bools, reason = "independent flags of the command line")]
pub(crate) struct CheckArgs {
    /// The configuration file; default: only the environment is checked
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print {"ok":…,"mistakes":[…],"warnings":[…]} for programs; with --salesforce "steps" too, with --permissions
    /// "permissions"
    #[arg(long)]
    json: bool,
    /// Exit with 2 if there are warnings, too
    #[arg(long)]
    strict: bool,
    /// Try each step on the way to the Salesforce org, and print what to change in Setup
    #[arg(long)]
    salesforce: bool,
    /// Look up this user's credentials; the password is not printed
    #[arg(long, value_name = "USER", requires = "salesforce")]
    user: Option<String>,
    /// Print a table of what each application may do, instead of the summary
    #[arg(long, conflicts_with = "salesforce")]
    permissions: bool,
    /// Only the applications that register under this name
    #[arg(long, value_name = "NAME", requires = "permissions")]
    source: Option<String>,
    /// Look at the NATS servers of [cluster], and print what to change in their settings
    #[arg(long, conflicts_with_all = ["salesforce", "permissions"])]
    cluster: bool,
    /// Print docs/configuration.md
    #[arg(long, hide = true, exclusive = true)]
    print_reference: bool,
    /// Print docs/metrics.md
    #[arg(long, hide = true, exclusive = true)]
    print_metrics: bool,
}

/// A key or a variable, and why what it names cannot be used.
type Unusable = (Cow<'static, str>, String);

/// Runs the command.
pub(crate) fn run(args: &CheckArgs, output: &mut Output) -> anyhow::Result<Exit> {
    if args.print_reference {
        return print(output, &config::document(), Exit::Done);
    }
    if args.print_metrics {
        return print(output, &reference(), Exit::Done);
    }
    let mut config = match Config::load(LoadOptions::from_process(args.config.clone())) {
        Ok(config) => config,
        Err(mistakes) => return mistaken(&mistakes, args, output),
    };
    #[expect(clippy::disallowed_methods, reason = "the calendar enters here")]
    let calendar = SystemTime::now();
    config.warnings.extend(server::certificate_warnings(calendar, &config));
    let mut unusable = match server::try_config(&config, credentials_key()) {
        Ok(()) => Vec::new(),
        Err(unusable) => {
            unusable.list().iter().map(|it| (it.key().to_owned().into(), it.message().to_owned())).collect()
        }
    };
    unusable.extend(wrong_variables().map(|(key, why)| (key.into(), why)));
    let org = args.salesforce && asks_org(&config, args);
    let (org, verifier) = (org.then(|| Org::open(&config.salesforce)).transpose(), SalesforceVerifier::open(&config));
    match (org, verifier) {
        (Ok(org), Ok(verifier)) if args.salesforce && unusable.is_empty() => {
            return salesforce((org.as_ref(), &verifier), &config, args, output);
        }
        // Only --salesforce needs it; otherwise `try_config` has found it already.
        (Err(error), _) if !unusable.iter().any(|(key, _)| key == error.key()) => {
            unusable.push((error.key().into(), error.message().to_owned()));
        }
        (Ok(_) | Err(_), _) => {}
    }
    if args.cluster && unusable.is_empty() {
        return cluster::check(&config, args.json, args.strict, output);
    }
    let entries = unusable.iter().map(Entry::from).collect();
    let permissions = args.permissions.then(|| permissions(&config, args.source.as_deref())).transpose()?;
    let text = if unusable.is_empty() {
        let summary = permissions.as_deref().map_or_else(|| config.summary(), as_table);
        let summary = summary.into_iter().map(|line| format!("{line}\n"));
        warnings_in_words(&config.warnings).chain(summary).chain(["no mistakes\n".to_owned()]).collect()
    } else {
        in_words(&unusable.iter().map(unusable_in_words).collect::<Vec<_>>(), &config.warnings)
    };
    let steps = args.salesforce.then(Vec::new);
    report(&Outcome { steps, permissions, ..Outcome::of(entries, &config.warnings) }, text, args, output)
}

/// Reports the mistakes of a configuration that cannot be loaded, with those of the variables that only `serve` reads.
fn mistaken(mistakes: &Mistakes, args: &CheckArgs, output: &mut Output) -> anyhow::Result<Exit> {
    let variables: Vec<_> = wrong_variables().map(|(key, why)| (key.into(), why)).collect();
    let words = mistakes.list().iter().map(ToString::to_string).chain(variables.iter().map(unusable_in_words));
    let text = in_words(&words.collect::<Vec<_>>(), &[]);
    let entries = mistakes.list().iter().map(Entry::from).chain(variables.iter().map(Entry::from)).collect();
    report(&Outcome::of(entries, &[]), text, args, output)
}

/// Prints the outcome, in words as `text` has it.
fn report(outcome: &Outcome<'_>, text: String, args: &CheckArgs, output: &mut Output) -> anyhow::Result<Exit> {
    let ok = outcome.ok && (!args.strict || outcome.warnings.is_empty());
    let text = if args.json {
        as_line(&Outcome { ok, ..outcome.clone() })
    } else {
        let strict = outcome.ok.then(|| counted(outcome.warnings.len(), "warning") + "\n").filter(|_| !ok);
        [text].into_iter().chain(strict).collect()
    };
    print(output, &text, if ok { Exit::Done } else { Exit::Usage })
}

/// Prints the result. The exit code is that of the result, also if the output is closed early.
fn print(output: &mut Output, text: &str, exit: Exit) -> anyhow::Result<Exit> {
    match output.text(text) {
        Err(error) if exit == Exit::Done => Err(error.into()),
        Ok(()) | Err(_) => Ok(exit),
    }
}

/// Returns whether the steps of `[salesforce]` are tried: the broker uses it, or `--salesforce` has nothing else to try.
fn asks_org(config: &Config, args: &CheckArgs) -> bool {
    let (org, proofs) = (&config.salesforce, &config.proofs);
    let serves = config.credentials.store == Store::Salesforce || writes_or_listens(config);
    let only_proofs = proofs.introspection.is_some() || proofs.userinfo.is_some();
    serves || org.client_id.is_some() || args.user.is_some() || !only_proofs
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
    let passed = steps.iter().all(|step| step.outcome != Came::Failed);
    let warned = !config.warnings.is_empty() || steps.iter().any(|step| step.outcome == Came::Warning);
    let ok = passed && !(args.strict && warned);
    let text = if args.json {
        as_line(&Outcome { ok, steps: Some(steps), ..Outcome::of(Vec::new(), &config.warnings) })
    } else {
        let warnings = warnings_in_words(&config.warnings).filter(|_| args.strict);
        steps.iter().map(step_in_words).chain(warnings).collect()
    };
    let exit = match (passed, ok) {
        (false, _) => Exit::Refused,
        (true, false) => Exit::Usage,
        (true, true) => Exit::Done,
    };
    print(output, &text, exit)
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

/// Mistakes, each on lines of its own, warnings, and the number of mistakes.
fn in_words(mistakes: &[String], warnings: &[String]) -> String {
    let lines = mistakes.iter().map(|mistake| format!("{mistake}\n"));
    lines.chain(warnings_in_words(warnings)).chain([counted(mistakes.len(), "mistake") + "\n"]).collect()
}

fn unusable_in_words((key, message): &Unusable) -> String {
    format!("{key}: {message}")
}

fn warnings_in_words(warnings: &[String]) -> impl Iterator<Item = String> {
    warnings.iter().map(|warning| format!("warning: {warning}\n"))
}

#[derive(Clone, Serialize)]
struct Outcome<'a> {
    ok: bool,
    mistakes: Vec<Entry<'a>>,
    warnings: Vec<Entry<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    steps: Option<Vec<Step>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    permissions: Option<Vec<Allowance<'a>>>,
}

impl<'a> Outcome<'a> {
    fn of(mistakes: Vec<Entry<'a>>, warnings: &'a [String]) -> Self {
        let warnings = warnings.iter().map(|message| Entry { message, ..Entry::default() }).collect();
        Self { ok: mistakes.is_empty(), mistakes, warnings, steps: None, permissions: None }
    }
}

/// A mistake or a warning in JSON. A field that does not apply is `null`.
#[derive(Clone, Default, Serialize)]
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

impl<'a> From<&'a Unusable> for Entry<'a> {
    fn from((key, message): &'a Unusable) -> Self {
        Self { key: Some(key), message, ..Self::default() }
    }
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

fn as_line(outcome: &Outcome<'_>) -> String {
    // Cannot fail: strings and numbers only.
    serde_json::to_string(outcome).map(|line| line + "\n").unwrap_or_default()
}
