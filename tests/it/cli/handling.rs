//! `switchboard handle`.

use std::path::Path;

use super::*;
use crate::client::fake_broker::request;
use crate::support::envelope;

async fn find(url: &str, data: &str) -> Outcome {
    run(url, &["request", "Crm", "Contact", "Find", data]).await
}

#[tokio::test]
async fn a_fixed_answer_is_given_count_times() {
    let broker = Broker::start().await;
    let line = ["handle", "Crm", "Contact", "*", "--reply", "{\"Success\":true,\"Name\":\"Ada\"}", "--count", "2"];
    let mut handle = Beside::start(&url(&broker), "crm", &line).await;
    for _ in 0..2 {
        assert_eq!(find(&url(&broker), "1").await.values(), [json!({ "Success": true, "Name": "Ada" })]);
        assert_eq!(handle.told().await, "shell for local requested Crm/Contact/Find: answered");
    }
    assert_eq!(handle.code().await, Some(0));
}

#[tokio::test]
async fn an_ordered_handler_takes_turns_and_reports_in_json() {
    let broker = FakeBroker::start().await;
    let line =
        ["handle", "Crm", "*", "*", "--reply", "1", "--ordered", "--replies", "Contact/Found", "--json", "--message"];
    let mut handle = Beside::spawn(&broker.url(), "crm", &line);
    let (mut peer, _) = broker.session().await;
    let data = peer.grant().await;
    assert_eq!((&data["ordered"], &data["replies"]), (&json!(true), &json!(["Contact/Found"])));
    peer.say(request("Crm/Contact/Find", "r1", json!("secret"))).await;
    let answer = peer.next().await;
    assert_eq!((&answer["inReplyTo"], &answer["message"]), (&json!("r1"), &json!(1)));
    let note: Value = serde_json::from_str(&handle.line().await).unwrap();
    let expected = json!({ "Source": "other", "User": null, "Channel": "Crm", "Topic": "Contact", "Subtopic": "Find",
        "Success": true, "ErrorCode": null });
    assert_eq!(note, expected);
}

#[tokio::test]
async fn a_command_reads_the_envelope_and_prints_the_answer() {
    let broker = Broker::start().await;
    let script = r#"
        read -r envelope
        case $envelope in
            *'"data":1'*) echo "[$envelope]" ;;
            *'"data":2'*) exit 7 ;;
            *'"data":3'*) echo no json ;;
        esac"#;
    let _handle = Beside::start(&url(&broker), "crm", &["handle", "Crm", "*", "*", "--exec", script]).await;
    let answer = find(&url(&broker), "1").await;
    answer.has(0, "");
    let envelope = &answer.values()[0][0];
    assert_eq!((&envelope["subtopic"], &envelope["source"]), (&json!("Find"), &json!("shell")));
    assert!(envelope["id"].is_string() && envelope["timeout"].is_u64(), "{envelope}");
    let failed = find(&url(&broker), "2").await;
    assert_eq!(failed.stderr, "UPSTREAM_REJECTED: the command ended with exit code 7\n");
    assert_eq!((failed.code, &failed.values()[0]["Success"]), (Some(1), &json!(false)));
    find(&url(&broker), "3").await.has(1, "INTERNAL: the command's output is not JSON");
    let silent = find(&url(&broker), "4").await;
    assert_eq!((silent.code, silent.stdout.as_str()), (Some(0), ""));
}

#[tokio::test]
async fn a_command_is_ended_when_its_answer_is_no_longer_wanted() {
    let broker = Broker::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let script = format!("echo $$ > '{}'; exec sleep 600", file.display());
    let line = ["handle", "Crm", "*", "*", "--exec", &script];
    let mut handle = Beside::start(&url(&broker), "crm", &line).await;
    run(&url(&broker), &["request", "Crm", "Contact", "Find", "--timeout", "300ms"]).await.has(4, "REQUEST_TIMEOUT");
    handle.told().await;
    let pid = std::fs::read_to_string(file).unwrap();
    let is_alive = || std::process::Command::new("kill").args(["-0", pid.trim()]).output().unwrap().status.success();
    let gone = async {
        while is_alive() {
            tokio::time::sleep_until(tokio::time::Instant::now() + Duration::from_millis(20)).await;
        }
    };
    within("the end of the command", gone).await;
}

