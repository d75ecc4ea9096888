import path from "node:path";
import { defineConfig } from "vitest/config";

// With BUILT, the folder of a build, the tests play against the built file in place of the sources.
const built = process.env.BUILT;
const alias = built ? [{ find: /^(\.\.\/)+src\/(index|openajax|shared|testing)\.js$/, replacement: `${path.resolve(built)}/$2.js` }] : [];

export default defineConfig({
  resolve: { alias },
  test: {
    include: ["test/**/*.test.ts"],
    testTimeout: 20_000,
    hookTimeout: 20_000,
    pool: "forks",
    maxWorkers: 2,
    execArgv: ["--expose-gc"],
  },
});
