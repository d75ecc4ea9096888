//! The pages that we ship, in a real browser: `salesforce` (clients/salesforce/opencti against a stub of Open CTI), `tabs`
//! (several tabs of it), `connection` (how its connection ends and is made again, against a broker that a test plays), `gadget`
//! (examples/gadget.html), `org` (that gadget, a broker and an org), `desk` (clients/js: reloads, duplicated tabs, restarts),
//! `call` (a page and a softphone in a cluster), `shared` (its tabs with one session), `reasons` (why it cannot connect),
//! `recipes` (of the guide), `console` (the console of a broker).
//!
//! [`Chromium::launch`] gives a browser, or `None` where this machine has none; [`Chromium::open`] a page that loads from
//! this repository, with files replaced as the test says; [`Page::wait`] waits for what has to come true in it.
//! tests/node/chromium.cjs is the other half. One launch serves all scenes of this folder, but those of `firefox`.

mod call;
mod connection;
mod console;
mod desk;
mod firefox;
mod gadget;
mod org;
mod reasons;
mod recipes;
mod salesforce;
mod shared;
mod tabs;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::support::programs::node_modules;
use crate::support::{DEADLINE, within};

/// Names that Chromium goes by.
const CHROMIUM: &[&str] = &["chromium", "chromium-browser", "google-chrome-stable", "google-chrome"];
const FIREFOX: &[&str] = &["firefox-esr", "firefox"];

/// How long a browser may take to start beside everything else that runs.
const STARTING: Duration = Duration::from_mins(1);

/// How often a page is looked at while something is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A browser, gone when the test ends.
pub(crate) struct Chromium {
    child: Child,
    stdin: Mutex<ChildStdin>,
    reading: Mutex<Reading>,
    port: u64,
    public_port: u64,
    told: AtomicU64,
}

/// What it answers.
struct Reading {
    lines: Lines<BufReader<ChildStdout>>,
    /// Read, and not yet taken by the one who waits for it.
    outcomes: HashMap<u64, Value>,
}

/// Where a page is loaded from.
#[derive(Clone, Copy)]
pub(crate) enum Host {
    /// A loopback address, which every broker lets in.
    Loopback,
    /// `http://crm.example.com:PORT`, which a broker lets in only when it is listed.
    Elsewhere,
    /// `http://crm.example.com:ANOTHER`, which Chromium takes for a secure page of the internet.
    Public,
}

impl Chromium {
    /// Starts it. `None`: this machine lacks Chromium or Node.js.
    pub(crate) async fn launch() -> Option<Self> {
        Self::start("chromium.cjs", executable("CHROMIUM", CHROMIUM)?, "playwright-core").await
    }

    /// Starts Firefox in its place, which does less: see tests/node/firefox.cjs.
    pub(crate) async fn launch_firefox() -> Option<Self> {
        Self::start("firefox.cjs", executable("FIREFOX", FIREFOX)?, "ws").await
    }

    async fn start(script: &str, executable: PathBuf, package: &str) -> Option<Self> {
        let modules = node_modules(package).await?;
        let mut command = Command::new("node");
        command.arg(Path::new("tests/node").join(script)).arg(executable).arg(std::env::current_dir().unwrap());
        // It ends with its standard input, and the browser with it. If it were killed, Firefox would stay.
        command.env("NODE_PATH", modules).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = timeout(STARTING, lines.next_line()).await.expect("the browser takes too long to start");
        let ready: Value = serde_json::from_str(&ready.unwrap().expect("the browser does not start")).unwrap();
        let [port, public_port] = ["port", "public"].map(|key| ready[key].as_u64().unwrap());
        let stdin = Mutex::new(child.stdin.take().unwrap());
        let reading = Mutex::new(Reading { lines, outcomes: HashMap::new() });
        Some(Self { child, stdin, reading, port, public_port, told: AtomicU64::new(0) })
    }

    /// Ends it, and waits until it has ended.
    pub(crate) async fn end(self) {
        let Self { mut child, stdin, .. } = self;
        drop(stdin);
        within("the end of the browser", child.wait()).await.unwrap();
    }

