//! Executes the blocks of README.md and the guides. A comment before each block says how:
//!
//! | comment | the block |
//! |---|---|
//! | `test: run` | A shell runs it. It succeeds. |
//! | `test: prints` | The output of the run before. |
//! | `test: background` | A shell runs it until the end of the page. It says when it is ready. |
//! | `test: file NAME` | A file in the working folder. |
//! | `test: send` | Each line is sent over one WebSocket. None is refused. |
//! | `test: answers` | The messages that arrive. `"…"` matches any value. |
//! | `test: config` | `switchboard check` finds no mistake. |
//! | `test: script 3` | Node.js runs it until the end of the page. It prints three lines before the next block. |
//! | `test: script prints` | The next lines of that script. |
//! | `test: no, REASON` | Not executed. |
//!
//! A page has one broker in open mode, to which `switchboard` in its blocks connects.

use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::support::{Broker, Peer, application, envelope, programs, secret_file, token_of, within};

/// The port in a page's addresses, which are replaced by the address of its own broker.
const DEFAULT_ADDRESS: &str = "7420";

/// A fenced block.
struct Block {
    line: usize,
    what: String,
    text: String,
}

fn blocks(page: &str) -> Vec<Block> {
    let text = fs::read_to_string(page).unwrap();
    let mut found = Vec::new();
    let mut lines = text.lines().enumerate();
    let mut before = "";
    while let Some((at, line)) = lines.next() {
        if line.starts_with("```") {
            let what = before.strip_prefix("<!-- test: ").and_then(|rest| rest.strip_suffix(" -->"));
            let what = what.unwrap_or_else(|| panic!("{page}:{}: say in a comment how this block is tested", at + 1));
            let text = lines.by_ref().map(|(_, line)| line).take_while(|line| !line.starts_with("```"));
            found.push(Block { line: at + 1, what: what.to_owned(), text: text.collect::<Vec<_>>().join("\n") });
        }
        before = line;
    }
    found
}

/// A page while its blocks are executed.
struct Page {
    broker: Broker,
    folder: TempDir,
    background: Vec<Child>,
    printed: String,
    peer: Option<Peer>,
    script: Option<Lines<BufReader<ChildStdout>>>,
}

impl Page {
    /// The beginning of every script: `switchboard` is the one under test, and connects to the page's broker. A password is
    /// given on standard input where a reader gets a prompt.
    fn prelude(&self) -> String {
        let (binary, address) = (env!("CARGO_BIN_EXE_switchboard"), self.broker.address());
        let data = self.broker.data_dir();
        format!(
            "set -eu\nswitchboard() {{ case \"$1\" in\n\
             sub|pub|request|handle|apps) ${{go:-}} '{binary}' \"$@\" --url ws://{address}/ws ;;\n\
             credentials) echo 'acq@123' | '{binary}' \"$@\" --data-dir '{}' ;;\n\
             *) '{binary}' \"$@\" ;;\nesac; }}\n",
            data.display()
        )
    }

    fn shell(&self, script: &str) -> Command {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{}{script}", self.prelude())]).current_dir(self.folder.path());
        shell.stdin(Stdio::null()).kill_on_drop(true);
        shell
    }

    /// A block with the address of the page's broker, and with its folder in place of `/var/lib`.
    fn here(&self, text: &str) -> String {
        text.replace(&format!("localhost:{DEFAULT_ADDRESS}"), &self.broker.address().to_string())
            .replace(&format!("127.0.0.1:{DEFAULT_ADDRESS}"), &self.broker.address().to_string())
            .replace("/var/lib/", &format!("{}/", self.folder.path().display()))
    }

    async fn play(&mut self, page: &str, block: &Block) {
        // A failure shows the conversation, and with it the block where it stopped.
        self.broker.conversation().add(page, ':', &format!("line {}: {}", block.line, block.what));
        let text = self.here(&block.text);
        let (word, rest) = block.what.split_once([' ', ',']).unwrap_or((&block.what, ""));
        match word {
            "run" => self.printed = succeed(within("a run", self.shell(&text).output()).await.unwrap()),
            "prints" => assert_eq!(self.printed.trim_end(), text.trim_end()),
            "background" => self.begin(&text).await,
            "file" => fs::write(self.folder.path().join(rest), text).unwrap(),
            "config" => {
                let file = self.folder.path().join("switchboard.toml");
                // `check` tries them.
                fs::create_dir_all(self.folder.path().join("switchboard-key")).unwrap();
                fs::write(file, text).unwrap();
                let check = self.shell("switchboard check --config switchboard.toml").output();
                succeed(within("check", check).await.unwrap());
            }
            "send" => {
                self.assert_nothing_refused().await;
                let mut peer = self.broker.raw("page").await;
                for line in text.lines() {
                    peer.send_text(line).await;
                }
                self.peer = Some(peer);
            }
            "answers" => {
                let peer = self.peer.as_mut().expect("answers follow what was sent");
                for line in text.lines() {
                    let found: Value = peer.next().await;
                    assert!(like(&serde_json::from_str(line).unwrap(), &found), "expected {line}\nfound    {found}");
                }
            }
            "script" => match rest.parse() {
                Ok(lines) => self.start_script(&text, lines).await,
                Err(_) => {
                    let Some(script) = &mut self.script else { return };
                    for line in text.lines() {
                        assert_eq!(within("a line of the script", script.next_line()).await.unwrap().unwrap(), line);
                    }
                }
            },
            "no" => assert!(rest.len() > 5, "say why it is not tested"),
            _ => panic!("'{}' does not say how to test a block", block.what),
        }
    }

