// What can keep a page in a browser from connecting: what this page can see, and what the broker can.

import * as api from "./api.js";
import { badge, empty, failure, field, h, say, textInput } from "./dom.js";
import { isLoopback, originNotice, reachable } from "./listeners.js";

export const title = "Doctor";

/** How long an answer or a socket may take. */
const ANSWER_MS = 5000;

/** The names of the permission: Chrome 145 and later and Firefox, then Chrome 142 to 144. */
const PERMISSIONS = ["loopback-network", "local-network-access"];

const BROWSERS = { "": "all", chrome: "Chrome", edge: "Edge", firefox: "Firefox", safari: "Safari" };

/** The sides, in the order in which they are shown. */
const SIDES = {
  page: ["This page", "What this browser does for the console. A page of another origin can fare otherwise."],
  broker: ["Broker", "Its listeners, its rules and its certificate."],
  host: ["Machine of the broker", "Who else uses it, its clock, and its proxies."],
  browser: ["Browsers", "What each browser does to the page."],
  policy: ["Policies and trust", "What an administrator has set on the machine of the broker."],
};

const LEVELS = { good: "good", warning: "warn", bad: "bad" };

export function show(main, { signal, info, query }) {
  const origin = textInput("origin", { value: query.get("origin") ?? "", inputmode: "url", placeholder: "https://crm.example.com" });
  const browser = h("select", { id: "browser" }, Object.entries(BROWSERS).map(([value, label]) => h("option", { value, selected: value === (query.get("browser") ?? "") }, label)));
  const message = h("div", {});
  const notice = h("div", {});
  const summary = h("div", { class: "readiness" });
  const found = h("div", { class: "stack" });
  const look = async () => {
    const asked = origin.value.trim();
    summary.replaceChildren(badge("looking"));
    try {
      const path = api.path("/v1/doctor", { origin: asked, browser: browser.value });
      const [own, { findings }] = await Promise.all([lookHere(info, signal), api.get(path, signal)]);
      message.replaceChildren();
      showFindings(found, summary, [...own, ...findings], browser.value !== "");
      say(summary.textContent);
    } catch (error) {
      if (signal.aborted) return;
      summary.replaceChildren();
      message.replaceChildren(failure(error));
    }
  };
  const submit = (event) => {
    event.preventDefault();
    look();
  };
  main.append(
    h("div", { class: "heading" }, h("h1", {}, "Doctor"), summary), notice,
    h("form", { class: "card filters", on: { submit } },
      field("Origin of the page", origin), field("Browser", browser), h("button", { type: "submit" }, "Look")),
    message, found);
  originNotice(signal).then((it) => it && notice.replaceChildren(it), (error) => {
    if (!signal.aborted) message.replaceChildren(failure(error));
  });
  look();
}

function showFindings(place, summary, findings, isOneBrowser) {
  // Of all browsers, one that nobody here may use keeps no page away.
  const counts = ({ side }) => isOneBrowser || side !== "browser";
  const bad = findings.filter((it) => it.level === "bad" && counts(it)).length;
  const warnings = findings.filter((it) => it.level === "warning" || (it.level === "bad" && !counts(it))).length;
  summary.replaceChildren(
    bad > 0 ? badge(`${bad} to mend`, "bad") : badge("nothing keeps the page away", "good"),
    ...(warnings > 0 ? [badge(`${warnings} ${warnings === 1 ? "warning" : "warnings"}`, "warn")] : []));
  place.replaceChildren(...Object.entries(SIDES).map(([side, [label, hint]]) => {
    const rows = findings.filter((it) => it.side === side);
    return h("section", { class: "card", "aria-labelledby": `${side}-title` },
      h("h2", { id: `${side}-title` }, label),
      h("p", { class: "hint" }, hint),
      rows.length === 0
        ? empty(side === "policy" ? "Enter the origin of your page to look at the policies of browsers for it." : "Nothing was looked at.")
        : h("ul", { class: "findings" }, rows.map(row)));
  }));
}

