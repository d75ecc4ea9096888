// The blocks of docs/guides/recipes.md, as files that a test runs.

import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { vi } from "vitest";
import { WebSocket } from "ws";

export const root = path.resolve(import.meta.dirname, "../..");

export class Recipes {
  static #runs = 0;

  private constructor(readonly folder: string) {}

  /** Writes these blocks into a folder that finds the packages of the client. */
  static async write(names: string[]): Promise<Recipes> {
    const guide = await readFile(path.join(root, "../../docs/guides/recipes.md"), "utf8");
    const recipes = new Recipes(await mkdtemp(path.join(root, "node_modules/.recipes-")));
    for (const name of names) {
      const [, code] = guide.split(new RegExp(` as ${name}[^\\n]* -->\\n`))[1]?.match(/^```\w+\n(.*?)^```$/ms) ?? [];
      if (!code) throw new Error(`docs/guides/recipes.md lacks ${name}`);
      await writeFile(recipes.file(name), code);
    }
    return recipes;
  }

  file(name: string): string {
    return path.join(this.folder, name);
  }

  /** Runs a recipe as a module of its own. Another call runs it again, as another page. */
  async run(name: string): Promise<any> {
    // Two files are two modules.
    Recipes.#runs += 1;
    const copy = this.file(`${Recipes.#runs} ${name}`);
    await cp(this.file(name), copy);
    return import(copy);
  }

  remove(): Promise<void> {
    return rm(this.folder, { recursive: true, force: true });
  }
}

/** Lets every WebSocket lead to this address, because recipes name the usual one. Returns the class. */
export function redirect(url: string): typeof WebSocket {
  const redirected = class extends WebSocket {
    constructor() {
      super(url);
    }
  };
  vi.stubGlobal("WebSocket", redirected);
  return redirected as unknown as typeof WebSocket;
}
