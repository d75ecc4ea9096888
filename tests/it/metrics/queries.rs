//! The queries of the dashboard and of the alerts: each name, label and value in them is in a scrape.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use serde_json::Value;
use switchboard::telemetry::metrics::reference;

use super::everything::{Everything, Labels, scrape};
use crate::cluster::servers::Servers;
use crate::support::Broker;

const DASHBOARD: &str = "deploy/grafana/switchboard.json";
const ALERTS: &str = "deploy/prometheus/alerts.yaml";

/// Labels that a server adds to each series.
const OF_THE_SERVER: [&str; 2] = ["instance", "job"];

/// Every query of the dashboard: those of its panels, and those of its variables.
fn of_dashboard() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(DASHBOARD).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.filter_map(|panel| panel["targets"].as_array()).flatten().map(|target| &target["expr"]);
    let variables = dashboard["templating"]["list"].as_array().unwrap().iter().map(|it| &it["definition"]);
    targets.chain(variables).filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The expression of each alert, by its name. A block continues as long as its lines are indented further.
fn of_alerts() -> BTreeMap<String, String> {
    let text = fs::read_to_string(ALERTS).unwrap();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let (mut alerts, mut name) = (BTreeMap::new(), String::new());
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(alert) = line.trim().strip_prefix("- alert: ") {
            alert.clone_into(&mut name);
        } else if let Some(expression) = line.trim().strip_prefix("expr: ") {
            let mut expression = expression.to_owned();
            if expression == "|" {
                expression.clear();
                while let Some(more) = lines.next_if(|next| indent(next) > indent(line)) {
                    expression += more.trim();
                    expression += " ";
                }
            }
            alerts.insert(name.clone(), expression);
        }
    }
    alerts
}

fn is_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

/// A metric of a query, with its matchers: labels and the values that they may have.
type Selected = (String, Vec<(String, Vec<String>)>);

/// The metrics of a query.
fn selectors(query: &str) -> Vec<Selected> {
    let mut found = Vec::new();
    let starts = ["switchboard_", "process_"].into_iter().flat_map(|prefix| query.match_indices(prefix));
    for (at, _) in starts.filter(|(at, _)| !query[..*at].ends_with(is_name)) {
        let rest = &query[at..];
        let name: String = rest.chars().take_while(|it| is_name(*it)).collect();
        let matchers = rest[name.len()..].strip_prefix('{').and_then(|it| it.split_once('}')).map_or("", |it| it.0);
        let matcher = |text: &str| {
            let (label, values) = text.split_once(['=', '!']).unwrap();
            let values = values.trim_start_matches(['=', '~']).trim_matches('"');
            (label.trim().to_owned(), values.split('|').map(str::to_owned).collect())
        };
        found.push((name, matchers.split(',').filter(|it| !it.is_empty()).map(matcher).collect()));
    }
    found
}

/// The labels by which a query groups, or matches two sides.
fn grouped_by(query: &str) -> BTreeSet<String> {
    let lists = [" by (", "by (", " on ("].into_iter().flat_map(|start| query.match_indices(start));
    let list = |(at, start): (usize, &str)| query[at + start.len()..].split(')').next().unwrap().to_owned();
    lists.map(list).flat_map(|it| it.split(',').map(|it| it.trim().to_owned()).collect::<Vec<_>>()).collect()
}

/// What is wrong with a query, of which a scrape has these labels and values.
fn faults(query: &str, scrape: &BTreeMap<String, BTreeMap<String, BTreeSet<String>>>) -> Vec<String> {
    let mut faults = Vec::new();
    let selectors = selectors(query);
    if selectors.is_empty() {
        faults.push("it asks for no metric".to_owned());
    }
    let mut labels: BTreeSet<&str> = OF_THE_SERVER.into();
    for (name, matchers) in &selectors {
        let Some(of_metric) = scrape.get(name) else {
            faults.push(format!("there is no {name}"));
            continue;
        };
        labels.extend(of_metric.keys().map(String::as_str));
        for (label, values) in matchers.iter().filter(|(label, _)| !OF_THE_SERVER.contains(&label.as_str())) {
            match of_metric.get(label) {
                None => faults.push(format!("{name} has no label {label}")),
                Some(known) => faults.extend(
                    values.iter().filter(|it| !known.contains(*it)).map(|it| format!("{name} has no {label} {it}")),
                ),
            }
        }
    }
    let unknown = grouped_by(query).into_iter().filter(|label| !labels.contains(label.as_str()));
    faults.extend(unknown.map(|label| format!("no metric of it has the label {label}")));
    let balanced = |open, close| query.matches(open).count() == query.matches(close).count();
    if !(balanced('(', ')') && balanced('{', '}') && balanced('[', ']')) {
        faults.push("its brackets do not match".to_owned());
    }
    faults
}