#[tokio::test]
async fn the_command_does_not_get_the_token() {
    let broker = Broker::with_config(&format!(
        "{}{}",
        application("crm", Some("alice"), ""),
        application("shell", Some("alice"), "")
    ))
    .await;
    let folder = tempfile::tempdir().unwrap();
    let file = secret_file(&folder, "token", &token_of("shell"));
    let script = "printf '\"%s\"' \"$SWITCHBOARD_TOKEN\"";
    let line = ["handle", "Crm", "*", "*", "--exec", script, "--count", "1", "--source", "crm"];
    let mut handle = command(&[&line[..], &["--url", &url(&broker)]].concat());
    let mut handle = handle.env("SWITCHBOARD_TOKEN", token_of("crm")).spawn().unwrap();
    let mut told = BufReader::new(handle.stderr.take().unwrap()).lines();
    within("readiness", told.next_line()).await.unwrap();
    let request = ["request", "Crm", "Contact", "Find", "--token-file", &file];
    assert_eq!(run(&url(&broker), &request).await.values(), [json!("")]);
}

#[tokio::test]
async fn a_late_answer_is_reported_in_plain_text() {
    let broker = FakeBroker::start().await;
    let mut handle = Beside::spawn(&broker.url(), "crm", &["handle", "Crm", "*", "*", "--reply", "1"]);
    let (mut peer, _) = broker.session().await;
    peer.grant().await;
    assert!(handle.told().await.starts_with("answering requests of"));
    let data = json!({ "Success": false, "ErrorCode": "NO_SUCH_REQUEST", "ErrorMessage": "no request of that id" });
    peer.say(event("Broker/Message/Error", data)).await;
    let told = handle.told().await;
    assert_eq!(told.trim(), "WARN an answer was too late: its request had timed out or was cancelled");
}

/// Waits until a file that a command makes has this many lines, and returns them.
async fn lines_of(file: &Path, count: usize) -> Vec<String> {
    let read = async {
        loop {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            if text.ends_with('\n') && text.lines().count() >= count {
                return text.lines().map(str::to_owned).collect();
            }
            tokio::time::sleep_until(tokio::time::Instant::now() + Duration::from_millis(10)).await;
        }
    };
    within("the file of the command", read).await
}

/// Returns whether a process runs. A process that has ended can still be listed, as a zombie.
fn runs(pid: &str) -> bool {
    let state = std::process::Command::new("ps").args(["-o", "stat=", "-p", pid]).output().unwrap().stdout;
    let state = String::from_utf8(state).unwrap();
    !state.trim().is_empty() && !state.trim().starts_with('Z')
}

/// A command with a process that is not a child of the handler, which writes its id to `pids` and would make `marker`.
struct Deep {
    folder: TempDir,
    script: String,
}

impl Deep {
    /// `trap` runs in the inner process first.
    fn new(trap: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (pids, marker) = (folder.path().join("pids"), folder.path().join("marker"));
        let inner = folder.path().join("inner.sh");
        let text =
            format!("{trap}\necho $$ >> '{}'\nsleep 600\nsleep 600\ntouch '{}'\n", pids.display(), marker.display());
        std::fs::write(&inner, text).unwrap();
        Self { script: format!("sh '{}' | cat", inner.display()), folder }
    }

    async fn pid(&self) -> String {
        lines_of(&self.folder.path().join("pids"), 1).await.remove(0)
    }

    fn has_marker(&self) -> bool {
        self.folder.path().join("marker").exists()
    }
}

async fn is_gone(pid: &str) {
    let gone = async {
        while runs(pid) {
            tokio::time::sleep_until(tokio::time::Instant::now() + Duration::from_millis(20)).await;
        }
    };
    within("the end of the inner process", gone).await;
}

