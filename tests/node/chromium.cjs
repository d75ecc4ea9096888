// Chromium for tests/it/browser: one launch, and pages that do what they are told.
//
// Usage: chromium.cjs EXECUTABLE ROOT. Serves the folder ROOT on 127.0.0.1, and says { "port": …, "public": … } when it is ready; the
// second port is one that Chromium takes for a server of the internet. Then
// each line of standard input is a command, { "id": …, "do": …, … }, and each line of standard output the outcome of one,
// { "id": …, "value": … } or { "id": …, "error": … }; they are done side by side. It ends with its standard input. CommonJS, so that NODE_PATH finds playwright-core beside the build.

const fs = require("node:fs");
const path = require("node:path");
const { chromium } = require("playwright-core");
const { ELSEWHERE, obey, serve, texts, TYPES } = require("./pages.cjs");

const [executablePath, root] = process.argv.slice(2);
const DEADLINE_MS = 15_000;

const pages = new Map();
/** Pages that nobody uses, each in a profile of its own. A new one takes most of a second of a processor. */
const idle = [];
let browser;

const commands = {
  /**
   * A page in a profile that nobody else uses, or `beside` another one. `files` replaces what the page loads, by the end
   * of its address; `setup` is there as `window.stubSetup` before any script. `served` are texts by their paths: Chromium takes
   * a page that `files` replaced for a public one, which may not connect to loopback.
   */
  async open({ page: name, url, files = {}, setup = {}, served = {}, beside }) {
    for (const [path, text] of Object.entries(served)) texts.set(path, text);
    const page = beside ? await pages.get(beside).page.context().newPage() : idle.pop() ?? (await (await browser.newContext()).newPage());
    const said = [];
    page.on("console", (message) => said.push(`${message.type()}: ${message.text()}`));
    page.on("pageerror", (error) => said.push(`uncaught: ${error.message}`));
    pages.set(name, { page, said, beside });
    for (const [end, body] of Object.entries(files)) {
      const contentType = TYPES[path.extname(end)];
      await page.route((address) => address.pathname.endsWith(end), (route) => route.fulfill({ body, contentType }));
    }
    // The last one counts.
    await page.addInitScript((given) => { window.stubSetup = given; }, setup);
    await page.addInitScript(() => {
      window.violations = [];
      addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI }) => window.violations.push(`${violatedDirective} ${blockedURI}`));
    });
    await page.goto(url, { timeout: DEADLINE_MS });
  },

  evaluate: async ({ page, expression }) => pages.get(page).page.evaluate(expression),

  async click({ page, selector }) {
    await pages.get(page).page.click(selector, { timeout: DEADLINE_MS });
  },

  press: async ({ page, key }) => pages.get(page).page.keyboard.press(key),

  type: async ({ page, text }) => pages.get(page).page.keyboard.type(text),

  async resize({ page: name, width, scheme }) {
    const { page } = pages.get(name);
    await page.setViewportSize({ width, height: 800 });
    await page.emulateMedia({ colorScheme: scheme });
  },

  /** Writes a picture, and with `look` returns what axe finds. The debugger's evaluation is not subject to the policy of the page. */
  async picture({ page: name, path: file, look }) {
    const { page } = pages.get(name);
    fs.mkdirSync(path.dirname(file), { recursive: true });
    await page.screenshot({ path: file, fullPage: true });
    if (!look) return [];
    await page.evaluate(fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8"));
    const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
    return violations.flatMap(({ id, nodes }) => nodes.map(({ html, failureSummary }) => `${id}: ${html} ${failureSummary}`));
  },

  /** Shows a file without a script, of the same origin. */
  async leave({ page: name }) {
    const { page } = pages.get(name);
    await page.goto(new URL("/tests/node/chromium.cjs", page.url()).href, { timeout: DEADLINE_MS });
  },

  /** F5. */
  async reload({ page }) {
    await pages.get(page).page.reload({ timeout: DEADLINE_MS });
  },

  /** Allows what a page of the internet needs to reach this computer. */
  async allow({ page }) {
    await pages.get(page).page.context().grantPermissions(["local-network-access"]);
  },

  /** Freezes a tab, as a browser does that saves energy, or wakes it. */
  async freeze({ page: name, frozen }) {
    const { page } = pages.get(name);
    // Playwright shows every page as focused, and such a page is not frozen. Only the session that asked for the focus can end that.
    const own = page._connection.toImpl(page).delegate._mainFrameSession._client;
    await own.send("Emulation.setFocusEmulationEnabled", { enabled: !frozen });
    // It lasts no longer than the session that has asked for it.
    const debug = await page.context().newCDPSession(page);
    await debug.send("Page.setWebLifecycleState", { state: frozen ? "frozen" : "active" });
  },

  async back({ page }) {
    await pages.get(page).page.goBack({ timeout: DEADLINE_MS });
  },

  /** Opens the same address in a tab that begins with a copy of this tab's storage, as a duplicated tab does. */
  async duplicate({ page: from, name }) {
    const { page } = pages.get(from);
    const opened = page.waitForEvent("popup", { timeout: DEADLINE_MS });
    await page.evaluate(() => void window.open(location.href));
    const said = [];
    pages.set(name, { page: await opened, said, beside: from });
  },

  /** What the page said on its console, uncaught errors included. */
  console: async ({ page }) => pages.get(page).said,

  /** Ends the page; its profile is used again, without what it kept. */
  async close({ page: name }) {
    const { page, beside } = pages.get(name);
    if (beside) {
      pages.delete(name);
      return void (await page.close());
    }
    // A page may store something when it is left, so its storage is cleared from another page of its origin.
    await commands.leave({ page: name });
    pages.delete(name);
    await page.evaluate(() => (localStorage.clear(), sessionStorage.clear()));
    await page.goto("about:blank");
    await page.unrouteAll();
    page.removeAllListeners("console");
    page.removeAllListeners("pageerror");
    await page.context().clearCookies();
    await page.setViewportSize({ width: 1280, height: 720 });
    await page.emulateMedia({ colorScheme: null });
    await page.context().clearPermissions();
    idle.push(page);
  },
};

(async () => {
  const { servers, port, publicPort } = await serve(root);
  browser = await chromium.launch({
    executablePath,
    args: [
      "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync", `--host-resolver-rules=MAP ${ELSEWHERE} 127.0.0.1`,
      `--ip-address-space-overrides=127.0.0.1:${publicPort}=public`,
      `--unsafely-treat-insecure-origin-as-secure=http://${ELSEWHERE}:${publicPort}`,
    ],
  });
  await obey({ port, public: publicPort }, commands);
  await browser.close();
  for (const server of servers) server.close();
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
