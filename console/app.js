// Signing in, and which page is shown. A page is a module with `title` and `show(main, context)`.

import * as api from "./api.js";
import { failure, field, h, name, textInput } from "./dom.js";
import * as applications from "./applications.js";
import * as doctor from "./doctor.js";
import * as health from "./health.js";
import * as overview from "./overview.js";
import * as traffic from "./traffic.js";
import * as tryIt from "./try.js";
import * as why from "./why.js";

const PAGES = { overview, applications, traffic, why, health, try: tryIt, doctor };

const byId = (id) => document.getElementById(id);
const main = byId("main");

/** What the broker says about itself and about this key. */
let info;

/** Ends what the present page does: its streams, timers and listeners. */
let leaving = new AbortController();

/** Takes a code out of the address at once, so that it is in no history and no bookmark. */
function takeCode() {
  const found = /^#code=(.+)$/.exec(location.hash);
  if (found) history.replaceState(null, "", `${location.pathname}#/overview`);
  return found && decodeURIComponent(found[1]);
}

async function start() {
  const code = takeCode();
  try {
    if (code) {
      api.forget();
      const { key } = await api.call("POST", "/v1/console/session", { body: { code } });
      api.keep(key);
    }
    await enter();
  } catch (error) {
    askForToken(error);
  }
}

async function enter() {
  if (!api.hasKey()) return askForToken();
  info = await api.get("/v1/info");
  byId("node").replaceChildren(name(info.node), ` · ${info.version}`);
  byId("nav").replaceChildren(...Object.entries(PAGES).map(([id, page]) => h("a", { href: `#/${id}` }, page.title)));
  byId("nav").hidden = false;
  byId("sign-out").hidden = false;
  showPage();
}

function askForToken(error) {
  leaving.abort();
  document.title = "Sign in · switchboard";
  byId("nav").hidden = true;
  byId("sign-out").hidden = true;
  byId("node").replaceChildren();
  const token = h("input", { id: "token", name: "token", type: "password", autocomplete: "off", required: true });
  const message = h("div", {}, error ? failure(error) : null);
  const signIn = async (event) => {
    event.preventDefault();
    api.keep(token.value.trim());
    try {
      await enter();
      main.focus();
    } catch (problem) {
      api.forget();
      message.replaceChildren(failure(problem));
      token.focus();
    }
  };
  main.replaceChildren(
    h("form", { class: "card sign-in", on: { submit: signIn } },
      h("h1", {}, "Sign in"),
      message,
      h("p", {}, "On the machine of the broker, run ", h("code", {}, "switchboard console"), ". It opens this page and signs you in."),
      h("p", {}, "From another machine, paste an admin token."),
      field("Admin token", token, "It is kept until this tab is closed."),
      h("button", { class: "primary", type: "submit" }, "Sign in")),
  );
}

function showPage() {
  if (!info || !api.hasKey()) return;
  leaving.abort();
  leaving = new AbortController();
  const [route, query] = location.hash.replace(/^#\/?/, "").split("?");
  const id = Object.hasOwn(PAGES, route) ? route : "overview";
  const page = PAGES[id];
  document.title = `${page.title} · switchboard`;
  for (const link of byId("nav").children) {
    if (link.getAttribute("href") === `#/${id}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  byId("nav").querySelector("[aria-current]").scrollIntoView({ block: "nearest", inline: "nearest" });
  main.replaceChildren();
  page.show(main, { signal: leaving.signal, info, query: new URLSearchParams(query ?? "") });
}

byId("skip").addEventListener("click", () => main.focus());
byId("sign-out").addEventListener("click", () => {
  api.forget();
  info = undefined;
  askForToken();
  byId("token").focus();
});
addEventListener("hashchange", () => {
  if (location.hash.startsWith("#code=")) return void start();
  showPage();
  main.focus();
  scrollTo(0, 0);
});
api.events.addEventListener("signed-out", () => {
  info = undefined;
  askForToken(new api.Problem("UNAUTHENTICATED", "The key is no longer valid. Sign in again."));
});

start();
