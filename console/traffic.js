// What the router decides, live: the tap.

import * as api from "./api.js";
import { badge, bytes, empty, failure, field, h, milliseconds, name, number, textInput, time } from "./dom.js";

export const title = "Traffic";

/** The decisions that are kept, and how many rows are shown at once. */
const KEPT_MAX = 2000;
const ROWS = 200;

/** How often rows are drawn: a page that draws each message stops answering. */
const DRAW_EVERY = 250;

const FILTERS = ["channel", "topic", "subtopic", "source", "user", "code", "id"];

export function show(main, { signal, query }) {
  const state = { kept: [], skipped: 0, page: 0, paused: false, isOld: true, stream: null };
  const message = h("div", {});
  const rows = h("tbody", {});
  const summary = h("span", {});
  const story = h("div", {});
  const inputs = Object.fromEntries(FILTERS.map((it) => [it, textInput(it, { value: query.get(it) ?? "" })]));
  const pause = h("button", { type: "button", "aria-pressed": "false" }, "Pause");
  const newer = h("button", { type: "button", class: "quiet" }, "Newer");
  const older = h("button", { type: "button", class: "quiet" }, "Older");
  const follow = (id) => {
    for (const input of Object.values(inputs)) input.value = "";
    inputs.id.value = id;
    begin();
    inputs.id.focus();
  };
  const draw = () => {
    // A row that is being pressed, or has the focus of the keyboard, is not replaced.
    if (!state.isOld || rows.querySelector(":active, :focus-visible")) return;
    state.isOld = false;
    const pages = Math.max(1, Math.ceil(state.kept.length / ROWS));
    state.page = Math.min(state.page, pages - 1);
    const from = state.kept.length - (state.page + 1) * ROWS;
    const shown = state.kept.slice(Math.max(0, from), from + ROWS).reverse();
    rows.replaceChildren(...shown.map((it) => row(it, follow)));
    if (shown.length === 0) {
      rows.append(h("tr", {}, h("td", { colspan: 8 }, empty("No message matches yet. Messages are shown from now on; ", h("code", {}, "switchboard recent"), " shows earlier ones."))));
    }
    const left = state.skipped > 0 ? `, ${number(state.skipped)} left out because there were too many` : "";
    summary.textContent = `${number(state.kept.length)} ${state.kept.length === 1 ? "message" : "messages"}${pages > 1 ? `, page ${state.page + 1} of ${pages}` : ""}${left}`;
    newer.hidden = state.page === 0;
    older.hidden = state.page >= pages - 1;
  };
  const begin = () => {
    Object.assign(state, { kept: [], skipped: 0, page: 0, isOld: true });
    open();
    tellStory(story, inputs.id.value, signal);
    draw();
  };
  const open = () => {
    state.stream?.abort();
    state.stream = null;
    if (state.paused || document.hidden || signal.aborted) return;
    const own = new AbortController();
    state.stream = own;
    message.replaceChildren();
    const parameters = Object.fromEntries(FILTERS.map((it) => [it, inputs[it].value]));
    api.stream(api.path("/v1/tap", parameters), own.signal, (event, data) => {
      if (event === "skipped") state.skipped += data.count;
      else if (state.kept.push(data) > KEPT_MAX) state.kept.splice(0, state.kept.length - KEPT_MAX);
      state.isOld = true;
    }).then(() => {
      if (!own.signal.aborted) message.replaceChildren(failure(new api.Problem("ENDED", "The broker ended the stream.")));
    }, (error) => {
      if (!own.signal.aborted) message.replaceChildren(failure(error));
    });
  };
  pause.addEventListener("click", () => {
    state.paused = !state.paused;
    pause.setAttribute("aria-pressed", state.paused);
    pause.textContent = state.paused ? "Go on" : "Pause";
    open();
  });
  const turn = (step) => () => {
    Object.assign(state, { page: state.page + step, isOld: true });
    draw();
  };
  newer.addEventListener("click", turn(-1));
  older.addEventListener("click", turn(1));
  const save = h("button", { type: "button", class: "quiet", on: { click: () => download(state.kept) } }, "Save as JSON lines");
  main.append(
    h("div", { class: "heading" }, h("h1", {}, "Traffic"), pause, save),
    h("form", { class: "filters card", on: { submit: (event) => { event.preventDefault(); begin(); } } },
      field("Channel", inputs.channel), field("Topic", inputs.topic), field("Subtopic", inputs.subtopic), field("Source", inputs.source),
      field("User", inputs.user), field("Code", inputs.code), field("Id", inputs.id), h("button", { type: "submit" }, "Watch")),
    message, story,
    h("div", { class: "card scroll", role: "region", "aria-label": "Messages", tabindex: "0" },
      h("table", { class: "traffic" },
        h("thead", {}, h("tr", {}, ["Time", "What", "Message", "From", "Receivers", "Size", "Id", ""].map((label, index) =>
          h("th", { scope: "col", class: index === 4 || index === 5 ? "number" : null }, label || h("span", { class: "visually-hidden" }, "Actions"))))),
        rows)),
    h("div", { class: "pages" }, newer, summary, older));
  document.addEventListener("visibilitychange", open, { signal });
  const timer = setInterval(draw, DRAW_EVERY);
  signal.addEventListener("abort", () => {
    clearInterval(timer);
    state.stream?.abort();
  });
  begin();
}

