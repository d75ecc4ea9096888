// docs/guides/recipes.md: the code for React compiles, and the other recipes in JavaScript run. tests/it/browser/recipes.rs opens
// those that need a browser, and clients/python/tests/test_recipes.py has those in Python.

import { execFile, spawn } from "node:child_process";
import { createHmac } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";
import vm from "node:vm";
import { build } from "esbuild";
import { afterAll, afterEach, beforeAll, expect, onTestFinished, test, vi } from "vitest";
import { effectScope } from "vue";
import { Broker } from "./support/broker.js";
import { desk, failing, next, until, within } from "./support/desk.js";
import { Locks } from "./support/locks.js";
import { Tab } from "./support/page.js";
import { Recipes, redirect, root } from "./support/recipes.js";

const run = promisify(execFile);
const COMPILED = ["react.tsx", "vue.ts"];
let recipes: Recipes;

beforeAll(async () => {
  recipes = await Recipes.write([...COMPILED, "draft.js", "hub.html", "token.js", "dial.js", "service.js"]);
});

afterEach(() => void vi.unstubAllGlobals());
afterAll(() => recipes.remove());

test("the recipes compile", async () => {
  const compilerOptions = { jsx: "react-jsx", skipLibCheck: true, paths: { "@switchboard/client": [path.join(root, "src/switchboard.d.ts")] } };
  const project = { extends: "../../tsconfig.json", compilerOptions, include: COMPILED };
  await writeFile(recipes.file("tsconfig.json"), JSON.stringify(project));
  const compiled = await run(path.join(root, "node_modules/.bin/tsc"), ["--project", recipes.folder]).catch(({ stdout }) => ({ stdout }));
  expect(compiled.stdout).toBe("");
});

test("the recipe for Vue shows the state and the last event, and ends with its component", async () => {
  const broker = await Broker.start();
  redirect(broker.url);
  const phone = desk(broker.url, { source: "phone" });
  const { desk: made, useDesk, useLast } = await recipes.run("vue.ts");
  onTestFinished(() => made.close());
  const scope = effectScope();
  const [state, last] = scope.run(() => [useDesk(), useLast("Phone/Call/*")]) as [{ value: string }, { value: any }];
  expect([state.value, last.value]).toEqual(["connecting", undefined]);
  await until("it is open", () => state.value === "open");
  await until("the event", () => {
    void phone.publish("Phone/Call/Ringing", { from: "110" });
    return last.value !== undefined;
  });
  expect(last.value.data).toEqual({ from: "110" });
  scope.stop();
  const isAlone = async () => (await phone.publish("Phone/Call/Ringing", 1)).receivers === 0;
  await within("the end of the subscription", (async () => {
    while (!(await isAlone())) continue;
  })());
});

test("tabs have the draft in common, also those that are opened later", async () => {
  const broker = await Broker.start();
  redirect(broker.url);
  vi.stubGlobal("navigator", { locks: new Locks() });
  const open = async () => {
    const tab = await recipes.run("draft.js");
    onTestFinished(() => tab.desk.close());
    await within("a tab", tab.desk.opened());
    // What it sent before has arrived.
    await tab.desk.applications();
    return tab;
  };
  const [first, second] = [await open(), await open()];
  expect(first.desk.session).toEqual(second.desk.session);
  await first.change("Mrs. Lovelace will");
  await until("the other tab has it", () => second.draft.text === "Mrs. Lovelace will");
  await second.change("call back");
  await until("the first tab has it", () => first.draft.text === "call back");
  const third = await open();
  await until("a later tab has it", () => third.draft.text === "call back");
});

test("a page with OpenAjax.hub exchanges messages with applications", async () => {
  const broker = await Broker.start();
  const phone = desk(broker.url, { source: "phone" });
  const held: unknown[] = [];
  await phone.subscribe("Phone/Call/Hold", ({ data }) => held.push(data)).ready;
  const html = await readFile(recipes.file("hub.html"), "utf8");
  const elements = new Map([...html.matchAll(/ id="(\w+)"/g)].map(([, id]) => [id, {} as { textContent?: string; onclick?: () => void }]));
  const globals = { clearInterval, clearTimeout, setInterval, setTimeout, queueMicrotask, URL, TextEncoder, AbortController, crypto, console };
  const page: any = vm.createContext({ ...globals, WebSocket: redirect(broker.url), document: { getElementById: (id: string) => elements.get(id) } });
  for (const [, name, code] of html.matchAll(/<script(?: src="(.*?)")?>(.*?)<\/script>/gs)) {
    vm.runInContext(name ? await readFile(path.join(root, "bundle", name), "utf8") : (code as string), page);
  }
  const made = vm.runInContext("desk", page);
  onTestFinished(() => made.close());
  // Its subscription was sent before this.
  await within("the page", made.applications());
  await phone.publish("Phone/Call/Ringing", { from: "110" });
  await until("the page shows it", () => elements.get("caller")?.textContent === "110");
  elements.get("hold")?.onclick?.();
  await until("the application gets it", () => held.length === 1);
  expect(held).toEqual([{ callId: "7" }]);
});

const SECRET = "a secret of the test, 32 bytes long or more";

/** Returns a JWT that is valid for this many seconds. */
function jwt(seconds: number): string {
  const now = Math.floor(Date.now() / 1000);
  const claims = { iss: "https://login.example.com/", aud: "switchboard", email: "alice@example.com", iat: now, exp: now + seconds };
  const signed = [{ alg: "HS256", typ: "JWT" }, claims].map((part) => Buffer.from(JSON.stringify(part)).toString("base64url")).join(".");
  return `${signed}.${createHmac("sha256", SECRET).update(signed).digest("base64url")}`;
}

