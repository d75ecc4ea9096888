// A TCP proxy whose connections a test cuts, or makes deaf.

import net from "node:net";
import { onTestFinished } from "vitest";

export class Proxy {
  readonly #server: net.Server;
  readonly #pairs = new Set<[net.Socket, net.Socket]>();
  /** How many connections were accepted. */
  accepted = 0;
  /** Whether new connections are refused. */
  refuses = false;
  url = "";

  private constructor(target: () => number) {
    this.#server = net.createServer((near) => {
      this.accepted += 1;
      if (this.refuses) return void near.destroy();
      const far = net.connect(target(), "127.0.0.1");
      const pair: [net.Socket, net.Socket] = [near, far];
      this.#pairs.add(pair);
      near.pipe(far).pipe(near);
      for (const socket of pair) {
        socket.on("error", () => {});
        socket.on("close", () => {
          this.#pairs.delete(pair);
          near.destroy();
          far.destroy();
        });
      }
    });
  }

  static async start(target: () => number): Promise<Proxy> {
    const proxy = new Proxy(target);
    await new Promise<void>((resolve) => proxy.#server.listen(0, "127.0.0.1", resolve));
    proxy.url = `ws://127.0.0.1:${(proxy.#server.address() as net.AddressInfo).port}/ws`;
    onTestFinished(() => {
      proxy.cut();
      proxy.#server.close();
    });
    return proxy;
  }

  /** Ends all connections without a Close frame. */
  cut(): void {
    for (const pair of this.#pairs) for (const socket of pair) socket.destroy();
  }

  /** Passes nothing on any more, in either direction, and keeps the connections open. */
  deafen(): void {
    for (const [near, far] of this.#pairs) {
      near.unpipe(far);
      far.unpipe(near);
      near.resume();
      far.resume();
    }
  }
}
