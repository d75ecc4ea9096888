// Builds the package (dist, not committed) and the files that the broker serves (bundle, committed, because the broker is
// built without npm). `node build.mjs FOLDER` puts both below another folder; a test compares its `bundle` with ours.

import { build } from "esbuild";
import { copyFile, mkdir, readFile } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";

const here = path.dirname(fileURLToPath(import.meta.url));
const out = path.resolve(process.argv[2] ?? here);
const { name, version } = JSON.parse(await readFile(path.join(here, "package.json"), "utf8"));
const banner = { js: `// ${name} ${version}, Apache-2.0. Built from clients/js of switchboard; do not edit.` };
const index = path.join(here, "src/index.ts");
const shared = { bundle: true, minify: true, target: "es2022", legalComments: "none", banner, logLevel: "warning" };

/** A module and its CommonJS twin, with the types of both. */
async function library(entry, types) {
  const to = (ending) => path.join(out, "dist", `${entry}.${ending}`);
  const source = path.join(here, "src", `${entry}.ts`);
  await build({ ...shared, entryPoints: [source], outfile: to("js"), format: "esm" });
  await build({ ...shared, entryPoints: [source], outfile: to("cjs"), format: "cjs" });
  await copyFile(types, to("d.ts"));
  await copyFile(types, to("d.cts"));
}

await mkdir(path.join(out, "dist"), { recursive: true });
await library("index", path.join(here, "src/switchboard.d.ts"));
await build({ ...shared, entryPoints: [index], outfile: path.join(out, "bundle/switchboard.js"), format: "esm" });
const global = { format: "iife", globalName: "switchboard" };
await build({ ...shared, entryPoints: [index], outfile: path.join(out, "bundle/switchboard.global.js"), ...global });
