//! [`encode`]: metrics in the format that a client asks for.

use std::fmt;
use std::io::{self, Write as _};

use flate2::Compression;
use flate2::write::GzEncoder;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::Metrics;
use super::accept::Format;
use super::family::{Family, Kind, Value};
use super::gauges::Gauges;

/// Returns everything that was counted and looked up, as text of a format.
///
/// # Errors
/// None: it is written to memory.
pub fn encode(metrics: &Metrics, gauges: &Gauges, format: Format) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape(metrics.families(gauges))));
    let mut out = String::new();
    match format {
        Format::OpenMetrics => text::encode(&mut out, &registry)?,
        Format::Text => prometheus_text::encode(&mut out, &registry)?,
    }
    Ok(out)
}

/// Compresses an answer with gzip.
///
/// # Errors
/// None: it is written to memory.
pub fn compress(text: &str) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 8), Compression::fast());
    encoder.write_all(text.as_bytes())?;
    encoder.finish()
}

/// The metrics of one scrape.
struct Scrape(Vec<Family>);

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrape").field("families", &self.0.len()).finish()
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|family| encode_family(&mut encoder, family))
    }
}

fn encode_family(encoder: &mut DescriptorEncoder<'_>, family: &Family) -> fmt::Result {
    let kind = match family.kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
        Kind::Histogram => MetricType::Histogram,
    };
    // The encoder adds the unit to the name.
    let unit = family.unit().map(|unit| Unit::Other(unit.to_owned()));
    let name = family.unit().and_then(|unit| family.name.strip_suffix(unit)).map(|name| name.trim_end_matches('_'));
    let help = format!("{}.", family.help);
    let mut metric = encoder.encode_descriptor(name.unwrap_or(family.name), &help, unit.as_ref(), kind)?;
    for (labels, value) in &family.samples {
        match labels.is_empty() {
            true => encode_sample(&mut metric, family.kind, value)?,
            false => encode_sample(&mut metric.encode_family(labels)?, family.kind, value)?,
        }
    }
    Ok(())
}

fn encode_sample(encoder: &mut MetricEncoder<'_>, kind: Kind, value: &Value) -> fmt::Result {
    match (kind, value) {
        (Kind::Counter, Value::Count(count)) => encoder.encode_counter::<NoLabelSet, _, f64>(count, None),
        (Kind::Counter, Value::Number(number)) => encoder.encode_counter::<NoLabelSet, _, f64>(number, None),
        (_, Value::Count(count)) => encoder.encode_gauge(count),
        (_, Value::Number(number)) => encoder.encode_gauge(number),
        (_, Value::Distribution(distribution)) => {
            let count = distribution.buckets.iter().map(|(_, count)| count).sum();
            encoder.encode_histogram::<NoLabelSet>(distribution.sum, count, &distribution.buckets, None)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io::Read as _;
    use std::time::Duration;

    use flate2::read::GzDecoder;

    use super::super::reference::everything;
    use super::super::{AuthOutcome, ChannelPlace, HandlerKind, RegistrationOutcome, RequestOutcome};
    use super::*;

    fn counted() -> Metrics {
        let names = Metrics::channel_names();
        let phone = ChannelPlace::at(names.add("Phone"));
        let metrics = Metrics::new(&names);
        metrics.add_issuer("co\"rp\\");
        metrics.traffic.event(phone, 2);
        metrics.traffic.sent(1_000);
        metrics.requests.count(RequestOutcome::NoHandler);
        metrics.registrations.count(RegistrationOutcome::Refused(wire::ErrorCode::Forbidden));
        metrics.request_duration.observe(HandlerKind::Adapter, Duration::from_millis(3));
        metrics.authentications.count("co\"rp\\", AuthOutcome::Expired);
        metrics
    }

    fn lines(format: Format) -> Vec<String> {
        let text = encode(&counted(), &everything(), format).unwrap();
        assert!(text.ends_with('\n') && !text.contains("\n\n"));
        text.lines().map(str::to_owned).collect()
    }

    /// A sample with its labels in alphabetical order, and whole numbers without a fraction: each format puts `le` in another
    /// place, and writes it in another way.
    fn sorted(sample: &str) -> String {
        let Some((name, (labels, value))) = sample.split_once('{').and_then(|(a, b)| Some((a, b.rsplit_once('}')?)))
        else {
            return sample.to_owned();
        };
        let mut labels: Vec<&str> = labels.strip_suffix('"').unwrap_or(labels).split("\",").collect();
        labels.sort_unstable();
        format!("{name}{{{}\"}}{value}", labels.join("\",")).replace(".0\"", "\"")
    }

    #[test]
    fn both_formats_have_the_same_samples() {
        let samples = |format| {
            let all = lines(format);
            // Of a histogram, each begins with something else.
            all.iter().filter(|line| !line.starts_with('#')).map(|line| sorted(line)).collect::<BTreeSet<_>>()
        };
        let text = samples(Format::Text);
        assert_eq!(text, samples(Format::OpenMetrics));
        for expected in [
            "switchboard_envelopes_total{kind=\"event\"} 1",
            "switchboard_channel_deliveries_total{channel=\"Phone\"} 2",
            "switchboard_channel_deliveries_total{channel=\"other\"} 0",
            "switchboard_sent_bytes_total 1000",
            "switchboard_requests_total{outcome=\"no_handler\"} 1",
            "switchboard_registrations_total{outcome=\"FORBIDDEN\"} 1",
            "switchboard_request_duration_seconds_bucket{handler=\"adapter\",le=\"0.0025\"} 0",
            "switchboard_request_duration_seconds_bucket{handler=\"adapter\",le=\"0.005\"} 1",
            "switchboard_request_duration_seconds_bucket{handler=\"adapter\",le=\"+Inf\"} 1",
            "switchboard_request_duration_seconds_count{handler=\"adapter\"} 1",
            "switchboard_request_duration_seconds_sum{handler=\"adapter\"} 0.003",
            "switchboard_authentications_total{issuer=\"co\\\"rp\\\\\",outcome=\"expired\"} 1",
            "switchboard_ready{check=\"starting\"} 1",
        ] {
            assert!(text.contains(expected), "{expected} is not in {text:#?}");
        }
    }

    #[test]
    fn each_format_describes_metrics_in_its_own_way() {
        let (open, text) = (lines(Format::OpenMetrics), lines(Format::Text));
        let has = |lines: &[String], line: &str| lines.iter().any(|it| it == line);
        assert!(has(&open, "# TYPE switchboard_sent_bytes counter"));
        assert!(has(&open, "# UNIT switchboard_sent_bytes bytes"));
        assert_eq!(open.last().map(String::as_str), Some("# EOF"));
        assert!(has(&text, "# TYPE switchboard_sent_bytes_total counter"));
        assert!(text.iter().all(|line| !line.starts_with("# UNIT") && line != "# EOF"));
        assert!(has(&text, "# TYPE switchboard_build_info gauge"));
    }

    #[test]
    fn what_is_compressed_is_what_was_encoded() {
        let text = lines(Format::Text).join("\n");
        let compressed = compress(&text).unwrap();
        let mut read = String::new();
        GzDecoder::new(compressed.as_slice()).read_to_string(&mut read).unwrap();
        assert_eq!(read, text);
        assert!(compressed.len() * 4 < text.len());
    }
}
