// Builds the package (dist, not committed), the files that the broker serves (bundle, committed, because the broker is built
// without npm), and the reference (API.md, committed). `node build.mjs FOLDER` puts them below another folder; a test compares
// its `bundle` and API.md with ours.

import { build } from "esbuild";
import { copyFile, mkdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";
// esbuild alone leaves the core 2 % larger, which is over its limit.
import { minify } from "terser";
import { reference } from "./reference.mjs";

/** Members that only this package uses, in whose place the files have short names. None is a key on the wire or in the storage. */
const INTERNAL = `
  abandon acknowledge acknowledged asked awaitsReplay beforeAcknowledge begin bytesMax cancel
  cancelled changed check command connection decline deliver diagnose emit end endInherited ended fail
  flush folds forget give gone graceMs handled handlers hasLog hasRoom hold identity ids inbox
  inherited isAnswered isFor isFresh isInDoubt isKnown isOfSession isOpen isRequest isSilent
  isUnconfirmed isUpkeep isWaiting keeps listeners lost mayPrompt nextId number onAdded onForgotten
  onRegistered options ping position post prove queue registered registration release repeat report reset restore
  resumed running saved sent show start stop stopped subscriptions suspend take tell timer upkeep
  wake wire write
`;

const here = path.dirname(fileURLToPath(import.meta.url));
const out = path.resolve(process.argv[2] ?? here);
const { name, version } = JSON.parse(await readFile(path.join(here, "package.json"), "utf8"));
const banner = `// ${name} ${version}, Apache-2.0. Built from clients/js of switchboard; do not edit.\n`;

const shared = {
  bundle: true,
  minify: true,
  write: false,
  target: "es2022",
  legalComments: "none",
  logLevel: "warning",
  mangleProps: new RegExp(`^(${INTERNAL.trim().split(/\s+/).join("|")})$`),
};

/** Builds one entry, with the chunks that it loads later, into a folder. */
async function bundle(entry, folder, ending, options, head = "") {
  const outdir = path.join(out, folder);
  await mkdir(outdir, { recursive: true });
  const entryPoints = [{ in: path.join(here, "src", entry), out: ending.replace(/\.c?js$/, "") }];
  const outExtension = { ".js": path.extname(ending) };
  const { outputFiles } = await build({ ...shared, entryPoints, outdir, outExtension, chunkNames: "[name]", ...options });
  for (const { path: file, text } of outputFiles) {
    const module = options.format === "esm";
    const { code } = await minify(text, { module, ecma: 2022, compress: { passes: 3, unsafe_arrows: true }, mangle: true });
    await writeFile(file, `${head}${code}\n`);
  }
}

/** A module with what it loads later, its CommonJS twin, and the types of both. */
async function library(entry, types, options = {}, common = {}) {
  await bundle(`${entry}.ts`, "dist", `${entry}.js`, { format: "esm", splitting: true, ...options });
  await bundle(`${entry}.ts`, "dist", `${entry}.cjs`, { format: "cjs", ...options, ...common });
  const text = await readFile(path.join(here, "src", types), "utf8");
  for (const ending of ["js", "cjs"]) {
    const file = path.join(out, "dist", `${entry}.d.${ending.replace("js", "ts")}`);
    await writeFile(file, text.replaceAll("./switchboard.js", `./index.${ending}`));
  }
}

/** Options of a file that needs the core, and finds it in this file. */
function besideCore(core) {
  const outside = { name: "core", setup: ({ onResolve }) => onResolve({ filter: /^\.\/index\.js$/ }, () => ({ path: core, external: true })) };
  return { plugins: [outside], splitting: false, mangleProps: undefined };
}

await library("index", "switchboard.d.ts");
// Its members are public, and its size does not matter.
await library("testing", "fake.d.ts", { mangleProps: undefined });
// Tabs with different versions of it talk to each other, so its members keep their names.
await library("shared", "shared.d.ts", besideCore("./index.js"), besideCore("./index.cjs"));
// Types only.
await copyFile(path.join(here, "src/acqueon.d.ts"), path.join(out, "dist/acqueon.d.ts"));
await library("openajax", "openajax.d.ts", { mangleProps: undefined });
await bundle("index.ts", "bundle", "switchboard.js", { format: "esm" }, banner);
const openAjax = { format: "iife", globalName: "switchboardOpenAjax", mangleProps: undefined };
await bundle("openajax.ts", "bundle", "switchboard.openajax.js", openAjax, banner);
await bundle("shared.ts", "bundle", "switchboard.shared.js", { format: "esm", ...besideCore("./switchboard.js") }, banner);
await bundle("index.ts", "bundle", "switchboard.global.js", { format: "iife", globalName: "switchboard" }, banner);
await writeFile(path.join(out, "API.md"), reference());

// A page of clients/salesforce/opencti is copied to a web server as it is, so the client lies beside it.
if (out === here) await copyFile(path.join(here, "bundle/switchboard.js"), path.join(here, "../salesforce/opencti/switchboard.js"));