#[tokio::test]
async fn all_processes_of_a_command_end_when_the_requester_leaves() {
    let broker = Broker::start().await;
    // The second one ignores SIGTERM.
    for trap in ["", "trap '' TERM"] {
        let deep = Deep::new(trap);
        let line = ["handle", "Crm", "*", "*", "--exec", &deep.script];
        let mut handle = Beside::start(&url(&broker), "crm", &line).await;
        let asking = Beside::spawn(&url(&broker), "shell", &["request", "Crm", "Contact", "Find"]);
        let pid = deep.pid().await;
        assert!(runs(&pid));
        asking.signal("-INT").await;
        assert!(handle.told().await.contains("REQUEST_CANCELLED"));
        is_gone(&pid).await;
        assert!(!deep.has_marker());
    }
}

#[tokio::test]
async fn all_processes_of_a_command_end_with_the_handler() {
    let broker = Broker::start().await;
    let url = url(&broker);
    for (signal, trap) in [("-INT", ""), ("-TERM", "trap '' TERM"), ("-HUP", "")] {
        let deep = Deep::new(trap);
        let mut handle = Beside::start(&url, "crm", &["handle", "Crm", "*", "*", "--exec", &deep.script]).await;
        let asking = run(&url, &["request", "Crm", "Contact", "Find"]);
        let end = async {
            let pid = deep.pid().await;
            handle.signal(signal).await;
            assert_eq!(handle.code().await, Some(0));
            assert!(!runs(&pid) && !deep.has_marker(), "{signal}");
        };
        let (asked, ()) = tokio::join!(asking, end);
        assert!(asked.stderr.starts_with("HANDLER_GONE: the handler is ending"), "{asked:?}");
    }
}

#[tokio::test]
async fn a_command_can_clean_up_when_it_is_ended() {
    let broker = Broker::start().await;
    let folder = tempfile::tempdir().unwrap();
    let (ready, cleaned) = (folder.path().join("ready"), folder.path().join("cleaned"));
    let script = format!(
        "trap \"echo yes > '{}'; exit 1\" TERM; echo yes > '{}'; while :; do sleep 0.05; done",
        cleaned.display(),
        ready.display()
    );
    let line = ["handle", "Crm", "*", "*", "--exec", &script];
    let _handle = Beside::start(&url(&broker), "crm", &line).await;
    let asking = Beside::spawn(&url(&broker), "shell", &["request", "Crm", "Contact", "Find"]);
    lines_of(&ready, 1).await;
    asking.signal("-INT").await;
    lines_of(&cleaned, 1).await;
}

#[tokio::test]
async fn what_a_command_leaves_in_the_background_ends_with_its_answer() {
    let broker = Broker::start().await;
    let deep = Deep::new("");
    let pids = deep.folder.path().join("pids");
    let background = deep.script.replace(" | cat", " > /dev/null &");
    let script = format!("{background}\nwhile [ ! -s '{}' ]; do sleep 0.02; done; echo 1", pids.display());
    let _handle = Beside::start(&url(&broker), "crm", &["handle", "Crm", "*", "*", "--exec", &script]).await;
    assert_eq!(find(&url(&broker), "1").await.values(), [json!(1)]);
    is_gone(&deep.pid().await).await;
    assert!(!deep.has_marker());
}

#[tokio::test]
async fn output_beyond_the_brokers_message_size_ends_the_command() {
    let broker = Broker::open_with("[limits]\nmessage_bytes = 20000").await;
    // Longer than a message; as long as one, so that the envelope is longer; never ending, also without a reader.
    let endless = "trap '' PIPE; yes; while :; do sleep 0.05; done";
    let scripts = ["printf '\"%20000s\"' x", "printf '\"%19990s\"' x", "yes", endless];
    for (script, name) in scripts.into_iter().zip(["Longer", "AsLong", "Endless", "Unread"]) {
        let _handle = Beside::start(&url(&broker), "crm", &["handle", "Crm", "Contact", name, "--exec", script]).await;
        let asked = run(&url(&broker), &["request", "Crm", "Contact", name]).await;
        assert!(asked.code == Some(1) && asked.stderr.starts_with("TOO_LARGE: "), "{script}: {asked:?}");
    }
}

