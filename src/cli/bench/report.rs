//! [`Report`]: the figures, as text with a histogram or as a JSON object.

use std::fmt::Write as _;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::{Workload, process};

/// The longest bar.
const BAR: f64 = 40.0;

/// The resources that the broker had used at four moments. `None` if it cannot be examined.
pub(super) struct Usage {
    pub(super) before: Option<process::Usage>,
    pub(super) set_up: Option<process::Usage>,
    pub(super) begun: Option<process::Usage>,
    pub(super) ended: Option<process::Usage>,
}

/// All figures.
pub(super) struct Report {
    pub(super) workload: Workload,
    pub(super) url: String,
    pub(super) clients: u32,
    pub(super) connections: u32,
    pub(super) size: u32,
    pub(super) rate: f64,
    pub(super) seconds: f64,
    pub(super) latencies: Histogram<u32>,
    pub(super) delivered: u64,
    pub(super) lost: u64,
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) usage: Usage,
}

impl Report {
    /// Returns whether the load arrived, completely. Without messages there is nothing to lose.
    pub(super) fn is_complete(&self) -> bool {
        let has_figures = self.delivered > 0 && !self.latencies.is_empty();
        self.lost == 0 && (has_figures || !self.workload.has_messages())
    }

    /// Returns a JSON object.
    pub(super) fn json(&self) -> String {
        let mut all = json!({
            "workload": self.workload.name(),
            "url": self.url,
            "clients": self.clients,
            "size": self.size,
            "rate": self.rate,
            "seconds": self.seconds,
        });
        let mut set = |key: &str, value: Value| {
            if let Value::Object(all) = &mut all {
                all.insert(key.to_owned(), value);
            }
        };
        if self.workload.has_messages() {
            set("delivered", self.delivered.into());
            set("lost", self.lost.into());
            set("sent_in_all", self.sent.into());
            set("received_in_all", self.received.into());
            set("messages_per_s", round(self.messages_per_second()));
            set("rate_reached", round(self.rate_reached()));
            let mut latency = serde_json::Map::new();
            for (name, quantile) in QUANTILES {
                latency.insert(name.to_owned(), self.latency(quantile).into());
            }
            set("latency_us", latency.into());
        }
        for (name, figure) in self.costs() {
            set(name, figure.map_or(Value::Null, round));
        }
        all.to_string()
    }

    /// Returns text for people.
    pub(super) fn text(&self, broker: &str) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        writeln!(
            out,
            "{}: {} clients, {} bytes, {} s, on {broker}\n",
            self.workload.name(),
            self.clients,
            self.size,
            self.seconds
        )
        .ok();
        if self.workload.has_messages() {
            writeln!(out, "{:<32}{:>12.0}", "messages/s", self.messages_per_second()).ok();
            if self.rate > 0.0 {
                writeln!(out, "{:<32}{:>12}", "rate asked for", self.rate).ok();
                writeln!(out, "{:<32}{:>12.1}", "rate reached", self.rate_reached()).ok();
            }
            writeln!(out, "{:<32}{:>12}", "lost or repeated", self.lost).ok();
            for (name, quantile) in QUANTILES {
                let name = format!("latency {name}");
                let latency = self.latency(quantile).map_or_else(|| "none".to_owned(), duration);
                writeln!(out, "{name:<32}{latency:>12}").ok();
            }
        }
        for (name, figure) in self.costs() {
            let figure = figure.map_or_else(|| "unknown".to_owned(), |figure| format!("{figure:.3}"));
            writeln!(out, "{:<32}{figure:>12}", name.replace('_', " ")).ok();
        }
        if !self.latencies.is_empty() {
            out.push('\n');
            self.draw(&mut out);
        }
        out
    }

    /// Draws a bar for each doubling of the latency.
    fn draw(&self, out: &mut String) {
        let mut rows: Vec<(u64, u64)> = Vec::new();
        for step in self.latencies.iter_recorded() {
            let upper = step.value_iterated_to().max(1).next_power_of_two();
            match rows.last_mut() {
                Some((last, count)) if *last == upper => *count += step.count_since_last_iteration(),
                _ => rows.push((upper, step.count_since_last_iteration())),
            }
        }
        let most = rows.iter().map(|(_, count)| *count).max().unwrap_or(1);
        for (upper, count) in rows {
            #[expect(clippy::cast_precision_loss, reason = "shares for people")]
            let (length, share) =
                (BAR * count as f64 / most as f64, 100.0 * count as f64 / self.latencies.len() as f64);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to BAR")]
            let bar = "█".repeat(length.ceil() as usize);
            writeln!(out, "up to {:>9}  {bar:<40} {share:>5.1} %", duration(upper)).ok();
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "figures of a benchmark have three digits")]
    fn messages_per_second(&self) -> f64 {
        self.delivered as f64 / self.seconds
    }

    /// Returns how many published messages arrived per second, to compare with the rate that was asked for.
    fn rate_reached(&self) -> f64 {
        let receivers = match self.workload {
            Workload::Fanout => f64::from(self.clients),
            Workload::Pairs | Workload::Request | Workload::Idle => 1.0,
        };
        self.messages_per_second() / receivers
    }

    /// Returns a percentile of the latency, if there was a message.
    fn latency(&self, quantile: f64) -> Option<u64> {
        (!self.latencies.is_empty()).then(|| self.latencies.value_at_quantile(quantile))
    }

    /// Returns the costs of the broker with their names.
    fn costs(&self) -> Vec<(&'static str, Option<f64>)> {
        let Usage { before, set_up, begun, ended } = &self.usage;
        let cpu = |from: &Option<process::Usage>, to: &Option<process::Usage>| {
            from.zip(*to).map(|(from, to)| to.cpu.saturating_sub(from.cpu).as_secs_f64())
        };
        let connections = f64::from(self.connections);
        let set_up_cost = ("set_up_cpu_us_per_connection", cpu(before, set_up).map(|cpu| 1e6 * cpu / connections));
        let while_measured = cpu(begun, ended);
        if self.workload.has_messages() {
            #[expect(clippy::cast_precision_loss, reason = "figures of a benchmark have three digits")]
            let millions = self.delivered as f64 / 1e6;
            let per_million = while_measured.filter(|_| millions > 0.0).map(|cpu| cpu / millions);
            return vec![("cpu_s_per_million", per_million), set_up_cost];
        }
        #[expect(clippy::cast_precision_loss, reason = "figures of a benchmark have three digits")]
        let grown = before.zip(*ended).map(|(from, to)| to.rss_kib.saturating_sub(from.rss_kib) as f64);
        vec![
            ("rss_kib_per_connection", grown.map(|kib| kib / connections)),
            ("idle_cpu_ms_per_s", while_measured.map(|cpu| 1e3 * cpu / self.seconds)),
            set_up_cost,
        ]
    }
}

/// The percentiles of the latency that are reported.
pub(super) const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)];

/// Rounds to three digits after the point, which is more than two runs agree on.
fn round(figure: f64) -> Value {
    ((figure * 1e3).round() / 1e3).into()
}

/// Returns microseconds as text with a suitable unit.
pub(super) fn duration(us: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let us_float = us as f64;
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{:.2} ms", us_float / 1e3),
        _ => format!("{:.2} s", us_float / 1e6),
    }
}
