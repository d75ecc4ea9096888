import path from "node:path";
import { defineConfig } from "vitest/config";

// With BUILT, the folder of a build, the tests play against the built file in place of the sources.
const built = process.env.BUILT && path.resolve(process.env.BUILT);
const file = (name: string) => (built ? `${built}/${name}.js` : path.resolve(import.meta.dirname, `src/${name}.ts`));
const alias = [
  { find: /^@switchboard\/client$/, replacement: file("index") },
  { find: /^@switchboard\/client\/shared$/, replacement: file("shared") },
];
if (built) alias.push({ find: /^(\.\.\/)+src\/(index|openajax|shared|testing)\.js$/, replacement: `${built}/$2.js` });

export default defineConfig({
  resolve: { alias },
  test: {
    include: ["test/**/*.test.ts"],
    testTimeout: 20_000,
    hookTimeout: 20_000,
    pool: "forks",
    maxWorkers: 2,
    execArgv: ["--expose-gc"],
    // test/recipes.test.ts writes TypeScript where it finds the packages.
    server: { deps: { inline: [/\.recipes-/] } },
  },
});