    /// The origin of its pages.
    pub(crate) fn origin(&self, host: Host) -> String {
        match host {
            Host::Loopback => format!("http://127.0.0.1:{}", self.port),
            Host::Elsewhere => format!("http://crm.example.com:{}", self.port),
            Host::Public => format!("http://crm.example.com:{}", self.public_port),
        }
    }

    /// Opens a file of this repository in a profile that no other page uses. `files`: what replaces other files that it
    /// loads, by the end of their address; `setup`: there as `window.stubSetup` before any script.
    pub(crate) async fn open(&self, host: Host, path: &str, files: Value, setup: Value) -> Page<'_> {
        self.open_as(json!({ "url": format!("{}/{path}", self.origin(host)), "files": files, "setup": setup })).await
    }

    /// Opens a page with this text, at a path that names no file.
    pub(crate) async fn open_text(&self, path: &str, query: &str, text: &str) -> Page<'_> {
        self.open_served(&format!("{path}?{query}"), &[(path, text)]).await
    }

    /// Opens a page of this computer, where paths that name no file have these texts.
    pub(crate) async fn open_served(&self, page: &str, texts: &[(&str, &str)]) -> Page<'_> {
        let served: Value =
            texts.iter().map(|(path, text)| (format!("/{path}"), json!(text))).collect::<Map<_, _>>().into();
        self.open_as(json!({ "url": format!("{}/{page}", self.origin(Host::Loopback)), "served": served })).await
    }

    /// Opens an address in a profile that no other page uses. What breaks a policy of the page is in `window.violations`.
    pub(crate) async fn open_url(&self, url: &str) -> Page<'_> {
        self.open_as(json!({ "url": url })).await
    }

    async fn open_as(&self, mut options: Value) -> Page<'_> {
        let name = format!("page {}", self.told.fetch_add(1, Ordering::Relaxed));
        options["do"] = json!("open");
        options["page"] = json!(name);
        self.tell(options.clone()).await;
        Page { chromium: self, name, options }
    }

    /// Has it done, whatever others have done meanwhile.
    async fn tell(&self, mut command: Value) -> Value {
        let id = self.told.fetch_add(1, Ordering::Relaxed);
        command["id"] = json!(id);
        within("telling", self.stdin.lock().await.write_all(format!("{command}\n").as_bytes())).await.unwrap();
        let mut outcome = within("Chromium's answer", self.outcome(id)).await;
        assert!(outcome.get("error").is_none(), "{command}\n{}", outcome["error"].as_str().unwrap_or_default());
        outcome["value"].take()
    }

    /// A caller that waits reads one line, for itself or for another; then the next one looks.
    async fn outcome(&self, id: u64) -> Value {
        loop {
            let mut reading = self.reading.lock().await;
            if let Some(outcome) = reading.outcomes.remove(&id) {
                return outcome;
            }
            let line = reading.lines.next_line().await.unwrap().expect("Chromium ended");
            let outcome: Value = serde_json::from_str(&line).unwrap();
            reading.outcomes.insert(outcome["id"].as_u64().unwrap(), outcome);
        }
    }
}

/// A page of a browser.
pub(crate) struct Page<'c> {
    chromium: &'c Chromium,
    name: String,
    options: Value,
}

