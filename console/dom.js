// Elements, and how values are written. Every text from outside becomes a text node, never markup.

/**
 * Makes an element. `properties` are attributes; `on` has listeners by event, and false, null and undefined leave an
 * attribute out. Children are nodes or texts.
 */
export function h(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/** The same for SVG. */
export function svg(tag, properties = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), properties, children);
}

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    } else if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(name, value === true ? "" : value);
    }
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** Replaces what is in an element; null and undefined are left out. */
export function replace(element, ...children) {
  element.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined));
}

/** A field with its label. */
export function field(label, input, hint) {
  if (hint) {
    const id = `${input.id}-hint`;
    input.setAttribute("aria-describedby", id);
    return h("div", { class: "field" }, h("label", { for: input.id }, label), input, h("p", { class: "hint", id }, hint));
  }
  return h("div", { class: "field" }, h("label", { for: input.id }, label), input);
}

/** A text field. Names are shown as they were sent, so nothing corrects or translates them. */
export function textInput(id, properties = {}) {
  return h("input", { id, name: id, type: "text", autocomplete: "off", spellcheck: "false", autocapitalize: "off", ...properties });
}

/** A message about something that failed. */
export function failure(error) {
  return h("p", { class: "notice bad", role: "alert" }, h("strong", {}, error.code ?? "Error"), ` ${error.message}`);
}

/** A text where a list is empty: what it means, and what to do. */
export function empty(...children) {
  return h("p", { class: "empty" }, ...children);
}

/** A word with a colour that supports it. `kind`: good, warn, bad or plain. */
export function badge(text, kind = "plain") {
  return h("span", { class: `badge ${kind}` }, text);
}

/** The state of a session. */
export function stateBadge(state) {
  return badge(state, { active: "good", asleep: "plain", away: "warn" }[state] ?? "plain");
}

/** A name of somebody else. Invisible and reordering characters are shown as their code points. */
export function name(text) {
  const shown = text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (it) => `\\u{${it.codePointAt(0).toString(16)}}`);
  return h("bdi", { class: "name", translate: "no" }, shown);
}

const whole = new Intl.NumberFormat("en");
const tenths = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const short = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

/** A count, or a rate. */
export function number(value) {
  return value < 10 ? tenths.format(value) : whole.format(Math.round(value));
}

/** Bytes with a unit. */
export function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${short.format(value)} ${units[unit]}`;
}

/** Milliseconds with a unit, or a dash. */
export function milliseconds(value) {
  if (value === null || value === undefined) return "–";
  return value < 1000 ? `${short.format(value)} ms` : `${short.format(value / 1000)} s`;
}

/** Seconds in the two largest units. */
export function duration(seconds) {
  const parts = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const first = parts.findIndex(([, size]) => seconds >= size);
  if (first < 0) return "0 s";
  let rest = seconds;
  const shown = parts.slice(first, first + 2).map(([unit, size]) => {
    const count = Math.floor(rest / size);
    rest -= count * size;
    return count > 0 ? `${count} ${unit}` : "";
  });
  return shown.filter(Boolean).join(" ");
}

/** A time of day; the whole date is its title. */
export function time(text) {
  const date = new Date(text);
  return h("time", { datetime: text, title: date.toLocaleString() }, date.toLocaleTimeString([], { hour12: false }));
}

/** How long ago something was. */
export function since(text) {
  const seconds = Math.max(0, (Date.now() - new Date(text).getTime()) / 1000);
  return h("time", { datetime: text, title: new Date(text).toLocaleString() }, duration(seconds));
}

/** Says something to a screen reader. */
export function say(text) {
  document.getElementById("status").textContent = text;
}

/** Calls a function now and every `milliseconds`, not while the page is hidden, until `signal` ends it. */
export function repeat(milliseconds, signal, work) {
  let timer;
  const run = async () => {
    clearTimeout(timer);
    if (signal.aborted || document.hidden) return;
    await work();
    if (!signal.aborted) timer = setTimeout(run, milliseconds);
  };
  document.addEventListener("visibilitychange", run, { signal });
  signal.addEventListener("abort", () => clearTimeout(timer));
  return run();
}
