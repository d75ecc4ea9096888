//! Mistakes in the arguments, and help in a narrow terminal.

use super::*;

async fn refused(arguments: &[&str]) -> String {
    let outcome = run_with(command(arguments), "").await;
    outcome.has(2, "error: ");
    outcome.stderr
}

#[tokio::test]
async fn the_tip_about_a_value_that_begins_with_a_hyphen_works() {
    let of_option: [&[&str]; 4] = [
        &["credentials", "set", "alice", "--username", "-x", "--extension", "2"],
        &["serve", "--config", "-f"],
        &["--listen", "-1"],
        &["token", "new", "--source", "-s", "--service"],
    ];
    for line in of_option {
        let tip = refused(line).await;
        let at = line.iter().position(|word| word.starts_with('-') && !word.starts_with("--")).unwrap();
        let joined = format!("{}={}", line[at - 1], line[at]);
        assert!(tip.contains(&format!("joined to its option: '{joined}'")) && !tip.contains("-- "), "{tip}");
    }
    let token = run_with(command(&["token", "new", "--source=-s", "--service"]), "").await;
    token.has(0, "");
    assert!(token.stdout.contains("source = \"-s\""), "{token:?}");

    let positional: [&[&str]; 2] = [
        &["credentials", "set", "-alice", "--username", "1", "--extension", "2"],
        &["credentials", "show", "--json", "-alice"],
    ];
    for line in positional {
        let tip = refused(line).await;
        assert!(tip.contains("is written last, behind '--': '-- -alice'"), "{tip}");
    }
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut set = command(&["credentials", "set", "--username=-x", "--extension", "2"]);
    set.arg("--data-dir").arg(data).args(["--", "-alice"]);
    run_with(set, "secret\n").await.has(0, "");
}

#[tokio::test]
async fn prose_in_help_is_wrapped_once() {
    // Without a terminal, text is wrapped at 100 columns. A short line whose sentence goes on in the next line was wrapped
    // before.
    for line in [
        "serve",
        "sub",
        "pub",
        "request",
        "handle",
        "apps",
        "health",
        "top",
        "sessions",
        "close",
        "explain",
        "reload",
        "recent",
        "drain",
        "bench",
        "credentials",
        "credentials set",
        "credentials import",
        "credentials rekey",
        "token new",
        "audit verify",
        "history repair",
        "cluster adopt",
        "check",
        "completions",
        "man",
    ] {
        let arguments: Vec<&str> = line.split(' ').chain(["--help"]).collect();
        let help = run_with(command(&arguments), "").await.stdout;
        assert!(help.contains("Usage"), "{line}: {help}");
        let lines: Vec<&str> = help.lines().collect();
        for pair in lines.windows(2) {
            let [line, next] = pair else { continue };
            let goes_on = next.starts_with(|first: char| first.is_alphabetic()) && !line.ends_with(['.', ':']);
            let is_prose = line.starts_with(|first: char| first.is_alphabetic()) && goes_on;
            let first_word = next.split(' ').next().unwrap_or_default();
            let would_fit = line.chars().count() + 1 + first_word.chars().count() <= 100;
            assert!(!(is_prose && would_fit), "wrapped twice: {line:?} {next:?}");
        }
    }
}
