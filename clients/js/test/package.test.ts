// The files that are built: their size, the committed bundle and reference, and the package in a clean project.

import { execFile } from "node:child_process";
import { copyFile, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Broker } from "./support/broker.js";

const run = promisify(execFile);
const root = path.resolve(import.meta.dirname, "..");
const KIB = 1024;
let built: string;

beforeAll(async () => {
  built = await mkdtemp(path.join(tmpdir(), "switchboard-built-"));
  await run("node", [path.join(root, "build.mjs"), built]);
}, 60_000);

afterAll(() => rm(built, { recursive: true, force: true }));

const size = async (file: string) => gzipSync(await readFile(path.join(built, "dist", file)), { level: 9 }).length;

test("the core is at most 10 KiB, the diagnosis at most 4 KiB, and what tabs share at most 6 KiB", async () => {
  expect(await size("index.js")).toBeLessThanOrEqual(10 * KIB);
  expect(await size("page.js")).toBeLessThanOrEqual(2 * KIB);
  expect(await size("diagnosis.js")).toBeLessThanOrEqual(4 * KIB);
  expect(await size("shared.js")).toBeLessThanOrEqual(6 * KIB);
});

test("the bundle that is committed is what the sources build", async () => {
  for (const file of await readdir(path.join(built, "bundle"))) {
    const [committed, made] = [root, built].map((folder) => readFile(path.join(folder, "bundle", file), "utf8"));
    // `npm run build` renews it.
    expect(await committed, file).toBe(await made);
  }
  const [served, copied] = ["bundle", "../salesforce/opencti"].map((folder) => readFile(path.join(root, folder, "switchboard.js"), "utf8"));
  expect(await copied).toBe(await served);
});

test("the reference that is committed is what the declarations say", async () => {
  const [committed, made] = await Promise.all([root, built].map((folder) => readFile(path.join(folder, "API.md"), "utf8")));
  // `npm run build` renews it.
  expect(committed).toBe(made);
  expect(made).toContain("### class SwitchboardError");
});

test("the types fit the code", async () => {
  await run(path.join(root, "node_modules/.bin/tsc"), ["--project", root]);
});

test("the package works in a clean project, as a module, as CommonJS, and with its types", async () => {
  const project = await mkdtemp(path.join(tmpdir(), "switchboard-project-"));
  try {
    for (const file of ["package.json", "README.md"]) await copyFile(path.join(root, file), path.join(built, file));
    const { stdout } = await run("npm", ["pack", "--json", "--ignore-scripts", "--pack-destination", project], { cwd: built });
    const [{ filename }] = JSON.parse(stdout);
    await writeFile(path.join(project, "package.json"), '{ "name": "project", "private": true, "type": "module" }');
    await run("npm", ["install", "--offline", "--no-audit", "--no-fund", `./${filename}`], { cwd: project });
    const broker = await Broker.start();
    const ws = JSON.stringify(path.join(root, "node_modules/ws/index.js"));
    // Without Web Locks, as in Node.js before 24.5, it is `connect`. The error is the same class in both files.
    const use = `connectShared({ source: "project", url: "${broker.url}", WebSocket }).opened().then((desk) => {
      console.log(desk.session.user, new SwitchboardError("A", "b").code);
      return desk.close();
    });`;
    await writeFile(path.join(project, "main.mjs"), `import { createRequire } from "node:module";
      import { connect, SwitchboardError } from "@switchboard/client";
      import { connectShared } from "@switchboard/client/shared";
      const WebSocket = createRequire(import.meta.url)(${ws});
      ${use}`);
    await writeFile(path.join(project, "main.cjs"), `const { connect, SwitchboardError } = require("@switchboard/client");
      const { connectShared } = require("@switchboard/client/shared");
      const WebSocket = require(${ws});
      ${use}`);
    for (const file of ["main.mjs", "main.cjs"]) {
      expect((await run("node", [file], { cwd: project })).stdout).toBe("local A\n");
    }
    await writeFile(path.join(project, "main.ts"), `import { connect, type Desk } from "@switchboard/client";
      import type { Acqueon } from "@switchboard/client/acqueon";
      import { attachOpenAjax } from "@switchboard/client/openajax";
      import { connectShared } from "@switchboard/client/shared";
      export const desk: Desk = connect({ source: "project" });
      export const vendor: Desk<Acqueon> = connect<Acqueon>({ source: "project" });
      export const shared: Desk = connectShared({ source: "project" });
      export const end: () => void = attachOpenAjax(desk);
      export const wrong = () => connect({ source: 1 as unknown as string });`);
    const options = ["--strict", "--noEmit", "--module", "nodenext", "--target", "es2022", "--lib", "es2022,esnext.disposable,dom", "main.ts"];
    await run(path.join(root, "node_modules/.bin/tsc"), options, { cwd: project });
  } finally {
    await rm(project, { recursive: true, force: true });
  }
}, 60_000);
