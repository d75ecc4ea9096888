// Who is connected, and closing sessions.

import * as api from "./api.js";
import { badge, bytes, empty, failure, field, h, name, number, repeat, say, since, stateBadge, textInput } from "./dom.js";

export const title = "Applications";

const EVERY = 5000;
const ROWS = 200;

export function show(main, { signal, info, query }) {
  const wanted = { source: query.get("source") ?? "", user: query.get("user") ?? "", sort: "", cursors: [] };
  const message = h("div", {});
  const rows = h("tbody", {});
  const table = h("div", { class: "card scroll", role: "region", "aria-label": "Sessions", tabindex: "0" },
    h("table", { class: "sessions" },
      h("thead", {}, h("tr", {}, ["Source", "User", "State", "Connected for", "Subscriptions", "Waiting", "Sent a second", "Lost", ""].map((label, index) =>
        h("th", { scope: "col", class: index >= 4 && index <= 7 ? "number" : null }, label || h("span", { class: "visually-hidden" }, "Actions"))))),
      rows));
  const newer = h("button", { type: "button", class: "quiet" }, "Previous page");
  const older = h("button", { type: "button", class: "quiet" }, "Next page");
  const count = h("span", {});
  const pages = h("div", { class: "pages" }, newer, count, older);
  let next = null;
  /** Gives the focus to what has a key, or to the table if the row is gone. */
  const focus = (key) => {
    const found = [...rows.querySelectorAll("[data-key]")].find((it) => it.dataset.key === key);
    (found ?? table).focus({ preventScroll: true });
  };
  const load = async () => {
    const { source, user, sort, cursors } = wanted;
    try {
      const page = await api.get(api.path("/v1/sessions", { source, user, sort, limit: ROWS, cursor: sort ? "" : cursors.at(-1) }), signal);
      message.replaceChildren();
      // A button that is being pressed is not replaced under the finger.
      if (rows.querySelector(":active")) return;
      next = page.next;
      const held = rows.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
      rows.replaceChildren(...page.items.map((item) => row(item, info, signal, focus, load)));
      if (held) focus(held);
      if (page.items.length === 0) rows.append(h("tr", {}, h("td", { colspan: 9 }, nobody(source, user))));
      count.textContent = `${number(page.items.length)} ${page.items.length === 1 ? "session" : "sessions"} on this page`;
      newer.hidden = cursors.length === 0;
      older.hidden = next === null;
    } catch (error) {
      if (!signal.aborted) message.replaceChildren(failure(error));
    }
  };
  newer.addEventListener("click", () => {
    wanted.cursors.pop();
    load();
  });
  older.addEventListener("click", () => {
    wanted.cursors.push(next);
    load();
  });
  main.append(h("div", { class: "heading" }, h("h1", {}, "Applications")), filters(wanted, load), message, table, pages);
  repeat(EVERY, signal, load);
}

function filters(wanted, load) {
  const source = textInput("source", { value: wanted.source });
  const user = textInput("user", { value: wanted.user });
  const sort = h("select", { id: "sort", name: "sort" },
    [["", "id"], ["since", "longest connected"], ["queue", "most waiting"], ["rate", "most sent a second"], ["dropped", "most lost"]].map(([value, label]) => h("option", { value }, label)));
  const apply = (event) => {
    event.preventDefault();
    Object.assign(wanted, { source: source.value, user: user.value, sort: sort.value, cursors: [] });
    load();
  };
  return h("form", { class: "filters card", on: { submit: apply } },
    field("Source", source), field("User", user), field("Order", sort), h("button", { type: "submit" }, "Show"));
}

function nobody(source, user) {
  return source || user
    ? empty("No session has this source and user. Names are compared exactly, letter case included.")
    : empty("No application is connected. Try one: ", h("code", {}, "switchboard sub Phone --source log"));
}

function row(session, info, signal, focus, done) {
  const who = () => [name(session.source), session.user === null ? null : " of ", session.user === null ? null : name(session.user)];
  const key = `close ${session.id}`;
  const close = h("button", { type: "button", class: "quiet", "data-key": key, "aria-label": `Close ${session.source}${session.user === null ? "" : ` of ${session.user}`}` }, "Close…");
  close.addEventListener("click", () => confirmClose(session, who(), () => focus(key), signal, done));
  return h("tr", {},
    h("th", { scope: "row" }, name(session.source), session.kind === "service" ? [" ", badge("service")] : null),
    h("td", {}, session.user === null ? "–" : name(session.user)),
    h("td", {}, stateBadge(session.state)),
    h("td", {}, since(session.since)),
    h("td", { class: "number", title: `${session.subscriptions} for events, ${session.handlers} for requests` }, number(session.subscriptions + session.handlers)),
    h("td", { class: "number", title: bytes(session.queue.bytes) }, number(session.queue.messages)),
    h("td", { class: "number" }, number(Math.round(session.rate * 10) / 10)),
    h("td", { class: "number" }, number(session.dropped)),
    h("td", { class: "actions" },
      h("a", { "data-key": `traffic ${session.id}`, href: api.path("#/traffic", { source: session.source, user: session.user }), "aria-label": `Traffic of ${session.source}` }, "Traffic"),
      info.may === "read" ? null : close));
}

function confirmClose(session, who, restore, signal, done) {
  const reason = textInput("reason", { required: true, maxlength: 120 });
  const reconnect = h("input", { id: "reconnect", type: "checkbox" });
  const message = h("div", {});
  const dialog = h("dialog", { "aria-labelledby": "close-title" });
  const submit = async (event) => {
    event.preventDefault();
    const body = { session: session.id, reason: reason.value, reconnect: reconnect.checked };
    try {
      const { closed } = await api.call("POST", "/v1/sessions/close", { body });
      dialog.close();
      say(closed === 1 ? "The session is closed." : "The session had ended already.");
      done();
    } catch (error) {
      message.replaceChildren(failure(error));
    }
  };
  dialog.append(h("form", { on: { submit } },
    h("h2", { id: "close-title" }, "Close ", ...who.filter(Boolean), "?"),
    field("Reason", reason, "The application and its user see it. At most 120 bytes."),
    h("div", { class: "check" }, reconnect, h("label", { for: "reconnect" }, "Let it connect again, as in a drain")),
    h("p", { class: "hint" }, "Closing does not lock the application out. To keep it out, remove its token and reload."),
    message,
    h("div", { class: "buttons" },
      h("button", { type: "submit", class: "danger" }, "Close the session"),
      h("button", { type: "button", class: "quiet", on: { click: () => dialog.close() } }, "Cancel"))));
  dialog.addEventListener("close", () => {
    dialog.remove();
    if (!signal.aborted) restore();
  });
  signal.addEventListener("abort", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  reason.focus();
}
