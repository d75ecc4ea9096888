// Firefox for tests/it/browser/firefox.rs: what chromium.cjs does, as far as those tests need it. Usage: firefox.cjs EXECUTABLE ROOT.
// Debian's Firefox does not speak the protocol of playwright, so this speaks WebDriver BiDi (w3.org/TR/webdriver-bidi).

const { spawn } = require("node:child_process");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { WebSocket } = require("ws");
const { ELSEWHERE, obey, serve } = require("./pages.cjs");

const [executable, root] = process.argv.slice(2);

/** Local Network Access, as it is being introduced: also for WebSockets. */
const preferences = (publicPort) => ({
  "app.update.disabledForTesting": true,
  "browser.shell.checkDefaultBrowser": false,
  "datareporting.policy.dataSubmissionEnabled": false,
  "toolkit.telemetry.reportingpolicy.firstRun": false,
  "network.dns.localDomains": ELSEWHERE,
  "dom.securecontext.allowlist": ELSEWHERE,
  "network.lna.enabled": true,
  "network.lna.blocking": true,
  "network.lna.websocket.enabled": true,
  "network.lna.address_space.public.override": `127.0.0.1:${publicPort}`,
});

/** How long it may take to start. */
const STARTING_MS = 55_000;

/** Starts it, and returns its address for BiDi. */
async function start(profile) {
  const child = spawn(executable, ["--headless", "--no-remote", "--profile", profile, "--remote-debugging-port=0", "about:blank"], {
    env: { ...process.env, HOME: profile },
    stdio: ["ignore", "ignore", "pipe"],
  });
  const said = [];
  const url = new Promise((resolve, reject) => {
    child.stderr.on("data", (text) => {
      said.push(String(text));
      const address = /listening on (ws:\S+)/.exec(said.join(""))?.[1];
      if (address) resolve(`${address}/session`);
    });
    child.on("exit", (code) => reject(new Error(`Firefox ended with ${code}: ${said.join("")}`)));
  });
  const late = setTimeout(() => child.kill(), STARTING_MS);
  const address = await url;
  clearTimeout(late);
  return { child, url: address };
}

/** Returns a function that sends a command and resolves with its result. */
async function connect(url) {
  const socket = new WebSocket(url);
  await new Promise((resolve, reject) => socket.once("open", resolve).once("error", reject));
  const waiting = new Map();
  let made = 0;
  socket.on("message", (text) => {
    const { id, type, result, error, message } = JSON.parse(String(text));
    const { resolve, reject } = waiting.get(id) ?? {};
    waiting.delete(id);
    if (type === "success") resolve?.(result);
    else if (type === "error") reject?.(new Error(`${error}: ${message}`));
  });
  return (method, params = {}) =>
    new Promise((resolve, reject) => {
      made += 1;
      waiting.set(made, { resolve, reject });
      socket.send(JSON.stringify({ id: made, method, params }));
    });
}

(async () => {
  const { servers, port, publicPort } = await serve(root);
  const profile = fs.mkdtempSync(path.join(os.tmpdir(), "switchboard-firefox-"));
  const lines = Object.entries(preferences(publicPort)).map(([name, value]) => `user_pref("${name}", ${JSON.stringify(value)});\n`);
  fs.writeFileSync(path.join(profile, "user.js"), lines.join(""));
  const { child, url } = await start(profile);
  const send = await connect(url);
  await send("session.new", { capabilities: {} });
  const pages = new Map();
  await obey({ port, public: publicPort }, {
    async open({ page, url }) {
      const { context } = await send("browsingContext.create", { type: "tab" });
      pages.set(page, context);
      await send("browsingContext.navigate", { context, url, wait: "complete" });
    },

    async evaluate({ page, expression }) {
      const options = { target: { context: pages.get(page) }, awaitPromise: true };
      const { result, exceptionDetails } = await send("script.evaluate", { expression: `(async () => JSON.stringify(${expression}))()`, ...options });
      if (exceptionDetails) throw new Error(exceptionDetails.text);
      return result.value === undefined ? null : JSON.parse(result.value);
    },

    /** Answers the prompt for this computer, before it is shown. */
    async permit({ origin, state }) {
      await send("permissions.setPermission", { descriptor: { name: "loopback-network" }, state, origin });
    },

    console: async () => [],

    async close({ page }) {
      await send("browsingContext.close", { context: pages.get(page) });
    },
  });
  child.removeAllListeners("exit");
  const ended = new Promise((resolve) => child.once("exit", resolve));
  child.kill();
  await ended;
  fs.rmSync(profile, { recursive: true, force: true });
  for (const server of servers) server.close();
  process.exit();
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
