// docs/guides/recipes.md: the code for React compiles, and that for Vue runs. tests/it/browser/recipes.rs opens the others.

import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { effectScope } from "vue";
import { WebSocket } from "ws";
import { Broker } from "./support/broker.js";
import { desk, until, within } from "./support/desk.js";

const root = path.resolve(import.meta.dirname, "..");
const NAMES = ["react.tsx", "vue.ts"];
let folder: string;

beforeAll(async () => {
  const guide = await readFile(path.join(root, "../../docs/guides/recipes.md"), "utf8");
  // Here the packages are found that the recipes import.
  folder = await mkdtemp(path.join(root, "node_modules/.recipes-"));
  for (const name of NAMES) {
    const [, code] = guide.split(` as ${name} -->\n`)[1]?.match(/^```\w+\n(.*?)^```$/ms) ?? [];
    await writeFile(path.join(folder, name), code as string);
  }
});

afterAll(() => rm(folder, { recursive: true, force: true }));

test("the recipes compile", async () => {
  const compilerOptions = { jsx: "react-jsx", skipLibCheck: true, paths: { "@switchboard/client": [path.join(root, "src/switchboard.d.ts")] } };
  const project = { extends: "../../tsconfig.json", compilerOptions, include: NAMES };
  await writeFile(path.join(folder, "tsconfig.json"), JSON.stringify(project));
  const compiled = await promisify(execFile)(path.join(root, "node_modules/.bin/tsc"), ["--project", folder]).catch(({ stdout }) => ({ stdout }));
  expect(compiled.stdout).toBe("");
});

test("the recipe for Vue shows the state and the last event, and ends with its component", async () => {
  const broker = await Broker.start();
  vi.stubGlobal("WebSocket", class extends WebSocket {
    constructor() {
      super(broker.url);
    }
  });
  const phone = desk(broker.url, { source: "phone" });
  const { useDesk, useLast } = await import(path.join(folder, "vue.ts"));
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
