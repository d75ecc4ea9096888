//! The histogram of latencies as a picture: SVG that needs no other file, and is readable on light and dark pages.
//!
//! The axis of latencies is logarithmic, because they span decades. A line marks each percentile.

use std::fmt::Write as _;

use super::Workload;
use super::report::{QUANTILES, Report, duration};

/// The size of the picture, in pixels.
const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 440.0;

/// The area of the bars. The space on the right is for the label of a percentile at the end of the axis.
const LEFT: f64 = 66.0;
const RIGHT: f64 = WIDTH - 116.0;
const TOP: f64 = 132.0;
const BOTTOM: f64 = HEIGHT - 64.0;

/// How many bars there are for each doubling of the latency.
const BARS_A_DOUBLING: f64 = 6.0;

/// How many labels fit on the axis of latencies.
const LABELS_MAX: usize = 13;

const STYLE: &str = "\
.page{fill:#fff}.ink,.label{fill:#1c2127}.soft{fill:#5b6470}.bar{fill:#2f6fb5}.grid{stroke:#dfe3e8}.axis{stroke:#5b6470}\
.mark{stroke:#b3401a;stroke-dasharray:4 3}.label{paint-order:stroke;stroke:#fff;stroke-width:3px}\
@media(prefers-color-scheme:dark){.page{fill:#14181d}.ink,.label{fill:#e6e9ed}.soft{fill:#9aa4b0}.bar{fill:#5b9bdf}\
.grid{stroke:#2a313a}.axis{stroke:#9aa4b0}.mark{stroke:#f08a5d}.label{stroke:#14181d}}";

impl Report {
    /// Returns the picture, or `None` if no message was measured.
    pub(super) fn svg(&self, broker: &str) -> Option<String> {
        let bars = Bars::of(self)?;
        let mut out = String::new();
        self.head(&mut out, broker);
        bars.shares(&mut out);
        bars.latencies(&mut out);
        bars.draw(&mut out);
        for (row, (name, quantile)) in (0..).zip(QUANTILES) {
            bars.mark(&mut out, name, self.latencies.value_at_quantile(quantile), f64::from(row));
        }
        out.push_str("</svg>\n");
        Some(out)
    }

    /// Writes the title.
    fn head(&self, out: &mut String, broker: &str) {
        let what = if self.workload == Workload::Request { "round trips" } else { "deliveries" };
        let title = format!("{}: latency of {} {what}", self.workload.name(), self.latencies.len());
        let rate = if self.rate > 0.0 { format!("{} messages/s", self.rate) } else { "full speed".to_owned() };
        let setting = format!(
            "{} clients, {} bytes, {} s at {rate}, {} lost; switchboard {} on {broker}",
            self.clients,
            self.size,
            self.seconds,
            self.lost,
            env!("CARGO_PKG_VERSION")
        );
        let figures = QUANTILES
            .map(|(name, quantile)| format!("{name} {}", duration(self.latencies.value_at_quantile(quantile))));
        let (title, setting, figures) = (escape(&title), escape(&setting), figures.join(", "));
        // Writing to a string cannot fail, here and below.
        write!(
            out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
             height=\"{HEIGHT}\" role=\"img\" font-family=\"system-ui,sans-serif\" font-size=\"12\">\n\
             <title>{title}</title>\n<desc>{setting}. {figures}.</desc>\n<style>{STYLE}</style>\n\
             <rect class=\"page\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>\n\
             <text class=\"ink\" x=\"{LEFT}\" y=\"30\" font-size=\"17\">{title}</text>\n\
             <text class=\"soft\" x=\"{LEFT}\" y=\"50\">{setting}</text>\n"
        )
        .ok();
    }
}

/// The bars, each with its share of all latencies.
struct Bars {
    /// The number of the first bar; bar 0 begins at one microsecond.
    first: f64,
    /// In percent.
    shares: Vec<f64>,
    /// The end of the axis of shares, and the distance of its labels.
    most: f64,
    step: f64,
}

impl Bars {
    fn of(report: &Report) -> Option<Self> {
        let latencies = &report.latencies;
        if latencies.is_empty() {
            return None;
        }
        // With an empty one on each side, so that a single bar has an axis around it.
        let (first, last) = (bar(latencies.min()) - 1.0, bar(latencies.max()) + 1.0);
        let mut shares = Vec::new();
        for step in latencies.iter_recorded() {
            let place = index(bar(step.value_iterated_to()) - first);
            shares.resize(shares.len().max(place + 1), 0.0);
            if let Some(share) = shares.get_mut(place) {
                *share += percent(step.count_since_last_iteration(), latencies.len());
            }
        }
        shares.resize(shares.len().max(index(last - first) + 1), 0.0);
        let highest = shares.iter().copied().fold(0.0, f64::max);
        let step = [0.2, 0.5, 1.0, 2.0, 5.0, 10.0].into_iter().find(|step| highest / step <= 6.0).unwrap_or(20.0);
        Some(Self { first, shares, most: step * (highest / step).ceil(), step })
    }

