// An application in the page: registers with the broker, subscribes, publishes and requests.

import { badge, empty, failure, field, h, milliseconds, name, replace, say, textInput, time } from "./dom.js";
import { originNotice, reachable } from "./listeners.js";
import { connect } from "./switchboard.js";

export const title = "Try it";

/** The entries of the log, and the characters of a payload that are shown. */
const ENTRIES_MAX = 200;
const CHARACTERS_MAX = 4000;

/** The subscriptions of the page. */
const SUBSCRIPTIONS_MAX = 20;

/** How often the log is drawn: a page that draws each message stops answering. */
const DRAW_EVERY = 250;

/** The longest time limit of a request, in milliseconds. */
const TIMEOUT_MAX = 60000;

const KINDS = { publish: "Publish an event", request: "Send a request", gather: "Send a request to every handler" };

/** Documented messages: README.md has the first, the vendor's pages the others. */
const SAMPLES = [
  { label: "A call rings", kind: "publish", triple: "Phone/Call/Ringing", data: { from: "+49301234" } },
  { label: "Fetch the CTI login", kind: "request", triple: "Salesforce/User/FetchCredentials" },
  { label: "Update a record", kind: "request", triple: "Salesforce/Call/UpdateObject", data: { callId: "12345", Name: "Case", OId: "SF2", sfid: "5007F00000u6VNgQAM", params: { variable1: "value 1", variable2: "value 2" } } },
  { label: "A record was created", kind: "publish", triple: "Salesforce/Call/CreateObject", data: { callId: "12345", Name: "Task", OId: "SF1", sfid: "00T7F000027L43nUAC", DisplayField: "Subject", DisplayValue: "MyTask" } },
  { label: "Open a record", kind: "publish", triple: "Salesforce/Call/OpenObject", data: { sfid: "00T7F000027L43nUAC", DisplayField: "Subject" } },
];

export function show(main, { signal, info }) {
  const log = new Log(signal);
  const message = h("div", {});
  const registration = new Registration(info, log, signal);
  const parts = [registration.card, subscribing(registration, log), sending(registration, log)];
  main.append(
    h("div", { class: "heading" }, h("h1", {}, "Try it"), registration.state), message,
    h("div", { class: "columns" }, h("div", { class: "stack" }, parts), log.card));
  originNotice(signal).then((notice) => replace(message, notice), (error) => {
    if (!signal.aborted) message.replaceChildren(failure(error));
  });
}

/** The page's session, as long as it has one. */
class Registration {
  constructor(info, log, signal) {
    this.desk = null;
    this.onChange = [];
    this.log = log;
    this.isOpenMode = info.mode === "open";
    this.state = h("span", {}, badge("not registered"));
    this.problem = h("div", { role: "status" });
    this.source = textInput("source", { value: "try-it", required: true });
    this.user = textInput("user", { value: "alice@example.com" });
    this.token = h("input", { id: "app-token", type: "password", autocomplete: "off", required: true });
    const addresses = reachable(info.listeners);
    this.address = h("select", { id: "address" }, addresses.map((url) => h("option", {}, url)));
    this.register = h("button", { class: "primary", type: "submit" }, "Register");
    this.leave = h("button", { type: "button", hidden: true, on: { click: () => this.end() } }, "Leave");
    this.card = h("section", { class: "card", "aria-labelledby": "register-title" },
      h("h2", { id: "register-title" }, "1. Register"),
      addresses.length === 0
        ? empty("This page cannot reach a listener of the broker. It can name hosts and IPv4 addresses only: add 127.0.0.1:7420 to the key ", h("code", {}, "listen"), ".")
        : this.form());
    signal.addEventListener("abort", () => this.desk?.close());
  }

  form() {
    const submit = (event) => {
      event.preventDefault();
      this.begin();
    };
    return h("form", { class: "fields", on: { submit } },
      field("Source", this.source),
      this.isOpenMode
        ? field("User", this.user, "In open mode, the page says which user it is.")
        : field("Token of the application", this.token, "It says who the user is. This page does not keep it."),
      field("Address", this.address),
      h("div", { class: "buttons" }, this.register, this.leave),
      this.problem);
  }

  get isOpen() {
    return this.desk?.state === "open";
  }

  begin() {
    this.desk?.close();
    const proof = this.isOpenMode ? { user: this.user.value || undefined } : { token: this.token.value };
    this.token.value = "";
    let desk;
    try {
      desk = connect({ source: this.source.value, url: this.address.value, resume: false, whenAway: "fail", ...proof });
    } catch (error) {
      this.problem.replaceChildren(failure(error));
      return;
    }
    this.desk = desk;
    const update = () => desk === this.desk && this.update();
    desk.on("state", update);
    desk.on("error", (error) => this.log.add({ kind: "error", error }));
    update();
  }