test("a token provider replaces a refused token, renews, and uses a token again", async () => {
  const folder = await mkdtemp(path.join(tmpdir(), "switchboard-js-"));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  await writeFile(path.join(folder, "secret"), SECRET, { mode: 0o600 });
  const broker = await Broker.start(`[auth]
mode = "tokens"
[auth.jwt.site]
issuer = "https://login.example.com/"
audience = ["switchboard"]
algorithms = ["HS256"]
secret_file = "${path.join(folder, "secret")}"
user = "email"
users = ["*@example.com"]
sources = ["screenpop"]
role = "agent"
[roles.agent]
publish = []
subscribe = []
request = []
handle = []
`);
  redirect(broker.url);
  const { warn } = console;
  const warnings: unknown[] = [];
  console.warn = (...words) => void warnings.push(words[0]);
  onTestFinished(() => void (console.warn = warn));
  // The site is down, then gives a token that is refused, one that ends within a minute, and one for an hour.
  const answers = [{ ok: false, status: 503 }, ...["wrong", jwt(30), jwt(3600)].map((token) => ({ ok: true, text: async () => token }))];
  const fetched = vi.fn(async () => answers.shift());
  vi.stubGlobal("fetch", fetched);
  const page = await recipes.run("token.js");
  onTestFinished(() => page.desk.close());
  await within("open", page.desk.opened());
  await until("a renewal", () => answers.length === 0);
  // Renew was sent before this.
  await page.desk.applications();
  const { session } = page.desk;
  expect([session.user, warnings, fetched.mock.calls[0]]).toEqual([
    "alice@example.com",
    ["Log in again."],
    ["/switchboard/token", { method: "POST", signal: expect.any(AbortSignal) }],
  ]);
  const away = next(page.desk, "state", ({ state }) => state === "connecting");
  await broker.stop();
  await away;
  await broker.run();
  await within("open again", page.desk.opened());
  expect([fetched.mock.calls.length, page.desk.session.id === session.id]).toEqual([4, false]);
});

test("a page that is reloaded in mid-call dials once, and has the answer, the call and the login", async () => {
  const broker = await Broker.start();
  redirect(broker.url);
  const phone = desk(broker.url, { source: "phone" });
  const dialled: ((callId: string) => void)[] = [];
  await phone.handle("Phone/Call/Dial", () => new Promise((answer) => dialled.push((callId) => answer({ callId })))).ready;
  await broker.storeLogin("local", "1245456", "5051", "acq@123");
  const tab = new Tab();
  tab.begin();
  const before = await recipes.run("dial.js");
  await within("open", before.desk.opened());
  const { id } = before.desk.session;
  await until("the login", () => before.view.extension === "5051");
  // The page ends before this is answered.
  void before.dial("110").catch(() => {});
  await until("the request", () => dialled.length === 1);
  tab.end();
  await until("it is away", () => before.desk.state !== "open");
  await phone.publish("Phone/Call/Ringing", { callId: "7" });

  tab.begin();
  const after = await recipes.run("dial.js");
  onTestFinished(() => after.desk.close());
  await within("open", after.desk.opened());
  expect(after.desk.session.id).toBe(id);
  await until("what it missed", () => after.view.call === "Ringing 7");
  dialled[0]?.("7");
  await until("the answer", () => after.view.call === "Answered 7");
  expect([dialled.length, tab.storage.getItem("dialling")]).toEqual([1, null]);

  // The call of a session that has ended is not dialled again.
  void after.dial("112").catch(() => {});
  await until("another request", () => dialled.length === 2);
  tab.end();
  const back = next(phone, "back");
  await broker.stop();
  await broker.run();
  await back;
  tab.begin();
  const last = await recipes.run("dial.js");
  onTestFinished(() => last.desk.close());
  await until("the login", () => last.view.extension === "5051");
  expect([dialled.length, last.desk.session.id === id]).toEqual([2, false]);
});

test("a service in Node.js answers, refuses, and ends when it is told to", async () => {
  const broker = await Broker.start();
  const phone = desk(broker.url, { source: "phone" });
  const core = process.env.BUILT ? path.resolve(process.env.BUILT, "index.js") : path.join(root, "src/index.ts");
  const outfile = recipes.file("service.mjs");
  const code = (await readFile(recipes.file("service.js"), "utf8")).replace("ws://localhost:7420/ws", broker.url);
  await writeFile(recipes.file("service.js"), code);
  await build({ entryPoints: [recipes.file("service.js")], outfile, bundle: true, format: "esm", platform: "node", alias: { "@switchboard/client": core } });
  // Node.js 20 has its WebSocket behind this flag.
  const child = spawn(process.execPath, ["--experimental-websocket", "--no-warnings", outfile], { stdio: ["ignore", "pipe", "inherit"] });
  onTestFinished(() => void child.kill("SIGKILL"));
  const printed: string[] = [];
  createInterface({ input: child.stdout }).on("line", (line) => printed.push(line));
  await until("it is open", () => printed.includes("open"));
  const find = (number: string) => phone.request("Crm/Contact/Find", { number });
  // Its handler is made after it has printed that.
  await within("the handler", (async () => {
    while ((await phone.gather("Crm/Contact/Find", { number: "+49301234" })).expected === 0) continue;
  })());
  expect(await find("+49301234")).toEqual({ name: "Ada Lovelace" });
  expect(await failing(find("110"))).toMatchObject({ code: "NOT_FOUND", message: "no contact has this number" });
  await phone.publish("Phone/Call/Ended", { callId: "7" });
  await until("the event", () => printed.includes("ended 7"));
  const ended = new Promise((resolve) => child.once("exit", (...how) => resolve(how)));
  child.kill("SIGTERM");
  expect(await within("its end", ended)).toEqual([0, null]);
  expect((await phone.applications()).map(({ source }) => source)).toEqual(["phone"]);
});
