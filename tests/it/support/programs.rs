//! Programs other than the broker: the examples, and what runs them.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader, Lines};
use tokio::process::{Child, Command};

use super::within;

/// Returns the folder of the build.
pub(crate) fn built() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_switchboard")).parent().unwrap().to_owned()
}

/// Returns whether a program can be started, and says if not.
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
pub(crate) async fn exists(program: &str) -> bool {
    let exists = Command::new(program).arg("--version").output().await.is_ok_and(|it| it.status.success());
    if !exists {
        eprintln!("SKIPPED: there is no {program} on this machine");
    }
    exists
}

/// Returns the interpreter with the packages that the test command installs. `None`: this machine has no Python.
pub(crate) async fn python() -> Option<PathBuf> {
    let python = built().parent()?.join("python/bin/python");
    if python.exists() {
        return Some(python);
    }
    assert!(!exists("python3").await, "no target/python: run ./test, which makes it");
    None
}

/// The package in `clients/python`.
pub(crate) const PYTHON_CLIENT: &str = "clients/python";

/// Lets a program of Python import the package in `clients/python`.
pub(crate) fn with_our_client(mut program: Command) -> Command {
    program.env("PYTHONPATH", Path::new(PYTHON_CLIENT).join("src")).env("PYTHONDONTWRITEBYTECODE", "1");
    program
}

/// Returns the folder with this package of Node.js, which the test command installs. `None`: this machine has no npm.
pub(crate) async fn node_modules(package: &str) -> Option<PathBuf> {
    let modules = built().parent()?.join("node/node_modules");
    if modules.join(package).exists() {
        return Some(modules);
    }
    assert!(!exists("npm").await, "no {package} in target/node: run ./test, which installs it");
    None
}

/// Node.js with a WebSocket of its own. Older versions have it behind this flag, and warn of it.
pub(crate) fn node() -> Command {
    let mut node = Command::new("node");
    node.args(["--experimental-websocket", "--no-warnings"]);
    node
}

/// Returns examples/gadget.html, with this address of the broker in place of the usual one.
pub(crate) fn gadget_page(url: &str) -> String {
    let page = std::fs::read_to_string("examples/gadget.html").unwrap();
    let (written, host) = ("localhost:7420", url.trim_start_matches("ws://").trim_end_matches("/ws"));
    assert_eq!(page.matches(written).count(), 2, "the page has the address of the client and of the WebSocket");
    page.replace(written, host)
}

/// Returns the scripts of that page, with the part of a browser that they use. `search` is the query of the page's address.
/// What it shows goes to standard output, as `ID: TEXT`.
pub(crate) fn gadget_script(url: &str, search: &str) -> String {
    let page = gadget_page(url);
    let script = page.split_once("<script>").unwrap().1.split_once("</script>").unwrap().0;
    let client = std::fs::read_to_string("clients/js/bundle/switchboard.global.js").unwrap();
    format!(
        "{client}
         globalThis.location = {{ search: '{search}' }};
         globalThis.document ??= {{}};
         document.getElementById = (id) => ({{ set textContent(text) {{ console.log(`${{id}}: ${{text}}`); }} }});
         {script}"
    )
}

/// A program whose standard output or standard error is read line by line. It ends with the test.
pub(crate) struct Program {
    _child: Child,
    lines: Lines<BufReader<Box<dyn AsyncRead + Send + Unpin>>>,
}

impl Program {
    /// Starts a program to read its standard output.
    pub(crate) fn start(mut command: Command) -> Self {
        command.stdout(Stdio::piped());
        Self::spawn(command, |child| Box::new(child.stdout.take().unwrap()))
    }

    /// Starts a program to read its standard error.
    pub(crate) fn start_for_errors(mut command: Command) -> Self {
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        Self::spawn(command, |child| Box::new(child.stderr.take().unwrap()))
    }

    fn spawn(mut command: Command, pipe: impl FnOnce(&mut Child) -> Box<dyn AsyncRead + Send + Unpin>) -> Self {
        let mut child = command.stdin(Stdio::null()).kill_on_drop(true).spawn().unwrap();
        let lines = BufReader::new(pipe(&mut child)).lines();
        Self { _child: child, lines }
    }

    /// Reads lines until this one.
    pub(crate) async fn prints(&mut self, line: &str) {
        self.find(line, |it| it == line).await;
    }

    /// Reads lines until one that starts like this.
    pub(crate) async fn prints_start(&mut self, start: &str) {
        self.find(start, |it| it.starts_with(start)).await;
    }

    /// Reads lines until one that has this in it.
    pub(crate) async fn prints_part(&mut self, part: &str) {
        self.find(part, |it| it.contains(part)).await;
    }

    async fn find(&mut self, what: &str, wanted: impl Fn(&str) -> bool) {
        let mut printed = Vec::new();
        let reading = async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                if wanted(&line) {
                    return;
                }
                printed.push(line);
            }
            panic!("the program has ended without '{what}'; it printed {printed:#?}");
        };
        within(what, reading).await;
    }
}