  /** Ends the session. */
  end() {
    const { desk } = this;
    this.desk = null;
    desk?.close();
    this.update();
    this.register.focus();
  }

  update() {
    const { desk } = this;
    const { state, problem, session } = desk ?? { state: "closed" };
    const [word, kind] = { open: ["registered", "good"], connecting: ["connecting", "warn"], closed: ["not registered", "plain"] }[state];
    replace(this.state, badge(word, kind));
    this.register.textContent = desk ? "Register again" : "Register";
    this.leave.hidden = !desk || state === "closed";
    replace(this.problem,
      state === "open" ? h("p", { class: "notice good" }, "Registered", session.user ? [" for ", name(session.user)] : null, ", session ", name(session.id), ".") : null,
      state !== "open" && problem ? h("p", { class: "notice bad" }, h("strong", {}, problem.code), ` ${problem.message}. ${problem.cure ?? ""}`) : null);
    for (const listener of this.onChange) listener();
  }
}

/** Lets a field have a row of its own. */
function wide(element) {
  element.classList.add("wide");
  return element;
}

/** Says that there is no session yet. */
function needsSession() {
  return h("p", { class: "hint" }, "Register first.");
}

function subscribing(registration, log) {
  const pattern = textInput("pattern", { value: "Phone/*/*", required: true });
  const subscribe = h("button", { type: "submit" }, "Subscribe");
  const list = h("ul", { class: "subscriptions" });
  const message = h("div", {});
  const made = new Set();
  const end = (subscription, row) => {
    subscription.unsubscribe();
    made.delete(subscription);
    row.remove();
    pattern.focus();
  };
  const submit = async (event) => {
    event.preventDefault();
    const { desk } = registration;
    message.replaceChildren();
    let subscription;
    try {
      subscription = desk.subscribe(pattern.value, (it) => log.add({ kind: "event", triple: it.triple, source: it.source, data: it.data, size: it.text.length }));
    } catch (error) {
      message.replaceChildren(failure(error));
      return;
    }
    made.add(subscription);
    const status = h("span", {}, badge("sent"));
    const row = h("li", {}, name(subscription.pattern), " ", status, " ");
    row.append(h("button", { type: "button", class: "quiet", "aria-label": `Unsubscribe from ${subscription.pattern}`, on: { click: () => end(subscription, row) } }, "Unsubscribe"));
    list.append(row);
    update();
    try {
      const { narrowed } = await subscription.ready;
      replace(status, badge(narrowed ? "narrowed by permissions" : "subscribed", narrowed ? "warn" : "good"));
      say("Subscribed.");
    } catch (error) {
      made.delete(subscription);
      row.remove();
      // Ending the session ends its subscriptions, which is no failure.
      if (registration.desk === desk) message.replaceChildren(failure(error));
    }
    update();
  };
  const none = needsSession();
  let before = null;
  const update = () => {
    if (before !== registration.desk) {
      before = registration.desk;
      made.clear();
      list.replaceChildren();
      message.replaceChildren();
    }
    subscribe.disabled = !registration.isOpen || made.size >= SUBSCRIPTIONS_MAX;
    none.hidden = registration.isOpen;
  };
  registration.onChange.push(update);
  update();
  return h("section", { class: "card", "aria-labelledby": "subscribe-title" },
    h("h2", { id: "subscribe-title" }, "2. Subscribe"),
    h("form", { class: "fields", on: { submit } },
      wide(field("Pattern", pattern, "Channel/Topic/Subtopic. Each part can be *. A session does not receive its own events: open this page in two tabs.")),
      h("div", { class: "buttons" }, subscribe, none)),
    message, list);
}

