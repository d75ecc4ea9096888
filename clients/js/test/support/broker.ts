// A real broker for a test: the program named by SWITCHBOARD, or the one that cargo has built.

import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { onTestFinished } from "vitest";

const program = process.env.SWITCHBOARD ?? path.resolve(import.meta.dirname, "../../../../target/debug/switchboard");

export class Broker {
  readonly folder = mkdtempSync(path.join(tmpdir(), "switchboard-js-"));
  url = "";
  #child: ChildProcess | undefined;
  readonly #config: string;

  private constructor(config: string) {
    this.#config = config.includes("[auth]") ? config : `[auth]\nmode = "open"\n${config}`;
  }

  /** Starts one that ends with the test. `config` is TOML; without `[auth]`, the mode is open. */
  static async start(config = ""): Promise<Broker> {
    const broker = new Broker(config);
    onTestFinished(async () => {
      await broker.stop();
      rmSync(broker.folder, { recursive: true, force: true });
    });
    await broker.run("127.0.0.1:0");
    return broker;
  }

  get port(): number {
    return Number(new URL(this.url).port);
  }

  /** Starts the program again, at the same address. */
  async run(listen = `127.0.0.1:${this.port}`): Promise<void> {
    const file = path.join(this.folder, "switchboard.toml");
    writeFileSync(file, this.#config);
    const where = ["--config", file, "--listen", listen, "--data-dir", path.join(this.folder, "data")];
    const environment = { ...process.env, SWITCHBOARD__ADMIN__LISTEN: "[]" };
    const child = spawn(program, ["serve", ...where], { env: environment, stdio: ["ignore", "pipe", "pipe"] });
    this.#child = child;
    const said: string[] = [];
    child.stderr?.on("data", (text) => said.push(String(text)));
    const ready = new Promise<string>((resolve, reject) => {
      createInterface({ input: child.stdout as NodeJS.ReadableStream }).on("line", (line) => {
        const address = /ws:\/\/\S+/.exec(line)?.[0];
        if (address) resolve(address);
      });
      child.on("exit", (code) => reject(new Error(`the broker ended with ${code}: ${said.join("")}`)));
    });
    this.url = await ready;
  }

  /** Stores a login for a user. */
  async storeLogin(user: string, username: string, extension: string, password: string): Promise<void> {
    const options = ["--username", username, "--extension", extension, "--data-dir", path.join(this.folder, "data")];
    const child = spawn(program, ["credentials", "set", user, ...options], { stdio: ["pipe", "ignore", "inherit"] });
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.stdin?.end(`${password}\n`);
    if ((await ended) !== 0) throw new Error("the login was not stored");
  }

  /** Ends the program. SIGKILL leaves its connections without a Close frame. */
  async stop(signal: NodeJS.Signals = "SIGKILL"): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    if (!child || child.exitCode !== null) return;
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill(signal);
    await ended;
  }
}
