//! The part of `switchboard check --cluster` that prints.

use crate::cli::Exit;
use crate::cli::output::Output;
use crate::config::Config;
use crate::server::cluster_check::{Came, Finding, check_cluster};

/// Looks at NATS and prints what was found. The exit code is 1 if a server cannot be used, and 2 if there are warnings and
/// `strict`.
pub(in crate::cli) fn check(config: &Config, json: bool, strict: bool, output: &mut Output) -> anyhow::Result<Exit> {
    if !config.cluster.is_on() {
        output.line("this configuration has no [cluster]")?;
        return Ok(Exit::Usage);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let findings = runtime.block_on(check_cluster(config));
    let any = |outcome: Came| findings.iter().any(|finding| finding.outcome == outcome);
    if json {
        let ok = !(any(Came::Failed) || strict && any(Came::Warning));
        output.line(&serde_json::json!({ "ok": ok, "steps": findings }).to_string())?;
    } else {
        for finding in &findings {
            output.line(&in_words(finding))?;
        }
    }
    Ok(match (any(Came::Failed), strict && any(Came::Warning)) {
        (true, _) => Exit::Refused,
        (false, true) => Exit::Usage,
        (false, false) => Exit::Done,
    })
}

fn in_words(Finding { what, outcome, detail }: &Finding) -> String {
    let came = match outcome {
        Came::Passed => "ok",
        Came::Warning => "warning",
        Came::Failed => "FAILED",
    };
    // What a server says comes from outside, and a terminal obeys control characters.
    let detail: String = detail.chars().map(|it| if it.is_control() { ' ' } else { it }).collect();
    format!("{came:8} {what}: {detail}")
}