/// The same of a node of a cluster; `None` without a NATS server.
async fn of_a_node() -> Option<Labels> {
    let servers = Servers::start(1).await?;
    let node = Broker::open_with(&format!("[admin]\nlisten = ['127.0.0.1:0']\n{}", servers.table("node", 0))).await;
    Some(scrape(&node, node.admin().await).await.labels())
}

#[tokio::test]
async fn each_query_of_dashboard_and_alerts_finds_its_metrics_in_a_live_scrape() {
    let broker = Everything::start().await;
    let scrape = broker.scrape().await;
    let mut labels = scrape.labels();
    let node = of_a_node().await;
    let is_for_nodes = |query: &String| query.contains("switchboard_cluster_");
    let queries = of_dashboard().into_iter().chain(of_alerts().into_values());
    let queries = queries.filter(|query| node.is_some() || !is_for_nodes(query));
    labels.extend(node.iter().flatten().map(|(name, labels)| (name.clone(), labels.clone())));
    let wrong: Vec<String> = queries
        .map(|query| (faults(&query, &labels), query))
        .filter(|(faults, _)| !faults.is_empty())
        .map(|(faults, query)| format!("{query}\n    {}", faults.join("; ")))
        .collect();
    assert!(wrong.is_empty(), "{}\nin\n{}", wrong.join("\n"), scrape.text());
}

#[test]
fn the_dashboard_shows_every_metric() {
    let queries = of_dashboard().join("\n");
    let page = reference();
    let metrics = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let missing: Vec<&str> = metrics.filter(|metric| !queries.contains(*metric)).collect();
    assert!(missing.is_empty(), "{DASHBOARD} does not show {missing:?}");
}

#[test]
fn a_query_with_a_wrong_name_label_or_value_is_found() {
    let metric = [("outcome".to_owned(), BTreeSet::from(["timeout".to_owned()]))];
    let scrape = [("switchboard_requests_total".to_owned(), BTreeMap::from(metric))].into();
    let good = "sum by (instance, outcome) (rate(switchboard_requests_total{outcome=~\"timeout\",job=\"x\"}[5m])) > 0";
    assert_eq!(faults(good, &scrape), Vec::<String>::new());
    for wrong in [
        "rate(switchboard_request_total[5m])",
        "rate(switchboard_requests_total{result=\"timeout\"}[5m])",
        "rate(switchboard_requests_total{outcome=~\"timeout|late\"}[5m])",
        "sum by (code) (rate(switchboard_requests_total[5m]))",
        "sum(rate(switchboard_requests_total[5m])",
        "up",
    ] {
        assert_ne!(faults(wrong, &scrape), Vec::<String>::new(), "{wrong}");
    }
}

#[test]
fn there_is_an_alert_for_each_thing_that_needs_somebody() {
    let alerts = of_alerts();
    for part in [
        "switchboard_ready",
        "< 14 * 86400",
        "FORBIDDEN|UNAUTHENTICATED",
        "> 10 * sum",
        "outcome=\"timeout\"",
        "> 0.01 * sum",
        "switchboard_slow_consumers_total",
        "switchboard_storage_errors_total",
        "switchboard_cluster_nodes_lost_total",
        "switchboard_salesforce_breaker_open == 1",
        "switchboard_salesforce_api_calls_remaining < 0.1 * switchboard_salesforce_api_calls_limit",
        "process_open_fds > 0.8 * process_max_fds",
    ] {
        assert!(alerts.values().any(|it| it.contains(part)), "no alert has {part}");
    }
}

#[test]
fn alerts_about_a_lasting_state_wait_for_it_to_last() {
    let text = fs::read_to_string(ALERTS).unwrap();
    for (alert, span) in [
        ("SwitchboardNotReady", "for: 5m"),
        ("SwitchboardSlowConsumers", "for: 10m"),
        ("SwitchboardSalesforceBreakerOpen", "for: 5m"),
    ] {
        let rule = text.split("- alert: ").find(|rule| rule.starts_with(alert)).unwrap();
        assert!(rule.lines().any(|line| line.trim() == span), "{alert} is not {span}: {rule}");
    }
}

#[test]
fn promtool_accepts_the_alerts() {
    match Command::new("promtool").args(["check", "rules", ALERTS]).output() {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
        Err(_) => println!("SKIPPED: promtool is not installed"),
    }
}