function row(it, follow) {
  const id = it.inReplyTo ?? it.id;
  const question = { source: it.source, user: it.user, channel: it.channel, topic: it.topic, subtopic: it.subtopic, target: it.target };
  return h("tr", {},
    h("td", {}, time(it.at)),
    h("td", {}, it.code ? badge(it.code, "bad") : badge(it.verdict.toLowerCase())),
    h("th", { scope: "row" }, triple(it)),
    h("td", {}, name(it.source), it.user ? [h("br"), h("small", {}, name(it.user))] : null),
    h("td", { class: "number" }, number(it.receivers)),
    h("td", { class: "number" }, it.bytes === undefined ? "–" : bytes(it.bytes)),
    h("td", {}, id ? h("button", { type: "button", class: "link", "aria-label": `Follow id ${id}`, on: { click: () => follow(id) } }, name(id)) : "–"),
    h("td", { class: "actions" }, it.verdict === "REPLY" ? null : h("a", { href: api.path("#/why", question), "aria-label": `Why? for ${it.channel}/${it.topic}/${it.subtopic}` }, "Why?")));
}

function triple(it) {
  return h("span", { class: "triple" }, name(it.channel), "/", name(it.topic), "/", name(it.subtopic));
}

/** Shows what the flight recorder has about an id: a request with its handler, its outcome and its latency. */
async function tellStory(place, id, signal) {
  place.replaceChildren();
  if (!id) return;
  try {
    const { items } = await api.get(api.path("/v1/recent", { id, limit: 50 }), signal);
    if (items.length === 0) return;
    place.append(h("section", { class: "card", "aria-labelledby": "story-title" },
      h("h2", { id: "story-title" }, "What happened to ", name(id)),
      h("ol", { class: "story" }, items.map((it) => h("li", {}, time(it.at), " ", words(it))))));
  } catch (error) {
    if (!signal.aborted) place.replaceChildren(failure(error));
  }
}

function words(it) {
  const who = it.source ? [" from ", name(it.source)] : [];
  const what = it.channel ? [" ", triple(it)] : [];
  const by = it.handler ? [", handled by ", name(it.handler)] : [];
  const outcome = it.outcome ? [": ", it.outcome.replace("_", " ")] : [];
  const latency = it.latencyMs === undefined ? [] : [` after ${milliseconds(it.latencyMs)}`];
  const code = it.code ? [" (", h("code", {}, it.code), ")"] : [];
  return h("span", {}, it.what.replace("_", " "), ...what, ...who, ...by, ...outcome, ...latency, ...code);
}

function download(kept) {
  const text = kept.map((it) => `${JSON.stringify(it)}\n`).join("");
  const url = URL.createObjectURL(new Blob([text], { type: "application/x-ndjson" }));
  h("a", { href: url, download: `switchboard-traffic-${new Date().toISOString().replaceAll(":", "-")}.jsonl` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}
