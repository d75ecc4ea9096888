//! `switchboard bench`, at its smallest: that it measures, and counts right, not what it finds.

use std::process::{Command, Stdio};

use roxmltree::Document;
use serde_json::{Value, json};

use crate::support::{Broker, within};

/// Runs a workload for a moment on a broker of its own, and gives its JSON object.
fn bench(workload: &str, more: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_switchboard"))
        .args(["bench", workload, "--clients", "5", "--seconds", "0.3", "--json"])
        .args(more)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn every_workload_loses_nothing_and_has_its_figures() {
    for workload in ["fanout", "pairs", "request"] {
        let figures = bench(workload, &[]);
        assert_eq!(figures["workload"], workload);
        assert_eq!(figures["lost"], 0, "{figures}");
        assert!(figures["delivered"].as_u64().unwrap() > 0, "{figures}");
        assert!(figures["messages_per_s"].as_f64().unwrap() > 0.0, "{figures}");
        let latency = |key: &str| figures["latency_us"][key].as_u64().unwrap();
        assert!(0 < latency("p50") && latency("p50") <= latency("p999"), "{figures}");
        #[cfg(target_os = "linux")]
        assert!(figures["cpu_s_per_million"].as_f64().unwrap() > 0.0, "{figures}");
    }
    let idle = bench("idle", &[]);
    assert!(idle.get("latency_us").is_none(), "{idle}");
    #[cfg(target_os = "linux")]
    assert!(idle["set_up_cpu_us_per_connection"].as_f64().unwrap() > 0.0, "{idle}");
}

#[test]
fn a_rate_is_kept() {
    let figures = bench("fanout", &["--rate", "100"]);
    let messages_per_second = figures["messages_per_s"].as_f64().unwrap() / 5.0;
    assert!(messages_per_second < 150.0, "{figures}");
}

/// Runs a workload that is not complete, and gives its JSON object.
fn incomplete(seconds: &str, arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_switchboard"))
        .args(["bench", "--seconds", seconds, "--json"])
        .args(arguments)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn nothing_delivered_is_no_latency_and_exit_code_1() {
    let figures = incomplete("0.3", &["fanout", "--clients", "2", "--rate", "0.01"]);
    assert_eq!((&figures["delivered"], &figures["lost"]), (&json!(0), &json!(0)), "{figures}");
    for percentile in ["p50", "p99", "p999", "max"] {
        assert_eq!(figures["latency_us"].get(percentile), Some(&Value::Null), "{figures}");
    }
}

/// No machine does ten million messages a second.
#[test]
fn a_rate_that_is_not_reached_is_loss_and_latency() {
    for workload in ["fanout", "pairs", "request"] {
        let figures = incomplete("1", &[workload, "--clients", "2", "--rate", "1e7"]);
        let figure = |key: &str| figures[key].as_f64().unwrap();
        assert!(figure("delivered") > 0.0 && figure("lost") > 0.0, "{figures}");
        assert!(0.0 < figure("rate_reached") && figure("rate_reached") < figure("rate") / 2.0, "{figures}");
        // They were due during 1 s, and were sent until a second later.
        assert!(figures["latency_us"]["p50"].as_u64().unwrap() > 100_000, "{figures}");
    }
}

#[test]
fn its_own_broker_has_no_settings_from_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_switchboard"))
        .args(["bench", "fanout", "--clients", "2", "--seconds", "0.3"])
        .env("SWITCHBOARD__NONSENSE", "1")
        .env("SWITCHBOARD_LOG", "nonsense")
        .env("SWITCHBOARD_CREDENTIALS_KEY", "nonsense")
        .env("TMPDIR", folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "its data is gone");
}

#[test]
fn a_broker_that_is_not_there_is_exit_code_3() {
    let output = Command::new(env!("CARGO_BIN_EXE_switchboard"))
        .args(["bench", "--url", "ws://127.0.0.1:1/ws", "--json"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
}

#[tokio::test]
async fn a_refused_connection_is_exit_code_3_with_the_brokers_reason() {
    let broker = Broker::open_with("[limits]\nconnections = 2").await;
    let url = format!("ws://{}/ws", broker.address());
    let bench = tokio::process::Command::new(env!("CARGO_BIN_EXE_switchboard"))
        .args(["bench", "idle", "--url", &url, "--clients", "5", "--seconds", "0.3"])
        .kill_on_drop(true)
        .output();
    let output = within("the end of the bench", bench).await.unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(3) && stderr.contains("limits.connections"), "{output:?}");
}

/// What a broker delivered is known by a witness: a session that receives what the load's own receivers do.
#[tokio::test]
async fn it_counts_what_the_broker_delivered() {
    for (workload, receivers) in [("pairs", 1), ("fanout", 5)] {
        let broker = Broker::open_with("[limits]\nrate = 0\noutbound_messages = 100000").await;
        let mut witness = broker.app_of("witness", "bench").await;
        witness.subscribe("Bench/*/*").await;
        let url = format!("ws://{}/ws", broker.address());
        let child = tokio::process::Command::new(env!("CARGO_BIN_EXE_switchboard"))
            .args(["bench", workload, "--url", &url, "--clients", "5", "--seconds", "0.3", "--rate", "2000", "--json"])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let output = within("the end of the bench", child.wait_with_output()).await.unwrap();
        let figures: Value = serde_json::from_slice(&output.stdout).unwrap();
        let heard = witness.drain_events().await.iter().filter(|event| event["channel"] == "Bench").count();
        assert_eq!(figures["sent_in_all"], heard, "{figures}");
        assert_eq!(figures["received_in_all"], heard * receivers, "{figures}");
        assert!(figures["delivered"].as_u64() < figures["received_in_all"].as_u64(), "{figures}");
    }
    let asked = bench("request", &[]);
    assert_eq!(asked["sent_in_all"], asked["received_in_all"], "{asked}");
}

/// A latency as it is shown, in microseconds, with what its digits leave open.
fn microseconds(shown: &str) -> (f64, f64) {
    let (figure, unit) = shown.split_once(' ').unwrap();
    let unit = [("µs", 1.0), ("ms", 1e3), ("s", 1e6)].into_iter().find(|(name, _)| *name == unit).unwrap().1;
    (figure.parse::<f64>().unwrap() * unit, unit / 100.0)
}

#[test]
fn the_picture_shows_the_figures() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("latency.svg");
    let figures = bench("pairs", &["--report", file.to_str().unwrap()]);
    let text = std::fs::read_to_string(file).unwrap();
    let picture = Document::parse(&text).unwrap();
    assert!(picture.root_element().has_tag_name(("http://www.w3.org/2000/svg", "svg")));
    let of_class = |class: &'static str| picture.descendants().filter(move |it| it.attribute("class") == Some(class));
    let number = |it: &roxmltree::Node<'_, '_>, name| it.attribute(name).unwrap().parse::<f64>().unwrap();

    let labels: Vec<_> = of_class("label").map(|label| (label.text().unwrap(), number(&label, "x"))).collect();
    assert_eq!(labels.len(), 4, "{text}");
    for ((label, _), name) in labels.iter().zip(["p50", "p99", "p999", "max"]) {
        let (marked, rounding) = microseconds(label.strip_prefix(name).unwrap().trim());
        let measured = figures["latency_us"][name].as_f64().unwrap();
        assert!((marked - measured).abs() <= rounding, "{label}, measured {measured} µs");
    }
    assert!(labels.is_sorted_by(|(_, one), (_, next)| one <= next), "{labels:?}");

    let share = |bar: roxmltree::Node<'_, '_>| {
        let title = bar.first_element_child().unwrap().text().unwrap();
        title.split_once(": ").unwrap().1.trim_end_matches(" %").parse::<f64>().unwrap()
    };
    let shares: f64 = of_class("bar").map(share).sum();
    assert!((99.9..100.1).contains(&shares), "{shares}");
    for bar in of_class("bar") {
        assert!(number(&bar, "x") >= 66.0 && number(&bar, "x") + number(&bar, "width") <= 744.0, "{bar:?}");
        assert!(number(&bar, "y") >= 132.0 && number(&bar, "height") > 0.0, "{bar:?}");
    }

    let words: Vec<_> = of_class("soft").filter_map(|it| it.text()).collect();
    assert!(words.iter().any(|it| it.starts_with("latency in µs, ms or s")), "{words:?}");
    assert!(words.iter().any(|it| it.contains("in % a bar")), "{words:?}");
    assert!(text.contains("prefers-color-scheme:dark"), "both kinds of pages");
    let elsewhere = ["href", "script", "url(", "@import", "@font-face"];
    assert!(elsewhere.iter().all(|it| !text.contains(it)), "it needs nothing beside it");
}

#[test]
fn idle_connections_have_no_picture() {
    let output = Command::new(env!("CARGO_BIN_EXE_switchboard"))
        .args(["bench", "idle", "--report", "never.svg"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}