impl Page<'_> {
    /// The same page once more, in the same profile, as a second tab is.
    pub(crate) async fn beside(&self) -> Self {
        self.beside_with(self.options["files"].clone()).await
    }

    /// A second tab, with other files.
    pub(crate) async fn beside_with(&self, files: Value) -> Self {
        let mut options = self.options.clone();
        options["beside"] = json!(self.name);
        options["files"] = files;
        self.chromium.open_as(options).await
    }

    async fn tell(&self, what: &str, mut options: Value) -> Value {
        options["do"] = json!(what);
        options["page"] = json!(self.name);
        self.chromium.tell(options).await
    }

    /// What an expression is.
    pub(crate) async fn evaluate(&self, expression: &str) -> Value {
        self.tell("evaluate", json!({ "expression": expression })).await
    }

    /// Waits until an expression is true.
    pub(crate) async fn wait(&self, expression: &str) {
        let wanted = format!("Boolean({expression})");
        let looking = async {
            let mut often = tokio::time::interval(LOOK_EVERY);
            while self.evaluate(&wanted).await != true {
                often.tick().await;
            }
        };
        if timeout(DEADLINE, looking).await.is_err() {
            let text = self.evaluate("document.body.innerText").await;
            panic!("never true: {expression}\nthe page shows {text}\nits console: {:#?}", self.console().await);
        }
    }

    /// Waits until an element shows a text that contains this one.
    pub(crate) async fn shows(&self, id: &str, text: &str) {
        let (id, text) = (json!(id), json!(text));
        self.wait(&format!("document.getElementById({id}).textContent.includes({text})")).await;
    }

    /// Clicks an element.
    pub(crate) async fn click(&self, selector: &str) {
        self.tell("click", json!({ "selector": selector })).await;
    }

    /// Presses a key, such as `Tab` or `Shift+Tab`.
    pub(crate) async fn press(&self, key: &str) {
        self.tell("press", json!({ "key": key })).await;
    }

    /// Types a text into the element that has the focus.
    pub(crate) async fn type_text(&self, text: &str) {
        self.tell("type", json!({ "text": text })).await;
    }

    /// Gives it another size, and a scheme of colours: `light` or `dark`.
    pub(crate) async fn resize(&self, width: u32, scheme: &str) {
        self.tell("resize", json!({ "width": width, "scheme": scheme })).await;
    }

    /// Writes a picture of the whole page. With `look`, returns what axe finds wrong with it, which takes a while.
    pub(crate) async fn picture(&self, path: &Path, look: bool) -> Value {
        self.tell("picture", json!({ "path": path, "look": look })).await
    }

    /// Has it show another page of its origin. Its profile keeps what it stored.
    pub(crate) async fn leave(&self) {
        self.tell("leave", json!({})).await;
    }

    /// Reloads it, as F5 does.
    pub(crate) async fn reload(&self) {
        self.tell("reload", json!({})).await;
    }

    /// Allows it to reach this computer, as a person does whom the browser asks.
    pub(crate) async fn allow(&self) {
        self.tell("allow", json!({})).await;
    }

    /// Freezes it, as a browser does that saves energy, or wakes it. A frozen page can still be looked at.
    pub(crate) async fn freeze(&self, frozen: bool) {
        self.tell("freeze", json!({ "frozen": frozen })).await;
    }

    /// Returns to the page that [`Self::leave`] left.
    pub(crate) async fn back(&self) {
        self.tell("back", json!({})).await;
    }

    /// A second tab that begins with a copy of what this one has stored, as a duplicated tab does.
    pub(crate) async fn duplicate(&self) -> Self {
        let name = format!("page {}", self.chromium.told.fetch_add(1, Ordering::Relaxed));
        self.tell("duplicate", json!({ "name": name })).await;
        Page { chromium: self.chromium, name, options: self.options.clone() }
    }

    /// All that it said on its console.
    pub(crate) async fn console(&self) -> Vec<String> {
        serde_json::from_value(self.tell("console", json!({})).await).unwrap()
    }

    /// Ends it.
    pub(crate) async fn close(self) {
        self.tell("close", json!({})).await;
    }
}

/// Returns a browser, from the environment or the usual places.
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
fn executable(variable: &str, names: &[&str]) -> Option<PathBuf> {
    let folders: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH")?).collect();
    let found = std::env::var_os(variable).map(PathBuf::from);
    let mut usual = names.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    let found = found.or_else(|| usual.find(|path| path.exists()));
    if found.is_none() {
        eprintln!("SKIPPED: there is no {} on this machine; {variable} can name it", names[0]);
    }
    found
}

