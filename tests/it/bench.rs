//! `switchboard bench`, at its smallest: that it measures, not what.

use std::process::Command;

use serde_json::Value;

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

#[test]
fn a_broker_that_is_not_there_is_exit_code_3() {
    let output = Command::new(env!("CARGO_BIN_EXE_switchboard"))
        .args(["bench", "--url", "ws://127.0.0.1:1/ws", "--json"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
}