function sending(registration, log) {
  const sample = h("select", { id: "sample" }, SAMPLES.map(({ label }, index) => h("option", { value: index }, label)));
  const kind = h("select", { id: "kind" }, Object.entries(KINDS).map(([value, label]) => h("option", { value }, label)));
  const triple = textInput("triple", { required: true });
  const data = h("textarea", { id: "data", rows: 8, spellcheck: "false", autocapitalize: "off" });
  const timeout = h("input", { id: "timeout", type: "number", min: 1, max: TIMEOUT_MAX, value: 5000, required: true });
  const retain = h("input", { id: "retain", type: "checkbox" });
  const send = h("button", { class: "primary", type: "submit" });
  const message = h("div", {});
  const timeoutField = field("Time limit (ms)", timeout);
  const retainField = h("div", { class: "check" }, retain, h("label", { for: "retain" }, "Keep it for later subscribers (retain)"));
  const none = needsSession();
  const fill = () => {
    const it = SAMPLES[sample.value];
    kind.value = it.kind;
    triple.value = it.triple;
    data.value = it.data === undefined ? "" : JSON.stringify(it.data, null, 2);
    retain.checked = false;
    update();
  };
  const update = () => {
    const isEvent = kind.value === "publish";
    timeoutField.hidden = isEvent;
    timeout.disabled = isEvent;
    retainField.hidden = !isEvent;
    send.textContent = isEvent ? "Publish" : "Send";
    send.disabled = !registration.isOpen;
    none.hidden = registration.isOpen;
  };
  const submit = async (event) => {
    event.preventDefault();
    message.replaceChildren();
    let value;
    try {
      value = data.value.trim() === "" ? undefined : JSON.parse(data.value);
    } catch (error) {
      message.replaceChildren(failure({ code: "INVALID_JSON", message: `The data is not JSON: ${error.message}.` }));
      data.focus();
      return;
    }
    const started = performance.now();
    const entry = { kind: kind.value, triple: triple.value };
    try {
      const outcome = await perform(registration.desk, entry, value, { timeout: Number(timeout.value), retain: retain.checked });
      log.add({ ...entry, ...outcome, took: performance.now() - started });
      say(`${entry.kind === "publish" ? "Published" : "Answered"}: ${entry.triple}`);
    } catch (error) {
      log.add({ ...entry, error, took: performance.now() - started });
      say(`${entry.triple}: ${error.code ?? error.message}`);
    }
  };
  sample.addEventListener("change", fill);
  kind.addEventListener("change", update);
  registration.onChange.push(update);
  fill();
  return h("section", { class: "card", "aria-labelledby": "send-title" },
    h("h2", { id: "send-title" }, "3. Publish or request"),
    h("form", { class: "fields", on: { submit } },
      field("Sample", sample), field("What to do", kind), wide(field("Message", triple, "Channel/Topic/Subtopic.")), timeoutField,
      wide(field("Data (JSON)", data)),
      retainField,
      h("div", { class: "buttons" }, send, none)),
    message);
}

/** Sends a message, and returns what came back. */
async function perform(desk, { kind, triple }, value, { timeout, retain }) {
  if (kind === "publish") {
    const { receivers, hint } = await desk.publish(triple, value, { retain: retain || undefined });
    return { note: `${receivers} ${receivers === 1 ? "receiver" : "receivers"}`, hint };
  }
  if (kind === "request") return { data: await desk.request(triple, value, { timeout }) };
  const { answers, expected, failed } = await desk.gather(triple, value, { timeout });
  return { note: `${answers.length} of ${expected} answered`, data: { answers, failed } };
}

/** What was received, the newest first. */
class Log {
  constructor(signal) {
    this.entries = [];
    this.isOld = true;
    this.list = h("ol", { class: "log" });
    this.none = empty("Nothing yet. Register, subscribe to a pattern, and publish an event from a second tab or with ", h("code", {}, "switchboard pub"), ". Receipts, answers and events appear here.");
    const clear = h("button", { type: "button", class: "quiet", on: { click: () => {
      this.entries = [];
      this.isOld = true;
      this.draw();
    } } }, "Clear");
    this.card = h("section", { class: "card", "aria-labelledby": "log-title" },
      h("div", { class: "heading" }, h("h2", { id: "log-title" }, "Receipts, answers and events"), clear),
      this.none, this.list);
    const timer = setInterval(() => this.draw(), DRAW_EVERY);
    signal.addEventListener("abort", () => clearInterval(timer));
  }

  add(entry) {
    this.entries.unshift({ at: new Date().toISOString(), ...entry });
    if (this.entries.length > ENTRIES_MAX) this.entries.length = ENTRIES_MAX;
    this.isOld = true;
  }

  draw() {
    if (!this.isOld || this.list.querySelector(":active")) return;
    this.isOld = false;
    this.list.replaceChildren(...this.entries.map(entryRow));
    this.none.hidden = this.entries.length > 0;
  }
}

const WORDS = { event: "event", publish: "receipt", request: "answer", gather: "answers", error: "error" };

function entryRow({ at, kind, triple, source, data, note, hint, error, took }) {
  const about = [triple ? name(triple) : null, source ? [" from ", name(source)] : null].flat();
  return h("li", {},
    h("p", {},
      time(at), " ", error ? badge(error.code ?? "error", "bad") : badge(WORDS[kind], kind === "event" ? "plain" : "good"), " ", ...about,
      took === undefined ? null : h("small", {}, ` ${note ? `${note}, ` : ""}after ${milliseconds(took)}`)),
    error ? h("p", { class: "hint" }, name(error.message), error.cure ? ` ${error.cure}` : "") : null,
    hint ? h("p", { class: "hint" }, name(hint)) : null,
    data === undefined ? null : h("pre", {}, shown(data)));
}

/** Writes a payload. A page that is shared or photographed must not show a password. */
function shown(data) {
  const text = JSON.stringify(data, (key, value) => (/^(password|passwd|secret|token)$/i.test(key) && value !== null ? "••••••••" : value), 2);
  return text.length > CHARACTERS_MAX ? `${text.slice(0, CHARACTERS_MAX)}…` : text;
}