    /// Returns the place of a latency in microseconds.
    fn x(&self, us: f64) -> f64 {
        self.place(us.max(1.0).log2() * BARS_A_DOUBLING - self.first)
    }

    /// Returns where a bar begins.
    fn place(&self, bars: f64) -> f64 {
        LEFT + (RIGHT - LEFT) * bars / float(self.shares.len())
    }

    fn y(&self, share: f64) -> f64 {
        BOTTOM - (BOTTOM - TOP) * share / self.most
    }

    /// Draws the axis of shares.
    fn shares(&self, out: &mut String) {
        let mut share = 0.0;
        while share <= self.most + self.step / 2.0 {
            let y = self.y(share);
            writeln!(
                out,
                "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{RIGHT}\"/>\
                 <text class=\"soft\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{} %</text>",
                LEFT - 8.0,
                y + 4.0,
                (share * 10.0).round() / 10.0
            )
            .ok();
            share += self.step;
        }
        let middle = f64::midpoint(TOP, BOTTOM);
        writeln!(
            out,
            "<text class=\"soft\" transform=\"translate(16 {middle}) rotate(-90)\" text-anchor=\"middle\">share of all, in \
             % a bar</text>"
        )
        .ok();
    }

    /// Draws the axis of latencies.
    fn latencies(&self, out: &mut String) {
        let end = self.first + float(self.shares.len());
        let (low, high) = ((self.first / BARS_A_DOUBLING).exp2(), (end / BARS_A_DOUBLING).exp2());
        let decades = (0..8).map(|power| 10_u64.pow(power));
        let all: Vec<u64> = decades.clone().flat_map(|decade| [decade, 2 * decade, 5 * decade]).collect();
        let fits = |us: &u64| (low..=high).contains(&micros(*us));
        let mut labels: Vec<u64> = all.into_iter().filter(fits).collect();
        if labels.len() > LABELS_MAX {
            labels = decades.filter(fits).collect();
        }
        writeln!(out, "<path class=\"axis\" d=\"M{LEFT} {BOTTOM}H{RIGHT}\"/>").ok();
        for us in labels {
            let x = self.x(micros(us));
            writeln!(
                out,
                "<path class=\"axis\" d=\"M{x:.1} {BOTTOM}v5\"/>\
                 <text class=\"soft\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                BOTTOM + 19.0,
                short(us)
            )
            .ok();
        }
        let middle = f64::midpoint(LEFT, RIGHT);
        let below = BOTTOM + 42.0;
        writeln!(
            out,
            "<text class=\"soft\" x=\"{middle}\" y=\"{below}\" text-anchor=\"middle\">latency in µs, ms or s, \
             logarithmic</text>"
        )
        .ok();
    }

    fn draw(&self, out: &mut String) {
        for (number, share) in self.shares.iter().enumerate().filter(|(_, share)| **share > 0.0) {
            let (from, to) = (self.place(float(number)), self.place(float(number + 1)));
            let bound = |bars: usize| ((self.first + float(bars)) / BARS_A_DOUBLING).exp2();
            // Even a tiny share is visible.
            let height = (BOTTOM - self.y(*share)).max(1.0);
            writeln!(
                out,
                "<rect class=\"bar\" x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\">\
                 <title>{:.0} µs to {:.0} µs: {share:.3} %</title></rect>",
                BOTTOM - height,
                (to - from - 1.0).max(0.5),
                bound(number),
                bound(number + 1)
            )
            .ok();
        }
    }

    /// Draws a percentile. The labels are below each other, so that near ones do not overlap.
    fn mark(&self, out: &mut String, name: &str, us: u64, row: f64) {
        let (x, y) = (self.x(micros(us)), 76.0 + 16.0 * row);
        writeln!(
            out,
            "<path class=\"mark\" d=\"M{x:.1} {:.1}V{BOTTOM}\"/>\
             <text class=\"label\" x=\"{:.1}\" y=\"{y:.1}\">{name} {}</text>",
            y - 10.0,
            x + 5.0,
            duration(us)
        )
        .ok();
    }
}

/// Returns the number of the bar for a latency.
fn bar(us: u64) -> f64 {
    (micros(us.max(1)).log2() * BARS_A_DOUBLING).floor()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a whole number, 0 or more, below 200")]
fn index(bars: f64) -> usize {
    bars.max(0.0) as usize
}

#[expect(clippy::cast_precision_loss, reason = "no latency is longer than a minute")]
fn micros(us: u64) -> f64 {
    us as f64
}

#[expect(clippy::cast_precision_loss, reason = "a few hundred bars")]
fn float(bars: usize) -> f64 {
    bars as f64
}

#[expect(clippy::cast_precision_loss, reason = "shares for people")]
fn percent(count: u64, of: u64) -> f64 {
    100.0 * count as f64 / of as f64
}

/// Returns a latency with one digit, for an axis.
fn short(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{} ms", us / 1_000),
        _ => format!("{} s", us / 1_000_000),
    }
}

/// Escapes text for XML.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