    /// Asserts that the broker refused nothing that was sent.
    async fn assert_nothing_refused(&mut self) {
        let Some(mut peer) = self.peer.take() else { return };
        peer.send(envelope("Broker/Connection/Ping", json!({"id": "the end"}))).await;
        loop {
            let message = peer.next().await;
            assert_ne!(message["data"]["Success"], false, "{message}");
            if message["inReplyTo"] == "the end" {
                return;
            }
        }
    }

    /// Starts a script that opens a WebSocket, and waits until it has printed some lines. Without Node.js, does nothing.
    async fn start_script(&mut self, script: &str, lines: usize) {
        if !programs::exists("node").await {
            return;
        }
        let mut node = node_command(script, self.folder.path());
        let mut child = node.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut printed = BufReader::new(child.stdout.take().unwrap()).lines();
        for _ in 0..lines {
            within("a line of the script", printed.next_line()).await.unwrap().expect("the script goes on");
        }
        self.script = Some(printed);
        self.background.push(child);
    }

    /// Runs a shell script in the background, and waits for the line that says it is ready.
    async fn begin(&mut self, script: &str) {
        // `exec` replaces the shell; otherwise killing the shell would leave the command running.
        let script = format!("go=exec\n{script}");
        let mut child = self.shell(&script).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        within("a line of standard error", stderr.read_line(&mut line)).await.unwrap();
        assert!(line.contains("answering requests") || line.contains("subscribed to"), "not ready: {line}");
        self.background.push(child);
    }
}

fn succeed(output: Output) -> String {
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Returns whether two values are equal, with keys in the same order. An expected `"…"` matches any value.
fn like(expected: &Value, found: &Value) -> bool {
    match (expected, found) {
        (Value::String(any), _) if any == "…" => true,
        (Value::Object(expected), Value::Object(found)) => {
            expected.keys().eq(found.keys()) && expected.values().zip(found.values()).all(|(e, f)| like(e, f))
        }
        (Value::Array(expected), Value::Array(found)) => {
            expected.len() == found.len() && expected.iter().zip(found).all(|(e, f)| like(e, f))
        }
        _ => expected == found,
    }
}

fn node_command(script: &str, folder: &Path) -> Command {
    let mut node = programs::node();
    node.args(["--eval", script]).current_dir(folder).kill_on_drop(true);
    node
}

/// Runs a script that opens a WebSocket until it has printed `lines` lines. Returns `None` without Node.js.
pub(super) async fn node(script: &str, lines: usize, folder: &Path) -> Option<Output> {
    if !programs::exists("node").await {
        return None;
    }
    // A socket keeps Node.js alive: it ends when the handler that printed the last line has returned and the line is
    // written, or at a deadline.
    let script = format!(
        "{{ const log = console.log; let left = {lines}; console.log = (...words) => {{\n\
         log(...words); if (--left === 0) setImmediate(() => process.stdout.write('', () => process.exit())); }} }}\n\
         {script}\nsetTimeout(() => process.exit(), 15_000);\n"
    );
    Some(within("node", node_command(&script, folder).output()).await.unwrap())
}

async fn play(page: &str) {
    play_with(page, Broker::start().await, &[]).await;
}

/// Executes a page with this broker, and with files of these names in its folder.
async fn play_with(page: &str, broker: Broker, files: &[(&str, &str)]) {
    let folder = tempfile::tempdir().unwrap();
    for (name, contents) in files {
        secret_file(folder.path().join(name), contents);
    }
    let mut stage = Page { broker, folder, background: Vec::new(), printed: String::new(), peer: None, script: None };
    let blocks = blocks(page);
    assert!(!blocks.is_empty(), "{page} has no blocks");
    for block in &blocks {
        stage.play(page, block).await;
    }
    stage.assert_nothing_refused().await;
}

#[tokio::test]
async fn readme_md_does_what_it_says() {
    play("README.md").await;
}

#[tokio::test]
async fn the_guide_to_the_first_gadget_does_what_it_says() {
    play("docs/guides/first-gadget.md").await;
}

#[tokio::test]
async fn the_guide_to_adapters_does_what_it_says() {
    play("docs/guides/adapter.md").await;
}

#[tokio::test]
async fn the_guide_for_operators_does_what_it_says() {
    play("docs/guides/operate.md").await;
}

#[tokio::test]
async fn the_guide_to_tls_does_what_it_says() {
    play("docs/guides/tls.md").await;
}

#[tokio::test]
async fn the_guide_to_shared_hosts_does_what_it_says() {
    play("docs/guides/shared-hosts.md").await;
}

#[tokio::test]
async fn the_guide_to_identity_providers_does_what_it_says() {
    play("docs/guides/identity.md").await;
}

#[tokio::test]
async fn the_guide_to_calls_over_http_does_what_it_says() {
    if !programs::exists("curl").await {
        return eprintln!("SKIPPED: docs/guides/http.md (no curl)");
    }
    let alice = Some("alice@example.com");
    let rows = application("crm", alice, "over_http = true") + &application("desk", alice, "");
    let tokens = ["crm", "desk"].map(token_of);
    let files = [("crm.token", tokens[0].as_str()), ("desk.token", tokens[1].as_str())];
    play_with("docs/guides/http.md", Broker::with_config(&rows).await, &files).await;
}

#[tokio::test]
async fn the_guide_to_migrating_does_what_it_says() {
    play("docs/guides/migrate.md").await;
}

#[tokio::test]
async fn the_pages_on_clients_for_salesforce_do_what_they_say() {
    for page in ["clients/salesforce/README.md", "clients/salesforce/sfdx/README.md"] {
        play(page).await;
    }
}
