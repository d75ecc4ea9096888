// Chromium for tests/it/chromium: one launch, and pages that do what they are told.
//
// Usage: chromium.cjs EXECUTABLE ROOT. Serves the folder ROOT on 127.0.0.1, and says { "port": … } when it is ready. Then
// each line of standard input is a command, { "do": …, … }, and each line of standard output its outcome, { "value": … }
// or { "error": … }. It ends with its standard input. CommonJS, so that NODE_PATH finds playwright-core beside the build.

const fs = require("node:fs");
const http = require("node:http");
const path = require("node:path");
const readline = require("node:readline");
const { chromium } = require("playwright-core");

const [executablePath, root] = process.argv.slice(2);
const DEADLINE_MS = 15_000;
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css" };

/** A host that is not loopback for the broker, and leads here all the same. */
const ELSEWHERE = "crm.example.com";

const server = http.createServer((request, response) => {
  const file = path.join(root, path.normalize(new URL(request.url, "http://here").pathname));
  fs.readFile(file, (error, body) => {
    response.writeHead(error ? 404 : 200, { "content-type": TYPES[path.extname(file)] ?? "application/octet-stream" });
    response.end(error ? "" : body);
  });
});

const pages = new Map();
let browser;

const commands = {
  /**
   * A page in a profile of its own, or `beside` another one. `files` replaces what the page loads, by the end of its
   * address; `setup` is there as `window.stubSetup` before any script.
   */
  async open({ page: name, url, files = {}, setup = {}, beside }) {
    const context = beside ? pages.get(beside).page.context() : await browser.newContext();
    const page = await context.newPage();
    const said = [];
    page.on("console", (message) => said.push(`${message.type()}: ${message.text()}`));
    page.on("pageerror", (error) => said.push(`uncaught: ${error.message}`));
    pages.set(name, { page, said });
    for (const [end, body] of Object.entries(files)) {
      const contentType = TYPES[path.extname(end)];
      await page.route((address) => address.pathname.endsWith(end), (route) =>
        route.fulfill({ body, contentType, headers: { "access-control-allow-origin": "*" } }));
    }
    await page.addInitScript((given) => { window.stubSetup = given; }, setup);
    await page.goto(url, { timeout: DEADLINE_MS });
  },

  evaluate: ({ page, expression }) => pages.get(page).page.evaluate(expression),

  async click({ page, selector }) {
    await pages.get(page).page.click(selector, { timeout: DEADLINE_MS });
  },

  /** What the page said on its console, uncaught errors included. */
  console: async ({ page }) => pages.get(page).said,

  /** Closes the page, and its profile with the last one. */
  async close({ page: name }) {
    const { page } = pages.get(name);
    const context = page.context();
    await page.close();
    if (context.pages().length === 0) await context.close();
    pages.delete(name);
  },
};

const say = (outcome) => process.stdout.write(`${JSON.stringify(outcome)}\n`);

(async () => {
  browser = await chromium.launch({
    executablePath,
    args: [
      "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync", `--host-resolver-rules=MAP ${ELSEWHERE} 127.0.0.1`,
    ],
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  say({ port: server.address().port });
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const command = JSON.parse(line);
    try {
      say({ value: (await commands[command.do](command)) ?? null });
    } catch (error) {
      say({ error: error.message });
    }
  }
  await browser.close();
  server.close();
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
