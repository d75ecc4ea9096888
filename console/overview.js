// Whether the broker is well, and how much it does.

import * as api from "./api.js";
import { badge, duration, empty, failure, h, milliseconds, number, repeat } from "./dom.js";
import { chart } from "./chart.js";

export const title = "Overview";

const EVERY = 5000;

export function show(main, { signal, info }) {
  const message = h("div", {});
  const ready = h("div", { class: "readiness" });
  const figures = h("dl", { class: "figures" });
  const charts = h("div", { class: "charts" });
  main.append(h("div", { class: "heading" }, h("h1", {}, "Overview"), ready), message, figures, charts);
  repeat(EVERY, signal, async () => {
    try {
      const [stats, readiness] = await Promise.all([
        api.get("/v1/stats?window=10m", signal),
        api.call("GET", "/readyz", { signal, also: 503 }),
      ]);
      message.replaceChildren();
      showReadiness(ready, readiness);
      showFigures(figures, stats, info);
      // What is being pointed at, or has the focus, stays as it is.
      if (!charts.matches(":hover") && !charts.contains(document.activeElement)) showCharts(charts, stats.samples);
    } catch (error) {
      if (!signal.aborted) message.replaceChildren(failure(error));
    }
  });
}

function showReadiness(place, { ready, failing, warnings }) {
  place.replaceChildren(
    ready ? badge("Ready", "good") : badge("Not ready", "bad"),
    ...failing.map((it) => badge(it, "bad")),
    ...warnings.map((it) => badge(it, "warn")),
    ...(failing.length + warnings.length > 0 ? [h("a", { href: "#/health" }, "What to do")] : []));
}

const perSecond = (count, { seconds }) => (seconds > 0 ? count / seconds : 0);

function showFigures(place, { now, samples }, info) {
  const last = samples.at(-1);
  const rate = last ? perSecond(last.envelopes, last) : 0;
  const isRecent = last?.requests.count > 0;
  const latency = isRecent ? last.requests : now.requests;
  const figure = (label, value, more) => h("div", { class: "card figure" }, h("dt", {}, label), h("dd", {}, value, more ? h("small", {}, more) : null));
  place.replaceChildren(
    figure("Sessions", number(now.sessions), `up for ${duration(info.uptimeSeconds + Math.round(performance.now() / 1000))}`),
    figure("Messages a second", number(rate), `${number(now.envelopes)} since the start`),
    figure("Request latency", milliseconds(latency.p50Ms), `99 % within ${milliseconds(latency.p99Ms)}${isRecent || now.requests.count === 0 ? "" : ", since the start"}`),
    figure("Waiting messages", number(now.queue.sum), `longest queue ${number(now.queue.max)}`));
}

function showCharts(place, samples) {
  const points = (value) => samples.map((sample) => ({ at: new Date(sample.at).getTime(), value: value(sample) }));
  const refused = (sample) => Object.values(sample.refusals).reduce((sum, count) => sum + count, 0);
  const charts = samples.length === 0
    ? [h("div", { class: "card" }, empty("The first sample is taken 5 s after the start of the broker."))]
    : [
      chart("Messages a second", [
        { name: "sent", points: points((it) => perSecond(it.envelopes, it)) },
        { name: "delivered", points: points((it) => perSecond(it.deliveries, it)) },
      ], number),
      chart("Request latency", [
        { name: "median", points: points((it) => it.requests.p50Ms) },
        { name: "99 %", points: points((it) => it.requests.p99Ms) },
      ], milliseconds),
      chart("Sessions", [{ name: "sessions", points: points((it) => it.sessions) }], number),
      chart("Waiting messages", [
        { name: "all queues", points: points((it) => it.queue.sum) },
        { name: "longest", points: points((it) => it.queue.max) },
      ], number),
      chart("Refusals a second", [{ name: "refused", points: points((it) => perSecond(refused(it), it)) }], number),
      refusalsOf(samples),
    ];
  place.replaceChildren(...charts);
}

function refusalsOf(samples) {
  const counts = new Map();
  for (const { refusals } of samples) {
    for (const [code, count] of Object.entries(refusals)) counts.set(code, (counts.get(code) ?? 0) + count);
  }
  const rows = [...counts].sort(([, one], [, other]) => other - one);
  return h("section", { class: "card", "aria-labelledby": "refusals-title" },
    h("h2", { id: "refusals-title" }, "Refusals in the last 10 minutes"),
    rows.length === 0
      ? empty("Nothing was refused.")
      : h("table", { class: "narrow" },
        h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Code"), h("th", { scope: "col", class: "number" }, "Messages"), h("th", { scope: "col" }, "Traffic"))),
        h("tbody", {}, rows.map(([code, count]) => h("tr", {},
          h("td", {}, h("code", {}, code)),
          h("td", { class: "number" }, number(count)),
          h("td", {}, h("a", { href: `#/traffic?code=${encodeURIComponent(code)}`, "aria-label": `Watch messages refused with ${code}` }, "Watch")))))));
}
