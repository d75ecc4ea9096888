// What the console costs a broker with 5,000 sessions and 50,000 messages a second, and whether its pages stay responsive.
//
// Usage: measure.cjs BINARY CHROMIUM. Needs playwright-core in NODE_PATH; docs/performance.md has the command. Each round measures the
// broker's CPU time without a page, and then with each page open; a page is compared with the window before it, so that a slow
// change of the machine's other load cancels out. The median of the rounds is printed.

const { spawn, execFileSync } = require("node:child_process");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { chromium } = require("playwright-core");

const [binary, executablePath] = process.argv.slice(2);
const SESSIONS = Number(process.env.SESSIONS ?? 5000);
const RATE = Number(process.env.RATE ?? 50000);
const ROUNDS = Number(process.env.ROUNDS ?? 5);
const WINDOW_MS = Number(process.env.WINDOW_MS ?? 8000);
/** The publishers, each with a receiver. The other sessions are idle. */
const PAIRS = 50;
/** The pages that read again and again. The others ask when a person does. */
const PAGES = ["overview", "applications", "traffic", "health"];
const DEADLINE_MS = 60000;
/** Linux counts CPU time in hundredths of a second. */
const TICK_MS = 10;

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** The CPU time of a process, or of one of its threads, in milliseconds. */
function cpu(folder) {
  const fields = fs.readFileSync(`${folder}/stat`, "utf8").split(") ")[1].split(" ");
  return (Number(fields[11]) + Number(fields[12])) * TICK_MS;
}

/** Measures a window: the share of one core that the broker took, in percent. */
async function share(pid) {
  const [before, started] = [cpu(`/proc/${pid}`), performance.now()];
  await pause(WINDOW_MS);
  return ((cpu(`/proc/${pid}`) - before) / (performance.now() - started)) * 100;
}

const median = (values) => values.toSorted((one, other) => one - other)[Math.floor(values.length / 2)];

/** Runs in the page: collects how long the page was busy without a break, in milliseconds. */
function observe() {
  window.busy = [];
  new PerformanceObserver((list) => window.busy.push(...list.getEntries().map((it) => it.duration))).observe({ entryTypes: ["longtask"] });
}

async function start(folder) {
  const configuration = path.join(folder, "broker.toml");
  fs.writeFileSync(configuration, `listen = ["127.0.0.1:0"]\ndata_dir = "${folder}"\n[auth]\nmode = "open"\n[admin]\nlisten = ["127.0.0.1:0"]\n[limits]\nrate = 0\nconnections = 20000\n`);
  const child = spawn(binary, ["serve", "--config", configuration], { stdio: ["ignore", "pipe", "pipe"] });
  const urls = await new Promise((resolve, reject) => {
    let said = "";
    const read = (text) => {
      said += text;
      const [socket, admin] = [/listening on (\S+)/, /admin on (\S+)/].map((it) => it.exec(said)?.[1]);
      if (socket && admin) resolve({ socket, admin });
    };
    child.stdout.on("data", read);
    child.stderr.on("data", read);
    child.on("exit", () => reject(new Error(said)));
  });
  return { child, ...urls };
}

async function main() {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "console-"));
  const children = [];
  const run = (...args) => {
    const child = spawn(binary, args, { stdio: "ignore" });
    children.push(child);
    return child;
  };
  const broker = await start(folder);
  children.push(broker.child);
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu"] });
  try {
    const seconds = String(ROUNDS * PAGES.length * 4 * (WINDOW_MS / 1000) + 120);
    run("bench", "idle", "--clients", String(SESSIONS - 2 * PAIRS), "--seconds", seconds, "--url", broker.socket);
    run("bench", "pairs", "--clients", String(PAIRS), "--rate", String(RATE), "--seconds", seconds, "--url", broker.socket);
    const token = fs.readFileSync(path.join(folder, "admin.token"), "utf8").trim();
    const stats = async () => (await fetch(`${broker.admin}v1/stats?window=1m`, { headers: { authorization: `Bearer ${token}` } })).json();
    const deadline = performance.now() + DEADLINE_MS;
    const isLoaded = ({ now, samples }) => now.sessions >= SESSIONS && samples.at(-1)?.envelopes / samples.at(-1)?.seconds > RATE * 0.95;
    let last = await stats();
    while (!isLoaded(last)) {
      if (performance.now() > deadline) throw new Error(`the load does not build up: ${JSON.stringify(last.now)} ${JSON.stringify(last.samples.at(-1))}`);
      await pause(1000);
      last = await stats();
    }
    const figures = new Map(PAGES.map((page) => [page, { costs: [], longest: 0, rates: [] }]));
    const bases = [];
    for (let round = 0; round < ROUNDS; round += 1) {
      for (const name of PAGES) {
        const base = await share(broker.child.pid);
        bases.push(base);
        const page = await (await browser.newContext()).newPage();
        const link = execFileSync(binary, ["console", "--print", "--admin", broker.admin], { env: { ...process.env, SWITCHBOARD_ADMIN_TOKEN: token }, encoding: "utf8" }).trim();
        await page.goto(link);
        await page.waitForSelector("nav a");
        await page.evaluate(observe);
        await page.evaluate((hash) => { location.hash = hash; }, `#/${name}`);
        await pause(1000);
        const figure = figures.get(name);
        figure.costs.push((await share(broker.child.pid)) - base);
        figure.longest = Math.max(figure.longest, ...(await page.evaluate(() => window.busy)));
        const { samples } = await stats();
        figure.rates.push(samples.at(-1).envelopes / samples.at(-1).seconds);
        await page.context().close();
      }
    }
    console.log(`${SESSIONS} sessions, ${RATE} messages a second; without a page the broker takes ${median(bases).toFixed(1)} % of a core`);
    for (const [name, { costs, longest, rates }] of figures) {
      console.log(`${name}: ${median(costs).toFixed(1)} % of a core more (${costs.map((it) => it.toFixed(1)).join(", ")}); longest task of the page ${Math.round(longest)} ms; ${Math.round(median(rates))} messages a second`);
    }
  } finally {
    await browser.close();
    for (const child of children) child.kill();
    fs.rmSync(folder, { recursive: true });
  }
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