/// One browser for all scenes, since its start takes longest; side by side, since most of a scene is waiting.
#[tokio::test]
async fn our_pages_work_in_a_browser() {
    let Some(browser) = Chromium::launch().await else { return };
    let chromium = &browser;
    let desks = async {
        desk::a_reload_in_mid_call_loses_nothing_and_the_answer_arrives(chromium).await;
        desk::what_the_page_before_had_ends_if_the_new_one_does_not_make_it(chromium).await;
        desk::a_duplicated_tab_is_a_session_of_its_own(chromium).await;
        desk::a_page_in_the_back_forward_cache_resumes(chromium).await;
        desk::a_frozen_page_says_that_it_sleeps(chromium).await;
        desk::a_restarted_broker_is_reported_to_the_new_page(chromium).await;
        reasons::a_page_connects_when_the_person_allows_it(chromium).await;
        reasons::a_page_says_why_it_cannot_connect(chromium).await;
    };
    let sharing = async {
        shared::tabs_share_a_socket_whatever_becomes_of_the_tab_that_has_it(chromium).await;
        shared::a_frozen_tab_is_not_asked(chromium).await;
        recipes::a_plain_page_shows_its_calls(chromium).await;
        recipes::a_worker_receives_and_publishes(chromium).await;
    };
    let operating = async {
        console::names_of_others_are_text_on_every_page(chromium).await;
        console::health_shows_the_org_the_certificate_and_the_disk(chromium).await;
        console::health_shows_the_nodes_of_a_cluster(chromium).await;
        call::a_call_goes_on_while_the_node_of_the_softphone_restarts(chromium).await;
    };
    let signing_in = async {
        console::a_link_signs_in_once(chromium).await;
        console::everything_is_done_by_keyboard(chromium).await;
        console::an_application_is_tried_with_its_token(chromium).await;
        console::a_console_from_elsewhere_names_the_origin_to_add(chromium).await;
        console::a_page_whose_token_is_removed_asks_to_sign_in(chromium).await;
    };
    tokio::join!(
        Box::pin(desks),
        Box::pin(sharing),
        Box::pin(the_salesforce_page_works(chromium)),
        Box::pin(operating),
        Box::pin(signing_in)
    );
    browser.end().await;
}

/// The scenes of the page for Salesforce, and those of gadgets that are as short.
async fn the_salesforce_page_works(chromium: &Chromium) {
    let telling = async {
        salesforce::an_event_opens_the_record(chromium).await;
        salesforce::a_record_opens_in_the_tab_that_was_looked_at_last(chromium).await;
        salesforce::a_bad_id_opens_nothing_and_the_sender_hears_why(chromium).await;
        salesforce::navigation_and_clicks_reach_other_applications(chromium).await;
        salesforce::a_log_is_saved_once_and_only_as_allowed(chromium).await;
        gadget::a_gadget_shows_the_login_and_never_the_password(chromium).await;
        org::what_jsforce_writes_into_an_org_a_gadget_fetches(chromium).await;
    };
    let connecting = async {
        salesforce::a_token_comes_from_apex_and_a_refused_one_is_replaced(chromium).await;
        salesforce::a_page_of_a_foreign_origin_says_what_to_do(chromium).await;
        connection::a_dead_connection_is_found_when_the_page_wakes(chromium).await;
        connection::a_hidden_page_says_that_it_sleeps(chromium).await;
    };
    let coming_back = async {
        salesforce::the_page_comes_back_after_a_restart(chromium).await;
        connection::a_draining_broker_says_when_to_come_back(chromium).await;
        connection::some_closes_are_final_and_others_are_not(chromium).await;
    };
    let several_tabs = async {
        tabs::a_repeated_log_is_saved_once_whichever_tab_receives_it(chromium).await;
        tabs::a_log_whose_tab_was_closed_while_it_saved_is_not_saved_again(chromium).await;
        tabs::a_log_is_saved_once_when_the_storage_is_full(chromium).await;
        tabs::a_log_whose_result_cannot_be_stored_is_answered_and_not_saved_again(chromium).await;
        tabs::a_hidden_tab_with_slow_timers_opens_a_record_again(chromium).await;
        tabs::each_record_opens_once_while_the_leading_tab_changes(chromium).await;
        tabs::a_tab_that_loses_its_connection_leaves_records_to_another(chromium).await;
        tabs::a_tab_that_may_not_receive_records_leaves_them_to_another(chromium).await;
        tabs::an_error_is_shown_until_its_cause_is_gone(chromium).await;
    };
    tokio::join!(Box::pin(telling), Box::pin(connecting), Box::pin(coming_back), Box::pin(several_tabs));
}
