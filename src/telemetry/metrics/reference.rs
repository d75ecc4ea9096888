//! [`reference()`]: docs/metrics.md, printed from the table of metrics.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::SystemTime;

use super::family::{Family, Kind, Value};
use super::gauges::{ClusterGauges, Gauges, OrgGauges, SalesforceCalls, SalesforceGauges};
use super::process::Process;
use super::values::{CertificateOf, StoredFile};
use super::{CHANNELS_MAX, ISSUERS_MAX, Metrics};

/// The text before the table.
const INTRODUCTION: &str = "\
# Metrics

`GET /metrics` of the admin listener ([operate.md](operate.md#metrics)) has these metrics, in OpenMetrics 1.0.0 or in the text format
of Prometheus 0.0.4, as the client asks. They are of this broker alone. A counter begins at 0 with the process; its name ends
with `_total` in a query. A histogram has `_bucket`, `_sum` and `_count`.

A label never takes its value from a client. Codes are those of [errors.md](errors.md).

This page is printed from the program by `switchboard check --print-metrics`.

| metric | type | labels | meaning |
|---|---|---|---|
";

/// Describes the values of a label that come from the configuration or the build.
fn configured(metric: &str, label: &str) -> Option<String> {
    match label {
        "channel" => Some(format!("the first {CHANNELS_MAX} channels of the configuration, and `other`")),
        "issuer" if metric == "switchboard_jwks_fetched_timestamp_seconds" => {
            Some("the names of `[auth.jwt.NAME]`".to_owned())
        }
        "issuer" => Some(format!(
            "`static`, `certificate`, `salesforce`, the names of `[auth.jwt.NAME]` ({ISSUERS_MAX} in all), and `other`"
        )),
        "adapter" => Some("the adapters inside the broker".to_owned()),
        "version" | "revision" => Some(String::new()),
        _ => None,
    }
}

/// Returns the text of docs/metrics.md.
#[must_use]
pub fn reference() -> String {
    let mut page = INTRODUCTION.to_owned();
    for family in Metrics::default().families(&everything()) {
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        // Writing to a string does not fail.
        writeln!(page, "| `{}` | {kind} | {} | {}{} |", family.name, labels(&family), family.help, buckets(&family))
            .ok();
    }
    page
}

/// The labels of a metric with their values.
fn labels(family: &Family) -> String {
    let Some((first, _)) = family.samples.first() else { return String::new() };
    let described = first.iter().enumerate().map(|(at, (name, _))| match configured(family.name, name) {
        Some(words) if words.is_empty() => format!("`{name}`"),
        Some(words) => format!("`{name}`: {words}"),
        None => {
            let mut values: Vec<String> = Vec::new();
            for (labels, _) in &family.samples {
                let value = labels.get(at).map(|(_, value)| format!("`{value}`")).unwrap_or_default();
                if !values.contains(&value) {
                    values.push(value);
                }
            }
            format!("`{name}`: {}", values.join(", "))
        }
    });
    described.collect::<Vec<_>>().join("; ")
}

/// The upper bounds of a histogram's buckets.
fn buckets(family: &Family) -> String {
    let Some((_, Value::Distribution(distribution))) = family.samples.first() else { return String::new() };
    let bounds = distribution.buckets.iter().map(|(bound, _)| bound);
    let bounds: Vec<String> = bounds.filter(|bound| bound.is_finite()).map(ToString::to_string).collect();
    format!(". Buckets: {}", bounds.join(", "))
}

/// Gauges with a sample of everything.
pub(super) fn everything() -> Gauges {
    let at = SystemTime::UNIX_EPOCH;
    Gauges {
        storage_bytes: [StoredFile::History, StoredFile::Credentials, StoredFile::Audit].map(|file| (file, 0)).into(),
        keys_fetched: vec![("corp".to_owned(), at)],
        certificates: [CertificateOf::Server, CertificateOf::ClientCa].map(|of| (of, at)).into(),
        cluster: Some(ClusterGauges::default()),
        salesforce: Some(SalesforceGauges {
            calls: Arc::new(SalesforceCalls::default()),
            org: Some(OrgGauges { is_breaker_open: false, token_issued: Some(at), api_calls: Some((0, 0)) }),
        }),
        adapters_waiting: vec![("FetchCredentials".to_owned(), 0)],
        process: Some(Process {
            cpu_seconds: 0.0,
            resident_bytes: 0,
            virtual_bytes: 0,
            open_files: 0,
            open_files_max: 0,
            started: at,
        }),
        ..Gauges::default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// A bound on what one broker costs a server that keeps its metrics.
    const SERIES_MAX: usize = 2_000;

    /// How many series a metric is for a server that keeps them.
    fn series(family: &Family) -> usize {
        let of = |value: &Value| match value {
            Value::Count(_) | Value::Number(_) => 1,
            // Its buckets, sum and count.
            Value::Distribution(distribution) => distribution.buckets.len() + 2,
        };
        family.samples.iter().map(|(_, value)| of(value)).sum()
    }

    #[test]
    fn a_broker_with_everything_has_a_bounded_number_of_series() {
        let names = Metrics::channel_names();
        let metrics = Metrics::new(&names);
        for number in 0..1_000 {
            names.add(&format!("Channel{number}"));
            metrics.add_issuer(&format!("issuer{number}"));
        }
        let adapters = (0..100).map(|number| (format!("Adapter{number}"), 0)).collect();
        let keys_fetched = (0..ISSUERS_MAX).map(|number| (format!("issuer{number}"), SystemTime::UNIX_EPOCH)).collect();
        let gauges = Gauges { adapters_waiting: adapters, keys_fetched, ..everything() };
        let series: usize = metrics.families(&gauges).iter().map(series).sum();
        assert!(series <= SERIES_MAX, "{series} series");
        assert!(series > SERIES_MAX / 2, "{series} series: the bound is of no use");
    }

    #[test]
    fn names_follow_the_rules_of_metrics() {
        let mut names = BTreeSet::new();
        for family in Metrics::default().families(&everything()) {
            let Family { name, help, samples, .. } = &family;
            assert!(names.insert(*name), "{name} is there twice");
            assert!(name.starts_with("switchboard_") || name.starts_with("process_"), "{name}");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert!(!name.ends_with("_total") && !name.ends_with("_count"), "{name} has a suffix of samples");
            assert!(!help.is_empty() && !help.ends_with('.') && !help.contains('|'), "{name}: {help}");
            assert!(!samples.is_empty(), "{name} has no sample");
            let distinct: BTreeSet<_> = samples.iter().map(|(labels, _)| labels).collect();
            assert_eq!(distinct.len(), samples.len(), "{name} has a sample twice");
        }
    }
}
