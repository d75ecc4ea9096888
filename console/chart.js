// A line chart of the last ten minutes.

import { h, svg } from "./dom.js";

const WIDTH = 600;
const HEIGHT = 140;
const BOTTOM = 120;
const SECONDS = 600;

/** The next number that is easy to read: 1, 2 or 5 times a power of ten. */
function niceAbove(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((factor) => factor * power).find((it) => it >= value);
}

/** Paths through points: `line`, which a sample without a value interrupts, and `dots` for samples between two of those. */
function paths(points, x, y) {
  let line = "";
  let dots = "";
  points.forEach(({ at, value }, index) => {
    if (value === null) return;
    const place = `${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
    const follows = (points[index - 1]?.value ?? null) !== null;
    const isAlone = !follows && (points[index + 1]?.value ?? null) === null;
    if (isAlone) dots += `M${place}h0`;
    else line += `${follows ? "L" : "M"}${place}`;
  });
  return { line, dots };
}

/**
 * A figure. `series`: [{ name, points: [{ at: milliseconds, value: number or null }] }]; `write` makes a text of a value.
 * The caption shows the newest values, or those under the pointer.
 */
export function chart(title, series, write) {
  const end = Math.max(...series.flatMap(({ points }) => points.map(({ at }) => at)), 0);
  const values = series.flatMap(({ points }) => points.map(({ value }) => value).filter((value) => value !== null));
  const most = Math.max(...values, 0);
  const top = niceAbove(most);
  const x = (at) => WIDTH - ((end - at) / 1000 / SECONDS) * WIDTH;
  const y = (value) => BOTTOM - (value / top) * (BOTTOM - 10);
  const last = ({ points }) => points.findLast(({ value }) => value !== null)?.value;
  const shown = series.map((it, index) => h("span", { class: `series series-${index + 1}` },
    series.length > 1 ? `${it.name} ` : "", h("strong", {}, last(it) === undefined ? "–" : write(last(it)))));
  const summary = series.map((it) => `${it.name}: ${last(it) === undefined ? "no value" : write(last(it))}`).join(", ");
  const cursor = svg("line", { class: "cursor", y1: 0, y2: BOTTOM, visibility: "hidden" });
  const picture = svg("svg", {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img",
    "aria-label": `${title}, the last 10 minutes. ${summary}; highest ${write(most)}`,
  },
  [0, 0.5, 1].map((part) => svg("line", { class: "grid", x1: 0, x2: WIDTH, y1: y(top * part), y2: y(top * part) })),
  series.flatMap(({ points }, index) => {
    const { line, dots } = paths(points, x, y);
    return [svg("path", { class: `line series-${index + 1}`, d: line }), svg("path", { class: `line dots series-${index + 1}`, d: dots })];
  }),
  cursor);
  const when = h("span", { class: "when" });
  const show = (at) => {
    series.forEach((it, index) => {
      const point = at === null ? null : it.points.find((point) => point.at >= at) ?? it.points.at(-1);
      const value = at === null ? last(it) : point?.value;
      shown[index].querySelector("strong").textContent = value === undefined || value === null ? "–" : write(value);
    });
    when.textContent = at === null ? "" : new Date(at).toLocaleTimeString([], { hour12: false });
    cursor.setAttribute("visibility", at === null ? "hidden" : "visible");
  };
  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    const part = (event.clientX - box.left) / box.width;
    cursor.setAttribute("x1", part * WIDTH);
    cursor.setAttribute("x2", part * WIDTH);
    show(end - (1 - part) * SECONDS * 1000);
  });
  picture.addEventListener("pointerleave", () => show(null));
  return h("figure", { class: "card chart" },
    h("figcaption", {}, h("h2", {}, title), h("span", { class: "values" }, ...shown, when)),
    h("div", { class: "plot" }, h("span", { class: "top", "aria-hidden": "true" }, write(top)), picture),
    h("div", { class: "axis", "aria-hidden": "true" }, h("span", {}, "10 min ago"), h("span", {}, "5 min"), h("span", {}, "now")));
}