function row({ level, what, why, do: cure }) {
  return h("li", {},
    badge(level, LEVELS[level] ?? "plain"),
    h("div", {},
      h("p", {}, sentence(what)),
      level === "good" ? null : h("p", { class: "hint" }, `Why it matters: ${why}`),
      cure ? h("p", {}, h("strong", {}, "Do: "), sentence(cure)) : null));
}

/** Findings are written as the command line shows them: in lower case, and without a full stop, which could end a command. */
function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** Looks from this page: the context, the permission, `GET /` and a socket for each address. */
async function lookHere(info, signal) {
  const addresses = reachable(info.listeners);
  const looks = [permission(), ...addresses.flatMap((url) => [first(url, signal), socket(url, signal)])];
  const findings = [secureContext(), ...(await Promise.all(looks))];
  const left = info.listeners.filter((url) => /^wss?:/.test(url)).length - addresses.length;
  if (left > 0) {
    findings.push(finding("addresses", "good", `${left} ${left === 1 ? "address" : "addresses"} with IPv6 cannot be tried from here`,
      "a Content Security Policy cannot name an IPv6 address"));
  }
  return findings;
}

function finding(check, level, what, why, cure = null) {
  return { side: "page", check, level, what, why, do: cure };
}

function secureContext() {
  const why = "browsers let only secure pages ask for loopback addresses";
  return isSecureContext
    ? finding("secure_context", "good", "this page is a secure context", why)
    : finding("secure_context", "warning", "this page is not a secure context", why, "open the console with https (admin.tls), or on the machine of the broker");
}

async function permission() {
  const why = "browsers ask the user before a page of the internet may reach this computer";
  for (const wanted of PERMISSIONS) {
    // A browser that does not know the name throws.
    const status = await navigator.permissions?.query({ name: wanted }).catch(() => null);
    if (!status) continue;
    const { state } = status;
    const what = `the permission ${wanted} of this page is "${state}"`;
    if (isLoopback(location.hostname)) return finding("permission", "good", `${what}; a page from loopback does not need it`, why);
    if (state === "denied") return finding("permission", "bad", what, why, "allow it in the settings of the browser for this site");
    return finding("permission", state === "granted" ? "good" : "warning", what, why, state === "granted" ? null : "allow it when the browser asks");
  }
  return finding("permission", "good", "this browser does not have the permission loopback-network, so it does not ask", why);
}

/** `GET /` of an address. */
async function first(url, signal) {
  const { host, protocol } = new URL(url);
  const address = `${protocol === "wss:" ? "https" : "http"}://${host}/`;
  const why = "it tells a page that something is blocked from a broker that does not run";
  const options = { cache: "no-store", credentials: "omit", signal: AbortSignal.any([signal, AbortSignal.timeout(ANSWER_MS)]) };
  let response;
  try {
    response = await fetch(address, options);
  } catch {
    return finding("get", "bad", `GET ${address} fails`, why, "the next finding says whether a socket opens; look at the log of the broker, and at a proxy or a filter on this computer");
  }
  const { server } = response.ok ? await response.json().catch(() => ({})) : {};
  if (server === "switchboard") return finding("get", "good", `GET ${address} answers`, why);
  return finding("get", "bad", response.ok ? `something else than a broker answers GET ${address}` : `GET ${address} is refused with ${response.status}`, why,
    "look at the refusals in the log of the broker");
}

/** Whether a socket opens at an address. It is closed at once, without a registration. */
function socket(url, signal) {
  const why = "this is what an application in a page does first";
  return new Promise((resolve) => {
    const started = performance.now();
    const end = AbortSignal.any([signal, AbortSignal.timeout(ANSWER_MS)]);
    const opened = new WebSocket(url);
    const done = (level, what, cure) => {
      resolve(finding("socket", level, what, why, cure));
      opened.close();
    };
    opened.onopen = () => done("good", `a socket to ${url} opens, in ${Math.ceil(performance.now() - started)} ms`);
    opened.onerror = () => done("bad", `no socket to ${url} opens`, "if GET / answers, let the proxy pass WebSockets on, or trust the certificate of the broker");
    end.addEventListener("abort", () => done("bad", `a socket to ${url} does not open within ${ANSWER_MS / 1000} s`, "look for a proxy or a filter between this page and the broker"));
  });
}
