// Web Locks in memory, for tabs that are desks of one process.

type Hold = { name: string; lost: (error: Error) => void };
type Waiting = { name: string; callback: () => unknown; resolve: (value: unknown) => void; reject: (error: unknown) => void };

export class Locks {
  readonly #held = new Map<string, Hold>();
  #waiting: Waiting[] = [];

  request(name: string, options: LockOptions | (() => unknown), callback?: () => unknown): Promise<unknown> {
    const { signal, steal } = typeof options === "function" ? ({} as LockOptions) : options;
    const call = (callback ?? options) as () => unknown;
    return new Promise((resolve, reject) => {
      const waiting: Waiting = { name, callback: call, resolve, reject };
      signal?.addEventListener("abort", () => {
        this.#waiting = this.#waiting.filter((other) => other !== waiting);
        reject(signal.reason);
      });
      if (steal) {
        this.#held.get(name)?.lost(new Error("stolen"));
        this.#waiting.unshift(waiting);
      } else {
        this.#waiting.push(waiting);
      }
      queueMicrotask(() => this.#grant());
    });
  }

  #grant(): void {
    for (const waiting of [...this.#waiting]) {
      const { name, callback, resolve, reject } = waiting;
      if (this.#held.has(name)) continue;
      this.#waiting = this.#waiting.filter((other) => other !== waiting);
      const hold: Hold = { name, lost: (error) => (this.#release(hold), reject(error)) };
      this.#held.set(name, hold);
      void Promise.resolve(callback()).then((value) => (this.#release(hold), resolve(value)));
    }
  }

  #release(hold: Hold): void {
    if (this.#held.get(hold.name) !== hold) return;
    this.#held.delete(hold.name);
    queueMicrotask(() => this.#grant());
  }

  /** Takes the lock of the leader from the tab that has it, as another tab does that gets no answer from it. */
  depose(): void {
    for (const [name, hold] of this.#held) if (name.endsWith("]")) hold.lost(new Error("stolen"));
  }
}