#[tokio::test]
async fn an_answer_does_not_wait_for_what_its_command_left_in_the_background() {
    let broker = Broker::start().await;
    // Ignores SIGTERM, so its end takes until SIGKILL.
    let deep = Deep::new("trap '' TERM");
    let pids = deep.folder.path().join("pids");
    let background = deep.script.replace(" | cat", " > /dev/null 2>&1 &");
    let script =
        format!("rm -f '{0}'; {background}\nwhile [ ! -s '{0}' ]; do sleep 0.02; done; echo 1", pids.display());
    let _handle = Beside::start(&url(&broker), "crm", &["handle", "Crm", "*", "*", "--exec", &script]).await;
    let mut phone = broker.app("softphone").await;
    let mut outlived = false;
    // On a busy machine, SIGKILL can be earlier than the look.
    for id in ["1", "2", "3", "4", "5"] {
        phone.send(envelope("Crm/Contact/Find", json!({ "id": id }))).await;
        assert_eq!(phone.next_answer("Crm/Contact/Find", id).await["data"], 1);
        let pid = deep.pid().await;
        outlived |= runs(&pid);
        is_gone(&pid).await;
    }
    assert!(outlived, "each answer was sent after the end of all processes");
}

#[tokio::test]
async fn an_answer_is_complete_when_its_command_has_ended() {
    let broker = Broker::start().await;
    // The processes in the background keep standard output or standard input open.
    let fails = "UPSTREAM_REJECTED: the command ended with exit code 3\n";
    let long = format!("\"{}\"", "x".repeat(200_000));
    for (name, script, code, printed) in [
        ("Output", "sleep 600 & echo 1", 0, "1\n"),
        ("Failure", "sleep 600 & exit 3", 1, fails),
        ("Input", "exec 3<&0; sleep 600 <&3 >/dev/null & echo 2", 0, "2\n"),
        ("Both", "exec 3<&0; sleep 600 <&3 & echo 3", 0, "3\n"),
    ] {
        let _handle = Beside::start(&url(&broker), "crm", &["handle", "Crm", "Contact", name, "--exec", script]).await;
        let mut asking = command(&["request", "Crm", "Contact", name, "-", "--source", "shell"]);
        asking.args(["--url", &url(&broker)]);
        let asked = run_with(asking, &long).await;
        let text = if code == 0 { &asked.stdout } else { &asked.stderr };
        assert!(asked.code == Some(code) && text.starts_with(printed), "{script}: {asked:?}");
    }
}

#[tokio::test]
async fn long_output_is_read_to_its_end() {
    let broker = Broker::start().await;
    for (name, script) in [("Alone", "printf '\"%500000s\"' x"), ("Beside", "sleep 600 & printf '\"%500000s\"' x")] {
        let _handle = Beside::start(&url(&broker), "crm", &["handle", "Crm", "Contact", name, "--exec", script]).await;
        let asked = run(&url(&broker), &["request", "Crm", "Contact", name]).await;
        assert_eq!(asked.values()[0].as_str().map(str::len), Some(500_000), "{script}");
    }
}

/// Returns the most memory that a process has used, in bytes.
#[cfg(target_os = "linux")]
fn memory_peak(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_memory_for_an_answer_grows_with_the_answer() {
    let broker =
        Broker::open_with("[limits]\nmessage_bytes = 67108864\noutbound_bytes = 67108864\npending_bytes = 67108864")
            .await;
    let handle = Beside::start(&url(&broker), "crm", &["handle", "Crm", "*", "*", "--exec", "echo 1"]).await;
    let before = memory_peak(handle.child.id().unwrap());
    assert_eq!(find(&url(&broker), "1").await.values(), [json!(1)]);
    let grown = memory_peak(handle.child.id().unwrap()) - before;
    assert!(grown < 16 << 20, "{grown} bytes for a short answer");
}
